//! The HTTP server: accepts connections, runs a task for each, and evicts one at the connection
//! limit.
//!
//! Everything runs on the one thread of the executor. The task of a connection calls its
//! [`Connection`] and does the I/O. The server's table has an entry for each connection, which says
//! whether the connection is evicted. At an eviction or a drain the server wakes the task, which
//! then reads its phase from the server.

use std::cell::{Cell, RefCell};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use slab::Slab;
use smol::LocalExecutor;
use smol::future::{or, yield_now};

use super::connection::{Connection, EvictionRank, Incoming, MAX_READ, Phase, Step};
use super::{Rejection, Response};
use crate::handover::Listener;
use crate::health::{Question, Route};
use crate::log;
use crate::responder::Responder;
use crate::runtime::{Condition, Source, Timer, task};

/// Time that livelet waits before the next accept4(2) after an error that is likely to come back at
/// once. [`Server::accept_failed`] decides which errors these are.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// Number of accept4(2) errors in a row at which livelet begins to wait for [`ACCEPT_BACK_OFF`]
/// even after an error, such as ECONNABORTED, that usually concerns only one queued connection.
const MAX_ACCEPT_ERRORS: usize = 128;
/// Maximum number of connections that an accept loop accepts in a row before other tasks run. The
/// loop accepts several in a row only while other connections are open. The queue in front of a
/// probe is then short: beside 1024 clients that pipeline requests, a probe takes 10 ms, and 770 ms
/// if the loop accepts one at a time (`tests/system/hostile pipelining`).
const MAX_ACCEPTED: usize = 64;
/// Maximum number of steps, such as a read or a write, that one connection makes without a yield to
/// other tasks. A probe needs no more.
const STEPS: usize = 4;
/// Maximum number of evicted connections that may stay open until their next answer is sent. At
/// this number, livelet closes a newly evicted connection without an answer. Each connection takes
/// less than 1 KiB, and a burst of probes is smaller than this number.
const MAX_EVICTED: usize = 1024;
/// Maximum number of connections that an accept loop accepts after the end of listening was
/// requested. The limit ends the loop even if clients never stop connecting. The queue of a
/// listening socket is usually not longer (listen(2), net.core.somaxconn).
const MAX_QUEUED: usize = 4096;

/// State of the HTTP server, which the accept loops and the tasks of the connections share.
pub(crate) struct Server {
    executor: Rc<LocalExecutor<'static>>,
    responder: Rc<Responder>,
    max_connections: usize,
    /// Phase that every connection enters when its task runs next, unless the connection is
    /// evicted.
    phase: Cell<Phase>,
    /// `true` once the end of listening was requested. The accept loops then accept the queued
    /// connections and close the listening sockets.
    is_closing: Cell<bool>,
    /// `true` if accepting has paused at least once after an error. Only the first pause is logged
    /// at the normal level.
    has_backed_off: Cell<bool>,
    /// `true` if at least one connection has closed because epoll(7) could not watch it.
    has_refused: Cell<bool>,
    /// Number of running accept loops, one for each listening socket.
    listening: Cell<usize>,
    /// Buffer for the bytes of one read, which all connections share.
    buffer: RefCell<[u8; MAX_READ]>,
    /// Buffer for the answers of the connection whose task runs. A connection that can't send all
    /// of its answers keeps the buffer, and the next connection gets a new one.
    outbox: RefCell<Vec<u8>>,
    connections: RefCell<Slab<Entry>>,
    /// Number of evicted connections that are still open.
    evicted: Cell<usize>,
    /// Number of open connections that were accepted before the drain, the end of serving, began.
    older: Cell<usize>,
    /// Condition that wakes the accept loops when the end of listening is requested, or when a
    /// successor, another livelet, may have taken a listening socket.
    acceptance: Condition,
    /// Condition that wakes its waiters when a connection or an accept loop has ended.
    progress: Condition,
}

/// Entry of an open connection in the server's table of connections.
struct Entry {
    waker: Waker,
    /// Rank of the connection for eviction. `None` until the connection's task has tried to read.
    /// Until then the connection can't be evicted, because its request may already have arrived.
    rank: Option<EvictionRank>,
    /// Phase of a connection that the server gives up: `Phase::Evicted` if it may still send its
    /// next answer, `Phase::Cut` if it closes at once. `None` for any other connection.
    eviction: Option<Phase>,
    /// `true` if the connection was accepted before the drain, the end of serving, began.
    is_older: bool,
}

impl Server {
    /// Creates a server without a listening socket. `executor` runs the tasks of the server,
    /// `responder` answers the requests. At `max_connections` open connections, the server evicts
    /// one for each new connection.
    pub(crate) fn new(
        executor: Rc<LocalExecutor<'static>>,
        max_connections: usize,
        responder: Rc<Responder>,
    ) -> Rc<Server> {
        Rc::new(Server {
            executor,
            responder,
            max_connections,
            phase: Cell::new(Phase::Serving),
            is_closing: Cell::new(false),
            has_backed_off: Cell::new(false),
            has_refused: Cell::new(false),
            listening: Cell::new(0),
            buffer: RefCell::new([0; MAX_READ]),
            outbox: RefCell::default(),
            connections: RefCell::default(),
            evicted: Cell::new(0),
            older: Cell::new(0),
            acceptance: Condition::default(),
            progress: Condition::default(),
        })
    }

    /// Starts a task that accepts connections from `listener`. The task ends after
    /// [`Server::end_listening`], or when a successor, another livelet, has taken the socket.
    pub(crate) fn accept_from(self: &Rc<Server>, listener: Rc<Listener>) {
        self.listening.set(self.listening.get() + 1);
        let server = Rc::clone(self);
        task::spawn(&self.executor, async move {
            server.accept_loop(&listener).await;
            drop(listener);
            server.listening.set(server.listening.get() - 1);
            server.progress.changed();
        });
    }

    /// Wakes the accept loops, and each loop checks if its listening socket still belongs to this
    /// livelet. The caller calls this method when a successor, another livelet, may have taken a
    /// socket.
    pub(crate) fn released(&self) {
        self.acceptance.changed();
    }

    /// Records that the stop of livelet has begun: from now on, the next answer on each connection
    /// has `Connection: close`, unless a further request has already arrived on the connection. So
    /// a client with a persistent connection sends its next request over a new connection, which
    /// may lead elsewhere.
    pub(crate) fn stop(&self) {
        self.phase.set(self.phase.get().max(Phase::Stopping));
    }

    /// Begins the drain, the end of serving: livelet answers requests that have arrived, and closes
    /// idle connections at `idle_until`. livelet still accepts and answers new connections, because
    /// to refuse them would help no client.
    pub(crate) fn drain(&self, idle_until: Instant) {
        self.phase.set(Phase::Draining(idle_until));
        let mut connections = self.connections.borrow_mut();
        self.older.set(connections.len());
        for (_, entry) in connections.iter_mut() {
            entry.is_older = true;
            entry.waker.wake_by_ref();
        }
    }

    /// Waits until all connections that were accepted before [`Server::drain`] have closed.
    pub(crate) async fn older_finished(&self) {
        self.progress.until(|| self.older.get() == 0).await;
    }

    /// Requests the end of listening: the accept loops accept the queued connections, and then
    /// close the listening sockets.
    pub(crate) fn end_listening(&self) {
        self.is_closing.set(true);
        self.acceptance.changed();
    }

    /// Waits until all accept loops have ended and no connection is open.
    pub(crate) async fn drained(&self) {
        let is_drained = || self.listening.get() == 0 && self.open_connections() == 0;
        self.progress.until(is_drained).await;
    }

    /// Ends the drain: closes the connections that are still open without waiting for their
    /// answers, and requests the end of listening.
    pub(crate) fn cut(&self) {
        for (_, entry) in self.connections.borrow_mut().iter_mut() {
            self.evict(entry, Phase::Cut);
        }
        self.end_listening();
    }

    /// Returns the number of open connections.
    pub(crate) fn open_connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Accepts connections from `listener` until the end of listening, or until a successor has
    /// taken the socket. While no other connection is open, waits for epoll(7) after each accept,
    /// because a probe usually comes alone. While other connections are open, accepts up to
    /// [`MAX_ACCEPTED`] in a row without waiting. So a probe at the end of a long queue is accepted
    /// before the requests of all connections ahead of it are handled.
    async fn accept_loop(self: &Rc<Server>, listener: &Listener) {
        let mut queued = 0;
        let mut errors = 0;
        let mut batch = 0;
        while queued < MAX_QUEUED && !listener.is_taken() {
            let is_closing = self.is_closing.get();
            if batch == MAX_ACCEPTED {
                yield_now().await;
                batch = 0;
            }
            if batch == 0 && !is_closing {
                let stopped = async {
                    let is_stopped = || self.is_closing.get() || listener.is_taken();
                    self.acceptance.until(is_stopped).await;
                    Ok(())
                };
                // An error of epoll_ctl(2) is handled like one of accept4(2): both tell what the
                // machine lacks.
                if let Err(error) = or(stopped, listener.socket.readable()).await {
                    self.accept_failed(&error, errors).await;
                }
                if listener.is_taken() {
                    return;
                }
            }
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match accept_with(listener.socket.get_ref(), flags) {
                Ok(socket) => {
                    errors = 0;
                    queued += usize::from(is_closing);
                    self.enforce_limit().await;
                    self.open(socket.into());
                    batch = if self.open_connections() > 1 {
                        batch + 1
                    } else {
                        0
                    };
                }
                Err(Errno::AGAIN) if is_closing => return,
                Err(Errno::AGAIN) => batch = 0,
                Err(error) => {
                    errors += 1;
                    batch = 0;
                    self.accept_failed(&error.into(), errors).await;
                }
            }
        }
    }

    /// Handles `error`, an error of accept4(2) or epoll_ctl(2). `errors` is the number of
    /// accept4(2) errors in a row. Waits for [`ACCEPT_BACK_OFF`], and logs the first such wait at
    /// the normal level. Does not wait in two cases:
    ///
    /// - `error` concerns only one call or one queued connection, and `errors` is less than
    ///   [`MAX_ACCEPT_ERRORS`].
    /// - Descriptors or memory are lacking, and this method has evicted a connection to free some.
    async fn accept_failed(&self, error: &io::Error, errors: usize) {
        let may_help = match Errno::from_io_error(error) {
            Some(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => errors < MAX_ACCEPT_ERRORS,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => self.evict_one(),
            _ => false,
        };
        let cause = log::Cause(error);
        if may_help || self.has_backed_off.replace(true) {
            log::detail(format_args!("accept: {cause}"));
        } else {
            log::notice(format_args!("accept: {cause}; tried again every 100 ms"));
        }
        if !may_help {
            Timer::after(ACCEPT_BACK_OFF).await;
        }
        yield_now().await;
    }

    /// Logs `error`, because of which livelet closes a connection. Usually the client has reset the
    /// connection. If epoll(7) can't watch the connection, the first such line has the normal
    /// level.
    fn connection_failed(&self, error: &io::Error) {
        let cause = log::Cause(error);
        let hint = match Errno::from_io_error(error) {
            Some(Errno::NOSPC) => "; see fs.epoll.max_user_watches",
            Some(Errno::NOMEM) => "",
            _ => return log::detail(format_args!("connection: closed: {cause}")),
        };
        let is_new = !self.has_refused.replace(true);
        let log = if is_new { log::notice } else { log::detail };
        log(format_args!(
            "connection: closed, epoll can't watch it: {cause}{hint}"
        ));
    }

    /// Makes space for one new connection: at the connection limit, evicts a connection. While no
    /// connection can be evicted, waits and tries again. An evicted connection no longer counts for
    /// the limit, although it may stay open until its next answer is sent.
    async fn enforce_limit(&self) {
        let is_full = || self.open_connections() - self.evicted.get() >= self.max_connections;
        while is_full() && !self.evict_one() {
            // New connections have no rank yet, because they have not been read from.
            yield_now().await;
        }
    }

    /// Evicts the connection with the lowest [`EvictionRank`]. Returns `false` if no connection can
    /// be evicted. Usually the evicted connection may still send its next answer. If
    /// [`MAX_EVICTED`] evicted connections are still open, the connection closes without an answer,
    /// so that a slow check does not make their number grow.
    fn evict_one(&self) -> bool {
        let phase = if self.evicted.get() < MAX_EVICTED {
            Phase::Evicted
        } else {
            Phase::Cut
        };
        let mut connections = self.connections.borrow_mut();
        let entries = connections.iter_mut().map(|(_, entry)| entry);
        let candidates = entries.filter(|entry| entry.eviction.is_none() && entry.rank.is_some());
        let first = candidates.min_by_key(|entry| entry.rank);
        first.map(|entry| self.evict(entry, phase)).is_some()
    }

    fn evict(&self, entry: &mut Entry, phase: Phase) {
        if entry.eviction.replace(phase).is_none() {
            self.evicted.set(self.evicted.get() + 1);
        }
        entry.waker.wake_by_ref();
    }

    fn open(self: &Rc<Server>, socket: TcpStream) {
        let key = self.connections.borrow_mut().insert(Entry {
            waker: Waker::noop().clone(),
            rank: None,
            eviction: None,
            is_older: false,
        });
        self.responder.connections.set(self.open_connections());
        let connection = ConnectionTask {
            server: Rc::clone(self),
            key,
            socket: Source::new(socket),
            connection: Connection::new(Instant::now()),
            waiting: None,
            timer: Timer::never(),
        };
        // Unlike other tasks this one is not boxed: that saves an allocation of at least 50 bytes
        // for each connection.
        self.executor.spawn(connection).detach();
    }

    /// Returns the phase that the connection with the index `key` in the server's table has to
    /// enter.
    fn phase_of(&self, key: usize) -> Phase {
        let connections = self.connections.borrow();
        let eviction = connections.get(key).and_then(|entry| entry.eviction);
        eviction.unwrap_or(self.phase.get())
    }

    /// Stores the rank and the waker of a connection before its task waits. The server needs both
    /// to evict the connection. `key` is the index of the connection in the server's table.
    fn keep(&self, key: usize, rank: EvictionRank, waker: &Waker) {
        if let Some(entry) = self.connections.borrow_mut().get_mut(key) {
            entry.rank = Some(rank);
            entry.waker.clone_from(waker);
        }
    }

    fn closed(&self, key: usize) {
        let entry = self.connections.borrow_mut().try_remove(key);
        if let Some(entry) = entry {
            self.older
                .set(self.older.get() - usize::from(entry.is_older));
            self.evicted
                .set(self.evicted.get() - usize::from(entry.eviction.is_some()));
        }
        self.responder.connections.set(self.open_connections());
        self.progress.changed();
    }
}

/// Task of one connection: a future that does the connection's I/O and answers its requests.
struct ConnectionTask {
    server: Rc<Server>,
    key: usize,
    socket: Source<TcpStream>,
    connection: Connection,
    /// Request that waits for the outcome of a check. `None` if no request waits.
    waiting: Option<Box<WaitingRequest>>,
    /// Timer that ends at the connection's deadline.
    timer: Timer,
}

/// A request that waits for the outcome of a check.
struct WaitingRequest {
    question: Question,
    /// Time at which the request was parsed.
    since: Instant,
}

impl Future for ConnectionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let server = Rc::clone(&self.server);
        self.connection
            .borrow_outbox(&mut server.outbox.borrow_mut());
        let outcome = self.run(cx);
        self.connection
            .return_outbox(&mut server.outbox.borrow_mut());
        outcome
    }
}

/// Result of one [`Step`] of a connection.
enum Progress {
    Made,
    /// Some bytes of the answers were sent.
    Sent,
    /// The connection has to be closed.
    Ended,
}

impl ConnectionTask {
    /// Runs the connection until it has to wait, at most for [`STEPS`] steps. Returns `Ready` if
    /// the connection has to be closed. Otherwise `cx` is woken when the connection can go on.
    fn run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.enter(self.server.phase_of(self.key));
        // No step blocks, so one time is valid for all.
        let now = Instant::now();
        for _ in 0..STEPS {
            self.answer_requests(now, cx);
            match self.poll_step(now, cx) {
                // A client that sends many requests at once gets its next answers after a yield.
                Poll::Ready(Ok(Progress::Sent)) if self.connection.has_unanswered() => break,
                Poll::Ready(Ok(Progress::Made | Progress::Sent)) => {}
                Poll::Ready(Ok(Progress::Ended)) => return Poll::Ready(()),
                Poll::Ready(Err(error)) => {
                    self.server.connection_failed(&error);
                    return Poll::Ready(());
                }
                Poll::Pending if self.connection.is_given_up() => {
                    return Poll::Ready(());
                }
                Poll::Pending => {
                    self.timer.set(self.connection.deadline());
                    if Pin::new(&mut self.timer).poll(cx).is_pending() {
                        self.keep(cx.waker());
                        return Poll::Pending;
                    }
                    // Only after the last read: bytes that have arrived by the deadline still
                    // count.
                    self.expire(now);
                }
            }
        }
        // A client that always sends more must not outlive its deadline, nor keep the thread from
        // others.
        if now >= self.connection.deadline() {
            self.expire(now);
        }
        self.keep(cx.waker());
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Stores `waker` and the connection's present rank in the server, which needs both to evict
    /// the connection.
    fn keep(&self, waker: &Waker) {
        let rank = self.connection.eviction_rank();
        self.server.keep(self.key, rank, waker);
    }

    /// Answers the requests that have arrived, until a request has to wait for the outcome of a
    /// check. `cx` is then woken when a check has ended.
    fn answer_requests(&mut self, now: Instant, cx: &Context<'_>) {
        loop {
            let WaitingRequest { question, since } = match self.waiting.take() {
                Some(waiting) => *waiting,
                None => match self.connection.incoming(now) {
                    None => return,
                    Some(Incoming::Rejection(rejection)) => {
                        self.reject(&rejection, now);
                        continue;
                    }
                    Some(Incoming::Request(request)) => {
                        log::detail(format_args!("request: {}", request.path));
                        match self.server.responder.route(&request) {
                            Route::Ask(question) => WaitingRequest {
                                question,
                                since: now,
                            },
                            Route::Fixed(response) => {
                                self.answer(&response, now);
                                continue;
                            }
                        }
                    }
                },
            };
            match self.server.responder.poll_answer(&question, since, cx) {
                Poll::Ready(response) => self.answer(&response, now),
                Poll::Pending => {
                    self.waiting = Some(Box::new(WaitingRequest { question, since }));
                    return;
                }
            }
        }
    }

    fn answer(&mut self, response: &Response, now: Instant) {
        log::detail(format_args!("response: {}", response.status.line()));
        let responder = &self.server.responder;
        responder
            .requests
            .set(responder.requests.get().wrapping_add(1));
        self.connection
            .answer(response, &responder.common_fields(), now);
    }

    fn reject(&mut self, rejection: &Rejection, now: Instant) {
        log::detail(format_args!("request: rejected: {}", rejection.reason));
        self.answer(&Response::fixed(rejection.status, rejection.reason), now);
    }

    fn expire(&mut self, now: Instant) {
        if let Some(rejection) = self.connection.expire(now) {
            self.reject(&rejection, now);
        }
    }

    /// Does the next read, write, shutdown or close of the connection. Returns `Pending` if the
    /// socket is not ready, or if a request waits for its answer.
    ///
    /// # Errors
    /// Returns an error if the system call fails. The caller then closes the connection.
    fn poll_step(&mut self, now: Instant, cx: &Context<'_>) -> Poll<io::Result<Progress>> {
        match self.connection.step(now) {
            Step::Read(most) => {
                let bytes = &mut *self.server.buffer.borrow_mut();
                let buffer = bytes.get_mut(..most).unwrap_or_default();
                let read = self.socket.poll_with(cx, |mut socket| socket.read(buffer));
                let count = ready!(read)?;
                self.connection
                    .received(bytes.get(..count).unwrap_or_default(), now);
            }
            Step::Send(bytes) => {
                let sent = self.socket.poll_with(cx, |mut socket| socket.write(bytes));
                let count = ready!(sent)?;
                self.connection.sent(count, now);
                return Poll::Ready(Ok(Progress::Sent));
            }
            Step::Wait => return Poll::Pending,
            Step::ShutDown => self.socket.get_ref().shutdown(Shutdown::Write)?,
            Step::Close => return Poll::Ready(Ok(Progress::Ended)),
        }
        Poll::Ready(Ok(Progress::Made))
    }
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.server.closed(self.key);
    }
}
