//! Runs checks when a probe asks for their outcome. Probes that arrive while a check runs share its
//! outcome. Without probes, no check runs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::future::or;

use super::exec::{FAILURE_KEPT, PASS_KEPT, Program};
use super::http::MAX_CONTENT;
use super::{Answer, Check, Kind, Memory, Query, within};
use crate::health::LastEvent;
use crate::notify::Notified;
use crate::runtime::{Condition, Timer, task};
use crate::signal::Mask;
use crate::worker::Ending;

/// Maximum number of responses to `http:` checks whose content livelet reads at the same time. Each
/// of these responses keeps a descriptor open.
const MAX_READ: usize = 64;

/// Outcome of the last run of a check, and the time at which the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observation {
    at: Instant,
    /// Outcome of the run: `Err` with the reason if the check failed.
    outcome: Result<(), String>,
}

/// Outcome of a check for a probe.
#[derive(Debug)]
pub(crate) struct Observed {
    /// `Err` with the reason if the check failed.
    pub(crate) outcome: Result<(), String>,
    /// Event from which the status page counts the outcome's age: the worker's last heartbeat, or
    /// livelet's first observation of this outcome.
    pub(crate) event: LastEvent,
}

#[derive(Debug)]
struct Slot {
    source: OutcomeSource,
    is_running: bool,
    last: Option<Observation>,
    /// Outcome of the check that livelet last gave to a probe: `true` for a pass, `false` for a
    /// failure. `None` before the first probe.
    held: Option<bool>,
    /// Time at which the outcome in `held` was first observed. The outcome has not changed since.
    since: Instant,
}

/// Source of a check's outcome.
#[derive(Debug)]
enum OutcomeSource {
    /// The worker's sd_notify messages, for a `notify` check.
    Notify,
    /// The worker's sd_notify messages, for a `watchdog:` check with this limit.
    Watchdog(Duration),
    /// Runs of the check.
    Runs(Work),
}

/// Work of one run of a check, and the state that the check keeps between its runs.
#[derive(Debug, Clone)]
enum Work {
    /// Runs a program, for an `exec:` check.
    Program {
        command: Rc<[String]>,
        program: Rc<Program>,
    },
    /// Makes a query, such as a connection.
    Query {
        query: Rc<Query>,
        memory: Rc<Memory>,
    },
}

/// Runner of the checks of all endpoints, which keeps the last outcome of each check. A check is
/// known by its index: its position in the `checks` that [`Observer::new`] received.
#[derive(Debug)]
pub(crate) struct Observer {
    executor: Rc<LocalExecutor<'static>>,
    timeout: Duration,
    /// Time at which the worker started. Before the start of a worker, time at which the observer
    /// was created.
    start: Cell<Instant>,
    notified: Rc<RefCell<Notified>>,
    slots: RefCell<Vec<Slot>>,
    /// Signal mask that the programs of `exec:` checks start with.
    mask: Cell<Mask>,
    /// Number of responses to `http:` checks whose content is being read now.
    reads: Cell<usize>,
    outcomes: Condition,
}

impl Observer {
    /// Creates a runner of `checks`, and runs none of them yet. `executor` runs the tasks of the
    /// checks. `timeout` is the time limit of each run of a check.
    pub(crate) fn new<'c>(
        executor: Rc<LocalExecutor<'static>>,
        timeout: Duration,
        checks: impl Iterator<Item = &'c Check>,
    ) -> Rc<Observer> {
        let slots = checks.map(|check| Slot {
            source: match &check.kind {
                Kind::Notify => OutcomeSource::Notify,
                Kind::Watchdog(limit) => OutcomeSource::Watchdog(*limit),
                Kind::Exec(command) => OutcomeSource::Runs(Work::Program {
                    command: Rc::from(command.as_slice()),
                    program: Rc::default(),
                }),
                Kind::Query(query) => OutcomeSource::Runs(Work::Query {
                    query: Rc::new(query.clone()),
                    memory: Rc::default(),
                }),
            },
            is_running: false,
            last: None,
            held: None,
            since: Instant::now(),
        });
        Rc::new(Observer {
            executor,
            timeout,
            start: Cell::new(Instant::now()),
            notified: Rc::default(),
            slots: RefCell::new(slots.collect()),
            mask: Cell::new(Mask::none()),
            reads: Cell::new(0),
            outcomes: Condition::default(),
        })
    }

    /// Returns the outcome of the check with this `index` for a probe that arrived at `since`.
    ///
    /// If the last outcome is too old for this probe, returns `None`, and starts the check unless
    /// it already runs. The caller then calls [`Observer::wait`], and calls this method again once
    /// it is woken.
    pub(crate) fn observe(self: &Rc<Observer>, index: usize, since: Instant) -> Option<Observed> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(index)?;
        let outcome = match &slot.source {
            OutcomeSource::Notify => self.notified.borrow().readiness(),
            OutcomeSource::Watchdog(limit) => {
                let notified = self.notified.borrow();
                notified.liveness(*limit, self.start.get(), Instant::now())
            }
            OutcomeSource::Runs(work) => {
                let Some(recent) = slot.recent(since) else {
                    if !std::mem::replace(&mut slot.is_running, true) {
                        let run = Rc::clone(self).run(index, work.clone());
                        task::spawn(&self.executor, run);
                    }
                    return None;
                };
                recent
            }
        };
        if slot.held != Some(outcome.is_ok()) {
            slot.held = Some(outcome.is_ok());
            slot.since = Instant::now();
        }
        let beat_age = match &slot.source {
            OutcomeSource::Watchdog(_) => self
                .notified
                .borrow()
                .last_beat()
                .map(|beat| beat.elapsed()),
            OutcomeSource::Runs(Work::Query { memory, .. }) => memory.beat_age.get(),
            OutcomeSource::Notify | OutcomeSource::Runs(Work::Program { .. }) => None,
        };
        let event = LastEvent {
            is_beat: beat_age.is_some(),
            age: beat_age.unwrap_or_else(|| slot.since.elapsed()),
        };
        Some(Observed { outcome, event })
    }

    /// Returns the state that the worker has announced in its sd_notify messages. The receiver of
    /// these messages updates this state, and `notify` and `watchdog:` checks read it.
    pub(crate) fn notified(&self) -> &Rc<RefCell<Notified>> {
        &self.notified
    }

    /// Records that the worker has started now. The age of a missing heartbeat counts from this
    /// time. `mask` is the signal mask with which the programs of later `exec:` checks start.
    pub(crate) fn begin(&self, mask: Mask) {
        self.start.set(Instant::now());
        self.mask.set(mask);
    }

    /// Records that the child process `pid` has ended, with the exit code or the signal in
    /// `ending`. Ignores a child process that does not run the program of an `exec:` check.
    pub(crate) fn ended(&self, pid: i32, ending: Ending) {
        for slot in self.slots.borrow().iter() {
            if let OutcomeSource::Runs(Work::Program { program, .. }) = &slot.source {
                program.ended(pid, ending);
            }
        }
    }

    /// Registers the task of `cx` to be woken when the next run of any check ends.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        self.outcomes.wait(cx);
    }

    async fn run(self: Rc<Observer>, index: usize, work: Work) {
        let began = Instant::now();
        let mut answer = None;
        let outcome = match &work {
            Work::Program { command, program } => {
                program.run(command, self.mask.get(), self.timeout).await
            }
            Work::Query { query, memory } => {
                let start = Some(self.start.get());
                let run = within(self.timeout, super::run(query, memory, start)).await;
                run.and_then(|run| {
                    answer = run.answer;
                    run.outcome
                })
            }
        };
        if let Some(slot) = self.slots.borrow_mut().get_mut(index) {
            slot.is_running = false;
            slot.last = Some(Observation {
                at: Instant::now(),
                outcome,
            });
        }
        self.outcomes.changed();
        if let Some(answer) = answer {
            self.read_content(answer, began).await;
        }
    }

    /// Reads the content of `answer`, the HTTP response to a check, so that closing the connection
    /// does not reset a worker that is still writing. The reading ends when the check's timeout has
    /// passed since `began`, the start of the check. Does nothing if [`MAX_READ`] responses are
    /// being read already. The check's outcome does not wait for the content, which may have no
    /// end.
    async fn read_content(&self, mut answer: Answer, began: Instant) {
        if self.reads.get() < MAX_READ {
            self.reads.set(self.reads.get() + 1);
            let left = self.timeout.saturating_sub(began.elapsed());
            or(answer.read(MAX_CONTENT), Timer::after(left)).await;
            self.reads.set(self.reads.get() - 1);
        }
    }
}

impl Slot {
    /// Returns the last outcome of the check if it is recent enough for a probe that arrived at
    /// `since`, and otherwise `None`. The run must have ended at `since` or later. The run of an
    /// `exec:` check may also have ended before `since`: by up to [`PASS_KEPT`] if it passed, or
    /// [`FAILURE_KEPT`] if it failed.
    fn recent(&self, since: Instant) -> Option<Result<(), String>> {
        let last = self.last.as_ref()?;
        let kept = match (&self.source, &last.outcome) {
            (OutcomeSource::Runs(Work::Program { .. }), Ok(())) => PASS_KEPT,
            (OutcomeSource::Runs(Work::Program { .. }), Err(_)) => FAILURE_KEPT,
            _ => Duration::ZERO,
        };
        (last.at + kept >= since).then(|| last.outcome.clone())
    }
}
