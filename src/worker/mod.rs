//! The worker: starts it, sends it signals and reaps it. Only this module waits for child
//! processes, and only on the main thread.

mod descendants;
mod environment;
mod spawn;
mod terminal;
mod tree;

use std::ffi::{OsString, c_uint};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{getpid, set_child_subreaper};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::exit_code::{self, ended_by};
use crate::log;
use crate::signal::{self, Mask};

use descendants::descendants_of;
use environment::Environment;
use spawn::{Child, Forked, start};

pub(crate) use descendants::{is_descendant, pids, shares_pid_namespace, start_time};
pub(crate) use spawn::{ChildProgress, ChildReport};
pub(crate) use tree::{Ended, Tree};

/// Names of environment variables that are meant for livelet itself. The worker does not inherit
/// them.
const NOT_PASSED_ON: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// Reason why livelet could not start the worker.
#[derive(Debug)]
pub struct SpawnError {
    program: OsString,
    cause: io::Error,
}

impl SpawnError {
    pub(crate) fn new(command: &[OsString], cause: io::Error) -> SpawnError {
        SpawnError {
            program: command.first().cloned().unwrap_or_default(),
            cause,
        }
    }

    /// Returns livelet's exit code for this error: 127 if the program is not found and 126 if it
    /// can't be executed, as in shells and tini. Returns 125 if the system refused a process or a
    /// descriptor.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match Errno::from_io_error(&self.cause) {
            Some(Errno::NOENT | Errno::NOTDIR) => exit_code::NOT_FOUND,
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => exit_code::FAILURE,
            _ => exit_code::NOT_EXECUTABLE,
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.to_string_lossy();
        let cause = log::Cause(&self.cause);
        write!(f, "worker: {program}: cannot be started: {cause}")?;
        if self.exit_code() != exit_code::NOT_FOUND {
            return Ok(());
        }
        f.write_str(match self.program.as_bytes() {
            [b'-', ..] => "; options of livelet go before --",
            name if name.contains(&b' ') => {
                "; this is one word with a space: quote the program and each argument separately"
            }
            name if !name.contains(&b'/') => "; not in any directory of PATH",
            _ => "",
        })
    }
}

impl std::error::Error for SpawnError {}

/// End of a child process: its exit code, or the number of the signal that killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(u8),
    Killed(i32),
}

impl Ending {
    /// Returns the exit code that a shell would report for this ending.
    pub(crate) fn code(self) -> u8 {
        match self {
            Ending::Exited(code) => code,
            Ending::Killed(signal) => ended_by(signal),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "exited with code {code}"),
            Ending::Killed(signal) => write!(f, "ended by signal {}", signal::name(*signal)),
        }
    }
}

/// A child process that runs the program of an `exec:` check.
#[derive(Debug)]
pub(crate) struct CheckProgram {
    pub(crate) pid: i32,
    /// Channel over which the child process reports the error if it can't execute the program. The
    /// report is complete once the child process has ended.
    pub(crate) report: ChildReport,
    /// Reading end of the pipe for the program's standard output and error, in non-blocking mode.
    pub(crate) output: OwnedFd,
}

/// Starts `command`, the program of an `exec:` check and its arguments, in its own process group,
/// with the signal mask `mask` and with `/dev/null` as input. [`Tree::reap`] reports the program's
/// end. The child process itself searches for the program, so that a mount that hangs blocks only
/// the child.
///
/// # Errors
/// Returns the error of open(2), pipe(2), socketpair(2) or fork(2).
pub(crate) fn spawn_check(command: &[String], mask: Mask) -> io::Result<CheckProgram> {
    let null = File::options().read(true).open("/dev/null")?;
    let (output, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&output, OFlags::NONBLOCK)?;
    let prepare = |child: &Child<'_>| {
        // Orphans of the program stay below it (subreaper, prctl(2)), where `kill_check` finds
        // them. Before Linux 3.4 there is no subreaper.
        let _ = set_child_subreaper(Some(getpid()));
        dup2_stdin(&null)?;
        dup2_stdout(&writer)?;
        dup2_stderr(&writer)?;
        close_others(child.report());
        child.find()
    };
    let mut environment = Environment::new(&NOT_PASSED_ON, &[], false);
    let mut words = command.iter().map(String::as_bytes);
    let Forked { pid, report } = start(&mut words, &mut environment, mask, &prepare)?;
    Ok(CheckProgram {
        pid: pid.as_raw_pid(),
        report,
        output,
    })
}

/// Closes every descriptor of a child process except standard input, output, error and `kept`, over
/// which the child reports its progress. Must be called before execve(2): a child that hangs before
/// execve(2) would keep connections open that livelet closes. Does nothing before Linux 5.9, which
/// lacks close_range(2).
#[allow(unsafe_code, reason = "close_range(2)")]
fn close_others(kept: RawFd) {
    let kept = c_uint::try_from(kept).unwrap_or_default();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, c_uint::MAX)] {
        // SAFETY: the copies of a forked child are neither used nor dropped in it.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Closes livelet's own descriptors in a child process: they are close-on-exec, unlike those that
/// the worker inherits. Leaves `kept` open, over which the child reports its progress. Must be
/// called before execve(2): a child that hangs before execve(2) would keep the port in use.
#[allow(unsafe_code, reason = "fcntl(2), close(2)")]
fn close_own(kept: RawFd) {
    /// Maximum number of descriptors, from `kept` upwards, that are checked for close-on-exec. Few
    /// are enough: `kept` was opened last, so that few of livelet's own have a higher number.
    const HIGHER: RawFd = 16;
    for number in (3..kept.saturating_add(HIGHER)).filter(|&number| number != kept) {
        // SAFETY: F_GETFD takes a number.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
        if flags == libc::FD_CLOEXEC {
            // SAFETY: the copies of a forked child are neither used nor dropped in it.
            unsafe { libc::close(number) };
        }
    }
}

/// Kills the process group of the check program that was started with the pid `pid`. If `runs` is
/// `true`, the program is still running, and its descendants in other process groups are also
/// killed.
pub(crate) fn kill_check(pid: i32, runs: bool) {
    let below = if runs {
        descendants_of(pid).unwrap_or_default()
    } else {
        Vec::new()
    };
    // A group that has gone needs no signal.
    let _ = kill(-pid, libc::SIGKILL);
    for process in below {
        let _ = kill(process.pid, libc::SIGKILL);
    }
}

/// Sends `signal` with kill(2). `target` is a pid, minus the id of a process group, 0 for livelet's
/// own group, or -1 for all processes.
///
/// # Errors
/// Returns the error `SRCH` if no such process exists, and `PERM` if livelet may not send a signal
/// to any of the processes.
#[allow(unsafe_code, reason = "rustix has kill(2) for named signals alone")]
fn kill(target: i32, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill(2) takes two numbers.
    let outcome = unsafe { libc::kill(target, signal) };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
}

/// Returns the id of the process group of the process `pid`. A `pid` of 0 stands for livelet.
/// Returns 0 if the group is in another pid namespace, and -1 if no such process exists.
#[allow(unsafe_code, reason = "rustix takes a group for a number above 0")]
fn group_of(pid: i32) -> i32 {
    // SAFETY: getpgid(2) takes a number.
    unsafe { libc::getpgid(pid) }
}

/// Returns the id of livelet's session. Returns 0 if the session is in another pid namespace.
#[allow(unsafe_code, reason = "rustix takes a session for a number above 0")]
fn own_session() -> i32 {
    // SAFETY: getsid(2) takes a number.
    unsafe { libc::getsid(0) }
}
