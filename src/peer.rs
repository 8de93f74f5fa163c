//! Processes at the other end of a unix socket, as the kernel reports them (unix(7),
//! SCM_CREDENTIALS).

use std::fs;

use rustix::process::geteuid;

use crate::worker;

/// Uid that the kernel shows for each uid that a user namespace does not map (user_namespaces(7)).
const UNMAPPED: u32 = 65534;
/// Number of uids in `/proc/PID/uid_map` if every uid is mapped.
const EVERY_UID: &str = "4294967295";

/// A process at the other end of a unix socket, as of the time when it connected or sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Pid in livelet's pid namespace. 0 if the process has none there.
    pub(crate) pid: i32,
    /// Uid in livelet's user namespace.
    pub(crate) uid: u32,
}

impl Peer {
    /// Returns `true` if the process has livelet's own uid.
    ///
    /// In a user namespace every unmapped uid is shown as the same one, so that uid proves nothing.
    pub(crate) fn is_of_own_user(self) -> bool {
        self.uid == geteuid().as_raw() && (self.uid != UNMAPPED || maps_every_uid())
    }

    /// Returns `true` if the process is in livelet's pid namespace, or if /proc does not show it. A
    /// process of a namespace below has a pid in livelet's namespace too.
    pub(crate) fn shares_pid_namespace(self) -> bool {
        self.pid != 0 && worker::shares_pid_namespace(self.pid) != Some(false)
    }
}

fn maps_every_uid() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().nth(2) == Some(EVERY_UID)
}
