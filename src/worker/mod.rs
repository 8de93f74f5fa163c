//! The worker: spawned, signalled, reaped. All of it on one thread: [`spawn`] waits for the child itself where exec
//! fails, so nothing else may wait meanwhile.
//!
//! As PID 1 livelet gets every orphan of its container; elsewhere it makes itself their subreaper, so that what the
//! worker leaves behind is livelet's to end and to reap (prctl(2)).

mod descendants;
mod environment;
mod spawn;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use libc::{SIGCONT, SIGSTOP};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpgrp, getpid, getsid, set_child_subreaper, wait};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use crate::exit_code::ended_by;
use crate::log;
use crate::signal::{self, Mask};

use environment::Environment;
use spawn::spawn;

/// What supervisors tell livelet, not the worker.
const NOT_PASSED_ON: [&str; 6] = [
    "LISTEN_FDS",
    "LISTEN_PID",
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
    /// 127 where there is no such program, 126 where it can't be executed, as shells and tini report it; 125 where the
    /// system had no process or no descriptor to give.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match Errno::from_io_error(&self.cause) {
            Some(Errno::NOENT | Errno::NOTDIR) => 127,
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE) => 125,
            _ => 126,
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.to_string_lossy();
        write!(f, "worker: {program}: cannot start it: {}", self.cause)?;
        let is_bare = !self.program.as_bytes().contains(&b'/');
        if is_bare && self.exit_code() == 127 {
            f.write_str("; it is in no directory of PATH")?;
        }
        Ok(())
    }
}

/// Looks whether the program can be started, before anything is taken from another livelet for it. exec looks again.
///
/// # Errors
/// What execvp(3) would fail with.
pub fn find(program: &OsStr) -> Result<(), SpawnError> {
    match spawn::find(program) {
        Ok(_) => Ok(()),
        Err(error) => Err(SpawnError {
            program: program.to_os_string(),
            cause: error.into(),
        }),
    }
}

/// How the worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(u8),
    Killed(i32),
}

impl Ending {
    /// As a shell reports it.
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
            Ending::Killed(signal) => write!(f, "killed by {}", signal::name(*signal)),
        }
    }
}

/// What [`reap`] found.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// The worker has ended.
    pub(crate) ending: Option<Ending>,
    /// The worker was stopped, by Ctrl-Z as like as not.
    pub(crate) has_stopped: bool,
    /// Other children that have ended.
    pub(crate) others: Vec<(i32, Ending)>,
    /// No child is left, and so no descendant: each of them would have a child of livelet's above it.
    pub(crate) is_childless: bool,
}

/// Takes the exit status of every child that has ended, whoever its parent was.
pub(crate) fn reap(worker: Option<&Worker>) -> Reaped {
    let mut reaped = Reaped::default();
    loop {
        match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) => {
                let exited = status.exit_status().map(|code| Ending::Exited(code as u8));
                let killed = status.terminating_signal().map(Ending::Killed);
                let ending = exited.or(killed);
                if worker.is_some_and(|worker| worker.pid == pid) {
                    reaped.has_stopped = status.stopped();
                    reaped.ending = ending;
                } else {
                    let ended = ending.map(|ending| (pid.as_raw_pid(), ending));
                    reaped.others.extend(ended);
                }
            }
            Err(Errno::INTR) => {}
            Ok(None) => return reaped,
            Err(_) => {
                reaped.is_childless = true;
                return reaped;
            }
        }
    }
}

/// A worker that was started.
#[derive(Debug)]
pub(crate) struct Worker {
    pid: Pid,
    /// Signals are for it alone, not for its process group.
    single: bool,
    /// It was given the terminal of stdin.
    has_terminal: bool,
}

impl Worker {
    /// Starts it in a process group of its own, with the signal mask that livelet was started with; the group has the
    /// terminal where livelet's had it.
    pub(crate) fn spawn(
        command: &[OsString],
        single: bool,
        mask: Mask,
        variables: &[(&str, OsString)],
    ) -> Result<Worker, SpawnError> {
        let own = getpid();
        if !own.is_init() {
            // Without it (before Linux 3.4) only the leftovers are not livelet's to end.
            let _ = set_child_subreaper(Some(own));
        }
        let has_terminal = tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == getpgrp());
        let is_watched = variables.iter().any(|(name, _)| *name == "WATCHDOG_USEC");
        let environment = Environment::new(&NOT_PASSED_ON, variables, is_watched);
        let prepare = || {
            if has_terminal {
                set_foreground(getpgrp());
            }
            Ok(())
        };
        match spawn(command, environment, mask, prepare) {
            Ok(pid) => Ok(Worker {
                pid,
                single,
                has_terminal,
            }),
            Err(cause) => Err(SpawnError {
                program: command.first().cloned().unwrap_or_default(),
                cause,
            }),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_pid()
    }

    /// Sends it, or its group, a signal.
    pub(crate) fn signal(&self, signal: i32) {
        if signal == SIGCONT {
            self.give_terminal_back();
        }
        kill(if self.single { self.pid() } else { -self.pid() }, signal);
    }

    /// Kills it and every descendant.
    pub(crate) fn kill(&self) {
        kill(-self.pid(), libc::SIGKILL);
        signal_descendants(libc::SIGKILL);
    }

    /// The worker was stopped. Where it has the terminal, livelet stops too: the shell that started livelet waits for
    /// that before it prompts again. Where no shell did, nobody could continue either of them, so the worker goes on.
    pub(crate) fn follow_stop(&self) {
        if !self.has_terminal || tcgetpgrp(stdin()) != Ok(self.pid) {
            return;
        }
        let own = getpid();
        if own.is_init() || getsid(None) == Ok(own) {
            kill(-self.pid(), SIGCONT);
        } else {
            kill(0, SIGSTOP);
        }
    }

    /// `fg` has made livelet the foreground and continued it: the terminal is the worker's.
    fn give_terminal_back(&self) {
        if self.has_terminal && tcgetpgrp(stdin()) == Ok(getpgrp()) {
            set_foreground(self.pid);
        }
    }

    /// The worker has ended: Ctrl-C is livelet's again.
    pub(crate) fn take_terminal(&self) {
        if self.has_terminal {
            set_foreground(getpgrp());
        }
    }
}

/// Starts the program of a check, in a process group of its own, without input or output; its end is [`reap`]'s to find.
///
/// # Errors
/// What fork(2) or execvp(3) failed with.
pub(crate) fn spawn_check(command: &[String], mask: Mask) -> io::Result<i32> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let prepare = || {
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)
    };
    let environment = Environment::new(&NOT_PASSED_ON, &[], false);
    spawn(command, environment, mask, prepare).map(Pid::as_raw_pid)
}

/// Kills a process group that [`spawn_check`] has started.
pub(crate) fn kill_check(pid: i32) {
    kill(-pid, libc::SIGKILL);
}

/// Sends a signal to every descendant.
pub(crate) fn signal_descendants(signal: i32) {
    let own = getpid();
    if own.is_init() {
        // All of the container but livelet itself, in one call that no fork can slip through.
        kill(-1, signal);
        return;
    }
    match descendants::descendants(own.as_raw_pid()) {
        Ok(pids) => pids.into_iter().for_each(|pid| kill(pid, signal)),
        Err(cause) => log::notice(format_args!("worker: processes it left: /proc: {cause}")),
    }
}

/// kill(2): a process, a group (negative), livelet's own group (0) or all (-1). Where nobody is left to get it, nothing
/// is left to do.
#[allow(unsafe_code)]
fn kill(target: i32, signal: i32) {
    // SAFETY: kill(2) takes two numbers. rustix has it for named signals alone.
    unsafe { libc::kill(target, signal) };
}

/// Makes a group the foreground of the terminal; from the background that takes SIGTTOU being blocked (tcsetpgrp(3)),
/// as it is in a companion.
fn set_foreground(group: Pid) {
    // A terminal that was lost is nobody's.
    let _ = tcsetpgrp(stdin(), group);
}
