//! Verdicts on the endpoints over time: when a verdict changes, whether the worker has started, and
//! how long liveness may still fail until livelet stops.
//!
//! Pure: reports, the time and whether livelet is stopping come in, changes come out.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Endpoint, Report};
use crate::duration::Human;

/// Maximum length, in bytes, of the reasons of all failed checks in one log line. A log line has at
/// most 2048 bytes, and needs space for the names of the checks as well.
const REASONS: usize = 1024;

/// Last verdict on each endpoint: passing, or failing with the names of the failed checks. Also
/// records that liveness has passed once, and that the worker has started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    live: Option<Verdict>,
    ready: Option<Verdict>,
    startup: Option<Verdict>,
    has_started: bool,
    has_lived: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    /// Names of the failing checks. Empty if the endpoint passes.
    failing: Vec<String>,
    /// Time at which the endpoint last changed from passing to failing or back. Before the first
    /// such change, time of the first report.
    since: Instant,
}

/// Change of an endpoint's health between two reports: the endpoint now passes, now fails, or other
/// checks fail than before. A failure in the first report is a change as well. The `Display` text
/// is the message of a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    endpoint: Endpoint,
    /// Names of the failing checks with their reasons, as one text. Empty if the endpoint passes.
    failures: String,
    /// Verdict before this change, `true` for a pass, and the time for which that verdict lasted.
    /// `None` if only the set of failing checks has changed, or if this is the endpoint's first
    /// verdict.
    before: Option<(bool, Duration)>,
}

impl Verdicts {
    /// Records `report`, the results of all checks of one endpoint at the time `now`. Returns the
    /// change to log if the failing checks differ from those in the previous report on this
    /// endpoint. Returns `None` if the same checks fail, or if the endpoint passes in its first
    /// report. Also returns `None` if livelet is stopping, because the stop has its own log lines.
    pub fn judge(
        &mut self,
        report: &Report<'_>,
        is_stopping: bool,
        now: Instant,
    ) -> Option<Change> {
        let holds = report.holds();
        self.has_lived |= holds && report.endpoint == Endpoint::Live;
        self.has_started |= holds && report.endpoint != Endpoint::Live;
        let slot = match report.endpoint {
            Endpoint::Live => &mut self.live,
            Endpoint::Ready => &mut self.ready,
            Endpoint::Startup => &mut self.startup,
        };
        let failing = report.failures().map(|(name, _)| name);
        if slot
            .as_ref()
            .is_some_and(|last| failing.eq(last.failing.iter()))
        {
            return None;
        }
        let failing: Vec<String> = report
            .failures()
            .map(|(name, _)| name.to_string())
            .collect();
        let share = REASONS / failing.len().max(1);
        let held = slot
            .as_ref()
            .map(|last| (last.failing.is_empty(), last.since));
        let since = match held {
            Some((held, since)) if held == holds => since,
            _ => now,
        };
        *slot = Some(Verdict { failing, since });
        if is_stopping || (held.is_none() && holds) {
            return None;
        }
        let failures: Vec<String> = report
            .failures()
            .map(|(name, reason)| format!("{name} failed: {}", shortened(reason, share)))
            .collect();
        Some(Change {
            endpoint: report.endpoint,
            failures: failures.join("; "),
            before: held
                .filter(|(held, _)| *held != holds)
                .map(|(held, since)| (held, now.saturating_duration_since(since))),
        })
    }

    /// Returns `true` if the worker has started: readiness or startup has passed in at least one
    /// report.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.has_started
    }

    /// Returns the time from `now` until liveness will have failed for `limit` without a break.
    /// This time is 0 once it has. Returns `None` if liveness passes now, or has never passed.
    #[must_use]
    pub fn unhealthy_in(&self, limit: Duration, now: Instant) -> Option<Duration> {
        let live = self.live.as_ref().filter(|_| self.has_lived)?;
        let has_failed_for = now.saturating_duration_since(live.since);
        (!live.failing.is_empty()).then(|| limit.saturating_sub(has_failed_for))
    }
}

/// Returns the longest beginning of `text` that has at most `most` bytes and does not cut a
/// character.
fn shortened(text: &str, most: usize) -> &str {
    let ends = text.char_indices().map(|(start, c)| start + c.len_utf8());
    let end = ends.take_while(|&end| end <= most).last();
    text.get(..end.unwrap_or(0)).unwrap_or(text)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "health: {}: ", self.endpoint.name())?;
        f.write_str(if self.failures.is_empty() {
            "passes"
        } else {
            &self.failures
        })?;
        if let Some((held, lasted)) = self.before {
            let word = if held { "passed" } else { "failed" };
            write!(f, " (it had {word} for {})", Human(lasted))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::CheckResult;

    const LIMIT: Duration = Duration::from_secs(5);

    fn report(endpoint: Endpoint, failing: &[&'static str]) -> Report<'static> {
        let checks = ["beat", "db"].map(|name| CheckResult {
            name,
            outcome: if failing.contains(&name) {
                Err("old".into())
            } else {
                Ok(())
            },
            event: None,
        });
        Report {
            endpoint,
            checks: checks.into(),
        }
    }

    #[test]
    fn each_change_of_the_failing_set_is_logged_once() {
        let start = Instant::now();
        for endpoint in [Endpoint::Live, Endpoint::Ready, Endpoint::Startup] {
            let mut verdicts = Verdicts::default();
            let name = endpoint.name();
            for (seconds, failing, expected) in [
                (0, &[][..], None),
                (3, &["db"], Some("db failed: old (it had passed for 3s)")),
                (4, &["db"], None),
                (5, &["beat", "db"], Some("beat failed: old; db failed: old")),
                (6, &["beat"], Some("beat failed: old")),
                (9, &[], Some("passes (it had failed for 6s)")),
                (10, &[], None),
            ] {
                let now = start + Duration::from_secs(seconds);
                let change = verdicts.judge(&report(endpoint, failing), false, now);
                let expected = expected.map(|text| format!("health: {name}: {text}"));
                assert_eq!(change.map(|change| change.to_string()), expected);
            }
        }
    }

    #[test]
    fn a_first_failure_is_logged() {
        let mut verdicts = Verdicts::default();
        let change = verdicts.judge(&report(Endpoint::Startup, &["db"]), false, Instant::now());
        assert_eq!(
            change.unwrap().to_string(),
            "health: startupz: db failed: old"
        );
    }

    #[test]
    fn long_reasons_leave_room_for_every_name() {
        let names: Vec<String> = (0..20).map(|number| format!("check-{number}")).collect();
        let reason = "\u{e9}".repeat(500);
        let checks = names.iter().map(|name| CheckResult {
            name,
            outcome: Err(reason.as_str().into()),
            event: None,
        });
        let report = Report {
            endpoint: Endpoint::Ready,
            checks: checks.collect(),
        };
        let change = Verdicts::default().judge(&report, false, Instant::now());
        let line = change.unwrap().to_string();
        assert!(line.len() < 2000, "{line}");
        for name in &names {
            assert!(line.contains(&format!("{name} failed: \u{e9}")), "{line}");
        }
        assert_eq!(shortened("a\u{e9}b", 2), "a");
        assert_eq!(shortened("a\u{e9}b", 4), "a\u{e9}b");
        assert_eq!(shortened("\u{e9}", 1), "");
    }

    #[test]
    fn a_change_during_a_stop_is_recorded_and_not_logged() {
        let mut verdicts = Verdicts::default();
        let now = Instant::now();
        verdicts.judge(&report(Endpoint::Live, &[]), false, now);
        let change = verdicts.judge(&report(Endpoint::Live, &["db"]), true, now);
        assert_eq!(change, None);
        assert_eq!(verdicts.unhealthy_in(LIMIT, now), Some(LIMIT));
    }

    #[test]
    fn liveness_that_never_held_is_not_unhealthy() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut verdicts = Verdicts::default();
        verdicts.judge(&report(Endpoint::Live, &["db"]), false, at(0));
        assert_eq!(verdicts.unhealthy_in(LIMIT, at(9)), None);
        verdicts.judge(&report(Endpoint::Live, &[]), false, at(1));
        assert_eq!(verdicts.unhealthy_in(LIMIT, at(9)), None);
        verdicts.judge(&report(Endpoint::Live, &["db"]), false, at(2));
        verdicts.judge(&report(Endpoint::Live, &["beat"]), false, at(3));
        for (now, left) in [(3, 4), (6, 1), (7, 0), (9, 0)] {
            let left = Duration::from_secs(left);
            assert_eq!(
                verdicts.unhealthy_in(LIMIT, at(now)),
                Some(left),
                "at {now}"
            );
        }
        verdicts.judge(&report(Endpoint::Live, &[]), false, at(4));
        assert_eq!(verdicts.unhealthy_in(LIMIT, at(9)), None);
    }

    #[test]
    fn startup_holds_after_readiness_held_once() {
        for endpoint in [Endpoint::Ready, Endpoint::Startup] {
            let mut verdicts = Verdicts::default();
            verdicts.judge(&report(Endpoint::Live, &[]), false, Instant::now());
            verdicts.judge(&report(endpoint, &["db"]), false, Instant::now());
            assert!(!verdicts.has_started());
            verdicts.judge(&report(endpoint, &[]), false, Instant::now());
            verdicts.judge(&report(endpoint, &["db"]), false, Instant::now());
            assert!(verdicts.has_started());
        }
    }
}
