//! The environment of a child. A worker that gets sockets (sd_listen_fds(3)) finds its own pid in it, which is known only
//! between fork and exec.

use std::ffi::{OsStr, OsString, c_char};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::ptr::null;

use rustix::process::getpid;

/// Start of the variable that holds the pid of the process that calls [`Environment::enter`].
const PID: &[u8] = b"LISTEN_PID=";
/// Digits of a pid, and the byte after them.
const PID_ROOM: usize = 11;

/// Variables as exec takes them.
#[derive(Debug)]
pub(crate) struct Environment {
    /// `NAME=VALUE` and a zero byte, each. They stay where they are in memory.
    entries: Vec<Vec<u8>>,
    /// The addresses of the entries, and a null pointer.
    addresses: Vec<*const c_char>,
}

impl Environment {
    /// Returns livelet's own variables without some of them, and with others. `with_pid` adds LISTEN_PID.
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
            entries.push([PID, &[0; PID_ROOM]].concat());
        }
        let mut addresses: Vec<_> = entries.iter().map(|entry| entry.as_ptr().cast()).collect();
        addresses.push(null());
        Environment { entries, addresses }
    }

    /// Fills in the pid of the calling process, and returns the variables. The process may be between fork and exec:
    /// nothing is allocated.
    pub(crate) fn enter(&mut self) -> *const *const c_char {
        let room = self.entries.last_mut().and_then(|entry| {
            let is_pid = entry.starts_with(PID);
            entry.get_mut(PID.len()..).filter(|_| is_pid)
        });
        if let Some(mut room) = room {
            // The digits fit; the zero byte after them is there already.
            let _ = write!(room, "{}", getpid().as_raw_pid());
        }
        self.addresses.as_ptr()
    }
}
