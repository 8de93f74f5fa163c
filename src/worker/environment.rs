//! The environment for a child process. A worker that inherits sockets (sd_listen_fds(3)) needs its
//! own pid in a variable. This pid is known only between fork and exec.

use std::ffi::{OsStr, OsString, c_char};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::ptr::null;

use rustix::process::getpid;

/// Beginning of the entry for the variable LISTEN_PID. Its value is the pid of the process that
/// calls [`Environment::enter`].
const PID: &[u8] = b"LISTEN_PID=";
/// Maximum length of a pid in bytes: 10 digits and the zero byte after them.
const PID_LENGTH: usize = 11;

/// Environment variables in the form that execve(2) needs.
#[derive(Debug)]
pub(crate) struct Environment {
    /// Variables, each as `NAME=VALUE` with a zero byte at its end. They must not move in memory,
    /// because `addresses` points to them.
    entries: Vec<Vec<u8>>,
    /// Addresses of `entries`, and a null pointer at the end.
    addresses: Vec<*const c_char>,
}

impl Environment {
    /// Returns livelet's own variables except those in `without`, and adds those in `with`. If
    /// `with_pid` is `true`, also adds LISTEN_PID, whose value [`Environment::enter`] fills in.
    pub(crate) fn new(without: &[&str], with: &[(&str, OsString)], with_pid: bool) -> Environment {
        let entry =
            |name: &OsStr, value: &OsStr| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat();
        let mut entries = Vec::new();
        for (name, value) in std::env::vars_os() {
            let is_replaced = with.iter().any(|(other, _)| name == *other);
            if !is_replaced && !without.iter().any(|other| name == *other) {
                entries.push(entry(&name, &value));
            }
        }
        for (name, value) in with {
            entries.push(entry(OsStr::new(name), value));
        }
        if with_pid {
            entries.push([PID, &[0; PID_LENGTH]].concat());
        }
        let mut addresses: Vec<_> = entries.iter().map(|entry| entry.as_ptr().cast()).collect();
        addresses.push(null());
        Environment { entries, addresses }
    }

    /// Sets LISTEN_PID, if present, to the pid of the calling process. Returns the variables for
    /// execve(2). Allocates nothing, because the process may be between fork and exec.
    pub(crate) fn enter(&mut self) -> *const *const c_char {
        let digits = self.entries.last_mut().and_then(|entry| {
            let is_pid = entry.starts_with(PID);
            entry.get_mut(PID.len()..).filter(|_| is_pid)
        });
        if let Some(mut digits) = digits {
            // The digits fit, and the zero byte after them is there already.
            let _ = write!(digits, "{}", getpid().as_raw_pid());
        }
        self.addresses.as_ptr()
    }
}
