//! What a worker says of itself over NOTIFY_SOCKET (sd_notify(3)): messages from bytes, and the state they add up to.
//! Pure.

use std::time::{Duration, Instant};

use crate::duration::Human;

/// The longest message that is read, in bytes.
pub const MAX: usize = 4096;
/// The longest STATUS that is kept, in bytes.
const MAX_STATUS: usize = 512;

/// One field that is acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Ready,
    Stopping,
    Reloading,
    Status(String),
    Watchdog,
    WatchdogTrigger,
    WatchdogUsec(Duration),
    /// The watchdog and a start-up may take this much longer.
    ExtendTimeout(Duration),
}

/// What the worker has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notified {
    is_ready: bool,
    is_stopping: bool,
    is_reloading: bool,
    status: Option<String>,
    /// The last `WATCHDOG=1`.
    beat: Option<Instant>,
    was_triggered: bool,
    /// The worker's own limit, in place of the check's.
    limit: Option<Duration>,
    extended_to: Option<Instant>,
}

impl Notified {
    /// Takes a message; the lines of it that mean something, to pass on. `None` where it is malformed as a whole.
    pub fn take(&mut self, message: &[u8], now: Instant) -> Option<String> {
        // As systemd has it: senders in C may send the zero byte that ends a string.
        let message = message.strip_suffix(b"\0").unwrap_or(message);
        if message.contains(&0) {
            return None;
        }
        let text = String::from_utf8_lossy(message);
        let mut known = String::new();
        // systemd ends lines at either: whoever is above must not see a line that livelet did not.
        for line in text.split(['\n', '\r']) {
            let Some(field) = line
                .split_once('=')
                .and_then(|(name, value)| parse(name, value))
            else {
                continue;
            };
            if !known.is_empty() {
                known.push('\n');
            }
            known.push_str(line);
            self.apply(field, now);
        }
        Some(known)
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
            Field::Status(status) => self.status = Some(status).filter(|status| !status.is_empty()),
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

    /// The last STATUS.
    #[must_use]
    pub fn status(&self) -> Option<&str> {
        self.status.as_deref()
    }

    /// The check `notify`.
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn readiness(&self) -> Result<(), String> {
        let said = |what: &str| match &self.status {
            Some(status) => Err(format!("the worker {what} ({status})")),
            None => Err(format!("the worker {what}")),
        };
        if self.is_stopping {
            said("has said STOPPING=1")
        } else if self.is_reloading {
            said("has said RELOADING=1")
        } else if !self.is_ready {
            said("has not said READY=1")
        } else {
            Ok(())
        }
    }

    /// The check `watchdog`; a worker that has never said anything is as old as `start`.
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn liveness(&self, limit: Duration, start: Instant, now: Instant) -> Result<(), String> {
        if self.was_triggered {
            return Err("the worker has said WATCHDOG=trigger".to_string());
        }
        let limit = self.limit.unwrap_or(limit);
        let age = now.saturating_duration_since(self.beat.unwrap_or(start));
        if age <= limit || self.extended_to.is_some_and(|until| now < until) {
            return Ok(());
        }
        let what = if self.beat.is_some() {
            "the last WATCHDOG=1 is"
        } else {
            "no WATCHDOG=1 for"
        };
        let old = if self.beat.is_some() { " old" } else { "" };
        Err(format!(
            "{what} {}{old}, limit {}",
            Human(age),
            Human(limit)
        ))
    }
}

fn parse(name: &str, value: &str) -> Option<Field> {
    let microseconds = || {
        let digits = value.bytes().all(|b| b.is_ascii_digit());
        value
            .parse()
            .ok()
            .filter(|&usec: &u64| digits && usec > 0)
            .map(Duration::from_micros)
    };
    Some(match (name, value) {
        ("READY", "1") => Field::Ready,
        ("STOPPING", "1") => Field::Stopping,
        ("RELOADING", "1") => Field::Reloading,
        ("WATCHDOG", "1") => Field::Watchdog,
        ("WATCHDOG", "trigger") => Field::WatchdogTrigger,
        ("WATCHDOG_USEC", _) => Field::WatchdogUsec(microseconds()?),
        ("EXTEND_TIMEOUT_USEC", _) => Field::ExtendTimeout(microseconds()?),
        ("STATUS", _) => {
            let end = (0..=value.len().min(MAX_STATUS))
                .rev()
                .find(|&end| value.is_char_boundary(end));
            Field::Status(
                value
                    .get(..end.unwrap_or_default())
                    .unwrap_or_default()
                    .to_string(),
            )
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_what_was_said_last() {
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
            assert!(worker.take(message.as_bytes(), now).is_some());
            match (worker.readiness(), reason) {
                (Ok(()), None) => {}
                (Err(said), Some(part)) => assert!(said.contains(part), "{message}: {said}"),
                (outcome, _) => panic!("{message}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn what_means_something_is_passed_on() {
        let mut worker = Notified::default();
        let now = Instant::now();
        for (message, passed) in [
            (
                &b"READY=1\nMAINPID=7\nFDSTORE=1\nSTATUS=a=b"[..],
                Some("READY=1\nSTATUS=a=b"),
            ),
            (b"BARRIER=1", Some("")),
            (b"STATUS=a\rREADY=1\r\r\n", Some("STATUS=a\nREADY=1")),
            (b"WATCHDOG_USEC=x\nWATCHDOG_USEC=-1", Some("")),
            (b"READY=1\0", Some("READY=1")),
            (b"READY=1\0\0", None),
            (b"READY=1\nSTATUS=a\xff", Some("READY=1\nSTATUS=a\u{fffd}")),
        ] {
            assert_eq!(worker.take(message, now).as_deref(), passed);
        }
        let long = format!("STATUS={}", "\u{e4}".repeat(1000));
        worker.take(long.as_bytes(), now);
        assert_eq!(worker.status().map(str::len), Some(MAX_STATUS));
    }

    #[test]
    fn the_watchdog_bites_after_its_limit() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let limit = Duration::from_secs(1);
        let mut worker = Notified::default();
        assert_eq!(worker.liveness(limit, start, at(1000)), Ok(()));
        let never = worker.liveness(limit, start, at(1001));
        assert_eq!(never, Err("no WATCHDOG=1 for 1s, limit 1s".to_string()));
        worker.take(b"WATCHDOG=1", at(1001));
        assert_eq!(worker.liveness(limit, start, at(2001)), Ok(()));
        let old = worker.liveness(limit, start, at(2002));
        assert_eq!(
            old,
            Err("the last WATCHDOG=1 is 1s old, limit 1s".to_string())
        );
        worker.take(b"EXTEND_TIMEOUT_USEC=5000000", at(2002));
        assert_eq!(worker.liveness(limit, start, at(7001)), Ok(()));
        assert!(worker.liveness(limit, start, at(7002)).is_err());
        worker.take(b"WATCHDOG_USEC=10000000", at(8000));
        assert_eq!(worker.liveness(limit, start, at(18_000)), Ok(()));
        worker.take(b"WATCHDOG=trigger", at(8001));
        assert!(worker.liveness(limit, start, at(8001)).is_err());
        worker.take(b"WATCHDOG=1", at(8002));
        assert_eq!(worker.liveness(limit, start, at(8002)), Ok(()));
    }
}
