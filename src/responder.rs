//! What is answered: the checks that a question depends on, looked at, and the verdict on them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ops::Deref;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use smol::LocalExecutor;

use crate::check::{Check, Observer};
use crate::duration::Human;
use crate::health::{self, Endpoint, Facts, Line, Numbers, Question, Route, Snapshot};
use crate::http::connection::Site;
use crate::http::{Common, Rejection, Request, Response};
use crate::log;
use crate::notify::Notified;
use crate::runtime::{Condition, Timer};

/// How often liveness is looked at where nobody asks and `--exit-on-unhealthy` is given.
const WATCH_EACH: Duration = Duration::from_secs(1);

/// All that answers depend on.
pub(crate) struct Responder {
    since: Instant,
    /// Connections that are open; the server counts them.
    pub(crate) connections: Cell<usize>,
    /// Requests that were answered.
    requests: Cell<u64>,
    snapshot: Cell<Snapshot>,
    /// The fields of every answer in this second.
    common: RefCell<Common>,
    /// The checks of liveness and of readiness; the observer has them all, in this order.
    checks: [Vec<Check>; 2],
    observer: Rc<Observer>,
    /// The last verdict on liveness and on readiness, and since when it has been that.
    verdicts: Cell<[Option<(bool, Instant)>; 2]>,
    /// Readiness has held once.
    has_started: Cell<bool>,
    /// Liveness has failed for longer than it may.
    is_unhealthy: Cell<bool>,
    /// That it has.
    given_up: Condition,
}

impl Responder {
    /// Nothing has been looked at yet.
    pub(crate) fn new(
        executor: Rc<LocalExecutor<'static>>,
        checks: [Vec<Check>; 2],
        check_timeout: Duration,
    ) -> Rc<Responder> {
        let observer = Observer::new(executor, check_timeout, checks.iter().flatten());
        Rc::new(Responder {
            since: Instant::now(),
            connections: Cell::new(0),
            requests: Cell::new(0),
            snapshot: Cell::default(),
            common: RefCell::new(Common::at(0)),
            checks,
            observer,
            verdicts: Cell::default(),
            has_started: Cell::new(false),
            is_unhealthy: Cell::new(false),
            given_up: Condition::default(),
        })
    }

    /// Who looks at the checks.
    pub(crate) fn observer(&self) -> &Observer {
        &self.observer
    }

    /// What the worker says of itself.
    pub(crate) fn notified(&self) -> Rc<RefCell<Notified>> {
        Rc::clone(self.observer.notified())
    }

    /// Publishes the state that answers depend on.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.set(snapshot);
    }

    /// Wakes the task when a check has been looked at.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        self.observer.wait(cx);
    }

    /// Looks at liveness every now and then, until it has failed for `limit` without a break.
    pub(crate) async fn watch(self: Rc<Responder>, limit: Duration) {
        let mut failing_since = None;
        loop {
            let now = Instant::now();
            let holds = poll_fn(|cx| match self.lines(Endpoint::Live, |_| true, now) {
                Some(lines) => {
                    self.judge_by(Endpoint::Live, &lines);
                    Poll::Ready(lines.iter().all(|(_, outcome, _)| outcome.is_ok()))
                }
                None => {
                    self.observer.wait(cx);
                    Poll::Pending
                }
            })
            .await;
            let mut rest = WATCH_EACH;
            if holds {
                failing_since = None;
            } else {
                let failed_for = *failing_since.get_or_insert(now);
                rest = (failed_for + limit)
                    .saturating_duration_since(Instant::now())
                    .min(rest);
                if rest.is_zero() {
                    self.is_unhealthy.set(true);
                    return self.given_up.changed();
                }
            }
            Timer::after(rest).await;
        }
    }

    /// Waits until [`Responder::watch`] has given up.
    pub(crate) async fn unhealthy(&self) {
        self.given_up.until(|| self.is_unhealthy.get()).await;
    }

    /// The answer to a question that was asked at `since`, as soon as every check that it depends on has been looked at
    /// after that.
    fn answer(&self, question: &Question<'_>, since: Instant) -> Option<Response> {
        let endpoint = question.endpoint;
        let (checks, _) = self.checks_of(endpoint);
        let holds = health::own_holds(endpoint, self.snapshot.get());
        if checks.is_empty() && question.is_plain() && holds {
            self.judge(endpoint, None);
            return Some(health::OK);
        }
        let lines = self.lines(endpoint, |name| question.wants(name), since)?;
        let own = health::own_lines(endpoint, self.snapshot.get());
        let names = health::names(&own, checks);
        if lines.len() == names.len() {
            self.judge_by(endpoint, &lines);
        }
        let notified = self.observer.notified().borrow();
        Some(question.answer(&lines, &names, &self.facts(&notified)))
    }

    fn facts<'n>(&self, notified: &'n Notified) -> Facts<'n> {
        Facts {
            pid: std::process::id(),
            uptime: self.since.elapsed(),
            said: notified.status(),
        }
    }

    /// What is answered from liveness and readiness together: the page, or the metrics.
    fn both(&self, since: Instant, is_page: bool) -> Option<Response> {
        let [live, ready] = [Endpoint::Live, Endpoint::Ready].map(|endpoint| {
            // Both are begun before one is waited for.
            Some((endpoint, self.lines(endpoint, |_| true, since)?))
        });
        let endpoints = [live?, ready?];
        for (endpoint, lines) in &endpoints {
            self.judge_by(*endpoint, lines);
        }
        if is_page {
            let pid = self.snapshot.get().pid;
            let notified = self.observer.notified().borrow();
            let facts = self.facts(&notified);
            return Some(health::page(&endpoints, pid, &facts, Instant::now()));
        }
        let numbers = Numbers {
            uptime: self.since.elapsed(),
            connections: self.connections.get(),
            requests: self.requests.get(),
        };
        Some(health::metrics(&endpoints, &numbers))
    }

    /// The checks of an endpoint, and the index of the first of them.
    fn checks_of(&self, endpoint: Endpoint) -> (&[Check], usize) {
        let [live, ready] = &self.checks;
        match endpoint {
            Endpoint::Live => (live, 0),
            Endpoint::Startup if self.has_started.get() => (&[], 0),
            Endpoint::Ready | Endpoint::Startup => (ready, live.len()),
        }
    }

    /// A line for all that is wanted of an endpoint; `None` where a check has yet to be looked at.
    fn lines(
        &self,
        endpoint: Endpoint,
        wants: impl Fn(&str) -> bool,
        since: Instant,
    ) -> Option<Vec<Line<'_>>> {
        let mut lines = health::own_lines(endpoint, self.snapshot.get());
        lines.retain(|(name, ..)| wants(name));
        let (checks, first) = self.checks_of(endpoint);
        let mut is_known = true;
        for (index, check) in checks.iter().enumerate() {
            if wants(&check.name) {
                // All of them are begun before any is waited for.
                match self.observer.observe(first + index, since) {
                    Some((outcome, at)) => {
                        lines.push((&check.name, outcome.map_err(Into::into), Some(at)));
                    }
                    None => is_known = false,
                }
            }
        }
        is_known.then_some(lines)
    }

    fn judge_by(&self, endpoint: Endpoint, lines: &[Line<'_>]) {
        let mut failures = lines
            .iter()
            .filter_map(|(name, outcome, _)| Some((*name, outcome.as_ref().err()?.as_ref())));
        self.judge(endpoint, failures.next());
    }

    /// Says a change of health, with its reason: who looks at an orchestrator's events does not see an answer's content.
    fn judge(&self, endpoint: Endpoint, failure: Option<(&str, &str)>) {
        let holds = failure.is_none();
        if holds && endpoint != Endpoint::Live {
            self.has_started.set(true);
        }
        let mut verdicts = self.verdicts.get();
        let slot = match endpoint {
            Endpoint::Live => verdicts.first_mut(),
            Endpoint::Ready => verdicts.last_mut(),
            Endpoint::Startup => None,
        };
        let Some(verdict) = slot else { return };
        if verdict.is_some_and(|(held, _)| held == holds) {
            return;
        }
        let now = Instant::now();
        let before = verdict.replace((holds, now));
        self.verdicts.set(verdicts);
        if before.is_none() && holds {
            return;
        }
        let name = endpoint.name();
        let lasted = before.map(|(held, since)| {
            let word = if held { "passed" } else { "failed" };
            format!(" (it had {word} for {})", Human(now - since))
        });
        let lasted = lasted.unwrap_or_default();
        match failure {
            Some((check, reason)) => {
                log::notice(format_args!(
                    "health: {name}: {check} failed: {reason}{lasted}"
                ));
            }
            None => log::notice(format_args!("health: {name}: passes{lasted}")),
        }
    }
}

impl Site for Responder {
    fn respond(&self, request: &Request<'_>, since: Instant) -> Option<Response> {
        let response = match health::route(request) {
            Route::Fixed(response) => response,
            Route::Ask(question) => self.answer(&question, since)?,
            Route::Metrics => self.both(since, false)?,
            Route::Page => self.both(since, true)?,
        };
        self.requests.set(self.requests.get().wrapping_add(1));
        log::detail(format_args!(
            "request: {}: {}",
            request.path,
            response.status.line()
        ));
        Some(response)
    }

    fn reject(&self, rejection: &Rejection) -> Response {
        log::detail(format_args!(
            "request: {}: {}",
            rejection.status.line(),
            rejection.reason
        ));
        Response::fixed(rejection.status, rejection.reason)
    }

    fn common(&self) -> impl Deref<Target = Common> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = since_epoch.unwrap_or_default().as_secs();
        if self.common.borrow().second() != second {
            self.common.replace(Common::at(second));
        }
        self.common.borrow()
    }
}
