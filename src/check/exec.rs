//! Checks that run a program: its exit code decides whether the check passes, its first line of
//! output is the reason of a failure.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::time::Duration;

use super::{text_of, within};
use crate::runtime::{Condition, Source};
use crate::signal::Mask;
use crate::worker::{self, CheckProgram, ChildProgress, Ending};

/// Time for which livelet reuses the passing outcome of an `exec:` check, so that frequent probes
/// do not run the check's program each time.
pub(super) const PASS_KEPT: Duration = Duration::from_secs(10);
/// Time for which livelet reuses the failing outcome of an `exec:` check. This time is short, so
/// that the check soon passes again after the worker has recovered.
pub(super) const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// Maximum number of bytes that livelet keeps of the output of a check's program. Later bytes are
/// read and discarded.
const MAX_OUTPUT: usize = 512;

/// State of an `exec:` check: the process that runs the check's program. At most one such process
/// runs at a time.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Process id of the check's program. `None` if no process of the program runs. After a timeout
    /// livelet kills the program, and the id stays here until the process has ended.
    pid: Cell<Option<i32>>,
    ending: Cell<Option<Ending>>,
    has_ended: Condition,
}

impl Program {
    /// Records the end of the process `pid`, with its exit code or signal in `ending`. Does nothing
    /// if this process is not the program that the check runs.
    pub(super) fn ended(&self, pid: i32, ending: Ending) {
        if self.pid.get() == Some(pid) {
            self.pid.set(None);
            self.ending.set(Some(ending));
            self.has_ended.changed();
        }
    }

    /// Runs `command`, the path of a program and its arguments, and waits until the program ends,
    /// at most for `timeout`. The program starts with the signal mask `mask`. At the end, kills the
    /// remaining processes of the program's process group. After a timeout, also kills the
    /// program's descendants in other process groups.
    ///
    /// # Errors
    /// Returns the reason as an error if the program can't be started, or if it does not exit with
    /// 0 within `timeout`. Also returns an error, and starts no program, if the process of an
    /// earlier run has not ended.
    pub(super) async fn run(
        &self,
        command: &[String],
        mask: Mask,
        timeout: Duration,
    ) -> Result<(), String> {
        let name = command.first().map(String::as_str).unwrap_or_default();
        let failed = |cause: &io::Error| format!("{name}: {}", text_of(cause));
        if let Some(pid) = self.pid.get() {
            return Err(format!("{name}: pid {pid} was killed and has not ended"));
        }
        let program = worker::spawn_check(command, mask).map_err(|cause| failed(&cause))?;
        let CheckProgram {
            pid,
            report,
            output,
        } = program;
        self.pid.set(Some(pid));
        let output = ProgramOutput {
            pipe: Source::new(output),
            begin: RefCell::default(),
        };
        let ended = self.has_ended.until(|| self.pid.get().is_none());
        let outcome = within(timeout, smol::future::or(ended, output.read())).await;
        worker::kill_check(pid, outcome.is_err());
        outcome?;
        // The child has ended, so both pipes hold all that it wrote.
        if let Ok(ChildProgress::Failed(cause)) = report.progress() {
            return Err(failed(&cause.into()));
        }
        match self.ending.take() {
            Some(Ending::Exited(0)) => Ok(()),
            Some(ending) => Err(match output.first_line() {
                Some(line) => line,
                None => format!("{name}: {ending}"),
            }),
            None => Err(format!("{name}: exit code unknown")),
        }
    }
}

/// Output of a check's program. livelet reads all of the output, so that the program never blocks
/// on a full pipe.
struct ProgramOutput {
    pipe: Source<std::os::fd::OwnedFd>,
    begin: RefCell<Vec<u8>>,
}

impl ProgramOutput {
    /// Reads from the pipe once, and keeps those bytes that are among the first [`MAX_OUTPUT`] of
    /// the output. Returns `false` at the end of the output.
    fn read_once(&self) -> bool {
        let mut part = [0; 4096];
        match rustix::io::read(self.pipe.get_ref(), &mut part) {
            Ok(0) => false,
            Ok(length) => {
                let mut begin = self.begin.borrow_mut();
                let kept = length.min(MAX_OUTPUT - begin.len());
                begin.extend_from_slice(part.get(..kept).unwrap_or_default());
                true
            }
            Err(_) => true,
        }
    }

    /// Reads the output of the check's program as it arrives. The future never completes, so the
    /// caller has to drop it. Each time epoll reports the pipe as readable, the future reads only
    /// once, so that a program that writes much can't keep livelet busy.
    async fn read(&self) {
        while self.pipe.readable().await.is_ok() && self.read_once() {}
        pending().await
    }

    /// Returns the first line of the kept output that is not blank, or `None` if every line is
    /// blank. First reads from the pipe once, because the program may have written after the last
    /// read.
    fn first_line(&self) -> Option<String> {
        self.read_once();
        let begin = self.begin.borrow();
        let text = String::from_utf8_lossy(&begin);
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| !line.is_empty()).map(str::to_string)
    }
}
