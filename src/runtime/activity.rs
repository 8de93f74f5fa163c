//! Whether to rest between two waits.
//!
//! A busy server that looks again at once finds few of many connections ready, and pays for the wait each time; one that
//! rests for a moment serves more of them after it. Pure.

/// After how many events the connections are counted anew.
const SPAN: u32 = 64;
/// As many connections must have asked lately: with fewer, all of them might wait for an answer meanwhile.
const MANY: u32 = 16;

/// How many connections have asked lately.
#[derive(Debug)]
pub(super) struct Activity {
    span: u32,
    events: u32,
    /// Connections that had an event in this span, and in the one before.
    asked: u32,
    lately: u32,
}

/// In which span a connection had its last event.
#[derive(Debug, Default)]
pub(super) struct LastEvent(u32);

impl Activity {
    pub(super) const fn new() -> Activity {
        Activity {
            span: 1,
            events: 0,
            asked: 0,
            lately: 0,
        }
    }

    /// A connection has an event.
    pub(super) fn note(&mut self, last: &mut LastEvent) {
        if last.0 != self.span {
            last.0 = self.span;
            self.asked += 1;
        }
        self.events += 1;
        if self.events == SPAN {
            self.lately = self.asked;
            self.asked = 0;
            self.events = 0;
            self.span = self.span.wrapping_add(1);
        }
    }

    /// Several events came at once, but only of a few of those that ask.
    pub(super) fn deserves_a_rest(&self, events: usize) -> bool {
        events > 1 && self.lately >= MANY && events < self.lately as usize / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of so many connections in turn.
    fn after(events: usize, connections: usize) -> Activity {
        let mut activity = Activity::new();
        let mut last: Vec<_> = (0..connections).map(|_| LastEvent::default()).collect();
        for event in 0..events {
            activity.note(&mut last[event % connections]);
        }
        activity
    }

    #[test]
    fn a_few_of_many_deserve_a_rest() {
        let rests =
            |events, connections, at_once| after(events, connections).deserves_a_rest(at_once);
        assert!(rests(640, 32, 2) && rests(640, 32, 7) && rests(640, 256, 15));
        assert!(!rests(640, 32, 1), "a single probe is never kept waiting");
        assert!(!rests(640, 32, 8), "enough for one wait");
        assert!(!rests(640, 8, 2), "all of them may wait for an answer");
        assert!(!rests(63, 63, 2), "not known yet");
    }

    #[test]
    fn who_stops_asking_is_forgotten() {
        let mut activity = after(640, 32);
        let mut one = LastEvent::default();
        for _ in 0..SPAN {
            activity.note(&mut one);
        }
        assert!(!activity.deserves_a_rest(2));
    }
}
