//! Runs checks when a probe asks. Probes that come while a check runs share its outcome. Without
//! probes no check runs.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::future::or;

use super::exec::{FAILURE_KEPT, PASS_KEPT, Program};
use super::http::MAX_CONTENT;
use super::{Answer, Check, Kind, Memory, Query, within};
use crate::health::Event;
use crate::notify::Notified;
use crate::runtime::{Condition, Timer, task};
use crate::signal::Mask;
use crate::worker::Ending;

/// Most answers that are read at once after their verdicts. Each keeps a descriptor open.
const MAX_READ: usize = 64;

/// The last outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observation {
    at: Instant,
    /// The reason if the check failed.
    outcome: Result<(), String>,
}

#[derive(Debug)]
struct Slot {
    source: Source,
    is_running: bool,
    last: Option<Observation>,
    /// Outcome that was observed last: `true` for a pass. `None` before the first one.
    held: Option<bool>,
    /// Time of the first observation of that outcome.
    since: Instant,
}

/// Source of a check's outcome.
#[derive(Debug, Clone)]
enum Source {
    Notify,
    Watchdog(Duration),
    Program(Rc<(Vec<String>, Program)>),
    Query(Rc<(Query, Memory)>),
}

/// The checks of all endpoints, by their index.
#[derive(Debug)]
pub(crate) struct Observer {
    executor: Rc<LocalExecutor<'static>>,
    timeout: Duration,
    /// Time of the worker's start.
    start: Cell<Instant>,
    notified: Rc<RefCell<Notified>>,
    slots: RefCell<Vec<Slot>>,
    /// Signal mask that programs get.
    mask: Cell<Mask>,
    /// Number of answers that are being read.
    reads: Cell<usize>,
    outcomes: Condition,
}

impl Observer {
    /// Returns an observer that has run no check.
    pub(crate) fn new<'c>(
        executor: Rc<LocalExecutor<'static>>,
        timeout: Duration,
        checks: impl Iterator<Item = &'c Check>,
    ) -> Rc<Observer> {
        let slots = checks.map(|check| Slot {
            source: match &check.kind {
                Kind::Notify => Source::Notify,
                Kind::Watchdog(limit) => Source::Watchdog(*limit),
                Kind::Exec(command) => {
                    Source::Program(Rc::new((command.clone(), Program::default())))
                }
                Kind::Query(query) => Source::Query(Rc::new((query.clone(), Memory::default()))),
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

    /// Returns the outcome of a check for a probe that came at `since`, and the event that tells
    /// how long it has lasted. Returns `None` if the check has yet to run, and starts it.
    pub(crate) fn observe(
        self: &Rc<Observer>,
        index: usize,
        since: Instant,
    ) -> Option<(Result<(), String>, Event)> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(index)?;
        let outcome = match &slot.source {
            Source::Notify => self.notified.borrow().readiness(),
            Source::Watchdog(limit) => {
                let notified = self.notified.borrow();
                notified.liveness(*limit, self.start.get(), Instant::now())
            }
            Source::Program(_) | Source::Query(_) => {
                let Some(recent) = slot.recent(since) else {
                    if !std::mem::replace(&mut slot.is_running, true) {
                        let run = Rc::clone(self).run(index, slot.source.clone());
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
            Source::Watchdog(_) => self
                .notified
                .borrow()
                .last_beat()
                .map(|beat| beat.elapsed()),
            Source::Query(query) => query.1.beat_age.get(),
            Source::Notify | Source::Program(_) => None,
        };
        let event = Event {
            is_beat: beat_age.is_some(),
            age: beat_age.unwrap_or_else(|| slot.since.elapsed()),
        };
        Some((outcome, event))
    }

    /// Returns the state that the worker's messages add up to.
    pub(crate) fn notified(&self) -> &Rc<RefCell<Notified>> {
        &self.notified
    }

    /// Records the worker's start: the age of a missing heartbeat counts from now. The programs of
    /// checks get this signal mask.
    pub(crate) fn begin(&self, mask: Mask) {
        self.start.set(Instant::now());
        self.mask.set(mask);
    }

    /// Records the end of a child, which may be the program of a check.
    pub(crate) fn ended(&self, pid: i32, ending: Ending) {
        for slot in self.slots.borrow().iter() {
            if let Source::Program(program) = &slot.source {
                program.1.ended(pid, ending);
            }
        }
    }

    /// Registers `cx` to be woken by the next outcome.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        self.outcomes.wait(cx);
    }

    async fn run(self: Rc<Observer>, index: usize, source: Source) {
        let began = Instant::now();
        let mut answer = None;
        let outcome = match &source {
            Source::Notify | Source::Watchdog(_) => return,
            Source::Program(program) => {
                let (command, program) = &**program;
                program.run(command, self.mask.get(), self.timeout).await
            }
            Source::Query(query) => {
                let start = Some(self.start.get());
                let run = within(self.timeout, super::run(&query.0, &query.1, start)).await;
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

    /// Reads the content of an answer, so that the worker is not reset while it writes. The verdict
    /// does not wait for that: a stream of events has no end.
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
    /// Returns the last outcome if it is recent enough for a probe that came at `since`. Returns
    /// `None` otherwise.
    fn recent(&self, since: Instant) -> Option<Result<(), String>> {
        let last = self.last.as_ref()?;
        let kept = match (&self.source, &last.outcome) {
            (Source::Program(_), Ok(())) => PASS_KEPT,
            (Source::Program(_), Err(_)) => FAILURE_KEPT,
            _ => Duration::ZERO,
        };
        (last.at + kept >= since).then(|| last.outcome.clone())
    }
}
