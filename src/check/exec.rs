//! Checks that run a program: the exit code is the verdict, the first line of output the reason.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::time::Duration;

use super::{text_of, within};
use crate::runtime::{Condition, Source};
use crate::signal::Mask;
use crate::worker::{self, CheckProgram, ChildProgress, Ending};

/// Time for which a pass counts, so that frequent probes do not run the program again and again.
pub(super) const PASS_KEPT: Duration = Duration::from_secs(10);
/// Time for which a failure counts: a worker that recovers is seen soon.
pub(super) const FAILURE_KEPT: Duration = Duration::from_secs(1);
/// Most bytes of output that are kept.
const MAX_OUTPUT: usize = 512;

/// The program of a check, which runs at most once at a time.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// Process id of the program until it ends. A program that can't be killed outlives its
    /// timeout.
    pid: Cell<Option<i32>>,
    ending: Cell<Option<Ending>>,
    has_ended: Condition,
}

impl Program {
    /// Records the end of a child, which may be this program.
    pub(super) fn ended(&self, pid: i32, ending: Ending) {
        if self.pid.get() == Some(pid) {
            self.pid.set(None);
            self.ending.set(Some(ending));
            self.has_ended.changed();
        }
    }

    /// Runs the program, and kills it with its descendants at the timeout.
    ///
    /// # Errors
    /// Returns an error if the program does not exit with 0 in time.
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

/// Output of a program. All of it is read, so that the program never waits because the pipe is
/// full.
struct Output {
    pipe: Source<std::os::fd::OwnedFd>,
    begin: RefCell<Vec<u8>>,
}

impl Output {
    /// Reads once, and keeps the beginning of the output. Returns `true` unless the output has
    /// ended.
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

    /// Reads the output without end, once for each report of epoll: a program that writes much
    /// can't hold livelet.
    async fn read(&self) {
        while self.pipe.readable().await.is_ok() && self.read_once() {}
        pending().await
    }

    /// Returns the first line that is not blank. Returns `None` if there is none.
    fn first_line(&self) -> Option<String> {
        self.read_once();
        let begin = self.begin.borrow();
        let text = String::from_utf8_lossy(&begin);
        let mut lines = text.lines().map(str::trim);
        lines.find(|line| !line.is_empty()).map(str::to_string)
    }
}
