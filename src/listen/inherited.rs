//! Sockets that whoever started livelet has opened for it (sd_listen_fds(3)).

use std::env;
use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::log;

/// The first inherited descriptor.
const FIRST: i32 = 3;
/// More than this many are not believed.
const MOST: i32 = 128;

/// Takes the inherited sockets that can be listened on; the others are closed, and said. Empty where none were announced
/// to this process. It has to be called before anything else is opened.
///
/// # Errors
/// Sockets were announced, and none of them can be used.
pub(crate) fn take() -> io::Result<Vec<TcpListener>> {
    let Some(count) = announced(env::var_os("LISTEN_FDS"), env::var_os("LISTEN_PID")) else {
        return Ok(Vec::new());
    };
    let mut sockets = Vec::new();
    for number in FIRST..FIRST + count {
        match own(number).and_then(prepare) {
            Ok(socket) => sockets.push(socket),
            Err(cause) => log::notice(format_args!("inherit: descriptor {number}: {cause}")),
        }
    }
    if sockets.is_empty() {
        return Err(io::Error::other("no listening TCP socket among them"));
    }
    Ok(sockets)
}

/// How many sockets are announced to this process. A missing LISTEN_PID is accepted: a plain parent can't know the pid
/// before it has forked.
fn announced(count: Option<OsString>, pid: Option<OsString>) -> Option<i32> {
    let is_for_us = pid.is_none_or(|pid| pid == process::id().to_string().as_str());
    let count = count?.to_str()?.parse::<i32>().ok()?;
    (is_for_us && count > 0).then(|| count.min(MOST))
}

#[allow(unsafe_code)]
fn own(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only reads a flag, of whatever descriptor there is.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and LISTEN_FDS makes it this process's; nothing here has opened a descriptor before.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn prepare(socket: OwnedFd) -> io::Result<TcpListener> {
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let is_internet =
        [AddressFamily::INET, AddressFamily::INET6].contains(&sockopt::socket_domain(&socket)?);
    if !is_internet
        || sockopt::socket_type(&socket)? != SocketType::STREAM
        || !sockopt::socket_acceptconn(&socket)?
    {
        return Err(io::Error::other("not a listening TCP socket; closed"));
    }
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_sockets_are_announced_to() {
        let own = process::id().to_string();
        for (count, pid, expected) in [
            (Some("2"), Some(own.as_str()), Some(2)),
            (Some("2"), None, Some(2)),
            (Some("2"), Some("1"), None),
            (Some("2"), Some(""), None),
            (Some("0"), None, None),
            (Some("-1"), None, None),
            (Some("x"), None, None),
            (Some("9999999"), None, Some(MOST)),
            (None, Some(own.as_str()), None),
        ] {
            let got = announced(count.map(OsString::from), pid.map(OsString::from));
            assert_eq!(got, expected, "{count:?} {pid:?}");
        }
    }
}
