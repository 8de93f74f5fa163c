//! Job control: the terminal that livelet passes on to its worker (credentials(7), tcsetpgrp(3)).

use libc::{SIGCONT, SIGSTOP};
use rustix::process::{Pid, getpid};
use rustix::stdio::stdin;
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::{group_of, kill, own_session};

/// Returns `true` if the terminal is livelet's to give: livelet leads its own process group, a shell's job or a
/// container, and that is the foreground. Under `npm run`, say, the group is npm's.
pub(super) fn is_own() -> bool {
    group_of(0) == getpid().as_raw_pid() && is_foreground(getpid())
}

fn is_foreground(group: Pid) -> bool {
    tcgetpgrp(stdin()) == Ok(group)
}

/// Makes a group the foreground of the terminal. A group in the background has to block SIGTTOU for that, as companions
/// do.
pub(super) fn set_foreground(group: Pid) {
    // A terminal that was hung up has no foreground.
    let _ = tcsetpgrp(stdin(), group);
}

/// The terminal of a worker: livelet leads its process group, as the worker does, and has given the terminal to it.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) worker: Pid,
}

impl Terminal {
    /// Follows a stop of the worker, by Ctrl-Z as a rule: the shell that started livelet waits for livelet's stop before
    /// it prompts again. If no shell did, nothing could continue either of them, so the worker goes on.
    pub(super) fn follow_stop(&self) {
        if !is_foreground(self.worker) {
            return;
        }
        let own = getpid();
        // A refusal here has no remedy: the processes are livelet's own group and its child's.
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

    /// Takes the terminal back from the worker, which has ended. In the background it is the shell's or another job's.
    pub(super) fn take_back(&self) {
        if is_foreground(self.worker) {
            set_foreground(getpid());
        }
    }
}
