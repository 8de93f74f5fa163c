//! The worker: spawned, signalled, reaped. Only this module waits for children, on one thread.

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
use spawn::{Child, start};

pub(crate) use descendants::{is_descendant, pids, shares_pid_namespace};
pub(crate) use spawn::{Report, Told};
pub(crate) use tree::{Ended, Tree};

/// Variables that supervisors set for livelet, not for the worker.
const NOT_PASSED_ON: [&str; 7] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// Why the worker could not be started.
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

    /// Returns 127 if there is no such program and 126 if it can't be executed, as shells and tini do; 125 if the system
    /// had no process or no descriptor to give.
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
        write!(f, "worker: {program}: cannot start it: {cause}")?;
        if self.exit_code() != exit_code::NOT_FOUND {
            return Ok(());
        }
        f.write_str(match self.program.as_bytes() {
            [b'-', ..] => "; options of livelet go before --",
            name if name.contains(&b' ') => {
                "; it is one word with a space in it: quote the program and each argument alone"
            }
            name if !name.contains(&b'/') => "; it is in no directory of PATH",
            _ => "",
        })
    }
}

impl std::error::Error for SpawnError {}

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(u8),
    Killed(i32),
}

impl Ending {
    /// Returns the exit code that a shell reports.
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

/// The program of a check that was started.
#[derive(Debug)]
pub(crate) struct CheckProgram {
    pub(crate) pid: i32,
    /// Tells why the program was not executed, once the child has ended.
    pub(crate) report: Report,
    /// Output and error output, in non-blocking mode.
    pub(crate) output: OwnedFd,
}

/// Starts the program of a check, in a process group of its own, without input. [`Tree::reap`] finds its end. The child
/// looks the program up: below a mount that hangs, the child hangs alone.
///
/// # Errors
/// Returns the error of pipe(2) or fork(2).
pub(crate) fn spawn_check(command: &[String], mask: Mask) -> io::Result<CheckProgram> {
    let null = File::options().read(true).open("/dev/null")?;
    let (output, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&output, OFlags::NONBLOCK)?;
    let prepare = |child: &Child<'_>| {
        // The orphans of the program stay below it (subreaper, prctl(2)), where `kill_check` finds them. Before Linux 3.4
        // there is none.
        let _ = set_child_subreaper(Some(getpid()));
        dup2_stdin(&null)?;
        dup2_stdout(&writer)?;
        dup2_stderr(&writer)?;
        close_others(child.report());
        child.find()
    };
    let mut environment = Environment::new(&NOT_PASSED_ON, &[], false);
    let mut words = command.iter().map(String::as_bytes);
    let (pid, report) = start(&mut words, &mut environment, mask, &prepare)?;
    Ok(CheckProgram {
        pid: pid.as_raw_pid(),
        report,
        output,
    })
}

/// Closes every descriptor above stderr but one, in a child. A child that hangs before execve(2) would keep open each
/// connection that livelet closes. Before Linux 5.9 it does.
#[allow(unsafe_code, reason = "close_range(2)")]
fn close_others(kept: RawFd) {
    let kept = c_uint::try_from(kept).unwrap_or_default();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, c_uint::MAX)] {
        // SAFETY: the copies of a forked child are neither used nor dropped in it.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Closes livelet's own descriptors but one, in a child. A child that hangs before execve(2) would keep the port. livelet's
/// own are close-on-exec, unlike those that the worker inherits.
#[allow(unsafe_code, reason = "fcntl(2), close(2)")]
fn close_own(kept: RawFd) {
    /// `kept` is the last one that was opened. Only where others have been closed, some have a higher number.
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

/// Kills the process group of a check's program. If the program runs, kills its descendants in other sessions too.
pub(crate) fn kill_check(pid: i32, runs: bool) {
    let below = if runs {
        descendants_of(pid).unwrap_or_default()
    } else {
        Vec::new()
    };
    // What is gone needs no signal.
    let _ = kill(-pid, libc::SIGKILL);
    for process in below {
        let _ = kill(process.pid, libc::SIGKILL);
    }
}

/// Sends a signal with kill(2): to a process, a group (negative), livelet's own group (0) or all processes (-1).
///
/// # Errors
/// Returns `SRCH` if there is no such process, and `PERM` if livelet may signal none of them.
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

/// Returns the process group of a process, or of livelet for 0: 0 if the group is not of livelet's pid namespace, -1 if
/// there is no such process.
#[allow(unsafe_code, reason = "rustix takes a group for a number above 0")]
fn group_of(pid: i32) -> i32 {
    // SAFETY: getpgid(2) takes a number.
    unsafe { libc::getpgid(pid) }
}

/// Returns livelet's session; 0 if it is not of livelet's pid namespace.
#[allow(unsafe_code, reason = "rustix takes a session for a number above 0")]
fn own_session() -> i32 {
    // SAFETY: getsid(2) takes a number.
    unsafe { libc::getsid(0) }
}
