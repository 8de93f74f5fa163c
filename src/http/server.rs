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
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use slab::Slab;
use smol::LocalExecutor;
use smol::future::yield_now;

use super::Known;
use super::connection::{Buffers, Conn, Precedence, Step};
use super::stream::Stream;
use crate::handover::Listener;
use crate::log;
use crate::responder::Responder;
use crate::runtime::{Condition, Timer, task};

/// How long accepting rests when the machine is out of something that no connection here can give back.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How many connections are accepted before the open ones have their turn. Where each of those has much to do, one more
/// turn is what a probe behind them in the queue waits for.
const TURN: usize = 128;
/// Which of the connections that come one at a time is followed by a look for another one.
const SAMPLE: usize = 8;
/// How many steps of a connection are taken before the others have their turn: as many as a probe needs.
const STEPS: usize = 4;
/// The most connections that the end of the listening socket can leave in its queue; the bound on accepting them.
const QUEUE: usize = 4096;

/// The server: shared by the accept loops and the connections.
pub(crate) struct Server {
    executor: Rc<LocalExecutor<'static>>,
    max_connections: usize,
    responder: Rc<Responder>,
    /// Listening ends.
    is_closing: Cell<bool>,
    /// How long an idle connection is waited for in a drain.
    drain_until: Cell<Option<Instant>>,
    /// Connections from before the drain that are still open.
    drain_waits_for: Cell<usize>,
    connections: RefCell<Slab<Entry>>,
    /// How many of them were chosen to give way.
    leaving: Cell<usize>,
    buffers: RefCell<(Buffers, Known)>,
    /// Accept loops still listening.
    listening: Cell<usize>,
    /// Of [`Server::keep_time`].
    timer: RefCell<Timer>,
    /// Woken when a connection's deadline comes before the timer's.
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
    precedence: Precedence,
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
        responder: Rc<Responder>,
    ) -> Rc<Server> {
        Rc::new(Server {
            executor,
            max_connections,
            responder,
            is_closing: Cell::new(false),
            drain_waits_for: Cell::new(0),
            connections: RefCell::default(),
            leaving: Cell::new(0),
            buffers: RefCell::default(),
            listening: Cell::new(0),
            timer: RefCell::new(Timer::never()),
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
        task::spawn(&self.executor, async move {
            server.accept_loop(&listener).await;
            drop(listener);
            server.listening.set(server.listening.get() - 1);
            server.progress.changed();
        });
    }

    /// A successor has taken a listening socket.
    pub(crate) fn released(&self) {
        self.acceptance.changed();
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
            if !entry.gives_way {
                self.dismiss(entry);
            }
        }
        self.end_listening();
    }

    /// How many connections are open.
    pub(crate) fn open_connections(&self) -> usize {
        self.connections.borrow().len()
    }

    /// Wakes each connection at its deadline; runs as long as the server.
    pub(crate) async fn keep_time(self: Rc<Server>) {
        poll_fn(|cx| -> Poll<()> {
            self.timekeeper.replace(Some(cx.waker().clone()));
            let next = self.wake_expired(Instant::now());
            let mut timer = self.timer.borrow_mut();
            timer.set(next);
            if Pin::new(&mut *timer).poll(cx).is_ready() {
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
        let mut failures = 0;
        let mut batch = 0;
        let mut is_busy = false;
        while queued < QUEUE && !listener.is_taken() {
            match accept_with(
                listener.socket.get_ref(),
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            ) {
                Ok(socket) => {
                    failures = 0;
                    self.make_room().await;
                    self.open(socket.into());
                    turn += 1;
                    queued += usize::from(self.is_closing.get());
                    if turn % TURN == 0 {
                        yield_now().await;
                    }
                    batch += 1;
                    // Where they come one at a time, that there is no second one is seen by waiting, too; it is looked
                    // for every now and then.
                    if batch == 1 && !is_busy && turn % SAMPLE != 0 && !self.is_closing.get() {
                        self.acceptable(listener).await;
                        batch = 0;
                    }
                }
                Err(Errno::AGAIN) if self.is_closing.get() => return,
                Err(Errno::AGAIN) => {
                    is_busy = batch > 1;
                    batch = 0;
                    self.acceptable(listener).await;
                }
                Err(error) => {
                    failures += 1;
                    self.accept_failed(error, failures).await;
                }
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
            listener.socket.poll_readable(cx)
        })
        .await;
    }

    /// An error of accept4(2) may be the queued connection's own, and the next one fine. Where the machine is short of
    /// something, a connection here gives way, as it may be its descriptor that is missing; where that is no help, or
    /// it goes on for too long, accepting rests.
    async fn accept_failed(&self, error: Errno, failures: usize) {
        log::detail(format_args!("accept: {}", io::Error::from(error)));
        let may_help = match error {
            Errno::INTR | Errno::CONNABORTED | Errno::PROTO => failures < TURN,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => {
                self.one_gives_way().await
            }
            _ => false,
        };
        if !may_help {
            Timer::after(ACCEPT_REST).await;
        }
        yield_now().await;
    }

    /// Who was asked to give way is as good as gone: waiting for that would let everybody else have a turn for each
    /// connection that is accepted. So for a turn there may be as many more.
    async fn make_room(&self) {
        let is_full = || self.open_connections() - self.leaving.get() >= self.max_connections;
        while is_full() && !self.one_gives_way().await {
            // All of them have asked: the next to finish makes room.
            self.progress.until(|| !is_full()).await;
        }
    }

    /// Asks one connection to give way; false where none is left to ask.
    async fn one_gives_way(&self) -> bool {
        if !self.let_one_give_way() {
            // Those accepted a moment ago have not been read from yet.
            yield_now().await;
            return self.let_one_give_way();
        }
        true
    }

    fn let_one_give_way(&self) -> bool {
        let mut connections = self.connections.borrow_mut();
        let open = connections.iter_mut().map(|(_, entry)| entry);
        let candidates = open.filter(|entry| !entry.gives_way && entry.precedence.is_some());
        let chosen = candidates.min_by_key(|entry| entry.precedence);
        let Some(entry) = chosen else { return false };
        self.dismiss(entry);
        true
    }

    fn dismiss(&self, entry: &mut Entry) {
        entry.gives_way = true;
        entry.waker.wake_by_ref();
        self.leaving.set(self.leaving.get() + 1);
    }

    fn open(self: &Rc<Server>, socket: std::net::TcpStream) {
        let conn = Conn::new(Instant::now());
        let key = self.connections.borrow_mut().insert(Entry {
            waker: Waker::noop().clone(),
            deadline: None,
            // None before it has been read from: its request may be there.
            precedence: None,
            is_waited_for: false,
            gives_way: false,
        });
        let connection = Connection {
            server: Rc::clone(self),
            key,
            conn,
            stream: Stream::new(socket),
        };
        self.count();
        task::spawn(&self.executor, connection);
    }

    fn count(&self) {
        self.responder.connections.set(self.open_connections());
    }

    /// Whether a connection has to give way.
    fn gives_way(&self, key: usize) -> bool {
        self.connections
            .borrow()
            .get(key)
            .is_some_and(|entry| entry.gives_way)
    }

    /// A connection waits: keeps what is needed to wake it.
    fn note(&self, key: usize, deadline: Instant, precedence: Precedence, waker: &Waker) {
        if let Some(entry) = self.connections.borrow_mut().get_mut(key) {
            entry.deadline = Some(deadline);
            entry.precedence = precedence;
            entry.waker.clone_from(waker);
        }
        let next = self.timer.borrow().deadline();
        if next.is_none_or(|at| deadline < at) {
            self.timekeeper.take().into_iter().for_each(Waker::wake);
        }
    }

    fn closed(&self, key: usize) {
        let entry = self.connections.borrow_mut().try_remove(key);
        if let Some(entry) = entry {
            let waited_for = self.drain_waits_for.get() - usize::from(entry.is_waited_for);
            self.drain_waits_for.set(waited_for);
            self.leaving
                .set(self.leaving.get() - usize::from(entry.gives_way));
        }
        if self.open_connections() == 0 {
            // Nobody is left whom it could wake: an idle livelet sleeps on.
            self.timer.borrow_mut().set(None);
        }
        self.count();
        self.progress.changed();
    }
}

/// The task of one connection.
struct Connection {
    server: Rc<Server>,
    key: usize,
    conn: Conn,
    stream: Stream,
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
        let (buffers, known) = &mut *server.buffers.borrow_mut();
        conn.borrow(buffers);
        let deadline = advance(conn, stream, &server.responder, known, cx);
        conn.give_back(buffers);
        match deadline {
            Some(deadline) if !gives_way => {
                server.note(*key, deadline, conn.precedence(), cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.closed(self.key);
    }
}

/// Takes a connection as far as it gets without waiting, and returns its deadline; `None` when it is over.
fn advance(
    conn: &mut Conn,
    stream: &mut Stream,
    site: &Responder,
    known: &mut Known,
    cx: &mut Context<'_>,
) -> Option<Instant> {
    let now = Instant::now();
    // The last read has taken all there was, and was a whole request: looking again at once would find nothing. A read that
    // is short for another reason, as urgent data (tcp(7)), may leave something behind.
    let mut was_short = false;
    let mut is_empty = false;
    for _ in 0..STEPS {
        let outcome = match conn.step(now, site, known) {
            Step::Read(room) => {
                let size = room.len();
                let read = stream.poll_read(cx, room, is_empty);
                read.map_ok(|count| {
                    was_short = count < size;
                    is_empty = false;
                    conn.received(count, now);
                })
            }
            Step::Send(bytes) => {
                let written = stream.poll_write(cx, bytes);
                let written = written.map_ok(|count| conn.sent(count, now));
                if matches!(written, Poll::Ready(Ok(()))) && conn.is_behind() {
                    // Who asks a lot at once has the next answers in the next turn.
                    break;
                }
                is_empty = was_short;
                written
            }
            Step::Wait => {
                site.wait(cx);
                Poll::Pending
            }
            Step::ShutDown => Poll::Ready(stream.shutdown(Shutdown::Write)),
            Step::Close => return None,
        };
        match outcome {
            Poll::Ready(Ok(())) => {}
            // The client is gone.
            Poll::Ready(Err(_)) => return None,
            Poll::Pending => {
                let deadline = conn.deadline();
                if now < deadline {
                    return Some(deadline);
                }
                // Only now: what has arrived by the deadline still counts.
                conn.expired(now, site);
            }
        }
    }
    // A client that always has more to send must not outlive its deadline, nor keep the others from their turn.
    if now >= conn.deadline() {
        conn.expired(now, site);
    }
    cx.waker().wake_by_ref();
    Some(conn.deadline())
}
