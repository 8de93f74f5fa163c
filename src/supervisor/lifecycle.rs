//! From the start to the end of the process. Pure: events and `now` in, actions and the next deadline out.

use std::time::{Duration, Instant};

use libc::SIGTERM;

use crate::exit_code::{self, UNHEALTHY};

/// How long an unhealthy worker has to stop where no grace was given: one that hangs does not.
const UNHEALTHY_GRACE: Duration = Duration::from_secs(5);

/// What the machine is told about the process it runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// A worker runs, and its end is the end of livelet.
    pub has_worker: bool,
    /// How long open connections may finish in.
    pub drain: Duration,
    /// From the moment the worker was asked to stop to its KILL; none: it is never killed, nor waited for beyond its end.
    pub grace: Option<Duration>,
    /// From TERM to the moment the worker is told.
    pub lame_duck: Duration,
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not every address is bound, the worker does not run.
    Starting,
    Ready,
    /// Not ready any more, and the worker has not been told.
    LameDuck {
        until: Instant,
        signal: i32,
    },
    /// The worker has been told.
    Stopping {
        kill_at: Option<Instant>,
    },
    /// The worker is gone.
    Draining(Draining),
    Exited,
}

/// What is still waited for at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Draining {
    code: u8,
    /// A signal has asked for the end: the next one is the second.
    asked: bool,
    /// Connections are open; at this moment the rest is cut.
    connections_until: Option<Instant>,
    /// Descendants of the worker live; at this moment they are killed.
    leftovers_until: Option<Instant>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Every address is bound and the worker runs.
    Started,
    /// TERM or INT: asked to stop, and again to stop at once. The number is the one to forward.
    Terminate(i32),
    /// HUP, QUIT or USR2: ends what has no worker that could take it. nodemon sends its signal twice, so the second one
    /// changes nothing.
    Stop(i32),
    /// Another signal.
    Forward(i32),
    /// The worker has ended; as its exit code is to be reported.
    WorkerEnded(u8),
    /// Liveness has failed for longer than it may.
    Unhealthy,
    /// No descendant is left.
    Childless,
    /// No connection is open any more.
    Drained,
    /// The time is `now`, nothing else happened.
    Tick,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send the worker this signal.
    Forward(i32),
    /// Ask the descendants that the worker left to end.
    TerminateLeftovers,
    /// Kill the worker and its descendants.
    Kill,
    /// Let open connections finish, take no new ones.
    Drain,
    /// Close the connections that are still open.
    Cut,
    /// End the process with this exit code.
    Exit(u8),
}

/// The machine.
#[derive(Debug)]
pub struct Lifecycle {
    plan: Plan,
    state: State,
    /// It stops because the worker was unhealthy.
    is_unhealthy: bool,
}

impl Lifecycle {
    /// A process that starts.
    #[must_use]
    pub fn new(plan: Plan) -> Lifecycle {
        Lifecycle {
            plan,
            state: State::Starting,
            is_unhealthy: false,
        }
    }

    /// Takes one event; the actions are to be taken in their order.
    pub fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if event == Event::Unhealthy && !self.is_stopping() {
            self.is_unhealthy = true;
            self.plan.grace.get_or_insert(UNHEALTHY_GRACE);
            self.state = self.tell(SIGTERM, now, &mut actions);
            return actions;
        }
        self.state = match self.state {
            State::Starting => self.starting(event, &mut actions),
            State::Ready => self.ready(event, now, &mut actions),
            State::LameDuck { until, signal } => {
                self.lame_duck(until, signal, event, now, &mut actions)
            }
            State::Stopping { kill_at } => self.stopping(kill_at, event, now, &mut actions),
            State::Draining(draining) => draining.step(event, now, &mut actions),
            State::Exited => State::Exited,
        };
        actions
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::LameDuck { until, .. } => Some(until),
            State::Stopping { kill_at } => kill_at,
            State::Draining(draining) => {
                let both = [draining.connections_until, draining.leftovers_until];
                both.into_iter().flatten().min()
            }
            State::Starting | State::Ready | State::Exited => None,
        }
    }

    /// A stop was asked for, or the worker has ended: not ready, and never again.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        !matches!(self.state, State::Starting | State::Ready)
    }

    /// The worker has ended, or there is none and livelet ends.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining(_) | State::Exited)
    }

    /// [`Event::Drained`] is waited for.
    #[must_use]
    pub fn awaits_connections(&self) -> bool {
        matches!(self.state, State::Draining(draining) if draining.connections_until.is_some())
    }

    fn starting(&self, event: Event, actions: &mut Vec<Action>) -> State {
        match event {
            Event::Started => State::Ready,
            Event::Terminate(signal) | Event::Stop(signal) => {
                let code = if self.plan.has_worker {
                    exit_code::ended_by(signal)
                } else {
                    0
                };
                actions.push(Action::Exit(code));
                State::Exited
            }
            // Where an offered socket was withdrawn after all, the worker runs before every address is bound.
            Event::WorkerEnded(code) => {
                actions.push(Action::Exit(code));
                State::Exited
            }
            Event::Forward(_)
            | Event::Unhealthy
            | Event::Childless
            | Event::Drained
            | Event::Tick => State::Starting,
        }
    }

    fn ready(&self, event: Event, now: Instant, actions: &mut Vec<Action>) -> State {
        match event {
            Event::Terminate(signal) if !self.plan.lame_duck.is_zero() => State::LameDuck {
                until: now + self.plan.lame_duck,
                signal,
            },
            Event::Terminate(signal) => self.tell(signal, now, actions),
            Event::Stop(signal) if !self.plan.has_worker => self.tell(signal, now, actions),
            Event::Stop(signal) | Event::Forward(signal) => {
                actions.push(Action::Forward(signal));
                State::Ready
            }
            Event::WorkerEnded(code) => self.ended(code, None, now, actions),
            Event::Started | Event::Unhealthy | Event::Childless | Event::Drained | Event::Tick => {
                State::Ready
            }
        }
    }

    fn lame_duck(
        &self,
        until: Instant,
        signal: i32,
        event: Event,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::Terminate(signal) => self.tell(signal, now, actions),
            Event::WorkerEnded(code) => self.ended(code, None, now, actions),
            Event::Stop(other) | Event::Forward(other) if self.plan.has_worker => {
                actions.push(Action::Forward(other));
                State::LameDuck { until, signal }
            }
            _ if now >= until => self.tell(signal, now, actions),
            _ => State::LameDuck { until, signal },
        }
    }

    fn stopping(
        &self,
        kill_at: Option<Instant>,
        event: Event,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::WorkerEnded(code) => return self.ended(code, Some(kill_at), now, actions),
            Event::Terminate(signal) | Event::Stop(signal) | Event::Forward(signal) => {
                actions.push(Action::Forward(signal));
            }
            Event::Started | Event::Unhealthy | Event::Childless | Event::Drained | Event::Tick => {
            }
        }
        if kill_at.is_some_and(|at| now >= at) {
            actions.push(Action::Kill);
            return State::Stopping { kill_at: None };
        }
        State::Stopping { kill_at }
    }

    /// The stop that a signal asked for begins.
    fn tell(&self, signal: i32, now: Instant, actions: &mut Vec<Action>) -> State {
        if self.plan.has_worker {
            actions.push(Action::Forward(signal));
            return State::Stopping {
                kill_at: self.plan.grace.map(|grace| now + grace),
            };
        }
        actions.push(Action::Drain);
        State::Draining(Draining {
            code: if self.is_unhealthy { UNHEALTHY } else { 0 },
            asked: true,
            connections_until: Some(now + self.plan.drain),
            leftovers_until: None,
        })
    }

    /// The worker has ended; `told` is when it would have been killed, where it had been asked to stop.
    fn ended(
        &self,
        code: u8,
        told: Option<Option<Instant>>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) -> State {
        actions.extend([Action::TerminateLeftovers, Action::Drain]);
        // Where the grace is over already, TERM was preceded by KILL: nothing is left to wait for.
        let leftovers_until = told.unwrap_or(self.plan.grace.map(|grace| now + grace));
        State::Draining(Draining {
            code: if self.is_unhealthy { UNHEALTHY } else { code },
            asked: told.is_some(),
            connections_until: Some(now + self.plan.drain),
            leftovers_until,
        })
    }
}

impl Draining {
    fn step(mut self, event: Event, now: Instant, actions: &mut Vec<Action>) -> State {
        match event {
            Event::Terminate(_) if self.asked => self.give_up(actions),
            Event::Terminate(_) => self.asked = true,
            Event::Drained => self.connections_until = None,
            Event::Childless => self.leftovers_until = None,
            _ => {}
        }
        if self.leftovers_until.is_some_and(|at| now >= at) {
            self.leftovers_until = None;
            actions.push(Action::Kill);
        }
        if self.connections_until.is_some_and(|at| now >= at) {
            self.connections_until = None;
            actions.push(Action::Cut);
        }
        if self.connections_until.is_none() && self.leftovers_until.is_none() {
            actions.push(Action::Exit(self.code));
            return State::Exited;
        }
        State::Draining(self)
    }

    fn give_up(&mut self, actions: &mut Vec<Action>) {
        if self.leftovers_until.take().is_some() {
            actions.push(Action::Kill);
        }
        if self.connections_until.take().is_some() {
            actions.push(Action::Cut);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::*;

    const TERM: i32 = 15;
    const KILL_CODE: u8 = 137;

    const RESPONDER: Plan = Plan {
        has_worker: false,
        drain: Duration::from_secs(5),
        grace: None,
        lame_duck: Duration::ZERO,
    };
    const COMPANION: Plan = Plan {
        has_worker: true,
        ..RESPONDER
    };

    /// What happens at which millisecond.
    type Events<'t> = &'t [(u64, Event)];
    type Actions<'t> = &'t [(u64, Action)];

    /// Steps a started machine through events at milliseconds and returns what it does at which of them.
    fn run(plan: Plan, events: Events<'_>) -> Vec<(u64, Action)> {
        let start = Instant::now();
        let mut lifecycle = Lifecycle::new(plan);
        assert_eq!(lifecycle.step(Started, start), []);
        let mut done = Vec::new();
        for &(ms, event) in events {
            let actions = lifecycle.step(event, start + Duration::from_millis(ms));
            done.extend(actions.into_iter().map(|action| (ms, action)));
        }
        done
    }

    #[test]
    fn a_responder_drains_and_exits() {
        use Action::{Cut, Drain, Exit};
        let table: [(Events<'_>, Actions<'_>); 9] = [
            (
                &[(0, Tick), (9, Drained), (9, Forward(10))],
                &[(9, Action::Forward(10))],
            ),
            (
                &[(0, Terminate(TERM)), (1, Drained)],
                &[(0, Drain), (1, Exit(0))],
            ),
            (
                &[(0, Terminate(TERM)), (1, Terminate(TERM))],
                &[(0, Drain), (1, Cut), (1, Exit(0))],
            ),
            (
                &[(0, Stop(1)), (1, Terminate(TERM))],
                &[(0, Drain), (1, Cut), (1, Exit(0))],
            ),
            (
                &[(0, Stop(12)), (1, Stop(12)), (2, Drained)],
                &[(0, Drain), (2, Exit(0))],
            ),
            (
                &[(0, Terminate(TERM)), (4999, Tick), (5000, Tick)],
                &[(0, Drain), (5000, Cut), (5000, Exit(0))],
            ),
            (
                &[(0, Terminate(TERM)), (5001, Stop(1))],
                &[(0, Drain), (5001, Cut), (5001, Exit(0))],
            ),
            (
                &[
                    (0, Terminate(TERM)),
                    (1, Drained),
                    (2, Terminate(TERM)),
                    (3, Tick),
                ],
                &[(0, Drain), (1, Exit(0))],
            ),
            (&[(0, Childless)], &[]),
        ];
        for (events, expected) in table {
            assert_eq!(run(RESPONDER, events), expected, "{events:?}");
        }
        let lame_duck = Plan {
            lame_duck: Duration::from_secs(1),
            ..RESPONDER
        };
        assert_eq!(
            run(
                lame_duck,
                &[(0, Terminate(TERM)), (999, Tick), (1000, Tick)]
            ),
            [(1000, Drain)]
        );
    }

    #[test]
    fn a_companion_stops_when_its_worker_has() {
        use Action::{Cut, Drain, Exit, Forward as Send, Kill, TerminateLeftovers};
        let grace = Plan {
            grace: Some(Duration::from_secs(2)),
            ..COMPANION
        };
        let lame_duck = Plan {
            lame_duck: Duration::from_secs(1),
            ..grace
        };
        let table: &[(Plan, Events<'_>, Actions<'_>)] = &[
            // No signal but TERM and INT stops anything by itself.
            (
                COMPANION,
                &[
                    (0, Stop(1)),
                    (1, Forward(28)),
                    (2, Terminate(TERM)),
                    (3, Terminate(2)),
                ],
                &[(0, Send(1)), (1, Send(28)), (2, Send(TERM)), (3, Send(2))],
            ),
            // Without a grace it is left alone, and so is what it leaves.
            (
                COMPANION,
                &[
                    (0, Terminate(TERM)),
                    (3_600_000, Tick),
                    (3_600_000, WorkerEnded(3)),
                    (3_600_001, Drained),
                ],
                &[
                    (0, Send(TERM)),
                    (3_600_000, TerminateLeftovers),
                    (3_600_000, Drain),
                    (3_600_001, Exit(3)),
                ],
            ),
            // The worker ends by itself: the first TERM is not the second.
            (
                COMPANION,
                &[
                    (0, WorkerEnded(0)),
                    (1, Terminate(TERM)),
                    (2, Terminate(TERM)),
                ],
                &[(0, TerminateLeftovers), (0, Drain), (2, Cut), (2, Exit(0))],
            ),
            (
                COMPANION,
                &[
                    (0, Terminate(TERM)),
                    (1, WorkerEnded(0)),
                    (2, Terminate(TERM)),
                ],
                &[
                    (0, Send(TERM)),
                    (1, TerminateLeftovers),
                    (1, Drain),
                    (2, Cut),
                    (2, Exit(0)),
                ],
            ),
            // KILL at the end of the grace, and again at nothing.
            (
                grace,
                &[
                    (0, Terminate(TERM)),
                    (1999, Tick),
                    (2000, Tick),
                    (2001, Tick),
                    (2002, WorkerEnded(KILL_CODE)),
                    (2003, Drained),
                ],
                &[
                    (0, Send(TERM)),
                    (2000, Kill),
                    (2002, TerminateLeftovers),
                    (2002, Drain),
                    (2003, Exit(KILL_CODE)),
                ],
            ),
            // Leftovers are waited for up to the same moment, and no longer than the last one lives.
            (
                grace,
                &[
                    (0, Terminate(TERM)),
                    (1000, WorkerEnded(1)),
                    (1001, Drained),
                    (1999, Tick),
                    (2000, Tick),
                ],
                &[
                    (0, Send(TERM)),
                    (1000, TerminateLeftovers),
                    (1000, Drain),
                    (2000, Kill),
                    (2000, Exit(1)),
                ],
            ),
            (
                grace,
                &[(0, WorkerEnded(1)), (1, Drained), (1500, Childless)],
                &[(0, TerminateLeftovers), (0, Drain), (1500, Exit(1))],
            ),
            (
                grace,
                &[(0, WorkerEnded(1)), (1, Childless), (2, Drained)],
                &[(0, TerminateLeftovers), (0, Drain), (2, Exit(1))],
            ),
            // A second TERM ends all of it.
            (
                grace,
                &[
                    (0, Terminate(TERM)),
                    (1, WorkerEnded(1)),
                    (2, Terminate(TERM)),
                ],
                &[
                    (0, Send(TERM)),
                    (1, TerminateLeftovers),
                    (1, Drain),
                    (2, Kill),
                    (2, Cut),
                    (2, Exit(1)),
                ],
            ),
            // Lame duck: the signal waits, others do not, a second one is for now.
            (
                lame_duck,
                &[
                    (0, Terminate(TERM)),
                    (500, Forward(10)),
                    (1000, Tick),
                    (3000, Tick),
                ],
                &[(500, Send(10)), (1000, Send(TERM)), (3000, Kill)],
            ),
            (
                lame_duck,
                &[
                    (0, Terminate(TERM)),
                    (500, Terminate(2)),
                    (1000, Tick),
                    (2500, Tick),
                ],
                &[(500, Send(2)), (2500, Kill)],
            ),
            (
                lame_duck,
                &[
                    (0, Terminate(TERM)),
                    (500, WorkerEnded(0)),
                    (501, Childless),
                    (502, Drained),
                ],
                &[(500, TerminateLeftovers), (500, Drain), (502, Exit(0))],
            ),
        ];
        for (plan, events, expected) in table {
            assert_eq!(run(*plan, events), *expected, "{events:?}");
        }
    }

    #[test]
    fn an_unhealthy_worker_is_stopped_and_reported() {
        use Action::{Drain, Exit, Forward as Send, Kill, TerminateLeftovers};
        let lame_duck = Plan {
            lame_duck: Duration::from_secs(9),
            ..COMPANION
        };
        for plan in [COMPANION, lame_duck] {
            assert_eq!(
                run(
                    plan,
                    &[
                        (0, Unhealthy),
                        (4999, Tick),
                        (5000, Tick),
                        (5001, WorkerEnded(137)),
                        (5002, Drained)
                    ]
                ),
                [
                    (0, Send(TERM)),
                    (5000, Kill),
                    (5001, TerminateLeftovers),
                    (5001, Drain),
                    (5002, Exit(75)),
                ]
            );
        }
        assert_eq!(
            run(RESPONDER, &[(0, Unhealthy), (1, Drained)]),
            [(0, Drain), (1, Exit(75))]
        );
        // It was asked to stop before that: its code is its own, and there is no grace that nobody gave.
        assert_eq!(
            run(
                COMPANION,
                &[
                    (0, Terminate(TERM)),
                    (1, Unhealthy),
                    (9000, WorkerEnded(0)),
                    (9001, Drained)
                ]
            ),
            [
                (0, Send(TERM)),
                (9000, TerminateLeftovers),
                (9000, Drain),
                (9001, Exit(0))
            ]
        );
        // It has ended by itself, or is on its way.
        assert_eq!(
            run(
                COMPANION,
                &[(0, WorkerEnded(1)), (1, Unhealthy), (2, Drained)]
            ),
            [(0, TerminateLeftovers), (0, Drain), (2, Exit(1))]
        );
    }

    #[test]
    fn a_signal_ends_the_start() {
        for (plan, event, code) in [
            (RESPONDER, Terminate(TERM), 0),
            (RESPONDER, Stop(12), 0),
            (COMPANION, Terminate(TERM), 143),
            (COMPANION, Stop(12), 140),
        ] {
            let mut lifecycle = Lifecycle::new(plan);
            assert_eq!(
                lifecycle.step(event, Instant::now()),
                [Action::Exit(code)],
                "{event:?}"
            );
        }
    }

    #[test]
    fn each_state_has_its_deadline() {
        let now = Instant::now();
        let at = |ms| Some(now + Duration::from_millis(ms));
        let mut lifecycle = Lifecycle::new(Plan {
            has_worker: true,
            drain: Duration::from_secs(5),
            grace: Some(Duration::from_secs(2)),
            lame_duck: Duration::from_secs(1),
        });
        assert_eq!(lifecycle.deadline(), None);
        lifecycle.step(Started, now);
        assert_eq!(lifecycle.deadline(), None);
        assert!(!lifecycle.is_stopping());
        lifecycle.step(Terminate(TERM), now);
        assert_eq!(lifecycle.deadline(), at(1000));
        assert!(lifecycle.is_stopping() && !lifecycle.is_draining());
        lifecycle.step(Terminate(TERM), now);
        assert_eq!(lifecycle.deadline(), at(2000));
        lifecycle.step(WorkerEnded(0), now);
        assert_eq!(lifecycle.deadline(), at(2000));
        assert!(lifecycle.is_draining() && lifecycle.awaits_connections());
        lifecycle.step(Childless, now);
        assert_eq!(lifecycle.deadline(), at(5000));
        lifecycle.step(Drained, now);
        assert_eq!(lifecycle.deadline(), None);
        assert!(!lifecycle.awaits_connections());
    }
}
