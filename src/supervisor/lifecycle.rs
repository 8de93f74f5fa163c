//! The lifecycle of the livelet process, from its start to its exit, as a pure state machine.
//! Events and `now` come in, actions and the next deadline go out.
//!
//! ```text
//! Starting -> Ready -> LameDuck -> Stopping -> Leftovers -> Draining -> Parting -> Exited
//!                                     |            |           ^
//!                                     +-> Killing <+-----------+
//! ```
//!
//! If livelet runs without a worker (a responder), `Ready` or `LameDuck` is followed by `Draining`.
//! A state that has nothing to wait for is skipped.

use std::time::{Duration, Instant};

use libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR2};

use crate::exit_code::{self, FAILURE, UNHEALTHY};
pub use crate::signal::SignalSet;

/// Time from the stop signal for an unhealthy worker until livelet sends KILL, if `--grace` is not
/// given. A limit is needed because a worker that hangs may never stop.
const UNHEALTHY_GRACE: Duration = Duration::from_secs(5);
/// Time from the stop signal to KILL for the processes that a worker left behind when it ended by
/// itself.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(5);
/// Time after which livelet sends KILL to the worker and its descendants again. Once is not enough,
/// because the first round misses processes that are forked during it.
const KILL_AGAIN: Duration = Duration::from_millis(100);
/// Time for which livelet holds back a stop signal that the worker may have got already. The sender
/// is then a process of livelet's own container. It may be a file watcher, which signals every
/// process of a tree. After this time, /proc shows that the worker has got the signal if its
/// handler runs only once: the handler is gone. 20 ms were too short for Node in 1 of 10 stops on a
/// busy machine (`tests/system/stops tree-kill`).
const SETTLING: Duration = Duration::from_millis(100);
/// Maximum time for which livelet delays its exit for the children that the process had already
/// when it executed livelet. Such children may still read livelet's output.
const PARTING: Duration = Duration::from_secs(5);

/// Signals that stop a livelet without a worker (a responder). nodemon sends USR2.
pub(crate) const RESPONDER_STOPS: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR2];

/// Settings and facts that decide how a livelet process starts, stops and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// `true` if livelet has a worker. livelet ends when the worker has ended.
    pub has_worker: bool,
    /// `true` if livelet is PID 1. The exit of PID 1 ends every process of its pid namespace.
    pub is_init: bool,
    /// `true` if the process still has children from before it executed livelet. A shell script
    /// that ends with `exec livelet` can leave such children. They may read livelet's output.
    pub has_earlier_children: bool,
    /// Maximum length of the drain, the time before livelet's exit in which open connections
    /// finish.
    pub drain: Duration,
    /// Time from the stop signal for the worker until livelet sends KILL. `None` if livelet leaves
    /// KILL to the orchestrator.
    pub grace: Option<Duration>,
    /// Time from the arrival of a stop signal until livelet forwards the signal to the worker.
    /// Readiness fails in this time.
    pub lame_duck: Duration,
    /// Signals that begin a stop when livelet receives them.
    pub stop_signals: SignalSet,
    /// Signal that the worker gets if livelet itself begins the stop. 0 if the worker gets no
    /// signal in that case.
    pub stop_with: i32,
}

/// A signal that livelet received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Number of the signal that livelet received.
    pub signal: i32,
    /// Number of the signal that the worker gets. Equal to `signal` unless the option `--signal`
    /// rewrites it.
    pub forward: i32,
    /// `true` if the sender may have sent the same signal to the worker. livelet then waits for at
    /// least `SETTLING` before it forwards the signal.
    pub settles: bool,
}

/// Event that [`Lifecycle::step`] handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The worker has executed its program.
    WorkerStarted,
    /// The start is complete: livelet accepts connections on all its listening sockets, and its
    /// worker, if any, is running.
    Started,
    /// The start has failed, usually because livelet could not listen on an address.
    StartFailed,
    /// livelet received a signal.
    Signal(Received),
    /// A livelet started with `--takeover` has taken over a listening socket of this livelet, which
    /// must now stop.
    Replaced,
    /// Liveness has failed for longer than `--exit-on-unhealthy` allows.
    Unhealthy,
    /// The worker has ended.
    WorkerEnded {
        /// Exit code that livelet reports for the worker.
        code: u8,
        /// `true` if no descendant of the worker is still running.
        is_last: bool,
    },
    /// A child of livelet other than the worker has ended, such as a process that the worker left
    /// behind. Other such processes may still be running.
    LeftoverEnded,
    /// The worker had ended before, and now its last descendant has ended as well.
    NoneLeft,
    /// livelet has no child left. The children that the process had already when it executed
    /// livelet have ended as well.
    Childless,
    /// In a drain: the connections that were open when the drain began have finished.
    OlderFinished,
    /// In a drain: no other livelet is asking this livelet for its listening sockets.
    Alone,
    /// In a drain: listening has ended and the last connection is closed.
    Drained,
    /// The time that [`Lifecycle::deadline`] returned has come.
    Tick,
}

/// Action that the caller of [`Lifecycle::step`] must perform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send the worker this signal, which begins the worker's stop.
    Stop(i32),
    /// Send the worker this signal without beginning a stop.
    Forward(i32),
    /// Send this signal to each orphan that has had no stop signal yet. An orphan is a descendant
    /// of the worker that has outlived its own parent.
    StopLeftovers(i32),
    /// Send this signal to each orphan, a descendant of the worker that has outlived its own
    /// parent.
    ForwardToLeftovers(i32),
    /// Send KILL to the worker and its descendants.
    Kill,
    /// Begin the drain: let open connections finish, up to a time limit.
    Drain,
    /// Answer the connections that are queued at the listening sockets, then close these sockets.
    EndListening,
    /// Close the connections that are still open, although their requests have not finished.
    Cut,
    /// Close livelet's own standard output and error.
    CloseOutput,
    /// End the process with this exit code.
    Exit(u8),
}

/// Step of the drain, the time before livelet's exit in which open connections finish. Each step
/// begins when the step before it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draining {
    /// livelet waits until the connections that were open when the drain began have finished. It
    /// still accepts new connections, and closes each after its answer.
    Older,
    /// livelet waits until no other livelet is asking for its listening sockets. Until then such a
    /// livelet may take them over.
    Successors,
    /// livelet ends listening, and waits until the connections that were queued at its listening
    /// sockets have got their answers.
    Queue,
}

/// Facts about the end of the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WorkerEnd {
    /// Exit code that livelet reports.
    code: u8,
    /// `true` if a stop had begun before the worker ended. Also set if TERM, INT or a signal of
    /// `--stop-signal` arrives later, in the drain.
    after_stop: bool,
}

/// State of the livelet process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The start of livelet is not complete. `worker_runs` is `true` once the worker has executed
    /// its program.
    Starting { worker_runs: bool },
    /// The start of livelet is complete, and no stop has begun.
    Ready,
    /// A stop has begun and readiness fails, but the worker has not been told yet. At `until`
    /// livelet sends the worker the signal `forward`.
    LameDuck {
        until: Instant,
        forward: i32,
        /// Time before which processes that the worker left behind get no stop signal (see
        /// [`SETTLING`]).
        settled_at: Instant,
    },
    /// The stop of the worker has begun, and the worker has not ended yet.
    Stopping(Asked),
    /// The worker has ended, and some of its descendants are still running.
    Leftovers(WorkerEnd, Asked),
    /// livelet has sent KILL to the worker and its descendants, and sends KILL again at `again_at`.
    /// `ended` is `None` while the worker is still running.
    Killing {
        ended: Option<WorkerEnd>,
        again_at: Instant,
    },
    /// livelet lets open connections finish, at most until `cut_at`. TERM, INT or a signal of
    /// `--stop-signal` ends the drain early, unless it is the one that begins the stop.
    Draining {
        ended: WorkerEnd,
        step: Draining,
        cut_at: Instant,
    },
    /// livelet is about to exit with `code`. Before it exits, it waits for the children that the
    /// process had already when it executed livelet. The wait ends at `until` at the latest.
    Parting { code: u8, until: Instant },
    /// livelet exits; its exit code has been returned in [`Action::Exit`].
    Exited,
}

/// Signal and times for the stop of the worker and of the processes that the worker leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    signal: i32,
    /// Time at which processes that the worker left behind get the signal. `None` if they get it at
    /// once or have had it.
    ask_at: Option<Instant>,
    /// Time at which livelet sends KILL. `None` if livelet leaves KILL to the orchestrator.
    kill_at: Option<Instant>,
}

impl Asked {
    fn deadline(self) -> Option<Instant> {
        self.ask_at.into_iter().chain(self.kill_at).min()
    }

    fn is_over(self, now: Instant) -> bool {
        self.kill_at.is_some_and(|at| now >= at)
    }
}

/// Event, time and resulting actions of one call of [`Lifecycle::step`].
struct Transition {
    event: Event,
    now: Instant,
    actions: Vec<Action>,
}

/// State machine for the lifecycle of the livelet process.
#[derive(Debug)]
pub struct Lifecycle {
    plan: Plan,
    state: State,
    /// Exit code that livelet reports instead of the worker's if the start of livelet or liveness
    /// has failed. `None` if neither has failed.
    reported: Option<u8>,
}

impl Lifecycle {
    /// Returns the state machine of a livelet that has just started.
    #[must_use]
    pub fn new(plan: Plan) -> Lifecycle {
        Lifecycle {
            plan,
            state: State::Starting { worker_runs: false },
            reported: None,
        }
    }

    /// Handles `event`, which happened at `now`. Returns the actions that the caller must perform,
    /// in this order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        if event == Event::Childless {
            self.plan.has_earlier_children = false;
        }
        let mut step = Transition {
            event,
            now,
            actions: Vec::new(),
        };
        self.state = match self.state {
            State::Starting { worker_runs } => self.starting(worker_runs, &mut step),
            State::Ready => self.ready(&mut step),
            State::LameDuck {
                until,
                forward,
                settled_at,
            } => self.lame_duck(until, forward, settled_at, &mut step),
            State::Stopping(asked) => self.stopping(asked, &mut step),
            State::Leftovers(ended, asked) => self.leftovers(ended, asked, &mut step),
            State::Killing { ended, again_at } => self.killing(ended, again_at, &mut step),
            State::Draining {
                ended,
                step: draining,
                cut_at,
            } => self.drain_on(ended, draining, cut_at, &mut step),
            State::Parting { code, until } => self.parting(code, until, &mut step),
            State::Exited => State::Exited,
        };
        step.actions
    }

    /// Returns the time at which the caller must pass [`Event::Tick`] to [`Lifecycle::step`].
    /// Returns `None` if the present state has no deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::LameDuck { until, .. } | State::Parting { until, .. } => Some(until),
            State::Stopping(asked) | State::Leftovers(_, asked) => asked.deadline(),
            State::Killing { again_at, .. } => Some(again_at),
            State::Draining { cut_at, .. } => Some(cut_at),
            State::Starting { .. } | State::Ready | State::Exited => None,
        }
    }

    /// Returns `true` once a stop has begun or the worker has ended.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        !matches!(self.state, State::Starting { .. } | State::Ready)
    }

    /// Returns `true` if the worker has ended although no stop had begun. Returns `false` again
    /// once TERM, INT or a signal of `--stop-signal` arrives in the drain, and when the drain is
    /// over.
    #[must_use]
    pub fn worker_has_failed(&self) -> bool {
        match self.state {
            State::Leftovers(ended, _)
            | State::Draining { ended, .. }
            | State::Killing {
                ended: Some(ended), ..
            } => !ended.after_stop,
            _ => false,
        }
    }

    /// Returns the present step of the drain. Returns `None` unless the process is draining.
    #[must_use]
    pub fn draining(&self) -> Option<Draining> {
        match self.state {
            State::Draining { step, .. } => Some(step),
            _ => None,
        }
    }

    fn starting(&mut self, worker_runs: bool, step: &mut Transition) -> State {
        match step.event {
            Event::WorkerStarted => State::Starting { worker_runs: true },
            Event::Started => State::Ready,
            Event::StartFailed => {
                self.reported = Some(FAILURE);
                if worker_runs {
                    return self.stop(self.plan.stop_with, step);
                }
                step.exit(FAILURE)
            }
            // The worker was started to accept another livelet's offer, and the offer was
            // withdrawn.
            Event::Signal(received) if worker_runs => {
                if self.begins_stop(received) {
                    return self.stop(received.forward, step);
                }
                step.act(Action::Forward(received.forward));
                self.state
            }
            Event::Signal(received)
                if self.begins_stop(received) || RESPONDER_STOPS.contains(&received.signal) =>
            {
                self.give_up(received.forward, step)
            }
            // livelet serves already, but a mount that hangs delays the worker's program.
            Event::Replaced => self.give_up(self.plan.stop_with, step),
            Event::WorkerEnded { code, is_last } => self.ended(code, is_last, None, step),
            _ => self.state,
        }
    }

    /// Ends a livelet that is told to stop before its worker runs, or before it serves if it has no
    /// worker. Adds to `step` the action that exits, and returns the final state. The exit code is
    /// that of a program killed by `signal`. Without a worker, it is 0.
    fn give_up(&self, signal: i32, step: &mut Transition) -> State {
        let code = exit_code::ended_by(signal);
        step.exit(if self.plan.has_worker { code } else { 0 })
    }

    fn ready(&mut self, step: &mut Transition) -> State {
        let mut settles = false;
        let forward = match step.event {
            Event::Signal(received) if self.begins_stop(received) => {
                settles = received.settles && self.plan.has_worker;
                received.forward
            }
            Event::Signal(received) => {
                if self.plan.has_worker {
                    step.act(Action::Forward(received.forward));
                }
                return self.state;
            }
            Event::Replaced => self.plan.stop_with,
            Event::Unhealthy => {
                self.reported = Some(UNHEALTHY);
                self.plan.grace.get_or_insert(UNHEALTHY_GRACE);
                return self.stop(self.plan.stop_with, step);
            }
            Event::WorkerEnded { code, is_last } => return self.ended(code, is_last, None, step),
            _ => return self.state,
        };
        let settling = if settles { SETTLING } else { Duration::ZERO };
        let wait = self.plan.lame_duck.max(settling);
        if wait.is_zero() {
            return self.stop(forward, step);
        }
        State::LameDuck {
            until: step.now + wait,
            forward,
            settled_at: step.now + settling,
        }
    }

    fn lame_duck(
        &mut self,
        until: Instant,
        forward: i32,
        settled_at: Instant,
        step: &mut Transition,
    ) -> State {
        match step.event {
            Event::WorkerEnded { code, is_last } => {
                let asked = Asked {
                    ask_at: Some(settled_at),
                    ..self.asked(forward, step.now)
                };
                self.ended(code, is_last, Some(asked), step)
            }
            Event::Signal(received) if self.is_urgent(step.event) => {
                self.stop(received.forward, step)
            }
            Event::Signal(received) if self.plan.has_worker => {
                step.act(Action::Forward(received.forward));
                self.state
            }
            _ if step.now >= until => self.stop(forward, step),
            _ => self.state,
        }
    }

    fn stopping(&mut self, asked: Asked, step: &mut Transition) -> State {
        match step.event {
            Event::WorkerEnded { code, is_last } => {
                return self.ended(code, is_last, Some(asked), step);
            }
            Event::Signal(received) => step.act(Action::Forward(received.forward)),
            _ => {}
        }
        if asked.is_over(step.now) {
            return step.kill(None);
        }
        self.state
    }

    fn leftovers(&mut self, ended: WorkerEnd, mut asked: Asked, step: &mut Transition) -> State {
        match step.event {
            Event::NoneLeft | Event::Childless => return self.drain(ended, step),
            _ if asked.is_over(step.now) => return step.kill(Some(ended)),
            _ if asked.ask_at.is_some_and(|at| step.now >= at) => {
                asked.ask_at = None;
                step.act(Action::StopLeftovers(asked.signal));
            }
            Event::LeftoverEnded if asked.ask_at.is_none() => {
                step.act(Action::StopLeftovers(asked.signal));
            }
            // The leftovers of a worker that ended by itself have had a stop signal already.
            Event::Signal(received) if ended.after_stop => {
                step.act(Action::ForwardToLeftovers(received.forward));
            }
            _ => {}
        }
        State::Leftovers(ended, asked)
    }

    fn killing(
        &mut self,
        ended: Option<WorkerEnd>,
        again_at: Instant,
        step: &mut Transition,
    ) -> State {
        match (step.event, ended) {
            (Event::WorkerEnded { code, is_last }, _) => {
                let ended = WorkerEnd {
                    code: self.reported.unwrap_or(code),
                    after_stop: true,
                };
                if is_last {
                    return self.drain(ended, step);
                }
                step.kill(Some(ended))
            }
            (Event::NoneLeft | Event::Childless, Some(ended)) => self.drain(ended, step),
            _ if step.now < again_at => self.state,
            // The exit of PID 1 ends the processes that KILL could not end.
            _ if self.plan.is_init => {
                let killed = self.reported.unwrap_or(exit_code::ended_by(SIGKILL));
                let ended = ended.unwrap_or(WorkerEnd {
                    code: killed,
                    after_stop: true,
                });
                step.act(Action::Kill);
                self.drain(ended, step)
            }
            _ => step.kill(ended),
        }
    }

    fn drain_on(
        &mut self,
        ended: WorkerEnd,
        draining: Draining,
        cut_at: Instant,
        step: &mut Transition,
    ) -> State {
        let is_over = draining == Draining::Queue && step.event == Event::Drained;
        let is_urgent = self.is_urgent(step.event);
        if is_over {
            return self.part(ended.code, step);
        }
        if is_urgent && ended.after_stop || step.now >= cut_at {
            step.act(Action::Cut);
            return self.part(ended.code, step);
        }
        let draining = match (draining, step.event) {
            (Draining::Older, Event::OlderFinished) => Draining::Successors,
            (Draining::Successors, Event::Alone) => {
                step.act(Action::EndListening);
                Draining::Queue
            }
            (draining, _) => draining,
        };
        State::Draining {
            ended: WorkerEnd {
                after_stop: ended.after_stop || is_urgent,
                ..ended
            },
            step: draining,
            cut_at,
        }
    }

    fn parting(&mut self, code: u8, until: Instant, step: &mut Transition) -> State {
        if step.event == Event::Childless || step.now >= until || self.is_urgent(step.event) {
            return step.exit(code);
        }
        self.state
    }

    /// Returns `true` if the signal `received` begins a stop.
    fn begins_stop(&self, received: Received) -> bool {
        let stops = self.plan.stop_signals;
        stops.contains(received.signal)
            || stops.contains(received.forward)
            || !self.plan.has_worker && RESPONDER_STOPS.contains(&received.signal)
    }

    /// Returns `true` if `event` is a signal that ends the drain or another wait early. Such
    /// signals are TERM, INT and those of `--stop-signal`. USR2 stops a livelet without a worker,
    /// but is not one of them by default: nodemon sends USR2 twice for one stop.
    fn is_urgent(&self, event: Event) -> bool {
        let Event::Signal(Received {
            signal, forward, ..
        }) = event
        else {
            return false;
        };
        let stops = self.plan.stop_signals;
        stops.contains(signal) || stops.contains(forward) || [SIGTERM, SIGINT].contains(&signal)
    }

    /// Begins a stop: returns the next state, and adds to `step` the action that sends `signal` to
    /// the worker, unless `signal` is 0. If livelet has no worker, begins the drain instead.
    fn stop(&mut self, signal: i32, step: &mut Transition) -> State {
        if !self.plan.has_worker {
            let ended = WorkerEnd {
                code: self.reported.unwrap_or(0),
                after_stop: true,
            };
            return self.drain(ended, step);
        }
        if signal != 0 {
            step.act(Action::Stop(signal));
        }
        State::Stopping(self.asked(signal, step.now))
    }

    fn asked(&self, signal: i32, now: Instant) -> Asked {
        Asked {
            signal,
            ask_at: None,
            kill_at: self.plan.grace.map(|grace| now + grace),
        }
    }

    /// Returns the state after the end of the worker, and adds to `step` the actions that follow.
    /// `code` is the exit code to report for the worker. `is_last` is `true` if the worker left no
    /// descendant behind. `asked` describes the stop, and is `None` if the worker ended by itself.
    fn ended(
        &mut self,
        code: u8,
        is_last: bool,
        asked: Option<Asked>,
        step: &mut Transition,
    ) -> State {
        let ended = WorkerEnd {
            code: self.reported.unwrap_or(code),
            after_stop: asked.is_some(),
        };
        if is_last {
            return self.drain(ended, step);
        }
        let mut asked = asked.unwrap_or(Asked {
            signal: SIGTERM,
            ask_at: None,
            kill_at: Some(step.now + LEFTOVERS_GRACE),
        });
        if asked.signal == 0 {
            asked.signal = SIGTERM;
        }
        if asked.ask_at.is_none_or(|at| step.now >= at) {
            asked.ask_at = None;
            step.act(Action::StopLeftovers(asked.signal));
        }
        State::Leftovers(ended, asked)
    }

    /// Returns the first state of the drain, and adds to `step` the action that begins the drain.
    /// `ended` is the end of the worker.
    fn drain(&self, ended: WorkerEnd, step: &mut Transition) -> State {
        step.act(Action::Drain);
        State::Draining {
            ended,
            step: Draining::Older,
            cut_at: step.now + self.plan.drain,
        }
    }

    /// Returns the state in which livelet exits with `code`, and adds to `step` the action that
    /// ends livelet. If the process has children from before it executed livelet, the action closes
    /// livelet's output instead, and the children get time to read the output.
    fn part(&self, code: u8, step: &mut Transition) -> State {
        if !self.plan.has_earlier_children {
            return step.exit(code);
        }
        step.act(Action::CloseOutput);
        State::Parting {
            code,
            until: step.now + PARTING,
        }
    }
}

impl Transition {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Adds [`Action::Kill`] to the actions of this step. Returns the state in which livelet waits
    /// and then sends KILL again. `ended` describes the end of the worker, and is `None` while the
    /// worker is still running.
    fn kill(&mut self, ended: Option<WorkerEnd>) -> State {
        self.act(Action::Kill);
        State::Killing {
            ended,
            again_at: self.now + KILL_AGAIN,
        }
    }

    fn exit(&mut self, code: u8) -> State {
        self.act(Action::Exit(code));
        State::Exited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Action::{
        CloseOutput, Cut, Drain, EndListening, Exit, Forward, ForwardToLeftovers, Kill, Stop,
        StopLeftovers,
    };
    use Event::{
        Alone, Childless, Drained, LeftoverEnded, NoneLeft, OlderFinished, Replaced, StartFailed,
        Started, Tick, Unhealthy, WorkerEnded, WorkerStarted,
    };

    const TERM: i32 = SIGTERM;
    const USR1: i32 = libc::SIGUSR1;
    const KILL_CODE: u8 = 137;
    /// One hour in milliseconds, which is longer than any grace in these tests.
    const HOUR: u64 = 3_600_000;

    fn companion() -> Plan {
        Plan {
            has_worker: true,
            is_init: false,
            has_earlier_children: false,
            drain: Duration::from_secs(5),
            grace: None,
            lame_duck: Duration::ZERO,
            stop_signals: [SIGTERM, SIGINT].into_iter().collect(),
            stop_with: SIGTERM,
        }
    }

    fn responder() -> Plan {
        Plan {
            has_worker: false,
            ..companion()
        }
    }

    fn with_grace() -> Plan {
        Plan {
            grace: Some(Duration::from_secs(2)),
            ..companion()
        }
    }

    fn got(signal: i32) -> Event {
        Event::Signal(Received {
            signal,
            forward: signal,
            settles: false,
        })
    }

    fn worker_ended(code: u8) -> Event {
        WorkerEnded {
            code,
            is_last: true,
        }
    }

    fn worker_left_others(code: u8) -> Event {
        WorkerEnded {
            code,
            is_last: false,
        }
    }

    /// Events, each with the time in milliseconds at which it comes.
    type Events<'a> = &'a [(u64, Event)];
    type Actions<'a> = &'a [(u64, Action)];

    fn run_from(mut lifecycle: Lifecycle, events: Events<'_>) -> Vec<(u64, Action)> {
        let start = Instant::now();
        let mut actions = Vec::new();
        for &(at, event) in events {
            let done = lifecycle.step(event, start + Duration::from_millis(at));
            actions.extend(done.into_iter().map(|action| (at, action)));
        }
        actions
    }

    /// Returns the actions that follow when `events` come to a livelet that already serves and has
    /// the settings `plan`. Each action has the time in milliseconds of its event.
    fn run(plan: Plan, events: Events<'_>) -> Vec<(u64, Action)> {
        let mut lifecycle = Lifecycle::new(plan);
        if plan.has_worker {
            lifecycle.step(WorkerStarted, Instant::now());
        }
        assert_eq!(lifecycle.step(Started, Instant::now()), []);
        run_from(lifecycle, events)
    }

    fn assert_all(table: &[(Plan, Events<'_>, Actions<'_>)]) {
        for (plan, events, expected) in table {
            assert_eq!(run(*plan, events), *expected, "{events:?}");
        }
    }

    #[test]
    fn a_responder_drains_on_its_signals() {
        assert_all(&[
            (
                responder(),
                &[
                    (0, got(TERM)),
                    (1, OlderFinished),
                    (2, Alone),
                    (3, Drained),
                    (4, got(TERM)),
                ],
                &[(0, Drain), (2, EndListening), (3, Exit(0))],
            ),
            (responder(), &[(0, got(SIGHUP))], &[(0, Drain)]),
            (responder(), &[(0, got(USR1))], &[]),
            // nodemon sends USR2 twice.
            (
                responder(),
                &[(0, got(SIGUSR2)), (1, got(SIGUSR2)), (2, got(TERM))],
                &[(0, Drain), (2, Cut), (2, Exit(0))],
            ),
            (
                responder(),
                &[(0, got(TERM)), (4999, Tick), (5000, Tick)],
                &[(0, Drain), (5000, Cut), (5000, Exit(0))],
            ),
            (
                Plan {
                    lame_duck: Duration::from_secs(1),
                    ..responder()
                },
                &[(0, got(TERM)), (999, Tick), (1000, Tick)],
                &[(1000, Drain)],
            ),
        ]);
    }

    #[test]
    fn a_drain_takes_its_steps_in_their_order() {
        // An event out of order changes nothing.
        for early in [Alone, Drained] {
            let events = [(0, got(TERM)), (1, early), (2, OlderFinished)];
            assert_eq!(run(responder(), &events), [(0, Drain)], "{early:?}");
        }
        let events = [
            (0, got(TERM)),
            (1, OlderFinished),
            (2, OlderFinished),
            (3, Drained),
            (4, Alone),
            (5, Alone),
        ];
        assert_eq!(run(responder(), &events), [(0, Drain), (4, EndListening)]);
    }

    #[test]
    fn a_companion_stops_when_its_worker_has() {
        let lame_duck = Plan {
            lame_duck: Duration::from_secs(1),
            ..with_grace()
        };
        assert_all(&[
            // No signal but TERM and INT stops anything by itself.
            (
                companion(),
                &[(0, got(SIGHUP)), (1, got(28)), (2, got(TERM)), (3, got(2))],
                &[
                    (0, Forward(1)),
                    (1, Forward(28)),
                    (2, Stop(TERM)),
                    (3, Forward(2)),
                ],
            ),
            // Without a grace the worker is left alone.
            (
                companion(),
                &[
                    (0, got(TERM)),
                    (HOUR, Tick),
                    (HOUR, worker_ended(3)),
                    (HOUR, OlderFinished),
                    (HOUR, Alone),
                    (HOUR, Drained),
                ],
                &[
                    (0, Stop(TERM)),
                    (HOUR, Drain),
                    (HOUR, EndListening),
                    (HOUR, Exit(3)),
                ],
            ),
            // The worker ends by itself: the first TERM is not the second.
            (
                companion(),
                &[(0, worker_ended(0)), (1, got(TERM)), (2, got(TERM))],
                &[(0, Drain), (2, Cut), (2, Exit(0))],
            ),
            (
                companion(),
                &[(0, got(TERM)), (1, worker_ended(0)), (2, got(TERM))],
                &[(0, Stop(TERM)), (1, Drain), (2, Cut), (2, Exit(0))],
            ),
            // Lame duck: the stop signal waits, others do not, a second one is for now.
            (
                lame_duck,
                &[(0, got(TERM)), (500, got(USR1)), (1000, Tick), (3000, Tick)],
                &[(500, Forward(USR1)), (1000, Stop(TERM)), (3000, Kill)],
            ),
            (
                lame_duck,
                &[(0, got(TERM)), (500, got(2)), (1000, Tick), (2500, Tick)],
                &[(500, Stop(2)), (2500, Kill)],
            ),
            (
                lame_duck,
                &[(0, got(TERM)), (500, worker_ended(0))],
                &[(500, Drain)],
            ),
            (
                lame_duck,
                &[(0, got(2)), (500, worker_left_others(0)), (2500, Tick)],
                &[(500, StopLeftovers(2)), (2500, Kill)],
            ),
        ]);
    }

    #[test]
    fn leftovers_of_a_stop_are_waited_for_like_the_worker() {
        assert_all(&[
            (
                companion(),
                &[
                    (0, got(TERM)),
                    (1, worker_left_others(143)),
                    (2, LeftoverEnded),
                    (3, got(USR1)),
                    (4, got(TERM)),
                    (HOUR, Tick),
                    (HOUR, NoneLeft),
                ],
                &[
                    (0, Stop(TERM)),
                    (1, StopLeftovers(TERM)),
                    (2, StopLeftovers(TERM)),
                    (3, ForwardToLeftovers(USR1)),
                    (4, ForwardToLeftovers(TERM)),
                    (HOUR, Drain),
                ],
            ),
            // The grace counts from the stop.
            (
                with_grace(),
                &[
                    (0, got(TERM)),
                    (1500, worker_left_others(1)),
                    (1999, Tick),
                    (2000, Tick),
                    (2001, NoneLeft),
                ],
                &[
                    (0, Stop(TERM)),
                    (1500, StopLeftovers(TERM)),
                    (2000, Kill),
                    (2001, Drain),
                ],
            ),
        ]);
    }

    #[test]
    fn leftovers_of_a_worker_that_ended_by_itself_have_five_seconds() {
        for plan in [companion(), with_grace()] {
            let events = [
                (0, worker_left_others(7)),
                (1, got(TERM)),
                (4999, Tick),
                (5000, Tick),
                (5001, NoneLeft),
                (5002, OlderFinished),
                (5003, Alone),
                (5004, Drained),
            ];
            let expected = [
                (0, StopLeftovers(TERM)),
                (5000, Kill),
                (5001, Drain),
                (5003, EndListening),
                (5004, Exit(7)),
            ];
            assert_eq!(run(plan, &events), expected);
        }
    }

    #[test]
    fn a_signal_that_the_worker_may_have_had_is_forwarded_a_moment_later() {
        let settles = Event::Signal(Received {
            signal: TERM,
            forward: TERM,
            settles: true,
        });
        let lame_duck = Plan {
            lame_duck: Duration::from_secs(1),
            ..companion()
        };
        assert_all(&[
            (
                companion(),
                &[(0, settles), (99, Tick), (100, Tick)],
                &[(100, Stop(TERM))],
            ),
            (
                lame_duck,
                &[(0, settles), (100, Tick), (1000, Tick)],
                &[(1000, Stop(TERM))],
            ),
            (
                companion(),
                &[
                    (0, settles),
                    (1, worker_left_others(143)),
                    (2, LeftoverEnded),
                    (100, Tick),
                    (101, LeftoverEnded),
                ],
                &[(100, StopLeftovers(TERM)), (101, StopLeftovers(TERM))],
            ),
            (responder(), &[(0, settles)], &[(0, Drain)]),
        ]);
    }

    #[test]
    fn kill_is_repeated_until_none_is_left() {
        let events = [
            (0, got(TERM)),
            (2000, Tick),
            (2050, Tick),
            (2100, Tick),
            (2110, worker_left_others(KILL_CODE)),
            (2120, LeftoverEnded),
            (2210, Tick),
            (2211, NoneLeft),
        ];
        let expected = [
            (0, Stop(TERM)),
            (2000, Kill),
            (2100, Kill),
            (2110, Kill),
            (2210, Kill),
            (2211, Drain),
        ];
        assert_eq!(run(with_grace(), &events), expected);
    }

    #[test]
    fn pid_1_exits_when_the_grace_is_over() {
        let plan = Plan {
            is_init: true,
            ..with_grace()
        };
        let events = [
            (0, got(TERM)),
            (2000, Tick),
            (2100, Tick),
            (2101, OlderFinished),
            (2102, Alone),
            (2103, Drained),
        ];
        let expected = [
            (0, Stop(TERM)),
            (2000, Kill),
            (2100, Kill),
            (2100, Drain),
            (2102, EndListening),
            (2103, Exit(KILL_CODE)),
        ];
        assert_eq!(run(plan, &events), expected);
    }

    #[test]
    fn a_stop_signal_of_the_image_begins_the_stop() {
        let plan = Plan {
            stop_signals: [SIGQUIT].into_iter().collect(),
            stop_with: SIGQUIT,
            ..companion()
        };
        assert_all(&[
            (
                plan,
                &[(0, got(TERM)), (1, got(SIGQUIT))],
                &[(0, Forward(TERM)), (1, Stop(SIGQUIT))],
            ),
            (plan, &[(0, Replaced)], &[(0, Stop(SIGQUIT))]),
            (plan, &[(0, Unhealthy)], &[(0, Stop(SIGQUIT))]),
        ]);
        // Such a signal begins a stop when it arrives, and also when it is the one to forward.
        let rewritten = Event::Signal(Received {
            signal: SIGUSR2,
            forward: TERM,
            settles: false,
        });
        let events = [(0, rewritten), (1, rewritten)];
        let expected = [(0, Stop(TERM)), (1, Forward(TERM))];
        assert_eq!(run(companion(), &events), expected);
    }

    #[test]
    fn an_unhealthy_worker_is_stopped_and_reported() {
        let lame_duck = Plan {
            lame_duck: Duration::from_secs(9),
            ..companion()
        };
        for plan in [companion(), lame_duck] {
            let events = [
                (0, Unhealthy),
                (4999, Tick),
                (5000, Tick),
                (5001, worker_ended(KILL_CODE)),
                (5002, OlderFinished),
                (5003, Alone),
                (5004, Drained),
            ];
            let expected = [
                (0, Stop(TERM)),
                (5000, Kill),
                (5001, Drain),
                (5003, EndListening),
                (5004, Exit(75)),
            ];
            assert_eq!(run(plan, &events), expected);
        }
        let events = [(0, Unhealthy), (9000, Tick)];
        let expected = [(0, Drain), (9000, Cut), (9000, Exit(75))];
        assert_eq!(run(responder(), &events), expected);
        // A worker that was asked to stop before that has its own code, and no grace that was not
        // given.
        let events = [
            (0, got(TERM)),
            (1, Unhealthy),
            (9000, worker_ended(0)),
            (9001, got(TERM)),
        ];
        let expected = [(0, Stop(TERM)), (9000, Drain), (9001, Cut), (9001, Exit(0))];
        assert_eq!(run(companion(), &events), expected);
    }

    #[test]
    fn a_takeover_stops_like_a_signal() {
        let lame_duck = Plan {
            lame_duck: Duration::from_secs(1),
            ..companion()
        };
        let dropped = Plan {
            stop_with: 0,
            ..with_grace()
        };
        assert_all(&[
            (companion(), &[(0, Replaced)], &[(0, Stop(TERM))]),
            (
                lame_duck,
                &[(0, Replaced), (1000, Tick)],
                &[(1000, Stop(TERM))],
            ),
            (responder(), &[(0, Replaced)], &[(0, Drain)]),
            (dropped, &[(0, Replaced), (2000, Tick)], &[(2000, Kill)]),
        ]);
    }

    #[test]
    fn output_is_closed_and_read_before_the_exit() {
        let plan = Plan {
            has_earlier_children: true,
            ..companion()
        };
        let drained = [
            (0, worker_ended(1)),
            (1, OlderFinished),
            (2, Alone),
            (3, Drained),
        ];
        for (last, at) in [
            ((4, Childless), 4),
            ((5003, Tick), 5003),
            ((4, got(TERM)), 4),
        ] {
            let mut events = drained.to_vec();
            events.extend([(3, Tick), last]);
            let expected = [
                (0, Drain),
                (2, EndListening),
                (3, CloseOutput),
                (at, Exit(1)),
            ];
            assert_eq!(run(plan, &events), expected);
        }
        // The readers had ended before.
        let events = [(0, Childless), (1, worker_ended(1)), (9000, Tick)];
        assert_eq!(
            run(plan, &events),
            [(1, Drain), (9000, Cut), (9000, Exit(1))]
        );
    }

    #[test]
    fn a_signal_ends_the_start() {
        for (plan, signal, code) in [
            (responder(), TERM, 0),
            (responder(), SIGUSR2, 0),
            (companion(), TERM, 143),
            (companion(), SIGUSR2, 140),
        ] {
            let actions = run_from(Lifecycle::new(plan), &[(0, got(signal))]);
            assert_eq!(actions, [(0, Exit(code))], "{signal}");
        }
        let actions = run_from(Lifecycle::new(companion()), &[(0, Replaced)]);
        assert_eq!(actions, [(0, Exit(143))]);
    }

    #[test]
    fn a_worker_that_runs_during_the_start_is_stopped_like_any_other() {
        let start = |events: Events<'_>| run_from(Lifecycle::new(with_grace()), events);
        let events = [(0, WorkerStarted), (1, got(USR1)), (2, got(TERM))];
        assert_eq!(start(&events), [(1, Forward(USR1)), (2, Stop(TERM))]);
        let events = [
            (0, WorkerStarted),
            (1, StartFailed),
            (2001, Tick),
            (2002, worker_ended(KILL_CODE)),
            (9000, Tick),
        ];
        let expected = [
            (1, Stop(TERM)),
            (2001, Kill),
            (2002, Drain),
            (9000, Cut),
            (9000, Exit(125)),
        ];
        assert_eq!(start(&events), expected);
    }

    #[test]
    fn each_state_has_its_deadline() {
        let now = Instant::now();
        let at = |ms| Some(now + Duration::from_millis(ms));
        let mut lifecycle = Lifecycle::new(Plan {
            lame_duck: Duration::from_secs(1),
            has_earlier_children: true,
            ..with_grace()
        });
        let mut then = |event, deadline, draining, is_stopping| {
            lifecycle.step(event, now);
            assert_eq!(lifecycle.deadline(), deadline, "{event:?}");
            assert_eq!(lifecycle.draining(), draining, "{event:?}");
            assert_eq!(lifecycle.is_stopping(), is_stopping, "{event:?}");
            assert!(!lifecycle.worker_has_failed(), "{event:?}");
        };
        then(WorkerStarted, None, None, false);
        then(Started, None, None, false);
        then(got(TERM), at(1000), None, true);
        then(got(TERM), at(2000), None, true);
        then(worker_left_others(0), at(2000), None, true);
        then(NoneLeft, at(5000), Some(Draining::Older), true);
        then(OlderFinished, at(5000), Some(Draining::Successors), true);
        then(Alone, at(5000), Some(Draining::Queue), true);
        then(Drained, at(5000), None, true);
        then(Childless, None, None, true);
    }

    #[test]
    fn a_worker_that_ends_by_itself_has_failed_and_one_that_was_stopped_has_not() {
        for (events, expected) in [
            (&[][..], false),
            (&[worker_ended(0)], true),
            (&[worker_left_others(0)], true),
            (&[worker_left_others(0), NoneLeft], true),
            (&[got(TERM)], false),
            (&[got(TERM), worker_ended(0)], false),
            (&[Replaced, worker_ended(0)], false),
            (&[Unhealthy, worker_ended(0)], false),
            (&[got(TERM), worker_left_others(0)], false),
            (&[got(TERM), worker_left_others(0), NoneLeft], false),
        ] {
            let mut lifecycle = Lifecycle::new(companion());
            for &event in [WorkerStarted, Started].iter().chain(events) {
                lifecycle.step(event, Instant::now());
            }
            assert_eq!(lifecycle.worker_has_failed(), expected, "{events:?}");
        }
    }
}
