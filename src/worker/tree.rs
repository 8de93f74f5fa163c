//! The tree of processes below livelet: the worker, its descendants, and children that livelet had
//! before its exec.
//!
//! In a stop, each process gets the stop signal once. livelet sends it to the worker. The worker
//! stops its own children, as a master process does with its pool. A process whose parent has ended
//! becomes a child of livelet, because livelet is PID 1 or the subreaper (prctl(2)). livelet sends
//! such an orphan the signal, unless the orphan has had it.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use libc::{SIGCONT, SIGINT, SIGKILL, SIGQUIT, SIGTERM};
use rustix::io::Errno;
use rustix::process::{
    Pid, WaitId, WaitIdOptions, WaitOptions, getpid, set_child_subreaper, wait, waitid, waitpid,
};

use super::descendants::{ProcEntry, descendants, dispositions, process};
use super::environment::Environment;
use super::spawn::{Child, ChildReport, Forked, start};
use super::terminal::{self, Terminal};
use super::{Ending, NOT_PASSED_ON, close_own, group_of, kill};
use crate::listen::PassedOn;
use crate::log;
use crate::signal::{self, Mask};

/// Maximum number of children that one call of [`Tree::reap`] reaps. A limit is needed so that many
/// children that end at once do not delay other work.
const REAPED_AT_ONCE: usize = 64;

/// The descendants of livelet, and what livelet knows about them.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The worker. `None` before its start and after its end.
    worker: Option<Worker>,
    /// `true` if signals go to all processes in the worker's process group, and not to the worker
    /// alone.
    signals_group: bool,
    /// `true` if the process had children already when it executed livelet.
    pub(crate) has_earlier: bool,
    /// Pids of the children that the process had already when it executed livelet, and of their
    /// descendants. These processes do not belong to the worker and get no signal.
    earlier: Vec<i32>,
    /// Processes to which livelet has sent a stop signal.
    asked: Vec<ProcEntry>,
    /// Descendants of livelet, each with the signals that it caught when livelet read /proc.
    catchers: Vec<Catcher>,
    /// `true` if the sender of the stop signal may be a watcher that signals every process of the
    /// tree, so that livelet must not send the signal twice.
    has_watcher: bool,
    /// `true` once livelet has sent KILL.
    has_killed: bool,
    /// Signal of the last logged failure to send a signal. `None` if no failure has been logged.
    refused: Cell<Option<i32>>,
}

/// A process, and the signals that it caught when livelet read /proc/PID/status.
#[derive(Debug)]
struct Catcher {
    process: ProcEntry,
    caught: u64,
}

#[derive(Debug)]
struct Worker {
    pid: Pid,
    terminal: Option<Terminal>,
}

/// A child process that has ended, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) pid: i32,
    pub(crate) ending: Ending,
}

/// Result of [`Tree::reap`]: the children that have ended, and facts about the remaining children.
#[derive(Debug, Default)]
pub(crate) struct Reaped {
    /// End of the worker. `None` if the worker was not among the children that have ended.
    pub(crate) worker: Option<Ended>,
    /// Children other than the worker that have ended.
    pub(crate) others: Vec<Ended>,
    /// `true` if more children may have ended, because [`REAPED_AT_ONCE`] were reaped.
    pub(crate) has_more: bool,
    /// `true` if the worker has ended and no descendant of it is left.
    pub(crate) none_left: bool,
    /// `true` if livelet has no child left.
    pub(crate) is_childless: bool,
}

impl Tree {
    /// Returns a tree without a worker. Records children that the process had already when it
    /// executed livelet: a script with `exec > >(tee log); exec livelet ...` leaves one. If
    /// `signals_group` is `true`, signals will go to the worker's process group.
    pub(crate) fn new(signals_group: bool) -> Tree {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let has_earlier = waitid(WaitId::All, options).is_ok();
        let earlier = if has_earlier {
            let earlier = descendants().unwrap_or_default();
            earlier.iter().map(|process| process.pid).collect()
        } else {
            Vec::new()
        };
        Tree {
            worker: None,
            signals_group,
            has_earlier,
            earlier,
            asked: Vec::new(),
            catchers: Vec::new(),
            has_watcher: false,
            has_killed: false,
            refused: Cell::new(None),
        }
    }

    /// Starts the child process that becomes the worker and executes `command`, in its own process
    /// group and with the signal mask `mask`. The child searches for its program, then waits for
    /// [`ChildReport::go_on`]. The group gets the terminal if livelet may pass it on. The worker
    /// inherits `sockets`, and `variables` are added to its environment.
    ///
    /// # Errors
    /// Returns an error if the system refuses a process or a descriptor.
    pub(crate) fn start_worker(
        &mut self,
        command: &[OsString],
        mask: Mask,
        variables: &[(&str, OsString)],
        sockets: &PassedOn,
    ) -> io::Result<ChildReport> {
        let own = getpid();
        if !own.is_init() {
            // Before Linux 3.4 there is no subreaper, and livelet does not get orphans.
            let _ = set_child_subreaper(Some(own));
        }
        let has_terminal = terminal::is_own();
        let mut environment = Environment::new(&NOT_PASSED_ON, variables, !sockets.is_empty());
        let prepare = |child: &Child<'_>| {
            sockets.outlive_exec()?;
            close_own(child.report());
            let found = child.find()?;
            child.wait_to_go_on()?;
            // The terminal changes only now, so that Ctrl-C ends livelet and not a child that
            // hangs.
            if has_terminal {
                terminal::set_foreground(getpid());
            }
            Ok(found)
        };
        let mut words = command.iter().map(|word| word.as_bytes());
        let Forked { pid, report } = start(&mut words, &mut environment, mask, &prepare)?;
        self.worker = Some(Worker {
            pid,
            terminal: has_terminal.then_some(Terminal { worker: pid }),
        });
        Ok(report)
    }

    /// Reaps the child process after it has reported that it could not become the worker.
    pub(crate) fn reap_failed_worker(&mut self) {
        if let Some(Worker { pid, .. }) = self.worker.take() {
            while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
        }
    }

    /// Returns the pid of the worker, or of the child process that is about to become the worker.
    /// Returns `None` if neither exists.
    pub(crate) fn worker(&self) -> Option<i32> {
        Some(self.worker.as_ref()?.pid.as_raw_pid())
    }

    /// Reaps up to [`REAPED_AT_ONCE`] children that have ended, adopted orphans included.
    pub(crate) fn reap(&mut self) -> Reaped {
        let mut reaped = Reaped::default();
        for _ in 0..REAPED_AT_ONCE {
            match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some((pid, status))) => {
                    let code = status.exit_status();
                    let exited = code.and_then(|code| u8::try_from(code).ok().map(Ending::Exited));
                    let killed = status.terminating_signal().map(Ending::Killed);
                    self.handle(pid, exited.or(killed), &mut reaped);
                }
                Err(Errno::INTR) => {}
                Ok(None) => {
                    reaped.none_left = self.worker.is_none() && self.only_earlier_are_left();
                    return reaped;
                }
                Err(_) => {
                    reaped.none_left = true;
                    reaped.is_childless = true;
                    return reaped;
                }
            }
        }
        reaped.has_more = true;
        reaped
    }

    /// Handles a change of the child `pid`. If `ending` is `Some`, the child has ended and is added
    /// to `reaped`. If `ending` is `None`, the child was only stopped, as by SIGSTOP or Ctrl-Z.
    fn handle(&mut self, pid: Pid, ending: Option<Ending>, reaped: &mut Reaped) {
        let worker = self.worker.as_ref().filter(|worker| worker.pid == pid);
        let terminal = worker.and_then(|worker| worker.terminal.as_ref());
        let Some(ending) = ending else {
            terminal.inspect(|terminal| terminal.follow_stop());
            return;
        };
        terminal.inspect(|terminal| terminal.take_back());
        let is_worker = worker.is_some();
        let pid = pid.as_raw_pid();
        let ended = Ended { pid, ending };
        if is_worker {
            self.worker = None;
            reaped.worker = Some(ended);
        } else {
            self.earlier.retain(|&earlier| earlier != pid);
            self.asked.retain(|asked| asked.pid != pid);
            self.catchers.retain(|catcher| catcher.process.pid != pid);
            reaped.others.push(ended);
        }
    }

    /// Returns `true` if the process had all remaining children already when it executed livelet.
    /// Also returns `true` after KILL if /proc can't be read and livelet is not PID 1. livelet then
    /// can't find or kill the remaining children, so that the wait for them could be endless.
    fn only_earlier_are_left(&self) -> bool {
        if !self.has_earlier && !self.has_killed {
            return false;
        }
        match self.descendants() {
            Ok(left) => left.is_empty(),
            // Without /proc, children can't be found or killed: the wait for them could be endless.
            Err(_) => self.has_killed && !getpid().is_init(),
        }
    }

    /// Returns the descendants of livelet, except those from before the process executed livelet.
    fn descendants(&self) -> io::Result<Vec<ProcEntry>> {
        let mut all = descendants()?;
        all.retain(|process| !self.earlier.contains(&process.pid));
        Ok(all)
    }

    /// Records which signals each descendant of livelet catches now.
    pub(crate) fn note_catchers(&mut self) {
        for process in self.descendants().unwrap_or_default() {
            let caught = dispositions(process.pid).caught;
            let known = self.catchers.iter_mut();
            match known
                .into_iter()
                .find(|catcher| catcher.process.is_same_program(&process))
            {
                Some(catcher) => catcher.caught |= caught,
                None => self.catchers.push(Catcher { process, caught }),
            }
        }
    }

    /// Returns `true` if a process of the tree is known to catch `signal`, which livelet is about
    /// to forward. The sender may be a watcher that signals every process of the tree, and a
    /// process that catches the signal twice may lose its job. Records the result, so that
    /// [`Tree::stop`] checks if the worker has had the signal.
    pub(crate) fn expect_watcher(&mut self, signal: i32) -> bool {
        let mut catchers = self.catchers.iter();
        self.has_watcher = catchers.any(|catcher| catcher.caught & bit(signal) != 0);
        self.has_watcher
    }

    /// Returns `true` if /proc shows that the process `pid` has had `signal` from another process,
    /// such as a watcher or a parent that forwards it. /proc shows this if the signal is pending.
    /// /proc also shows it if the process caught the signal earlier, but now neither catches nor
    /// ignores it, because its handler was set to run only once.
    fn has_had(&self, pid: i32, signal: i32) -> bool {
        let now = dispositions(pid);
        // Handlers also disappear with execve(2), and before it if a shell starts the process with
        // `&`: INT is ignored then.
        let process = process(pid);
        let is_known = |catcher: &&Catcher| {
            process.is_some_and(|process| process.is_same_program(&catcher.process))
        };
        let caught = self
            .catchers
            .iter()
            .find(is_known)
            .map(|catcher| catcher.caught);
        let gone = caught.unwrap_or(0) & !(now.caught | now.ignored);
        (gone | now.pending) & bit(signal) != 0
    }

    /// Sends `signal`, which begins the stop of the worker, to the worker or to its process group.
    /// Sends nothing if signals go to the worker alone and the worker has already had the signal
    /// from a watcher.
    pub(crate) fn stop(&mut self, signal: i32) {
        if !self.has_watcher {
            // Without a watcher, the handlers that were noted earlier do not matter for this stop.
            self.catchers.clear();
        }
        self.note_catchers();
        let worker = self.worker();
        let had_it = worker.filter(|&pid| self.has_watcher && self.has_had(pid, signal));
        if let Some(pid) = had_it.filter(|_| !self.signals_group) {
            let name = signal::name(signal);
            return log::notice(format_args!(
                "worker: pid {pid}: has already got {name} from another process"
            ));
        }
        if self.signals_group {
            // This comes before the signal. A process that is forked in between may be asked twice,
            // but is not left out.
            let group = self.worker();
            let all = self.descendants().unwrap_or_default();
            let members = all
                .into_iter()
                .filter(|process| Some(process.group) == group);
            self.asked.extend(members);
        }
        self.forward(signal);
    }

    /// Sends `signal` to the worker, or to its process group if signals go to the group. CONT
    /// always goes to the group.
    pub(crate) fn forward(&self, signal: i32) {
        let Some(worker) = &self.worker else { return };
        let pid = worker.pid.as_raw_pid();
        // CONT follows Ctrl-Z, which has stopped the group.
        let is_for_group = self.signals_group || signal == SIGCONT;
        if signal == SIGCONT {
            worker.terminal.iter().for_each(Terminal::give);
        }
        if is_for_group {
            self.report(pid, signal, kill(-pid, signal));
        }
        if !is_for_group || group_of(pid) != pid {
            self.report(pid, signal, kill(pid, signal));
        }
    }

    /// Sends `signal` to each orphan that has had no stop signal yet. An orphan is a descendant of
    /// the worker that has outlived its own parent and is now livelet's child.
    pub(crate) fn stop_leftovers(&mut self, signal: i32) {
        match self.descendants() {
            Ok(left) => {
                let own = getpid().as_raw_pid();
                for process in left {
                    if process.parent == own && !self.was_asked(&process) {
                        self.asked.push(process);
                        self.stop_leftover(process.pid, signal);
                    }
                }
            }
            Err(cause) => self.signal_unseen(signal, &cause),
        }
    }

    fn was_asked(&self, process: &ProcEntry) -> bool {
        self.asked.iter().any(|asked| asked.is_same(process))
    }

    /// Sends the stop signal `signal` to the process `pid`, which its parent has left behind,
    /// unless the process has had the signal. If the signal is INT or QUIT and the process ignores
    /// it, also sends TERM. A shell makes processes after `&` ignore both, so that Ctrl-C and
    /// Ctrl-\ do not affect them (POSIX, 2.12).
    fn stop_leftover(&self, pid: i32, signal: i32) {
        if self.has_had(pid, signal) {
            return;
        }
        self.report(pid, signal, kill(pid, signal));
        let is_keyboards = [SIGINT, SIGQUIT].contains(&signal);
        // This comes after the signal: a process that was just forked may ignore it by now.
        if is_keyboards && dispositions(pid).ignored & bit(signal) != 0 {
            self.report(pid, SIGTERM, kill(pid, SIGTERM));
        }
    }

    /// Sends `signal` to each orphan: each descendant of the worker that has outlived its own
    /// parent and is now livelet's child.
    pub(crate) fn forward_to_leftovers(&self, signal: i32) {
        match self.descendants() {
            Ok(left) => {
                let own = getpid().as_raw_pid();
                let orphans = left.into_iter().filter(|process| process.parent == own);
                for process in orphans {
                    self.report(process.pid, signal, kill(process.pid, signal));
                }
            }
            Err(cause) => self.signal_unseen(signal, &cause),
        }
    }

    /// Kills the worker and all its descendants. Processes that are forked meanwhile are killed by
    /// the next call.
    pub(crate) fn kill(&mut self) {
        let is_first = !self.has_killed;
        self.has_killed = true;
        if let Some(pid) = self.worker() {
            let killed = kill(pid, SIGKILL);
            if is_first && killed.is_ok() {
                log::notice(format_args!("worker: pid {pid}: sent KILL after --grace"));
            }
            self.report(pid, SIGKILL, killed);
        }
        match self.descendants() {
            // One call kills all processes of the namespace but livelet. No fork escapes it.
            Ok(_) if getpid().is_init() && self.earlier.is_empty() => {
                let _ = kill(-1, SIGKILL);
            }
            Ok(all) => {
                for process in all {
                    self.report(process.pid, SIGKILL, kill(process.pid, SIGKILL));
                }
            }
            Err(cause) => self.signal_unseen(SIGKILL, &cause),
        }
    }

    /// Sends `signal` to processes that livelet can't find, because reading /proc failed with the
    /// error `cause`. If livelet is PID 1, sends the signal to all other processes of the pid
    /// namespace. Otherwise sends nothing and logs that, unless the last failure was of the same
    /// signal.
    fn signal_unseen(&self, signal: i32, cause: &io::Error) {
        if getpid().is_init() {
            let _ = kill(-1, signal);
        } else if self.refused.replace(Some(signal)) != Some(signal) {
            let name = signal::name(signal);
            let cause = log::Cause(cause);
            log::notice(format_args!(
                "worker: processes that the worker left: cannot send {name}: /proc: {cause}"
            ));
        }
    }

    /// Logs that `signal` could not be sent to the process `pid`, if `outcome`, the result of
    /// kill(2), is an error. Logs nothing if the process has ended, or if the last failure was of
    /// the same signal.
    fn report(&self, pid: i32, signal: i32, outcome: Result<(), Errno>) {
        let Err(cause) = outcome else { return };
        // A process that has ended needs no signal.
        if cause == Errno::SRCH || self.refused.replace(Some(signal)) == Some(signal) {
            return;
        }
        let name = signal::name(signal);
        let remedy = if cause == Errno::PERM {
            "; livelet needs CAP_KILL for other users' processes"
        } else {
            ""
        };
        let cause = io::Error::from(cause);
        let cause = log::Cause(&cause);
        log::notice(format_args!(
            "worker: pid {pid}: cannot send {name}: {cause}{remedy}"
        ));
    }
}

/// Returns the bit that stands for `signal` in a set of signals from /proc/PID/status.
fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}
