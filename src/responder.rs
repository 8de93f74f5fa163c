//! Answers requests: routes them, runs the checks that they ask for, and renders the outcomes.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::fs;
use std::future::poll_fn;
use std::ops::Deref;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::LocalExecutor;

use crate::check::{Check, Observed, Observer};
use crate::config::Config;
use crate::health::{
    self, Alias, CheckResult, Endpoint, Facts, Question, Report, Snapshot, Verdicts, View,
};
use crate::http::{CommonFields, Request, Response, Status};
use crate::log;
use crate::notify::Notified;
use crate::runtime::{Condition, Timer};

/// Time between two runs of the liveness checks if `--exit-on-unhealthy` is set. livelet then runs
/// these checks even if no prober asks.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// State on which the responses to HTTP probes depend: the checks, their last verdicts, and facts
/// about livelet and its worker.
pub(crate) struct Responder {
    /// Process id of livelet.
    pid: u32,
    since: Instant,
    /// Start of the worker's command line, or the name of the host if there is no worker. The
    /// status page shows this text.
    owner: String,
    /// Number of open HTTP connections. The HTTP server keeps this number up to date.
    pub(crate) connections: Cell<usize>,
    /// Number of answered HTTP requests. The HTTP server keeps this number up to date.
    pub(crate) requests: Cell<u64>,
    snapshot: Cell<Snapshot>,
    /// Encoded header fields, such as Date, that all responses of the same second share.
    common: RefCell<CommonFields>,
    live: Vec<Check>,
    ready: Vec<Check>,
    aliases: Vec<Alias>,
    /// Runner of all checks. The checks of liveness have the first indexes, and those of readiness
    /// follow.
    observer: Rc<Observer>,
    verdicts: RefCell<Verdicts>,
    /// `true` once liveness has failed without a break for the time that `--exit-on-unhealthy`
    /// gives.
    is_unhealthy: Cell<bool>,
    became_unhealthy: Condition,
}

/// The user's checks of one endpoint.
#[derive(Debug, Clone, Copy)]
struct UserChecks<'a> {
    checks: &'a [Check],
    /// Index of the first of `checks` in [`Observer`].
    first: usize,
}

impl Responder {
    /// Creates a responder with the checks and paths that `config` describes. `executor` runs the
    /// tasks of the checks. No check has run yet.
    pub(crate) fn new(executor: Rc<LocalExecutor<'static>>, config: &Config) -> Rc<Responder> {
        let (live, ready) = (config.live.clone(), config.ready.clone());
        let observer = Observer::new(executor, config.check_timeout, live.iter().chain(&ready));
        Rc::new(Responder {
            pid: std::process::id(),
            since: Instant::now(),
            owner: owner(&config.command),
            connections: Cell::new(0),
            requests: Cell::new(0),
            snapshot: Cell::default(),
            common: RefCell::new(CommonFields::at(0)),
            live,
            ready,
            aliases: config.paths.clone(),
            observer,
            verdicts: RefCell::default(),
            is_unhealthy: Cell::new(false),
            became_unhealthy: Condition::default(),
        })
    }

    /// Returns the runner of the checks.
    pub(crate) fn observer(&self) -> &Observer {
        &self.observer
    }

    /// Returns the shared state that results from the worker's sd_notify messages.
    pub(crate) fn notified(&self) -> Rc<RefCell<Notified>> {
        Rc::clone(self.observer.notified())
    }

    /// Stores `snapshot`, the present state of livelet and its worker. Later responses depend on
    /// it.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.set(snapshot);
    }

    /// Returns the encoded header fields, such as Date, that all responses of the present second
    /// share.
    pub(crate) fn common_fields(&self) -> impl Deref<Target = CommonFields> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = since_epoch.unwrap_or_default().as_secs();
        if self.common.borrow().second() != second {
            self.common.replace(CommonFields::at(second));
        }
        self.common.borrow()
    }

    /// Returns the route of `request`: either a fixed response, or the question about health that
    /// the request asks.
    pub(crate) fn route(&self, request: &Request<'_>) -> health::Route {
        health::route(request, &self.aliases)
    }

    /// Returns the response to `question`, which a prober asked at `since`. If the last outcome of
    /// a check is too old for this question, starts the check, registers `cx` to be woken when a
    /// check has ended, and returns `Poll::Pending`.
    pub(crate) fn poll_answer(
        &self,
        question: &Question,
        since: Instant,
        cx: &Context<'_>,
    ) -> Poll<Response> {
        let mut reports = Vec::with_capacity(question.endpoints().len());
        let mut is_known = true;
        for &endpoint in question.endpoints() {
            // All checks start before the first one is waited for.
            match self.report(endpoint, question, since) {
                Some(report) => reports.push(report),
                None => is_known = false,
            }
        }
        if !is_known {
            self.observer.wait(cx);
            return Poll::Pending;
        }
        let now = Instant::now();
        let names = if question.is_filtered() {
            self.names(question.endpoint)
        } else {
            for report in &reports {
                self.judge(report, now);
            }
            Vec::new()
        };
        let notified = self.observer.notified().borrow();
        let facts = Facts {
            pid: self.pid,
            worker_pid: self.snapshot.get().pid,
            owner: &self.owner,
            uptime: now.saturating_duration_since(self.since),
            status: notified.status(),
            connections: self.connections.get(),
            requests: self.requests.get(),
        };
        Poll::Ready(health::respond(question, &reports, &names, &facts))
    }

    /// Runs the liveness checks and waits for their outcomes. Returns `true` if liveness passes.
    pub(crate) async fn lives(&self) -> bool {
        let question = Question::new(Endpoint::Live, View::Plain);
        let since = Instant::now();
        let answer = poll_fn(|cx| self.poll_answer(&question, since, cx)).await;
        answer.status == Status::Ok
    }

    /// Runs the liveness checks periodically, until liveness has passed once and then failed for
    /// `limit` without a break. Then wakes the tasks that wait in [`Responder::unhealthy`].
    pub(crate) async fn watch(self: Rc<Responder>, limit: Duration) {
        loop {
            self.lives().await;
            let left = self.verdicts.borrow().unhealthy_in(limit, Instant::now());
            if left == Some(Duration::ZERO) {
                self.is_unhealthy.set(true);
                return self.became_unhealthy.changed();
            }
            Timer::after(left.unwrap_or(WATCH_PERIOD).min(WATCH_PERIOD)).await;
        }
    }

    /// Waits until [`Responder::watch`] has found that liveness failed for its time limit without a
    /// break.
    pub(crate) async fn unhealthy(&self) {
        self.became_unhealthy
            .until(|| self.is_unhealthy.get())
            .await;
    }

    /// Returns the user's checks of `endpoint`. The startup endpoint has the checks of readiness
    /// until they have passed once, and no checks afterwards.
    fn checks_of(&self, endpoint: Endpoint) -> UserChecks<'_> {
        let (checks, first) = match endpoint {
            Endpoint::Live => (self.live.as_slice(), 0),
            Endpoint::Startup if self.verdicts.borrow().has_started() => ([].as_slice(), 0),
            Endpoint::Ready | Endpoint::Startup => (self.ready.as_slice(), self.live.len()),
        };
        UserChecks { checks, first }
    }

    /// Returns the names of all checks of `endpoint`. The names of livelet's built-in checks come
    /// first.
    fn names(&self, endpoint: Endpoint) -> Vec<&str> {
        let own = Report::own(endpoint, self.snapshot.get()).checks;
        let UserChecks { checks, .. } = self.checks_of(endpoint);
        let own = own.into_iter().map(|check| check.name);
        own.chain(checks.iter().map(|check| check.name.as_str()))
            .collect()
    }

    /// Returns the results of those checks of `endpoint` that `question` selects. Each result is
    /// recent enough for a probe that came at `since`. If a check has no such result yet, starts
    /// the check and returns `None`. While livelet stops its worker, the user's liveness checks
    /// pass without a run.
    fn report(
        &self,
        endpoint: Endpoint,
        question: &Question,
        since: Instant,
    ) -> Option<Report<'_>> {
        let mut report = Report::own(endpoint, self.snapshot.get());
        report.checks.retain(|check| question.wants(check.name));
        let UserChecks { checks, first } = self.checks_of(endpoint);
        let Snapshot {
            is_stopping,
            has_worker_failed,
            ..
        } = self.snapshot.get();
        // A worker that stops may close what its checks ask for. So they pass: a stop is no failure
        // of liveness.
        if endpoint == Endpoint::Live && is_stopping && !has_worker_failed {
            let wanted = checks.iter().filter(|check| question.wants(&check.name));
            report.checks.extend(wanted.map(|check| CheckResult {
                name: &check.name,
                outcome: Ok(()),
                event: None,
            }));
            return Some(report);
        }
        let mut is_known = true;
        for (index, check) in checks.iter().enumerate() {
            if question.wants(&check.name) {
                match self.observer.observe(first + index, since) {
                    Some(Observed { outcome, event }) => report.checks.push(CheckResult {
                        name: &check.name,
                        outcome: outcome.map_err(Into::into),
                        event: Some(event),
                    }),
                    None => is_known = false,
                }
            }
        }
        is_known.then_some(report)
    }

    /// Updates the verdict on an endpoint with `report`, the results of its checks at the time
    /// `now`. If the failing checks have changed, logs the change with its reasons, because an
    /// orchestrator's events don't show the content of responses.
    fn judge(&self, report: &Report<'_>, now: Instant) {
        let is_stopping = self.snapshot.get().is_stopping;
        let change = self.verdicts.borrow_mut().judge(report, is_stopping, now);
        if let Some(change) = change {
            log::notice(format_args!("{change}"));
        }
    }
}

/// Returns the program of `command`, a space and the first argument. Returns the name of the host
/// if `command` is empty. Leaves the argument out if it looks like an option, an assignment or a
/// URL, because these may contain a password.
fn owner(command: &[OsString]) -> String {
    let Some(program) = command.first() else {
        return fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    };
    let argument = command.get(1).map(|word| word.as_encoded_bytes());
    let argument = argument.filter(|word| {
        !word.starts_with(b"-") && !word.iter().any(|byte| matches!(byte, b'=' | b':'))
    });
    let mut owner = program.as_encoded_bytes().to_vec();
    owner.push(b' ');
    owner.extend_from_slice(argument.unwrap_or_default());
    String::from_utf8_lossy(&owner).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_command_without_its_secrets() {
        for (command, expected) in [
            (&["node", "worker.js", "queue"][..], "node worker.js"),
            (&["python", "-m", "worker"], "python"),
            (&["psql", "postgres://user:password@db"], "psql"),
            (&["env", "PASSWORD=secret", "worker"], "env"),
        ] {
            let command: Vec<OsString> = command.iter().map(OsString::from).collect();
            assert_eq!(owner(&command).trim_end(), expected);
        }
    }
}
