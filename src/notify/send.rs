//! `livelet notify`: sends messages to the supervisor's NOTIFY_SOCKET (sd_notify(3)). It is for
//! shells, and for runtimes without unix datagrams.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use crate::log;

/// Reason why an sd_notify message could not be sent.
#[derive(Debug)]
pub enum NotifyError {
    /// The variable NOTIFY_SOCKET is missing or empty.
    NoSocket,
    /// The system refused to send the message. The fields are the value of NOTIFY_SOCKET and the
    /// error.
    Send(OsString, io::Error),
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("notify: NOTIFY_SOCKET: ")?;
        match self {
            NotifyError::NoSocket => f.write_str("not set; no supervisor waits for a message"),
            NotifyError::Send(socket, cause) => {
                let cause = log::Cause(cause);
                write!(f, "{}: {cause}", socket.to_string_lossy())
            }
        }
    }
}

impl std::error::Error for NotifyError {}

/// Sends `assignments`, such as `READY=1`, as one message. `socket` is the value of NOTIFY_SOCKET.
/// Waits while the supervisor's queue is full.
///
/// # Errors
/// Returns an error if `socket` is missing or empty, or if the message can't be sent.
pub fn notify(socket: Option<OsString>, assignments: &[OsString]) -> Result<(), NotifyError> {
    let socket = socket.filter(|name| !name.is_empty());
    let socket = socket.ok_or(NotifyError::NoSocket)?;
    let lines: Vec<&[u8]> = assignments.iter().map(|line| line.as_bytes()).collect();
    send(&socket, &lines.join(&b'\n'), Waiting::Allowed)
        .map_err(|cause| NotifyError::Send(socket, cause))
}

/// Permission for [`send`] to wait while the receiver's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    Allowed,
    Never,
}

/// Sends an sd_notify message to the address `socket`, a value of NOTIFY_SOCKET. Waits while the
/// receiver's queue is full, unless `waiting` is `Never`.
///
/// # Errors
/// Returns an error if `socket` is not an address, or if socket(2) or sendto(2) fails. The kind is
/// `WouldBlock` if the receiver's queue is full and `waiting` is `Never`.
pub(super) fn send(socket: &OsStr, message: &[u8], waiting: Waiting) -> io::Result<()> {
    let address = address(socket)?;
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(waiting == Waiting::Never)?;
    sender.send_to_addr(message, &address)?;
    Ok(())
}

/// Returns the address that `socket`, a value of NOTIFY_SOCKET, names. The value is a path, or `@`
/// and a name in the abstract namespace (unix(7)).
///
/// # Errors
/// Returns an error if the value is neither, or is too long.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::other("neither a path nor @ and a name")),
    }
}
