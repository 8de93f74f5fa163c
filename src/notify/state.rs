//! The state of the worker that results from its sd_notify(3) messages. Pure.

use std::time::{Duration, Instant};

use super::message::{Field, Notification};
use crate::duration::Human;

/// Maximum length, in bytes, of the worker's `STATUS=` text. livelet cuts longer texts.
const MAX_STATUS: usize = 512;

/// State of the worker, as the worker's own sd_notify messages report it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notified {
    is_ready: bool,
    is_stopping: bool,
    is_reloading: bool,
    status: Option<String>,
    /// Time of the last `WATCHDOG=1` or `WATCHDOG_USEC=`. `None` if the worker has sent neither.
    beat: Option<Instant>,
    was_triggered: bool,
    /// Watchdog limit from the worker's `WATCHDOG_USEC=`. This limit replaces that of the check
    /// `watchdog`. `None` if the worker has set none.
    limit: Option<Duration>,
    extended_to: Option<Instant>,
}

impl Notified {
    /// Applies the assignments of a message from the worker that arrived at `now`.
    pub fn receive(&mut self, message: Notification<'_>, now: Instant) {
        for field in message.fields() {
            self.apply(field, now);
        }
    }

    fn apply(&mut self, field: Field, now: Instant) {
        match field {
            Field::Ready => {
                self.is_ready = true;
                self.is_stopping = false;
                self.is_reloading = false;
            }
            Field::Stopping => self.is_stopping = true,
            Field::Reloading => self.is_reloading = true,
            Field::Status(status) => self.status = shortened(status),
            Field::Watchdog => {
                self.beat = Some(now);
                self.was_triggered = false;
            }
            Field::WatchdogTrigger => self.was_triggered = true,
            Field::WatchdogUsec(limit) => {
                self.limit = Some(limit);
                self.beat = Some(now);
            }
            Field::ExtendTimeout(more) => self.extended_to = now.checked_add(more),
        }
    }

    /// Returns the worker's last `STATUS=` text. Returns `None` if the worker has sent no text, or
    /// if the last one was empty.
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }

    /// Returns the time from which the check `watchdog` counts: that of the worker's last
    /// `WATCHDOG=1` or `WATCHDOG_USEC=`. Returns `None` if the worker has sent neither.
    #[must_use]
    pub fn last_beat(&self) -> Option<Instant> {
        self.beat
    }

    /// Judges the check `notify`, which passes while the worker is ready: it has sent `READY=1`,
    /// and no `STOPPING=1` or `RELOADING=1` since.
    ///
    /// # Errors
    /// Returns the reason if the check fails.
    pub fn readiness(&self) -> Result<(), String> {
        let failed = |reason: &str| match &self.status {
            Some(status) => Err(format!("the worker {reason} ({status})")),
            None => Err(format!("the worker {reason}")),
        };
        if self.is_stopping {
            failed("has said STOPPING=1")
        } else if self.is_reloading {
            failed("has said RELOADING=1")
        } else if !self.is_ready {
            failed("has not said READY=1")
        } else {
            Ok(())
        }
    }

    /// Judges the check `watchdog` at `now`. The check passes while the worker's last `WATCHDOG=1`
    /// or `WATCHDOG_USEC=` is not older than the limit that `WATCHDOG_USEC=` has set, or than
    /// `limit` if the worker has set none. If the worker has sent neither message, the time counts
    /// from `start`, the start of the worker. An `EXTEND_TIMEOUT_USEC=` lets the check pass for the
    /// time that it gives. After `WATCHDOG=trigger` the check fails in any case, until the next
    /// `WATCHDOG=1`.
    ///
    /// # Errors
    /// Returns the reason if the check fails.
    pub fn liveness(&self, limit: Duration, start: Instant, now: Instant) -> Result<(), String> {
        if self.was_triggered {
            return Err("the worker has said WATCHDOG=trigger".to_string());
        }
        let limit = self.limit.unwrap_or(limit);
        let age = now.saturating_duration_since(self.beat.unwrap_or(start));
        if age <= limit || self.extended_to.is_some_and(|until| now < until) {
            return Ok(());
        }
        let subject = if self.beat.is_some() {
            "the last WATCHDOG=1 is"
        } else {
            "no WATCHDOG=1 for"
        };
        let old = if self.beat.is_some() { " old" } else { "" };
        Err(format!(
            "{subject} {}{old}, limit {}",
            Human(age),
            Human(limit)
        ))
    }
}

/// Cuts `status` between two characters to at most [`MAX_STATUS`] bytes. Returns `None` if `status`
/// is empty.
fn shortened(mut status: String) -> Option<String> {
    let mut ends = (0..=status.len().min(MAX_STATUS)).rev();
    let end = ends.find(|&end| status.is_char_boundary(end));
    status.truncate(end.unwrap_or_default());
    Some(status).filter(|status| !status.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(worker: &mut Notified, message: &str, now: Instant) {
        worker.receive(Notification::parse(message.as_bytes()).unwrap(), now);
    }

    #[test]
    fn readiness_follows_the_last_message() {
        let now = Instant::now();
        let mut worker = Notified::default();
        for (message, reason) in [
            ("", Some("has not said READY=1")),
            (
                "STATUS=warming up",
                Some("has not said READY=1 (warming up)"),
            ),
            ("READY=0", Some("has not said")),
            ("STATUS=\nREADY=1", None),
            ("RELOADING=1\nSTATUS=again", Some("RELOADING=1 (again)")),
            ("READY=1", None),
            ("X=y\nnothing\nSTATUS=\u{e4}", None),
            ("STOPPING=1", Some("STOPPING=1")),
            ("READY=1", None),
        ] {
            receive(&mut worker, message, now);
            match (worker.readiness(), reason) {
                (Ok(()), None) => {}
                (Err(reason), Some(part)) => assert!(reason.contains(part), "{message}: {reason}"),
                (outcome, _) => panic!("{message}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_long_status_is_cut_between_characters() {
        let mut worker = Notified::default();
        let long = format!("STATUS=x{}", "\u{e4}".repeat(1000));
        receive(&mut worker, &long, Instant::now());
        assert_eq!(worker.status().map(str::len), Some(MAX_STATUS - 1));
    }

    #[test]
    fn the_watchdog_fails_after_its_limit() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let limit = Duration::from_secs(1);
        let mut worker = Notified::default();
        assert_eq!(worker.liveness(limit, start, at(1000)), Ok(()));
        let never = worker.liveness(limit, start, at(1001));
        assert_eq!(never, Err("no WATCHDOG=1 for 1s, limit 1s".to_string()));
        receive(&mut worker, "WATCHDOG=1", at(1001));
        assert_eq!(worker.liveness(limit, start, at(2001)), Ok(()));
        let old = worker.liveness(limit, start, at(2002));
        assert_eq!(
            old,
            Err("the last WATCHDOG=1 is 1s old, limit 1s".to_string())
        );
        receive(&mut worker, "EXTEND_TIMEOUT_USEC=5000000", at(2002));
        assert_eq!(worker.liveness(limit, start, at(7001)), Ok(()));
        assert!(worker.liveness(limit, start, at(7002)).is_err());
        receive(&mut worker, "WATCHDOG_USEC=10000000", at(8000));
        assert_eq!(worker.liveness(limit, start, at(18_000)), Ok(()));
        receive(&mut worker, "WATCHDOG=trigger", at(8001));
        assert!(worker.liveness(limit, start, at(8001)).is_err());
        receive(&mut worker, "WATCHDOG=1", at(8002));
        assert_eq!(worker.liveness(limit, start, at(8002)), Ok(()));
    }
}
