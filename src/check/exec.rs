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

/// Time for which a pass is reused, so that frequent probes do not run the program again each time.
pub(super) const PASS_KEPT: Duration = Duration::from_secs(10);
/// Time for which a failure is reused. It is short, so that a worker that recovers passes soon.
pub(super) const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// Maximum number of bytes that are kept from the beginning of a program's output.
const MAX_OUTPUT: usize = 512;

/// The program of an `exec:` check, of which at most one process runs at a time.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Process id of the program. `None` if it does not run. A program that can't be killed keeps
    /// its id here after its timeout.
    pid: Cell<Option<i32>>,
    ending: Cell<Option<Ending>>,
    has_ended: Condition,
}

impl Program {
    /// Records that the child process `pid` has ended. Ignores a child that is not this program.
    pub(super) fn ended(&self, pid: i32, ending: Ending) {
        if self.pid.get() == Some(pid) {
            self.pid.set(None);
            self.ending.set(Some(ending));
            self.has_ended.changed();
        }
    }

    /// Runs the program until it ends, at most for `timeout`, with the signal mask `mask`. Then
    /// kills its process group, and after a timeout also its descendants in other sessions.
    ///
    /// # Errors
    /// Returns an error if the program does not exit with 0 in time, if it can't be started, or if
    /// its previous process has not ended.
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
        let output = Output {
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

/// Output of a program. livelet reads all of it, so that the program never blocks on a full pipe.
struct Output {
    pipe: Source<std::os::fd::OwnedFd>,
    begin: RefCell<Vec<u8>>,
}

impl Output {
    /// Reads the pipe once, and keeps the bytes if they belong to the first [`MAX_OUTPUT`]. Returns
    /// `false` at the end of the output.
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

    /// Reads the output, and never completes: the caller has to drop this future. It reads once for
    /// each report of epoll, so that a program that writes much can't keep livelet busy.
    async fn read(&self) {
        while self.pipe.readable().await.is_ok() && self.read_once() {}
        pending().await
    }

    /// Returns the first line of the output that is not blank. Returns `None` if every line is
    /// blank.
    fn first_line(&self) -> Option<String> {
        self.read_once();
        let begin = self.begin.borrow();
        let text = String::from_utf8_lossy(&begin);
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| !line.is_empty()).map(str::to_string)
    }
}
