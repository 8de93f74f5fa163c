//! The worker's environment, with the worker's own pid in it, which is known between fork and exec alone.

use std::ffi::{OsString, c_char};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::process::getpid;

/// The variable that holds the pid of the process that [`Environment::enter`] was called in.
const PID: &[u8] = b"WATCHDOG_PID=";
/// Digits of a pid, and the byte after them.
const PID_ROOM: usize = 11;

#[allow(unsafe_code)]
unsafe extern "C" {
    /// environ(7)
    static mut environ: *const *const c_char;
}

/// Variables as exec takes them.
#[derive(Debug)]
pub(crate) struct Environment {
    /// `NAME=VALUE` and a zero byte, each. They stay where they are in memory.
    entries: Vec<Vec<u8>>,
    /// The addresses of the entries, and a zero.
    addresses: Vec<usize>,
}

impl Environment {
    /// livelet's own variables without some of them, and with others; `with_pid` adds WATCHDOG_PID.
    pub(crate) fn new(without: &[&str], with: &[(&str, OsString)], with_pid: bool) -> Environment {
        let kept = std::env::vars_os().filter(|(name, _)| {
            !without.iter().any(|other| name == other)
                && !with.iter().any(|(other, _)| name == other)
        });
        let added = with
            .iter()
            .map(|(name, value)| (OsString::from(name), value.clone()));
        let mut entries: Vec<Vec<u8>> = kept
            .chain(added)
            .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat())
            .collect();
        if with_pid {
            entries.push([PID, &[0; PID_ROOM]].concat());
        }
        let addresses = entries.iter().map(|entry| entry.as_ptr() as usize);
        let addresses = addresses.chain([0]).collect();
        Environment { entries, addresses }
    }

    /// Makes it this process's. It may be called between fork and exec: it allocates nothing.
    #[allow(unsafe_code)]
    pub(crate) fn enter(&mut self) {
        let room = self.entries.last_mut().and_then(|entry| {
            let is_pid = entry.starts_with(PID);
            entry.get_mut(PID.len()..).filter(|_| is_pid)
        });
        if let Some(mut room) = room {
            // The digits fit; the zero byte after them is there already.
            let _ = write!(room, "{}", getpid().as_raw_pid());
        }
        // SAFETY: the addresses are those of strings that end in zero bytes, the last is zero, and both outlive the
        // process image, which exec replaces next. No other thread is in a child that has just been forked.
        unsafe { environ = self.addresses.as_ptr().cast() };
    }
}
