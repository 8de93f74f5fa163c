//! Runs checks when somebody asks: whoever asks while one runs shares its outcome, and nothing runs while nobody asks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant, SystemTime};

use smol::LocalExecutor;
use smol::future::or;

use super::{Check, Kind, Look};
use crate::duration::Human;
use crate::notify::Notified;
use crate::runtime::{Condition, Timer, task};
use crate::signal::Mask;
use crate::worker::{self, Ending};

/// How long the outcome of a program counts.
const EXEC_KEPT: Duration = Duration::from_secs(10);

/// What a check has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observation {
    /// When it was through.
    at: Instant,
    /// The reason where it does not hold.
    pub(crate) outcome: Result<(), String>,
}

#[derive(Debug)]
struct Slot {
    kind: Kind,
    look: Arc<Look>,
    is_running: bool,
    last: Option<Observation>,
    /// Whether it held when it was last seen, and since when it has been seen so.
    held: Option<bool>,
    since: Instant,
}

/// The checks of all endpoints, by their index.
#[derive(Debug)]
pub(crate) struct Observer {
    executor: Rc<LocalExecutor<'static>>,
    timeout: Duration,
    /// When the worker was started, by both clocks.
    start: Cell<(SystemTime, Instant)>,
    notified: Rc<RefCell<Notified>>,
    slots: RefCell<Vec<Slot>>,
    /// Programs that run, and how they have ended.
    programs: RefCell<Vec<(i32, Option<Ending>)>>,
    /// The signal mask that programs get.
    mask: Cell<Mask>,
    outcomes: Condition,
}

impl Observer {
    /// Nothing has been looked at.
    pub(crate) fn new<'c>(
        executor: Rc<LocalExecutor<'static>>,
        timeout: Duration,
        checks: impl Iterator<Item = &'c Check>,
    ) -> Rc<Observer> {
        let slots = checks.map(|check| Slot {
            kind: check.kind.clone(),
            look: Arc::default(),
            is_running: false,
            last: None,
            held: None,
            since: Instant::now(),
        });
        Rc::new(Observer {
            executor,
            timeout,
            start: Cell::new(now()),
            notified: Rc::default(),
            slots: RefCell::new(slots.collect()),
            programs: RefCell::default(),
            mask: Cell::new(Mask::none()),
            outcomes: Condition::default(),
        })
    }

    /// What was observed for somebody who asked at `since`, and since when it has been so; `None` where that has yet to
    /// come, and then it is on its way.
    pub(crate) fn observe(
        self: &Rc<Observer>,
        index: usize,
        since: Instant,
    ) -> Option<(Result<(), String>, Instant)> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(index)?;
        let Some(outcome) = self.known(slot, since) else {
            if !slot.is_running {
                slot.is_running = true;
                let run = Rc::clone(self).run(index, slot.kind.clone(), Arc::clone(&slot.look));
                task::spawn(&self.executor, run);
            }
            return None;
        };
        if slot.held != Some(outcome.is_ok()) {
            slot.held = Some(outcome.is_ok());
            slot.since = Instant::now();
        }
        Some((outcome, slot.since))
    }

    fn known(&self, slot: &Slot, since: Instant) -> Option<Result<(), String>> {
        let notified = self.notified.borrow();
        let kept = match slot.kind {
            Kind::Notify => return Some(notified.readiness()),
            Kind::Watchdog(limit) => {
                let (_, start) = self.start.get();
                return Some(notified.liveness(limit, start, Instant::now()));
            }
            Kind::Exec(_) => EXEC_KEPT,
            _ => Duration::ZERO,
        };
        let last = slot.last.as_ref().filter(|last| last.at + kept >= since)?;
        Some(last.outcome.clone())
    }

    /// What the worker says of itself.
    pub(crate) fn notified(&self) -> &Rc<RefCell<Notified>> {
        &self.notified
    }

    /// The worker has been started: what was never seen counts from here. Programs of checks get this signal mask.
    pub(crate) fn begin(&self, mask: Mask) {
        self.start.set(now());
        self.mask.set(mask);
    }

    /// A child has ended, which may be the program of a check.
    pub(crate) fn ended(&self, pid: i32, ending: Ending) {
        let mut programs = self.programs.borrow_mut();
        if let Some(program) = programs.iter_mut().find(|(known, _)| *known == pid) {
            program.1 = Some(ending);
            self.outcomes.changed();
        }
    }

    /// Has the task of `cx` woken when a check is through.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        self.outcomes.wait(cx);
    }

    async fn run(self: Rc<Observer>, index: usize, kind: Kind, held: Arc<Look>) {
        let mut pid = None;
        let look = async {
            match &kind {
                Kind::Exec(command) => self.execute(command, &mut pid).await,
                kind => super::run(kind, self.start.get().0, &held).await,
            }
        };
        let late = async {
            Timer::after(self.timeout).await;
            Err(format!("no outcome within {}", Human(self.timeout)))
        };
        let outcome = or(look, late).await;
        if let Some(pid) = pid {
            // What it leaves behind goes with it, whether it has ended or not.
            worker::kill_check(pid);
            self.programs
                .borrow_mut()
                .retain(|(known, _)| *known != pid);
        }
        if let Some(slot) = self.slots.borrow_mut().get_mut(index) {
            slot.is_running = false;
            slot.last = Some(Observation {
                at: Instant::now(),
                outcome,
            });
        }
        self.outcomes.changed();
    }

    async fn execute(&self, command: &[String], pid: &mut Option<i32>) -> Result<(), String> {
        let name = command.first().map(String::as_str).unwrap_or_default();
        let started = worker::spawn_check(command, self.mask.get())
            .map_err(|cause| format!("{name}: {}", super::said(&cause)))?;
        *pid = Some(started);
        self.programs.borrow_mut().push((started, None));
        let ending = || {
            let programs = self.programs.borrow();
            programs
                .iter()
                .find(|(known, _)| *known == started)
                .and_then(|(_, ending)| *ending)
        };
        self.outcomes.until(|| ending().is_some()).await;
        match ending() {
            Some(Ending::Exited(0)) => Ok(()),
            Some(ending) => Err(format!("{name}: {ending}")),
            None => Err(format!("{name}: lost")),
        }
    }
}

fn now() -> (SystemTime, Instant) {
    (SystemTime::now(), Instant::now())
}
