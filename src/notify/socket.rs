//! The socket that a worker says things to (sd_notify(3)), and the one above livelet that they are passed on to.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::rc::Rc;
use std::time::Instant;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};
use rustix::process::geteuid;

use super::{MAX, Notified, notify};
use crate::log;
use crate::runtime::Source;

/// Where the worker's messages arrive.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: Source<OwnedFd>,
}

impl NotifySocket {
    /// With a name in the abstract namespace, which a read-only root does not matter to; the kernel chooses it, as two
    /// containers of one pod can have the same pid (unix(7), autobind).
    pub(crate) fn new() -> io::Result<NotifySocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        bind(&socket, &SocketAddrUnix::new_unnamed())?;
        Ok(NotifySocket {
            socket: Source::new(socket),
        })
    }

    /// What the worker's NOTIFY_SOCKET is.
    pub(crate) fn name(&self) -> io::Result<OsString> {
        let address = SocketAddrUnix::try_from(getsockname(self.socket.get_ref())?)?;
        let name = address.abstract_name().unwrap_or_default();
        Ok(OsString::from_vec([b"@", name].concat()))
    }

    /// Reads messages into the state as long as the process lives, and passes them on to `above`, which may
    /// miss some where it does not read: livelet has probes to answer.
    pub(crate) async fn listen(self, notified: Rc<RefCell<Notified>>, above: Option<OsString>) {
        loop {
            let Ok((message, uid)) = self.socket.read_with(receive).await else {
                return log::notice(format_args!("notify: socket: cannot be read any more"));
            };
            let is_trusted = uid == Some(0) || uid == Some(geteuid().as_raw());
            let Some(message) = message.filter(|_| is_trusted) else {
                log::detail(format_args!(
                    "notify: a message: ignored: too long, or of another user"
                ));
                continue;
            };
            let Some(known) = notified.borrow_mut().take(&message, Instant::now()) else {
                log::detail(format_args!("notify: a message: ignored: malformed"));
                continue;
            };
            if !known.is_empty() && above.is_some() {
                if let Err(error) = notify(above.clone(), &[known.into()], false) {
                    log::detail(format_args!("{error}"));
                }
            }
        }
    }
}

/// The next message, `None` where it is too long, and the uid that the kernel gives for its sender. Descriptors that came
/// with it are closed at once: that is what `BARRIER=1` waits for.
#[allow(unsafe_code)]
#[allow(
    clippy::unnecessary_cast,
    reason = "the C libraries differ in the types of lengths"
)]
fn receive(socket: &OwnedFd) -> io::Result<(Option<Vec<u8>>, Option<u32>)> {
    /// Room for the credentials and the most descriptors that one message can have, SCM_MAX_FD.
    const CONTROL: usize = 64 + 253 * size_of::<i32>();
    let mut bytes = [0_u8; MAX];
    let mut control = [MaybeUninit::<u64>::uninit(); CONTROL.div_ceil(size_of::<u64>())];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut uid = None;
    // SAFETY: the message points to the buffers above with their sizes, and zeroes are a value of the rest of it. The
    // control messages are walked by the C library's own macros and read unaligned; each descriptor in them is new and
    // nobody else's. rustix's credentials can't represent pid 0, which a sender outside of this pid namespace has.
    let (length, flags) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let length = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        if length < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut next = libc::CMSG_FIRSTHDR(&raw const message);
        while let Some(header) = next.as_ref() {
            let data = libc::CMSG_DATA(next);
            if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_RIGHTS {
                let size = header.cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                for index in 0..size / size_of::<i32>() {
                    let descriptor = data.cast::<i32>().add(index).read_unaligned();
                    drop(OwnedFd::from_raw_fd(descriptor));
                }
            } else if header.cmsg_level == libc::SOL_SOCKET
                && header.cmsg_type == libc::SCM_CREDENTIALS
            {
                uid = Some(data.cast::<libc::ucred>().read_unaligned().uid);
            }
            next = libc::CMSG_NXTHDR(&raw const message, next);
        }
        (length as usize, message.msg_flags)
    };
    let is_whole = flags & libc::MSG_TRUNC == 0;
    let message = bytes.get(..length).filter(|_| is_whole).map(<[u8]>::to_vec);
    Ok((message, uid))
}
