//! The accept loop, the open connections, and who gives way at the limit.
//!
//! Everything runs on the executor's one thread. A connection is a task that steps its [`Conn`]; what the server wants
//! of it (a deadline has passed, a drain has begun, it has to give way) it finds out when it is woken. Its table entry
//! says when that has to happen, so that one timer serves all of them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_net::TcpStream;
use httpdate::HttpDate;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use slab::Slab;
use smol::future::yield_now;
use smol::io::{AsyncRead as _, AsyncWrite as _};
use smol::stream::Stream as _;
use smol::{Async, LocalExecutor, Timer};

use crate::check::{Check, Human, Observer};
use crate::condition::Condition;
use crate::conn::{Buffers, Conn, Site, Step};
use crate::handover::Listener;
use crate::health::{self, Endpoint, Facts, Line, Numbers, Question, Route, Snapshot};
use crate::http::{Rejection, Request, Response};
use crate::log;
use crate::sd_notify::Notified;

/// How often liveness is looked at where nobody asks and `--exit-on-unhealthy` is given.
const WATCH_EACH: Duration = Duration::from_secs(1);
/// How long accepting rests when the machine is out of something that no connection here can give back.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How many connections are accepted, or steps of one connection taken, before the others have their turn.
const TURN: usize = 16;
/// The most connections that the end of the listening socket can leave in its queue; the bound on accepting them.
const QUEUE: usize = 4096;

/// The server: shared by the accept loops and the connections.
pub(crate) struct Server {
    executor: Rc<LocalExecutor<'static>>,
    max_connections: usize,
    since: Instant,
    /// Requests that were answered.
    requests: Cell<u64>,
    snapshot: Cell<Snapshot>,
    /// The checks of liveness and of readiness; the observer has them all, in this order.
    checks: [Vec<Check>; 2],
    observer: Rc<Observer>,
    /// The last verdict on liveness and on readiness, and since when it has been that.
    verdicts: Cell<[Option<(bool, Instant)>; 2]>,
    /// Liveness has failed for longer than it may.
    is_unhealthy: Cell<bool>,
    /// Readiness has held once.
    has_started: Cell<bool>,
    /// Listening ends.
    is_closing: Cell<bool>,
    /// How long an idle connection is waited for in a drain.
    drain_until: Cell<Option<Instant>>,
    /// Connections from before the drain that are still open.
    drain_waits_for: Cell<usize>,
    connections: RefCell<Slab<Entry>>,
    buffers: RefCell<Buffers>,
    /// Accept loops still listening.
    listening: Cell<usize>,
    /// When the timer of [`Server::keep_time`] fires.
    timer: Cell<Option<Instant>>,
    /// Woken when a connection's deadline comes before that.
    timekeeper: RefCell<Option<Waker>>,
    /// What accept loops look at: the phase, and who has the listening socket.
    acceptance: Condition,
    /// What a drain waits for: connections, accept loops.
    progress: Condition,
}

/// What the server knows of an open connection.
struct Entry {
    waker: Waker,
    /// When to wake it; `None` once that has been done.
    deadline: Option<Instant>,
    precedence: Option<(bool, Instant)>,
    /// It is from before the drain, which waits for it.
    is_waited_for: bool,
    /// It was chosen to give way: it closes as soon as it would have to wait.
    gives_way: bool,
}

impl Server {
    /// Serves nothing yet.
    pub(crate) fn new(
        executor: Rc<LocalExecutor<'static>>,
        max_connections: usize,
        checks: [Vec<Check>; 2],
        check_timeout: Duration,
    ) -> Rc<Server> {
        let all = checks.iter().flatten();
        let observer = Observer::new(Rc::clone(&executor), check_timeout, all);
        Rc::new(Server {
            executor,
            max_connections,
            since: Instant::now(),
            requests: Cell::new(0),
            snapshot: Cell::default(),
            checks,
            observer,
            verdicts: Cell::default(),
            is_unhealthy: Cell::new(false),
            has_started: Cell::new(false),
            is_closing: Cell::new(false),
            drain_waits_for: Cell::new(0),
            connections: RefCell::default(),
            buffers: RefCell::default(),
            listening: Cell::new(0),
            timer: Cell::new(None),
            timekeeper: RefCell::default(),
            drain_until: Cell::new(None),
            acceptance: Condition::default(),
            progress: Condition::default(),
        })
    }

    /// Accepts connections until a drain has ended, or a successor has taken the socket.
    pub(crate) fn accept_from(self: &Rc<Server>, listener: Rc<Listener>) {
        self.listening.set(self.listening.get() + 1);
        let server = Rc::clone(self);
        self.executor
            .spawn(async move {
                server.accept_loop(&listener).await;
                drop(listener);
                server.listening.set(server.listening.get() - 1);
                server.progress.changed();
            })
            .detach();
    }

    /// A successor has taken a listening socket.
    pub(crate) fn released(&self) {
        self.acceptance.changed();
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

    /// Begins to drain: open connections finish, idle ones are closed at `until`. New ones get one answer, as long as
    /// livelet lives anyway: refusing them would help nobody.
    pub(crate) fn drain(&self, until: Instant) {
        let mut connections = self.connections.borrow_mut();
        self.drain_until.set(Some(until));
        self.drain_waits_for.set(connections.len());
        for (_, entry) in connections.iter_mut() {
            entry.is_waited_for = true;
            entry.waker.wake_by_ref();
        }
    }

    /// Waits until the connections from before the drain have finished.
    pub(crate) async fn older_finished(&self) {
        self.progress
            .until(|| self.drain_waits_for.get() == 0)
            .await;
    }

    /// Ends listening: what is queued is accepted, the sockets are closed.
    pub(crate) fn end_listening(&self) {
        self.is_closing.set(true);
        self.acceptance.changed();
    }

    /// Waits until listening has ended and no connection is open.
    pub(crate) async fn drained(&self) {
        self.progress
            .until(|| self.listening.get() == 0 && self.open_connections() == 0)
            .await;
    }

    /// Ends the drain: closes what is still open.
    pub(crate) fn cut(&self) {
        for (_, entry) in self.connections.borrow_mut().iter_mut() {
            entry.gives_way = true;
            entry.waker.wake_by_ref();
        }
        self.end_listening();
    }

    /// Looks at liveness every now and then, until it has failed for `limit` without a break.
    pub(crate) async fn watch(self: Rc<Server>, limit: Duration) {
        let mut failing_since = None;
        loop {
            let now = Instant::now();
            let holds = poll_fn(|cx| match self.lines(Endpoint::Live, |_| true, now) {
                Some(lines) => {
                    self.judge_by(Endpoint::Live, &lines);
                    Poll::Ready(lines.iter().all(|(_, outcome)| outcome.is_ok()))
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
                    return self.progress.changed();
                }
            }
            Timer::after(rest).await;
        }
    }

    /// Waits until [`Server::watch`] has given up.
    pub(crate) async fn unhealthy(&self) {
        self.progress.until(|| self.is_unhealthy.get()).await;
    }

    /// How many connections are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Wakes each connection at its deadline; runs as long as the server.
    pub(crate) async fn keep_time(self: Rc<Server>) {
        let mut timer = Timer::never();
        poll_fn(|cx| -> Poll<()> {
            self.timekeeper.replace(Some(cx.waker().clone()));
            let next = self.wake_expired(Instant::now());
            self.timer.set(next);
            match next {
                Some(deadline) => timer.set_at(deadline),
                None => timer.clear(),
            }
            if Pin::new(&mut timer).poll_next(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }

    /// Wakes the connections whose deadline has passed and returns the next one's.
    fn wake_expired(&self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for (_, entry) in self.connections.borrow_mut().iter_mut() {
            match entry.deadline {
                Some(deadline) if deadline <= now => {
                    entry.deadline = None;
                    entry.waker.wake_by_ref();
                }
                Some(deadline) => {
                    next = Some(next.map_or(deadline, |at: Instant| at.min(deadline)))
                }
                None => {}
            }
        }
        next
    }

    async fn accept_loop(self: &Rc<Server>, listener: &Listener) {
        let mut turn = 0;
        let mut queued = 0;
        while queued < QUEUE && !listener.is_taken() {
            match accept_with(
                &listener.socket,
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            ) {
                Ok(socket) => {
                    self.make_room().await;
                    self.open(socket.into());
                    turn += 1;
                    queued += usize::from(self.is_closing.get());
                    if turn % TURN == 0 {
                        yield_now().await;
                    }
                }
                Err(Errno::AGAIN) if self.is_closing.get() => return,
                Err(Errno::AGAIN) => self.acceptable(listener).await,
                Err(error) => self.accept_failed(error).await,
            }
        }
    }

    /// Waits until there may be a connection to accept, or none is to be accepted any more.
    async fn acceptable(&self, listener: &Listener) {
        poll_fn(|cx| {
            if self.is_closing.get() || listener.is_taken() {
                return Poll::Ready(());
            }
            self.acceptance.wait(cx);
            // An error is accept's to report.
            listener.socket.poll_readable(cx).map(drop)
        })
        .await;
    }

    /// An error of accept4(2) may be the queued connection's own, and the next one fine. Where the machine is short of
    /// something, a connection here gives way, as it may be its descriptor that is missing; where that is no help,
    /// accepting rests.
    async fn accept_failed(&self, error: Errno) {
        log::detail(format_args!("accept: {}", io::Error::from(error)));
        let may_help = match error {
            Errno::INTR | Errno::CONNABORTED | Errno::PROTO => true,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => self.let_one_give_way(),
            _ => false,
        };
        if !may_help {
            Timer::after(ACCEPT_REST).await;
        }
        yield_now().await;
    }

    async fn make_room(&self) {
        let is_full = || self.open_connections() >= self.max_connections;
        if is_full() {
            // Those accepted a moment ago have not been read from yet.
            yield_now().await;
        }
        while is_full() {
            if self.let_one_give_way() {
                yield_now().await;
            } else {
                // All of them have asked, or are closing: the next to finish makes room.
                self.progress.until(|| !is_full()).await;
            }
        }
    }

    /// Asks one connection to give way; false where none is left to ask.
    fn let_one_give_way(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let open = connections.iter_mut().map(|(_, entry)| entry);
        let candidates = open.filter(|entry| !entry.gives_way && entry.precedence.is_some());
        let chosen = candidates.min_by_key(|entry| entry.precedence);
        let Some(entry) = chosen else { return false };
        entry.gives_way = true;
        entry.waker.wake_by_ref();
        true
    }

    fn open(self: &Rc<Server>, socket: std::net::TcpStream) {
        let stream = match Async::new_nonblocking(socket) {
            Ok(stream) => TcpStream::from(stream),
            Err(error) => return log::detail(format_args!("connection: epoll: {error}")),
        };
        let conn = Conn::new(Instant::now());
        let key = self.connections.borrow_mut().insert(Entry {
            waker: Waker::noop().clone(),
            deadline: None,
            precedence: conn.precedence(),
            is_waited_for: false,
            gives_way: false,
        });
        let connection = Connection {
            server: Rc::clone(self),
            key,
            conn,
            stream,
        };
        self.executor.spawn(connection).detach();
    }

    /// Whether a connection has to give way.
    fn gives_way(&self, key: usize) -> bool {
        self.connections
            .borrow()
            .get(key)
            .is_some_and(|entry| entry.gives_way)
    }

    /// A connection waits: keeps what is needed to wake it.
    fn note(&self, key: usize, conn: &Conn, waker: &Waker) {
        let deadline = conn.deadline();
        if let Some(entry) = self.connections.borrow_mut().get_mut(key) {
            entry.deadline = Some(deadline);
            entry.precedence = conn.precedence();
            entry.waker.clone_from(waker);
        }
        if self.timer.get().is_none_or(|at| deadline < at) {
            self.timekeeper.take().into_iter().for_each(Waker::wake);
        }
    }

    fn closed(&self, key: usize) {
        let entry = self.connections.borrow_mut().try_remove(key);
        if entry.is_some_and(|entry| entry.is_waited_for) {
            self.drain_waits_for.set(self.drain_waits_for.get() - 1);
        }
        self.progress.changed();
    }
}

impl Server {
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
        let facts = Facts {
            pid: std::process::id(),
            uptime: self.since.elapsed(),
            said: notified.status(),
        };
        Some(question.answer(&lines, &names, &facts))
    }

    fn metrics(&self, since: Instant) -> Option<Response> {
        let [live, ready] = [Endpoint::Live, Endpoint::Ready].map(|endpoint| {
            // Both are begun before one is waited for.
            Some((endpoint, self.lines(endpoint, |_| true, since)?))
        });
        let endpoints = [live?, ready?];
        for (endpoint, lines) in &endpoints {
            self.judge_by(*endpoint, lines);
        }
        let numbers = Numbers {
            uptime: self.since.elapsed(),
            connections: self.open_connections(),
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
        lines.retain(|(name, _)| wants(name));
        let (checks, first) = self.checks_of(endpoint);
        let mut is_known = true;
        for (index, check) in checks.iter().enumerate() {
            if wants(&check.name) {
                // All of them are begun before any is waited for.
                match self.observer.observe(first + index, since) {
                    Some(outcome) => lines.push((&check.name, outcome.map_err(Into::into))),
                    None => is_known = false,
                }
            }
        }
        is_known.then_some(lines)
    }

    fn judge_by(&self, endpoint: Endpoint, lines: &[Line<'_>]) {
        let mut failures = lines
            .iter()
            .filter_map(|(name, outcome)| Some((*name, outcome.as_ref().err()?.as_ref())));
        self.judge(endpoint, failures.next());
    }

    /// Says a change of health, with its reason: who looks at an orchestrator's events does not see an answer's content.
    fn judge(&self, endpoint: Endpoint, failure: Option<(&str, &str)>) {
        let holds = failure.is_none();
        if holds && endpoint != Endpoint::Live {
            self.has_started.set(true);
        }
        let now = Instant::now();
        let mut verdicts = self.verdicts.get();
        let slot = match endpoint {
            Endpoint::Live => verdicts.first_mut(),
            Endpoint::Ready => verdicts.last_mut(),
            Endpoint::Startup => None,
        };
        let Some(verdict) = slot else { return };
        let before = verdict.filter(|(held, _)| *held != holds);
        if verdict.is_none() && holds || verdict.is_some() && before.is_none() {
            verdict.get_or_insert((holds, now));
            return self.verdicts.set(verdicts);
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
        *verdict = Some((holds, now));
        self.verdicts.set(verdicts);
    }
}

impl Site for Server {
    fn respond(&self, request: &Request<'_>, since: Instant) -> Option<Response> {
        let response = match health::route(request) {
            Route::Fixed(response) => response,
            Route::Ask(question) => self.answer(&question, since)?,
            Route::Metrics => self.metrics(since)?,
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

    fn date(&self) -> HttpDate {
        /// 9999-12-31 23:59:59, in seconds of Unix time.
        const LAST_HTTP_DATE: u64 = 253_402_300_799;
        // httpdate panics on what HTTP has no notation for, and a machine's clock can be set to anything.
        let last = UNIX_EPOCH + Duration::from_secs(LAST_HTTP_DATE);
        SystemTime::now().clamp(UNIX_EPOCH, last).into()
    }
}

/// The task of one connection.
struct Connection {
    server: Rc<Server>,
    key: usize,
    conn: Conn,
    stream: TcpStream,
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Connection {
            server,
            key,
            conn,
            stream,
        } = &mut *self;
        let gives_way = server.gives_way(*key);
        if gives_way {
            conn.drain(Instant::now());
        } else if let Some(until) = server.drain_until.get() {
            conn.drain(until);
        }
        let mut buffers = server.buffers.borrow_mut();
        conn.borrow(&mut buffers);
        let outcome = advance(conn, stream, server, cx);
        conn.give_back(&mut buffers);
        if outcome.is_ready() || gives_way {
            return Poll::Ready(());
        }
        server.note(*key, conn, cx.waker());
        Poll::Pending
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.closed(self.key);
    }
}

/// Takes a connection as far as it gets without waiting; ready when it is over.
fn advance(
    conn: &mut Conn,
    stream: &mut TcpStream,
    site: &Server,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let now = Instant::now();
    for _ in 0..TURN {
        let outcome = match conn.step(now, site) {
            Step::Read(room) => {
                let read = Pin::new(&mut *stream).poll_read(cx, room);
                read.map_ok(|count| conn.received(count, now))
            }
            Step::Send(bytes) => {
                let written = Pin::new(&mut *stream).poll_write(cx, bytes);
                written.map_ok(|count| conn.sent(count, now))
            }
            Step::Wait => {
                site.observer.wait(cx);
                Poll::Pending
            }
            Step::ShutDown => Poll::Ready(stream.shutdown(Shutdown::Write)),
            Step::Close => return Poll::Ready(()),
        };
        match outcome {
            Poll::Ready(Ok(())) => {}
            // The client is gone.
            Poll::Ready(Err(_)) => return Poll::Ready(()),
            // Only now: what has arrived by the deadline still counts.
            Poll::Pending if now >= conn.deadline() => conn.expired(now, site),
            Poll::Pending => return Poll::Pending,
        }
    }
    // A client that always has more to send must not outlive its deadline, nor keep the others from their turn.
    if now >= conn.deadline() {
        conn.expired(now, site);
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
