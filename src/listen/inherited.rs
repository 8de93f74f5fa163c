//! Sockets that livelet inherits (sd_listen_fds(3)). livelet listens on some of them, and the
//! worker inherits the others.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process;

use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::log;

/// Number of the first inherited descriptor, as sd_listen_fds(3) defines it.
const FIRST: i32 = 3;
/// Maximum number of inherited descriptors that livelet accepts. LISTEN_FDS may name any number.
const MOST: i32 = 128;
/// Name in LISTEN_FDNAMES of a socket that livelet itself listens on.
const OWN_NAME: &[u8] = b"livelet";
/// Name that sd_listen_fds_with_names(3) gives to a socket without a name.
const NO_NAME: &[u8] = b"unknown";

/// Inherited sockets, divided between livelet and its worker.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Sockets that livelet itself listens on, in place of the addresses of `--listen`.
    pub(crate) own: Vec<TcpListener>,
    /// Sockets that the worker inherits.
    pub(crate) passed_on: PassedOn,
}

/// Sockets that the worker inherits. Their descriptors have the numbers that the worker expects,
/// from 3 on.
#[derive(Debug, Default)]
pub(crate) struct PassedOn {
    sockets: Vec<OwnedFd>,
    /// Value of LISTEN_FDNAMES for the worker. `None` if livelet's environment does not have the
    /// variable.
    names: Option<OsString>,
}

impl PassedOn {
    /// Returns `true` if the worker inherits no socket.
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Returns the environment variables that tell the worker about its inherited sockets.
    /// LISTEN_PID is not among them, because the pid is known only after fork(2).
    pub(crate) fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = Vec::new();
        if !self.is_empty() {
            variables.push(("LISTEN_FDS", self.sockets.len().to_string().into()));
            let names = self.names.clone();
            variables.extend(names.map(|names| ("LISTEN_FDNAMES", names)));
        }
        variables
    }

    /// Clears the close-on-exec flag of the sockets, so that the worker inherits them. Allocates
    /// nothing, because it is called in the child between fork and exec.
    ///
    /// # Errors
    /// Returns the error of fcntl(2).
    pub(crate) fn outlive_exec(&self) -> Result<(), Errno> {
        for socket in &self.sockets {
            fcntl_setfd(socket, FdFlags::empty())?;
        }
        Ok(())
    }
}

/// Facts that decide which inherited sockets are livelet's and which are the worker's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sharing {
    /// `true` if livelet runs a worker.
    pub(crate) has_worker: bool,
    /// `true` if `--listen` names addresses, so that livelet needs no inherited socket.
    pub(crate) has_addresses: bool,
}

impl Sharing {
    /// Returns `true` if the worker inherits a socket with the name `name`. `None` stands for a
    /// socket without a name.
    fn is_workers(self, name: Option<&OsStr>) -> bool {
        let name = name.map_or(NO_NAME, OsStr::as_bytes);
        let may_be_own = [OWN_NAME, NO_NAME, b""].contains(&name);
        self.has_worker && (self.has_addresses || !may_be_own)
    }
}

/// An inherited descriptor, and its name from LISTEN_FDNAMES.
struct Descriptor {
    number: i32,
    name: Option<OsString>,
}

/// Takes ownership of the inherited sockets, and divides them between livelet and the worker as
/// `sharing` says. Closes and logs those that are meant for livelet and can't be listened on. Must
/// be called before livelet opens any descriptor, because inherited descriptors are known only by
/// their numbers.
///
/// # Errors
/// Returns an error if there are sockets for livelet and none of them can be used, or if a
/// descriptor can't be moved to another number.
pub(crate) fn take_over(sharing: Sharing) -> io::Result<Inherited> {
    let Some(count) = announced(env::var_os("LISTEN_FDS"), env::var_os("LISTEN_PID")) else {
        return Ok(Inherited::default());
    };
    let names = env::var_os("LISTEN_FDNAMES");
    let (workers, own): (Vec<_>, Vec<_>) = descriptors(count, names.as_deref())
        .into_iter()
        .partition(|descriptor| sharing.is_workers(descriptor.name.as_deref()));
    let mut inherited = Inherited::default();
    let mut refused = Vec::new();
    let has_own = !own.is_empty();
    for Descriptor { number, .. } in own {
        match claim(number).and_then(|socket| prepare(&socket, FIRST + count)) {
            Ok(socket) => inherited.own.push(socket),
            Err(cause) => refused.push((number, cause)),
        }
    }
    inherited.passed_on = pass_on(workers, names.is_some())?;
    // Logged only now, because the log opens a descriptor.
    for (number, cause) in refused {
        let cause = log::Cause(&cause);
        log::notice(format_args!("inherit: descriptor {number}: {cause}"));
    }
    if has_own && inherited.own.is_empty() {
        return Err(io::Error::other(
            "no inherited descriptor is a listening TCP socket",
        ));
    }
    Ok(inherited)
}

/// Returns the number of inherited descriptors, from the values `count` of LISTEN_FDS and `pid` of
/// LISTEN_PID. Returns `None` if `count` is not a positive number, or if `pid` names another
/// process. Accepts a missing `pid`: a parent can't know the pid before it has forked.
fn announced(count: Option<OsString>, pid: Option<OsString>) -> Option<i32> {
    let is_for_us = pid.is_none_or(|pid| pid == process::id().to_string().as_str());
    let count = count?.to_str()?.parse::<i32>().ok()?;
    (is_for_us && count > 0).then(|| count.min(MOST))
}

/// Returns `count` inherited descriptors with their names. `names` is the value of LISTEN_FDNAMES,
/// which separates names by colons.
fn descriptors(count: i32, names: Option<&OsStr>) -> Vec<Descriptor> {
    let names = names.map(OsStr::as_bytes);
    let mut names = names
        .into_iter()
        .flat_map(|names| names.split(|&b| b == b':'));
    let mut name = || Some(OsString::from_vec(names.next()?.to_vec()));
    (FIRST..FIRST + count)
        .map(|number| Descriptor {
            number,
            name: name(),
        })
        .collect()
}

/// Takes ownership of the inherited descriptor `number`. Must be called at most once for each
/// number.
#[allow(unsafe_code, reason = "a descriptor that is known by its number")]
fn claim(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only reads a flag of the descriptor, if it is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, LISTEN_FDS makes it this process's, and each number is
    // claimed once, before livelet has opened a descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns a listener for `socket`, an inherited socket that livelet itself listens on. Duplicates
/// the descriptor to a number of at least `free_from`, because the worker's sockets need the lower
/// numbers.
fn prepare(socket: &OwnedFd, free_from: i32) -> io::Result<TcpListener> {
    let is_internet =
        [AddressFamily::INET, AddressFamily::INET6].contains(&sockopt::socket_domain(socket)?);
    if !is_internet
        || sockopt::socket_type(socket)? != SocketType::STREAM
        || !sockopt::socket_acceptconn(socket)?
    {
        return Err(io::Error::other("not a listening TCP socket; closed"));
    }
    let listener = TcpListener::from(fcntl_dupfd_cloexec(socket, free_from)?);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Moves the inherited descriptors `workers`, which the worker gets, to the numbers 3, 4, 5 and so
/// on, in their order. Leaves out those that are not open. Keeps their names only if `has_names` is
/// `true`. Must be called after livelet's own inherited sockets have been moved to higher numbers,
/// so that the low numbers are free.
fn pass_on(workers: Vec<Descriptor>, has_names: bool) -> io::Result<PassedOn> {
    let mut sockets = Vec::new();
    let mut names = Vec::new();
    let mut place = FIRST;
    for Descriptor { number, name } in workers {
        let Ok(socket) = claim(number) else {
            log::notice(format_args!("inherit: descriptor {number}: not open"));
            continue;
        };
        if number == place {
            fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
            sockets.push(socket);
        } else {
            sockets.push(fcntl_dupfd_cloexec(&socket, place)?);
        }
        debug_assert_eq!(sockets.last().map(|socket| socket.as_raw_fd()), Some(place));
        names.push(name.unwrap_or_default());
        place += 1;
    }
    Ok(PassedOn {
        sockets,
        names: has_names.then(|| names.join(OsStr::new(":"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_for_another_pid_are_ignored() {
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

    #[test]
    fn a_name_or_listen_makes_a_socket_the_workers() {
        for (has_worker, has_addresses, name, expected) in [
            (true, false, None, false),
            (true, false, Some(""), false),
            (true, false, Some("unknown"), false),
            (true, false, Some("livelet"), false),
            (true, false, Some("worker.socket"), true),
            (true, true, None, true),
            (true, true, Some("livelet"), true),
            // Without a worker there is no other program to listen on them.
            (false, false, Some("probe.socket"), false),
            (false, true, None, false),
        ] {
            let sharing = Sharing {
                has_worker,
                has_addresses,
            };
            let got = sharing.is_workers(name.map(OsStr::new));
            assert_eq!(got, expected, "{sharing:?} {name:?}");
        }
    }

    #[test]
    fn missing_names_of_descriptors_are_accepted() {
        let names = |names: Option<&str>| -> Vec<Option<OsString>> {
            let found = descriptors(2, names.map(OsStr::new));
            found
                .into_iter()
                .map(|descriptor| descriptor.name)
                .collect()
        };
        assert_eq!(names(None), [None, None]);
        assert_eq!(names(Some("a")), [Some("a".into()), None]);
        assert_eq!(names(Some("a::c")), [Some("a".into()), Some("".into())]);
    }
}
