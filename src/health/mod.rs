//! Health: the endpoints, the verdicts on them, and the rendering of both.
//!
//! Pure: a request, the state of the process and the outcomes of checks come in; a response comes
//! out. [`crate::check`] runs the checks, and [`crate::responder`] passes their outcomes to this
//! module.

mod json;
mod metrics;
mod page;
mod route;
mod text;
mod verdict;

use std::borrow::Cow;
use std::time::Duration;

use crate::http::{Content, Response, Status};

pub use route::{Alias, Question, Route, View, route};
pub use verdict::{Change, Verdicts};

/// Maximum length, in bytes, of the content of a response, its line end included.
const MAX_BODY: usize = 4096;

/// Names of livelet's built-in checks. A check that a user sets can't have one of these names.
pub const OWN_NAMES: [&str; 3] = ["worker", "livelet", "shutdown"];

/// State of livelet and its worker on which responses to probes depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// `true` if livelet runs a worker.
    pub has_worker: bool,
    /// `true` once livelet has begun to stop. Readiness then fails, but liveness does not.
    pub is_stopping: bool,
    /// `true` if the worker has ended before livelet began to stop.
    pub has_worker_failed: bool,
    /// `true` while the worker's program takes too long to start, for example because the program
    /// is on a file system that hangs.
    pub is_worker_late: bool,
    /// Process id of the worker. If livelet runs no worker, livelet's own process id.
    pub pid: u32,
}

/// Endpoint: one of the three questions about health that a prober can ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Liveness: is the worker alive?
    Live,
    /// Readiness: can the worker take work?
    Ready,
    /// Startup: has the worker been ready once?
    Startup,
}

impl Endpoint {
    /// Returns the name of the endpoint in responses and in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Live => "livez",
            Endpoint::Ready => "readyz",
            Endpoint::Startup => "startupz",
        }
    }
}

/// Name and outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult<'a> {
    /// Name of the check.
    pub name: &'a str,
    /// Outcome of the check: `Err` with the reason if the check failed.
    pub outcome: Result<(), Cow<'a, str>>,
    /// Event from which the status page counts the outcome's age. `None` for livelet's built-in
    /// checks, whose age is not shown.
    pub event: Option<LastEvent>,
}

/// Event from which the age of a check's outcome counts: the worker's last heartbeat, or livelet's
/// first observation of the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastEvent {
    /// `true` if the event is the worker's last heartbeat, for a `heartbeat:` or `watchdog:` check.
    /// `false` if the event is livelet's first observation of the check's present outcome.
    pub is_beat: bool,
    /// Time that has passed since the event.
    pub age: Duration,
}

/// Outcomes of the checks of one endpoint, or of those checks that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<'a> {
    /// Endpoint that the checks belong to.
    pub endpoint: Endpoint,
    /// Results of the checks. livelet's built-in checks come first.
    pub checks: Vec<CheckResult<'a>>,
}

impl<'a> Report<'a> {
    /// Returns a report with only livelet's built-in checks of `endpoint`. Their outcomes depend on
    /// `snapshot`, the state of livelet and its worker. The caller appends the results of the
    /// user's checks.
    #[must_use]
    pub fn own(endpoint: Endpoint, snapshot: Snapshot) -> Report<'a> {
        let own = |name, failure: Option<&'static str>| CheckResult {
            name,
            outcome: failure.map_or(Ok(()), |reason| Err(Cow::Borrowed(reason))),
            event: None,
        };
        let name = if snapshot.has_worker {
            "worker"
        } else {
            "livelet"
        };
        let worker = if snapshot.has_worker_failed {
            Some("the worker has ended")
        } else if snapshot.is_worker_late {
            Some("its program cannot be executed yet")
        } else {
            None
        };
        let mut checks = vec![own(name, worker)];
        if endpoint == Endpoint::Ready {
            let stop = snapshot.is_stopping.then_some("livelet is stopping");
            checks.push(own("shutdown", stop));
        }
        Report { endpoint, checks }
    }

    /// Returns `true` if every check of the report passed.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Returns the name of each failed check and the reason of its failure.
    fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks.iter().filter_map(|check| {
            let reason = check.outcome.as_ref().err()?;
            Some((check.name, reason.as_ref()))
        })
    }
}

/// Facts about livelet and its worker that responses show beside the outcomes of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Process id of livelet.
    pub pid: u32,
    /// Process id of the worker. If livelet runs no worker, livelet's own process id.
    pub worker_pid: u32,
    /// Name of the worker on the status page: its command, shortened. If livelet runs no worker,
    /// the name of the host.
    pub owner: &'a str,
    /// Time since livelet started to serve.
    pub uptime: Duration,
    /// Text of the worker's last STATUS message over sd_notify(3). `None` if the worker has sent
    /// none.
    pub status: Option<&'a str>,
    /// Number of open HTTP connections.
    pub connections: usize,
    /// Number of HTTP requests that livelet has answered.
    pub requests: u64,
}

/// Returns the response to `question`, which an HTTP request asks. `reports` are the results of the
/// checks of each endpoint in [`Question::endpoints`], in the same order. `names` are the names of
/// all checks of the question's endpoint. The function needs `names` only if
/// [`Question::is_filtered`] returns `true`. The response shows `facts` beside the checks.
#[must_use]
pub fn respond(
    question: &Question,
    reports: &[Report<'_>],
    names: &[&str],
    facts: &Facts<'_>,
) -> Response {
    const MAX: usize = MAX_BODY - 1;
    let Some(report) = reports.first().filter(|_| question.is_about_one_of(names)) else {
        return route::NO_SUCH_CHECK;
    };
    if question.is_options && report.holds() {
        return route::OPTIONS;
    }
    let (content, body) = match question.view {
        View::Plain | View::Verbose => {
            let Some(body) = text::body(question, report, names, facts, MAX) else {
                return text::OK;
            };
            (Content::Text, body)
        }
        View::Json => (Content::Health, json::document(report, facts, MAX)),
        View::Page => (Content::Page, page::page(reports, facts, MAX)),
        View::Metrics => (Content::Metrics, metrics::exposition(reports, facts, MAX)),
    };
    Response {
        status: Status::of(report.holds() || question.view == View::Metrics),
        content,
        body: body.into(),
    }
}

/// Facts and check results for the unit tests of this module and its submodules.
#[cfg(test)]
mod testing {
    use std::sync::LazyLock;

    use super::*;

    pub(super) static FACTS: LazyLock<Facts<'_>> = LazyLock::new(|| Facts {
        pid: 1,
        worker_pid: 1,
        owner: "node",
        uptime: Duration::from_millis(41_500),
        status: Some("hm\n"),
        connections: 2,
        requests: 3,
    });

    pub(super) fn passed(name: &str) -> CheckResult<'_> {
        CheckResult {
            name,
            outcome: Ok(()),
            event: None,
        }
    }

    pub(super) fn failed<'a>(name: &'a str, reason: &'a str) -> CheckResult<'a> {
        CheckResult {
            name,
            outcome: Err(reason.into()),
            event: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{FACTS, failed, passed};
    use super::*;
    use crate::http::{Parsed, parse};

    fn question(target: &str) -> Route {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let Parsed::Request(request, _) = parse(bytes.as_bytes()) else {
            panic!("{target}");
        };
        route(&request, &[])
    }

    /// Returns status and content of the response to a GET of `target` while a check with the name
    /// `heartbeat` fails.
    fn answer(target: &str) -> (Status, String) {
        let response = match question(target) {
            Route::Fixed(response) => response,
            Route::Ask(question) => {
                let mut report = Report::own(question.endpoint, Snapshot::default());
                report
                    .checks
                    .extend([failed("heartbeat", "/b is 41s old\n"), passed("db")]);
                let all = report.clone();
                let names: Vec<&str> = all.checks.iter().map(|check| check.name).collect();
                report.checks.retain(|check| question.wants(check.name));
                respond(&question, &[report], &names, &FACTS)
            }
        };
        (response.status, response.body.into_owned())
    }

    #[test]
    fn each_path_has_its_status_and_body() {
        let failed =
            "[+]livelet ok\n[-]heartbeat failed: /b is 41s old\\n\n[+]db ok\nlivez check failed";
        let verbose = failed.replace("livez check", "the worker says: hm\\n\nlivez check");
        let not_found = "not found; try /livez, /readyz or /startupz";
        for (target, status, body) in [
            ("/livez", Status::ServiceUnavailable, failed),
            ("/livez?verbose", Status::ServiceUnavailable, &verbose),
            ("/livez?exclude=heartbeat", Status::Ok, "ok"),
            (
                "/livez?verbose&exclude=heartbeat&exclude=db",
                Status::Ok,
                "[+]livelet ok\nthe worker says: hm\\n\nlivez check passed",
            ),
            (
                "/livez?exclude=heartbeat&exclude=x",
                Status::Ok,
                "no check to exclude: x\nok",
            ),
            ("/livez/db", Status::Ok, "ok"),
            (
                "/readyz/db?verbose",
                Status::Ok,
                "[+]db ok\nthe worker says: hm\\n\nreadyz check passed",
            ),
            (
                "/livez/heartbeat",
                Status::ServiceUnavailable,
                "[-]heartbeat failed: /b is 41s old\\n\nlivez check failed",
            ),
            ("/livez/x", Status::NotFound, "no check of this name"),
            ("/livez/shutdown", Status::NotFound, "no check of this name"),
            ("/readyz/shutdown", Status::Ok, "ok"),
            ("/startupz/db", Status::NotFound, not_found),
            ("/livez/", Status::ServiceUnavailable, failed),
            ("/livez//", Status::NotFound, not_found),
        ] {
            assert_eq!(answer(target), (status, body.to_string()), "{target}");
        }
    }

    #[test]
    fn a_body_stays_short() {
        let names: Vec<String> = (0..500).map(|index| format!("check-{index}")).collect();
        let reason = "x".repeat(5000);
        let checks: Vec<_> = names.iter().map(|name| failed(name, &reason)).collect();
        let status = "\u{1}".repeat(5000);
        let facts = Facts {
            status: Some(&status),
            ..*FACTS
        };
        for first in ["", "verbose&"] {
            let target = format!("/livez?{first}{}", "exclude=unknown&".repeat(100));
            let Route::Ask(question) = question(&target) else {
                panic!("{target}");
            };
            // The number of lines decides how much space is left after them.
            for count in 0..checks.len() {
                let checks = checks[count..].to_vec();
                let endpoint = Endpoint::Live;
                let response = respond(&question, &[Report { endpoint, checks }], &[], &facts);
                assert!(response.body.len() < MAX_BODY - 1, "{first}{count}");
                assert!(response.body.ends_with("\nlivez check failed"));
            }
        }
    }
}
