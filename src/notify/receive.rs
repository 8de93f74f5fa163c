//! Receives messages from the notify socket by recvmsg(2), with the sender and the descriptors of
//! each.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::message::MAX;
use crate::peer::Peer;

/// Maximum number of descriptors that one message of a unix socket can carry (SCM_MAX_FD in the
/// kernel).
const MAX_DESCRIPTORS: usize = 253;
/// Size, in bytes, of the buffer for the sender's credentials and the descriptors that come with
/// one message, up to [`MAX_DESCRIPTORS`]. livelet does not use the descriptors. It receives all of
/// them because recvmsg(2) closes those that do not fit in the buffer. That would block livelet if
/// the close of a socket waits (SO_LINGER).
const CONTROL: usize = 64 + MAX_DESCRIPTORS * size_of::<i32>();

/// A datagram received from the socket for the worker's sd_notify(3) messages.
#[derive(Debug)]
pub(super) struct Datagram {
    /// Content of the datagram. `None` if the content is longer than [`MAX`].
    pub(super) message: Option<Vec<u8>>,
    /// Process that sent the datagram. `None` if the kernel does not report the process.
    pub(super) sender: Option<Peer>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Buffer for the control messages of recvmsg(2), aligned as for the C type `struct cmsghdr`, with
/// which each control message begins.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Receives the next datagram from the non-blocking `socket`.
///
/// # Errors
/// Returns the error of recvmsg(2). Its kind is `WouldBlock` if no datagram has arrived.
#[allow(
    unsafe_code,
    reason = "rustix can't represent pid 0, which a sender of another pid namespace has"
)]
#[allow(
    clippy::unnecessary_cast,
    reason = "the C libraries differ in the types of lengths"
)]
pub(super) fn receive(socket: &OwnedFd) -> io::Result<Datagram> {
    let mut bytes = [0_u8; MAX];
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: zeroes are a value of each field: null pointers, lengths and flags.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL as _;
    // SAFETY: the header points to one part and to the control buffer, with their sizes, and both
    // live until the end.
    let length =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let mut datagram = Datagram {
        message: None,
        sender: None,
        descriptors: Vec::new(),
    };
    if header.msg_flags & libc::MSG_TRUNC == 0 {
        datagram.message = bytes.get(..length).map(<[u8]>::to_vec);
    }
    let mut remaining = control.0.get(..header.msg_controllen as usize);
    while let Some(ControlMessage { kind, data, rest }) = remaining.and_then(split) {
        match kind {
            libc::SCM_RIGHTS => {
                let numbers = data.chunks_exact(size_of::<i32>()).filter_map(number);
                // SAFETY: the kernel has made each of them for this call, so it is open and nothing
                // else owns it.
                let owned = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
                datagram.descriptors.extend(owned);
            }
            libc::SCM_CREDENTIALS => datagram.sender = credentials(data),
            _ => {}
        }
        remaining = Some(rest);
    }
    Ok(datagram)
}

/// The first control message (cmsg(3)) of a buffer.
struct ControlMessage<'c> {
    /// Type of the message, such as SCM_RIGHTS.
    kind: i32,
    data: &'c [u8],
    /// Bytes of the control messages that follow.
    rest: &'c [u8],
}

/// Splits off the first control message of `control`. Returns `None` if `control` has no complete
/// message.
fn split(control: &[u8]) -> Option<ControlMessage<'_>> {
    const LENGTH: usize = size_of::<usize>();
    const HEADER: usize = LENGTH + 2 * size_of::<i32>();
    let length = usize::from_ne_bytes(control.get(..LENGTH)?.try_into().ok()?);
    let kind = number(control.get(LENGTH + size_of::<i32>()..)?)?;
    let data = control.get(HEADER..length)?;
    // The kernel pads the last message only if the buffer has space for that.
    let rest = control.get(length.next_multiple_of(LENGTH)..);
    Some(ControlMessage {
        kind,
        data,
        rest: rest.unwrap_or_default(),
    })
}

fn number(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_ne_bytes(*bytes.first_chunk()?))
}

/// Returns the process that `data`, the bytes of a `struct ucred`, describes. Returns `None` if the
/// data is too short.
fn credentials(data: &[u8]) -> Option<Peer> {
    let pid = number(data)?;
    let uid = number(data.get(size_of::<i32>()..)?)?;
    Some(Peer {
        pid,
        uid: u32::from_ne_bytes(uid.to_ne_bytes()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(kind: i32, data: &[i32]) -> Vec<u8> {
        let length = size_of::<usize>() + 8 + 4 * data.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        for number in [libc::SOL_SOCKET, kind].iter().chain(data) {
            bytes.extend(number.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn control_messages_are_split_at_their_lengths() {
        let mut bytes = control(libc::SCM_CREDENTIALS, &[7, -1, 9]);
        bytes.resize(bytes.len().next_multiple_of(size_of::<usize>()), 0);
        bytes.extend(control(libc::SCM_RIGHTS, &[3]));
        let ControlMessage { kind, data, rest } = split(&bytes).unwrap();
        assert_eq!(kind, libc::SCM_CREDENTIALS);
        let expected = Peer {
            pid: 7,
            uid: u32::MAX,
        };
        assert_eq!(credentials(data), Some(expected));
        let ControlMessage { kind, data, rest } = split(rest).unwrap();
        assert_eq!((kind, number(data)), (libc::SCM_RIGHTS, Some(3)));
        assert!(split(rest).is_none());
    }

    #[test]
    fn a_length_that_does_not_fit_ends_the_control_messages() {
        for length in [0, 1, 15, 999, usize::MAX] {
            let mut bytes = control(libc::SCM_RIGHTS, &[3]);
            bytes[..size_of::<usize>()].copy_from_slice(&length.to_ne_bytes());
            assert!(split(&bytes).is_none(), "{length}");
        }
        assert!(split(&[]).is_none());
    }
}
