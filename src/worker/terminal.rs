//! Job control: passes livelet's terminal to the worker (credentials(7), tcsetpgrp(3)).

use libc::{SIGCONT, SIGSTOP};
use rustix::process::{Pid, getpid};
use rustix::stdio::stdin;
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::{group_of, kill, own_session};

/// Returns `true` if livelet may pass the terminal to the worker: livelet leads its own process
/// group, and that group is the foreground. Under `npm run`, for example, npm leads the group.
pub(super) fn is_own() -> bool {
    group_of(0) == getpid().as_raw_pid() && is_foreground(getpid())
}

fn is_foreground(group: Pid) -> bool {
    tcgetpgrp(stdin()) == Ok(group)
}

/// Makes a group the foreground of the terminal. A caller in the background has to block SIGTTOU,
/// as companions do.
pub(super) fn set_foreground(group: Pid) {
    // A terminal after a hangup has no foreground.
    let _ = tcsetpgrp(stdin(), group);
}

/// Terminal that livelet has passed to a worker. Both lead their own process groups.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) worker: Pid,
}

impl Terminal {
    /// Stops livelet after a stop of the worker, usually by Ctrl-Z. The shell that started livelet
    /// prompts only when livelet stops too. Without such a shell, continues the worker, because no
    /// other process could.
    pub(super) fn follow_stop(&self) {
        if !is_foreground(self.worker) {
            return;
        }
        let own = getpid();
        // An error here has no remedy: the signals go to livelet's own group and its child's.
        let _ = if own.is_init() || own_session() == own.as_raw_pid() {
            kill(-self.worker.as_raw_pid(), SIGCONT)
        } else {
            kill(0, SIGSTOP)
        };
    }

    /// Gives the terminal to the worker again, after `fg` has made livelet the foreground.
    pub(super) fn give(&self) {
        if is_foreground(getpid()) {
            set_foreground(self.worker);
        }
    }

    /// Takes the terminal back from a worker that has ended. Does nothing if livelet is in the
    /// background: the terminal is the shell's or another job's then.
    pub(super) fn take_back(&self) {
        if is_foreground(self.worker) {
            set_foreground(getpid());
        }
    }
}
