//! `livelet notify`: says something to the supervisor's NOTIFY_SOCKET (sd_notify(3)), for shells and for runtimes that
//! have no unix datagrams.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends the assignments as one message; whether it `waits` where the supervisor has too many unread already.
///
/// # Errors
/// There is no NOTIFY_SOCKET, or it can't be sent to; one line for stderr.
pub fn notify(
    socket: Option<OsString>,
    assignments: &[OsString],
    waits: bool,
) -> Result<(), String> {
    let Some(socket) = socket.filter(|name| !name.is_empty()) else {
        return Err("notify: NOTIFY_SOCKET: not set; nobody waits for a message".to_string());
    };
    let lines: Vec<&[u8]> = assignments.iter().map(|line| line.as_bytes()).collect();
    send(&socket, &lines.join(&b'\n'), waits).map_err(|cause| {
        format!(
            "notify: NOTIFY_SOCKET: {}: {cause}",
            socket.to_string_lossy()
        )
    })
}

fn send(socket: &OsStr, message: &[u8], waits: bool) -> io::Result<()> {
    let address = address(socket)?;
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(!waits)?;
    sender.send_to_addr(message, &address)?;
    Ok(())
}

/// A path, or with `@` before it a name in the abstract namespace (unix(7)).
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(socket),
        _ => Err(io::Error::other("neither a path nor @ and a name")),
    }
}
