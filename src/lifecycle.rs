//! From serving to the end of the process. Pure: events and `now` in, actions and the next deadline out.

use std::time::{Duration, Instant};

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Serving,
    /// Open connections are finishing; at the deadline the rest is cut.
    Draining {
        deadline: Instant,
    },
    Exited,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// TERM or INT: asked to stop, and again to stop at once.
    Terminate,
    /// HUP, QUIT or USR2: asked to stop. nodemon sends its signal twice, so the second one changes nothing.
    Stop,
    /// No connection is open any more.
    Drained,
    /// The time is `now`, nothing else happened.
    Tick,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Accept what is queued, stop listening, let open connections finish.
    Drain,
    /// End the process; every connection has got its answer.
    Exit,
    /// End the process; connections that are still open are cut.
    Cut,
}

/// The machine.
#[derive(Debug)]
pub struct Lifecycle {
    state: State,
    drain: Duration,
}

impl Lifecycle {
    /// Serving; `drain` is the hard deadline for open connections once a stop is asked for.
    #[must_use]
    pub fn new(drain: Duration) -> Lifecycle {
        Lifecycle {
            state: State::Serving,
            drain,
        }
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event, now: Instant) -> Action {
        let (state, action) = match (self.state, event) {
            (State::Serving, Event::Terminate | Event::Stop) => {
                let deadline = now + self.drain;
                (State::Draining { deadline }, Action::Drain)
            }
            (State::Draining { .. }, Event::Terminate) => (State::Exited, Action::Cut),
            (State::Draining { .. }, Event::Drained) => (State::Exited, Action::Exit),
            (State::Draining { deadline }, _) if now >= deadline => (State::Exited, Action::Cut),
            (state, _) => (state, Action::None),
        };
        self.state = state;
        action
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Draining { deadline } => Some(deadline),
            State::Serving | State::Exited => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_in_every_order_of_events() {
        use Action as A;
        use Event::{Drained, Stop, Terminate, Tick};
        let row = |events: &[(u64, Event)], actions: &[Action]| {
            let start = Instant::now();
            let mut lifecycle = Lifecycle::new(Duration::from_secs(5));
            let done: Vec<Action> = events
                .iter()
                .map(|&(ms, event)| lifecycle.step(event, start + Duration::from_millis(ms)))
                .collect();
            assert_eq!(done, actions, "{events:?}");
        };
        row(&[(0, Tick), (9, Drained)], &[A::None, A::None]);
        row(&[(0, Terminate), (1, Drained)], &[A::Drain, A::Exit]);
        row(&[(0, Terminate), (1, Terminate)], &[A::Drain, A::Cut]);
        row(&[(0, Stop), (1, Terminate)], &[A::Drain, A::Cut]);
        row(
            &[(0, Stop), (1, Stop), (2, Drained)],
            &[A::Drain, A::None, A::Exit],
        );
        row(
            &[(0, Terminate), (4999, Tick), (5000, Tick)],
            &[A::Drain, A::None, A::Cut],
        );
        row(&[(0, Terminate), (5001, Stop)], &[A::Drain, A::Cut]);
        row(
            &[(0, Terminate), (1, Drained), (2, Terminate), (3, Tick)],
            &[A::Drain, A::Exit, A::None, A::None],
        );
    }

    #[test]
    fn only_a_drain_has_a_deadline() {
        let now = Instant::now();
        let mut lifecycle = Lifecycle::new(Duration::from_secs(2));
        assert_eq!(lifecycle.deadline(), None);
        lifecycle.step(Event::Stop, now);
        assert_eq!(lifecycle.deadline(), Some(now + Duration::from_secs(2)));
        lifecycle.step(Event::Drained, now);
        assert_eq!(lifecycle.deadline(), None);
    }
}
