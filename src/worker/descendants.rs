//! Finds livelet's descendants, and the signals that a process catches, in /proc (proc(5)).

use std::fs;
use std::io;

use rustix::process::getpid;

/// Maximum number of ancestors of a process that livelet examines to find itself among them. A
/// limit is needed because processes can make a chain of parents as long as they like.
const MAX_DEPTH: usize = 64;

/// A process, as /proc shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcEntry {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// Start time in clock ticks since boot. A later process with the same pid has another start
    /// time.
    start: u64,
    /// Address of the stack, which changes with each execve(2). 0 if livelet may not read it.
    stack: u64,
}

impl ProcEntry {
    /// Returns `true` if `self` and `other`, read from /proc at two times, are the same process.
    /// Its parent and its program may have changed between these times.
    pub(crate) fn is_same(&self, other: &ProcEntry) -> bool {
        self.pid == other.pid && self.start == other.start
    }

    /// Returns `true` if `self` and `other`, read from /proc at two times, are the same process,
    /// and it has not executed another program between these times.
    pub(crate) fn is_same_program(&self, other: &ProcEntry) -> bool {
        self.is_same(other) && self.stack == other.stack
    }
}

/// Returns all descendants of livelet, parents before their children.
///
/// # Errors
/// Returns an error if /proc can't be read. Also returns an error if /proc shows another pid
/// namespace, where the same pids belong to other processes.
pub(crate) fn descendants() -> io::Result<Vec<ProcEntry>> {
    descendants_of(getpid().as_raw_pid())
}

/// Returns all descendants of the process `pid`, parents before their children.
///
/// # Errors
/// Returns an error in the same cases as [`descendants`].
pub(crate) fn descendants_of(pid: i32) -> io::Result<Vec<ProcEntry>> {
    if !shows_own_namespace()? {
        return Err(io::Error::other("belongs to another pid namespace"));
    }
    // A process that has just ended has no file any more.
    let all: Vec<ProcEntry> = pids()?.into_iter().filter_map(process).collect();
    Ok(below(pid, &all))
}

/// Returns the pids of all processes that /proc lists.
///
/// # Errors
/// Returns an error if /proc can't be read.
pub(crate) fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        pids.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// Returns the start time of the process `pid`, in clock ticks since boot. Returns `None` if the
/// process has ended.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    process(pid).map(|process| process.start)
}

/// Returns `true` if /proc shows the pids of livelet's own pid namespace.
fn shows_own_namespace() -> io::Result<bool> {
    let status = fs::read("/proc/self/status")?;
    Ok(is_own_status(&status, getpid().as_raw_pid()) == Some(true))
}

/// Returns `true` if the process `pid` is a descendant of livelet. Returns `None` if /proc does not
/// show the ancestors of the process.
pub(crate) fn is_descendant(pid: i32) -> Option<bool> {
    if !shows_own_namespace().unwrap_or(false) {
        return None;
    }
    let own = getpid().as_raw_pid();
    let mut ancestor = process(pid)?.parent;
    for _ in 0..MAX_DEPTH {
        if ancestor == own || ancestor == 0 {
            break;
        }
        ancestor = process(ancestor)?.parent;
    }
    Some(ancestor == own)
}

/// Returns `true` if the process `pid` is in livelet's own pid namespace. Returns `None` if /proc
/// does not show the namespace.
pub(crate) fn shares_pid_namespace(pid: i32) -> Option<bool> {
    if !shows_own_namespace().unwrap_or(false) {
        return None;
    }
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    is_own_status(&status, pid)
}

/// Returns `true` if the process `pid` is in the pid namespace of /proc. `status` is the content of
/// its `/proc/PID/status`. Returns `None` if the process has ended: `status` then shows 0 for its
/// pids.
///
/// The field `NSpid` lists the pid in each namespace, from that of /proc down to the process's own.
/// A process in the namespace of /proc has `pid` as its only one. Linux before 4.1 and some
/// sandboxes lack the field. The field `Pid` is read instead, which has only the pid in the
/// namespace of /proc.
fn is_own_status(status: &[u8], pid: i32) -> Option<bool> {
    let pids = field(status, "NSpid").or_else(|| field(status, "Pid"));
    let pids = pids.unwrap_or_default().trim_ascii();
    (!pids.starts_with('0')).then(|| pids == pid.to_string())
}

/// Returns the processes in `all` that are descendants of `ancestor`, parents before their
/// children.
fn below(ancestor: i32, all: &[ProcEntry]) -> Vec<ProcEntry> {
    let mut found: Vec<ProcEntry> = Vec::new();
    let mut parent = ancestor;
    let mut next = 0;
    loop {
        found.extend(all.iter().filter(|process| process.parent == parent));
        let Some(process) = found.get(next) else {
            return found;
        };
        parent = process.pid;
        next += 1;
    }
}

/// Returns the process with this pid. Returns `None` if /proc does not show it.
pub(crate) fn process(pid: i32) -> Option<ProcEntry> {
    parse_stat(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(pid: i32, stat: &[u8]) -> Option<ProcEntry> {
    // The name, in parentheses, may have any bytes. After it come the state, the parent and the
    // group.
    let name_end = stat.iter().rposition(|&b| b == b')')?;
    let fields = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace().skip(1);
    Some(ProcEntry {
        pid,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        start: fields.nth(16)?.parse().ok()?,
        stack: fields.nth(5)?.parse().ok()?,
    })
}

/// Sets of the signals that a process ignores, of those that it catches and of those that are
/// pending for it. The lowest bit of each set stands for signal 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dispositions {
    pub(crate) ignored: u64,
    pub(crate) caught: u64,
    /// Signals that the process has received and not handled yet. The lowest bit is signal 1, as in
    /// /proc/PID/status.
    pub(crate) pending: u64,
}

/// Returns the sets of ignored, caught and pending signals of the process `pid`. The sets are empty
/// if /proc does not show the process.
pub(crate) fn dispositions(pid: i32) -> Dispositions {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let set = |name| signals(&status, name).unwrap_or_default();
    Dispositions {
        ignored: set("SigIgn"),
        caught: set("SigCgt"),
        pending: set("SigPnd") | set("ShdPnd"),
    }
}

/// Returns the set of signals in the field `name` of `status`, the content of `/proc/PID/status`.
/// The lowest bit stands for signal 1. Returns `None` if the field is missing.
fn signals(status: &[u8], name: &str) -> Option<u64> {
    u64::from_str_radix(field(status, name)?.trim_ascii(), 16).ok()
}

/// Returns the value of the field `name` in `status`, the content of `/proc/PID/status`. A process
/// can't forge a field: the kernel escapes line ends in the name of the process. Returns `None` if
/// the field is missing.
fn field<'s>(status: &'s [u8], name: &str) -> Option<&'s str> {
    let mut lines = status.split(|&b| b == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognizes_a_child_as_a_descendant() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let found = descendants().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let found = found.iter().find(|process| process.pid == pid).unwrap();
        assert_eq!(found.parent, std::process::id() as i32);
    }

    #[test]
    fn a_parent_is_no_descendant() {
        let child = std::process::Command::new("sleep").arg("100").spawn();
        let mut child = child.unwrap();
        let found = is_descendant(child.id() as i32);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, Some(true));
        let parent = rustix::process::getppid().unwrap().as_raw_pid();
        assert_eq!(is_descendant(parent), Some(false));
        assert_eq!(shares_pid_namespace(parent), Some(true));
    }

    #[test]
    fn descendants_come_after_their_parents() {
        let process = |(pid, parent)| ProcEntry {
            pid,
            parent,
            group: 1,
            start: 0,
            stack: 0,
        };
        let all = [(9, 8), (8, 1), (7, 2), (2, 0), (6, 9), (5, 1), (1, 0)].map(process);
        let pids = |ancestor| -> Vec<i32> {
            let found = below(ancestor, &all);
            found.iter().map(|process| process.pid).collect()
        };
        assert_eq!(pids(1), [8, 5, 9, 6]);
        assert_eq!(pids(2), [7]);
        assert_eq!(pids(7), []);
    }

    #[test]
    fn parses_stat_with_any_process_name() {
        let numbers = (3..40).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        for name in ["sh", "a) R 1 1", "", "\u{fffd}("] {
            let stat = format!("7 ({name}) S {numbers}\n");
            let expected = ProcEntry {
                pid: 7,
                parent: 3,
                group: 4,
                start: 21,
                stack: 27,
            };
            assert_eq!(parse_stat(7, stat.as_bytes()), Some(expected), "{name}");
        }
        assert_eq!(parse_stat(7, b"7 (sh) S 1"), None);
    }

    #[test]
    fn recognizes_another_pid_namespace_by_its_pids() {
        for (status, expected) in [
            ("Name:\tx\nPid:\t7\nNSpid:\t7\n", Some(true)),
            ("Name:\tx\nPid:\t7\n", Some(true)),
            ("Name:\tx\nPid:\t900\nNSpid:\t900\t7\n", Some(false)),
            ("Name:\tx\nPid:\t7\nNSpid:\t7\t7\n", Some(false)),
            ("Name:\tx\nPid:\t8\n", Some(false)),
            ("", Some(false)),
            ("Name:\tx\nPid:\t7\nNSpid:\t0\n", None),
            ("Name:\tx\nPid:\t900\nNSpid:\t0\t0\n", None),
        ] {
            assert_eq!(is_own_status(status.as_bytes(), 7), expected, "{status:?}");
        }
    }

    #[test]
    fn parses_hexadecimal_sets_of_signals() {
        let status = b"SigBlk:\t0000000000000000\nSigIgn:\t0000000000000006\n";
        assert_eq!(signals(status, "SigIgn"), Some(6));
        assert_eq!(signals(status, "SigCgt"), None);
    }
}
