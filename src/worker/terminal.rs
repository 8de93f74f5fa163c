//! Job control: passes livelet's terminal on to the worker (credentials(7), tcsetpgrp(3)).

use libc::{SIGCONT, SIGSTOP};
use rustix::process::{Pid, getpid};
use rustix::stdio::stdin;
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::{group_of, kill, own_session};

/// Returns `true` if livelet may pass its terminal to the worker. This requires that livelet leads
/// its own process group, and that this group is in the foreground. Under `npm run`, for example,
/// npm leads the group.
pub(super) fn is_own() -> bool {
    group_of(0) == getpid().as_raw_pid() && is_foreground(getpid())
}

fn is_foreground(group: Pid) -> bool {
    tcgetpgrp(stdin()) == Ok(group)
}

/// Makes `group` the foreground process group of the terminal. A caller in the background must
/// block SIGTTOU, as a livelet with a worker does.
pub(super) fn set_foreground(group: Pid) {
    // A terminal after a hangup has no foreground.
    let _ = tcsetpgrp(stdin(), group);
}

/// Terminal that livelet has passed to the worker. The worker and livelet each lead a process group
/// of their own.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) worker: Pid,
}

impl Terminal {
    /// Stops livelet after the worker was stopped, usually by Ctrl-Z. The shell that started
    /// livelet shows its prompt only when livelet stops as well. If livelet is PID 1 or leads its
    /// session, no such shell exists. In this case livelet continues the worker instead of
    /// stopping, because no other process could. Does nothing if the worker is in the background.
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

    /// Passes the terminal to the worker again if the shell's `fg` has put livelet in the
    /// foreground.
    pub(super) fn give(&self) {
        if is_foreground(getpid()) {
            set_foreground(self.worker);
        }
    }

    /// Takes the terminal back from a worker that has ended. Does nothing if the worker is in the
    /// background: the terminal then belongs to the shell or to another job.
    pub(super) fn take_back(&self) {
        if is_foreground(self.worker) {
            set_foreground(getpid());
        }
    }
}
