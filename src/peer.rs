//! Processes at the other end of a unix socket, as the kernel reports them (unix(7),
//! SCM_CREDENTIALS).

use std::fs;

use rustix::process::geteuid;

use crate::worker;

/// Uid that the kernel shows for each uid that a user namespace does not map (user_namespaces(7)).
const UNMAPPED: u32 = 65534;
/// Length of the range in `/proc/PID/uid_map` if a user namespace maps every uid.
const EVERY_UID: &str = "4294967295";

/// A process at the other end of a unix socket. The kernel recorded the fields when the process
/// connected, began to listen or sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Pid of the process in livelet's pid namespace. 0 if the process has no pid in this
    /// namespace.
    pub(crate) pid: i32,
    /// Uid of the process in livelet's user namespace.
    pub(crate) uid: u32,
}

impl Peer {
    /// Returns `true` if the process has livelet's own uid.
    ///
    /// The uid [`UNMAPPED`] counts as livelet's own only if livelet's user namespace maps every
    /// uid. In any other user namespace, the kernel shows this uid for many different users.
    pub(crate) fn is_of_own_user(self) -> bool {
        self.uid == geteuid().as_raw() && (self.uid != UNMAPPED || maps_every_uid())
    }

    /// Returns `true` if the process is in livelet's pid namespace. A process in a descendant
    /// namespace also has a pid in livelet's namespace, so this method looks in /proc for the
    /// process's own namespace. If /proc does not show it, every process with a pid in livelet's
    /// namespace counts.
    pub(crate) fn shares_pid_namespace(self) -> bool {
        self.pid != 0 && worker::shares_pid_namespace(self.pid) != Some(false)
    }
}

fn maps_every_uid() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().nth(2) == Some(EVERY_UID)
}
