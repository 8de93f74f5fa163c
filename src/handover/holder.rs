//! The holder's side of a handover. The holder is the livelet that has the listening socket.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use rustix::process::getpid;
use smol::LocalExecutor;
use smol::future::or;

use super::REPLY_LIMIT;
use super::channel::{Channel, ReceivedMessage, Rendezvous};
use super::message::Message;
use super::successor::Predecessor;
use crate::close::Closer;
use crate::log;
use crate::runtime::{Condition, Source, Timer, task};

/// Maximum number of other livelets that exchange messages with livelet about its listening sockets
/// at the same time.
const PEERS: usize = 8;
/// Maximum number of connections at a rendezvous that are accepted before other tasks run. A limit
/// is needed so that a flood of connections does not delay other work.
const ACCEPTED: usize = 16;
/// Time for which livelet accepts no connection at a rendezvous after an error of accept4(2) or
/// epoll_ctl(2).
const BACK_OFF: Duration = Duration::from_millis(100);
/// Number of tries to bind a rendezvous at short intervals. After a handover its name may stay in
/// use for a moment, until the socket of the previous livelet is closed.
const QUICK_TRIES: u32 = 50;
/// Time between two tries to bind a rendezvous, for the first [`QUICK_TRIES`] tries.
const QUICK_RETRY: Duration = Duration::from_millis(10);
/// Time between two tries to bind a rendezvous, after the first [`QUICK_TRIES`] tries. By then
/// another process probably has the name.
const SLOW_RETRY: Duration = Duration::from_secs(5);

/// A listening socket that another livelet, the successor, may take over.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: Source<TcpListener>,
    address: SocketAddr,
    has_rendezvous: Cell<bool>,
    /// `true` while the socket is offered to a peer and the peer has not replied.
    is_offered: Cell<bool>,
    is_taken: Cell<bool>,
}

impl Listener {
    /// Creates a listener for `socket`, without a rendezvous: no successor can ask for the socket
    /// yet.
    ///
    /// # Errors
    /// Returns the error of getsockname(2).
    pub(crate) fn new(socket: TcpListener) -> io::Result<Rc<Listener>> {
        Ok(Rc::new(Listener {
            address: socket.local_addr()?,
            socket: Source::new(socket),
            has_rendezvous: Cell::new(false),
            is_offered: Cell::new(false),
            is_taken: Cell::new(false),
        }))
    }

    /// Returns `true` once a successor has taken the socket. From then on only the successor
    /// accepts connections.
    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken.get()
    }
}

/// A listening socket that a successor has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) address: SocketAddr,
    pub(crate) pid: i32,
    /// `true` if the successor asked to replace a healthy livelet (`--takeover`).
    pub(crate) by_takeover: bool,
}

/// Outcome of the wait for a message from a peer.
enum Awaited {
    Message(Message),
    /// The channel was closed, or the peer sent bytes that are not a message.
    End,
    Silence,
}

/// The side of livelet that hands its listening sockets over to other livelets, the successors,
/// when they ask.
#[derive(Debug)]
pub(crate) struct Holder {
    executor: Rc<LocalExecutor<'static>>,
    closer: Rc<Closer>,
    since: Instant,
    is_stopping: Cell<bool>,
    /// Number of successors that are exchanging messages with livelet.
    peers: Cell<usize>,
    has_handed_over: Cell<bool>,
    /// Sockets that successors have taken and [`Holder::taken`] has not returned yet.
    taken: RefCell<Vec<Taken>>,
    /// Condition that wakes tasks when a field of the holder or of a listener has changed.
    state: Condition,
}

impl Holder {
    /// Creates a holder that has no sockets yet. Its tasks run on `executor`.
    pub(crate) fn new(executor: Rc<LocalExecutor<'static>>) -> Rc<Holder> {
        Rc::new(Holder {
            closer: Closer::new(Rc::clone(&executor)),
            executor,
            since: Instant::now(),
            is_stopping: Cell::new(false),
            peers: Cell::new(0),
            has_handed_over: Cell::new(false),
            taken: RefCell::default(),
            state: Condition::default(),
        })
    }

    /// Returns the [`Closer`], with which the holder closes connections on other threads. A livelet
    /// that asks for a socket as a successor uses the same closer for connections to processes that
    /// are not trusted.
    pub(crate) fn closer(&self) -> &Rc<Closer> {
        &self.closer
    }

    /// Starts a task that replies to successors that ask for the socket of `listener`. If livelet
    /// has taken this socket over from `predecessor`, the task first waits until the predecessor
    /// has released the rendezvous, to which successors connect.
    pub(crate) fn answer_for(
        self: &Rc<Holder>,
        listener: &Rc<Listener>,
        predecessor: Option<Predecessor>,
    ) {
        // Without a predecessor the name is bound at once: a process that has read the ready line
        // may ask.
        let first = match &predecessor {
            None => Rendezvous::bind(listener.address).ok(),
            Some(_) => None,
        };
        listener.has_rendezvous.set(first.is_some());
        let holder = Rc::clone(self);
        let listener = Rc::downgrade(listener);
        task::spawn(&self.executor, async move {
            if let Some(predecessor) = predecessor {
                predecessor.gone().await;
            }
            let rendezvous = match first {
                Some(rendezvous) => Some(rendezvous),
                None => holder.bind_rendezvous(&listener).await,
            };
            if let Some(rendezvous) = rendezvous {
                holder.accept_peers(&listener, &rendezvous).await;
                holder.close_rendezvous(&listener, rendezvous);
            }
        });
    }

    /// Records that livelet has begun to stop. From then on a successor may take the sockets
    /// without `--takeover`.
    pub(crate) fn stop(&self) {
        if !self.is_stopping.replace(true) {
            self.state.changed();
        }
    }

    /// Returns `true` if a successor is exchanging messages with livelet, or has taken a socket.
    pub(crate) fn has_successor(&self) -> bool {
        self.peers.get() > 0 || self.has_handed_over.get()
    }

    /// Waits until a successor has taken a socket. Returns all sockets taken since the last call.
    pub(crate) async fn taken(&self) -> Vec<Taken> {
        self.state.until(|| !self.taken.borrow().is_empty()).await;
        self.taken.take()
    }

    /// Waits until no successor is exchanging messages with livelet. Before a stop this may take
    /// without end, because a successor may wait for that stop. After the beginning of a stop
    /// livelet waits for each message of a successor for at most [`REPLY_LIMIT`].
    pub(crate) async fn alone(&self) {
        self.state.until(|| self.peers.get() == 0).await;
    }

    /// Tries to bind the rendezvous, to which successors of `listener` connect, until that
    /// succeeds. Returns `None` if `listener` has been dropped.
    async fn bind_rendezvous(&self, listener: &Weak<Listener>) -> Option<Rendezvous> {
        let mut tries = 0;
        loop {
            let listener = listener.upgrade()?;
            match Rendezvous::bind(listener.address) {
                Ok(rendezvous) => {
                    listener.has_rendezvous.set(true);
                    if tries >= QUICK_TRIES {
                        log::notice(format_args!(
                            "handover: rendezvous: bound; successors can find livelet"
                        ));
                    }
                    return Some(rendezvous);
                }
                Err(cause) => {
                    tries += 1;
                    if tries == QUICK_TRIES {
                        let cause = log::Cause(&cause);
                        log::notice(format_args!(
                            "handover: rendezvous: {cause}: tried again later; until then a successor waits for the port"
                        ));
                    }
                }
            }
            drop(listener);
            let pause = if tries < QUICK_TRIES {
                QUICK_RETRY
            } else {
                SLOW_RETRY
            };
            // A stop ends the pause: from then on a successor can get the socket.
            let was_stopping = self.is_stopping.get();
            let stop = self.state.until(|| self.is_stopping.get() != was_stopping);
            or(Timer::after(pause), stop).await;
        }
    }

    /// Accepts connections at `rendezvous` until a successor has taken the socket of `listener` or
    /// livelet has dropped `listener`.
    async fn accept_peers(self: &Rc<Holder>, listener: &Weak<Listener>, rendezvous: &Rendezvous) {
        let is_over = || {
            let listener = listener.upgrade();
            listener.is_none_or(|listener| listener.is_taken())
        };
        let over = async || {
            self.state.until(is_over).await;
            Ok(())
        };
        while !is_over() {
            if or(over(), rendezvous.readable()).await.is_err() {
                or(Timer::after(BACK_OFF), self.state.until(is_over)).await;
            }
            for _ in 0..ACCEPTED {
                if rendezvous.takes_descriptors {
                    or(self.closer.below_limit(), self.state.until(is_over)).await;
                }
                if is_over() {
                    break;
                }
                match rendezvous.accept() {
                    Ok(channel) => self.accept(listener, channel, rendezvous.takes_descriptors),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {
                        or(Timer::after(BACK_OFF), self.state.until(is_over)).await;
                        break;
                    }
                }
            }
        }
    }

    /// Starts a task that exchanges messages with the peer of `channel` about the socket of
    /// `listener`. Closes the channel instead if the peer is not trusted, or if [`PEERS`] peers
    /// already exchange messages with livelet. A peer that is not trusted does not count among
    /// these, because any process of the network namespace can connect to an abstract name. If
    /// `may_hold` is `true`, the channel may have unread descriptors. The channel of a peer that is
    /// not trusted is then closed on another thread, because the close may block.
    fn accept(self: &Rc<Holder>, listener: &Weak<Listener>, channel: Channel, may_hold: bool) {
        if !channel.is_trusted() {
            log::detail(format_args!(
                "handover: peer refused: it runs as another user or in another pid namespace"
            ));
            if may_hold {
                self.closer.close(vec![channel.into_socket()]);
            }
        } else if self.peers.get() < PEERS {
            let conversing = Conversing::begin(self);
            let listener = Weak::clone(listener);
            let conversation = async move { conversing.0.converse(&listener, &channel).await };
            task::spawn(&self.executor, conversation);
        }
    }

    /// Closes `rendezvous`, to which successors connected to ask for the socket of `listener`.
    /// Connections that livelet has not accepted may contain descriptors from other programs. If
    /// that is possible, the [`Closer`] closes the rendezvous on another thread, because the close
    /// may block.
    fn close_rendezvous(&self, listener: &Weak<Listener>, rendezvous: Rendezvous) {
        if rendezvous.takes_descriptors {
            self.closer.close(vec![rendezvous.into_socket()]);
        } else {
            drop(rendezvous);
        }
        if let Some(listener) = listener.upgrade() {
            listener.has_rendezvous.set(false);
        }
        self.state.changed();
    }

    /// Exchanges messages with the peer of `channel` until the peer has taken the socket of
    /// `listener`, has been refused or has closed the channel.
    async fn converse(&self, listener: &Weak<Listener>, channel: &Channel) {
        let Awaited::Message(Message::Ask { pid, takeover }) = reply(channel).await else {
            return log::detail(format_args!("handover: peer sent no valid request"));
        };
        if !channel.confirms(pid) {
            return log::detail(format_args!(
                "handover: peer refused: it has another pid namespace"
            ));
        }
        let may_take = || takeover || self.is_stopping.get();
        let is_free = || {
            let listener = listener.upgrade();
            listener.is_none_or(|listener| !listener.is_offered.get())
        };
        // An offer to an earlier peer is decided first. If that peer takes the socket, this peer
        // must not get the reply `Healthy`.
        self.state.until(is_free).await;
        let is_taken = listener
            .upgrade()
            .is_none_or(|listener| listener.is_taken());
        if is_taken || !may_take() && self.send_healthy(channel).is_err() {
            return;
        }
        let gone = async {
            channel.receive().await;
            false
        };
        let offer_is_due = async {
            self.state.until(|| may_take() && is_free()).await;
            true
        };
        if !or(gone, offer_is_due).await {
            return;
        }
        let Some(listener) = listener.upgrade() else {
            return;
        };
        if !listener.is_taken() && self.is_taken_by(channel, &listener).await {
            listener.is_taken.set(true);
            self.has_handed_over.set(true);
            self.taken.borrow_mut().push(Taken {
                address: listener.address,
                pid,
                by_takeover: takeover,
            });
            self.state.changed();
            // The successor binds the rendezvous as soon as this channel is closed.
            self.state.until(|| !listener.has_rendezvous.get()).await;
        }
    }

    fn send_healthy(&self, channel: &Channel) -> io::Result<()> {
        let healthy = Message::Healthy {
            pid: getpid().as_raw_pid(),
            seconds: self.since.elapsed().as_secs(),
        };
        channel.send(healthy, None)
    }

    /// Offers the socket of `listener` to the peer of `channel`, and waits for the reply. Returns
    /// `true` if the peer has replied that it takes the socket. This reply is the commit point (see
    /// [`crate::handover`]). Otherwise returns `false`, and livelet keeps the socket.
    async fn is_taken_by(&self, channel: &Channel, listener: &Listener) -> bool {
        let pid = getpid().as_raw_pid();
        let socket = listener.socket.get_ref().as_fd();
        if channel.send(Message::Offer { pid }, Some(socket)).is_err() {
            return false;
        }
        listener.is_offered.set(true);
        let answer = match reply(channel).await {
            Awaited::Message(message) => Some(message),
            Awaited::End => None,
            Awaited::Silence => {
                // A peer that hangs has to learn later that the socket is not its own. If this
                // message can't be sent, the peer finds the channel closed.
                let _ = channel.send(Message::Withdrawn, None);
                channel.stop_receiving();
                channel.received().map(|received| received.message)
            }
        };
        listener.is_offered.set(false);
        self.state.changed();
        answer == Some(Message::Taken)
    }
}

/// Waits for the next message from the peer of `channel`, for at most [`REPLY_LIMIT`].
async fn reply(channel: &Channel) -> Awaited {
    let message = async {
        match channel.receive().await {
            Some(ReceivedMessage { message, .. }) => Awaited::Message(message),
            None => Awaited::End,
        }
    };
    let silence = async {
        Timer::after(REPLY_LIMIT).await;
        Awaited::Silence
    };
    or(message, silence).await
}

/// Guard that counts one successor in the field `peers` of [`Holder`] until the guard is dropped.
#[derive(Debug)]
struct Conversing(Rc<Holder>);

impl Conversing {
    fn begin(holder: &Rc<Holder>) -> Conversing {
        holder.peers.set(holder.peers.get() + 1);
        Conversing(Rc::clone(holder))
    }
}

impl Drop for Conversing {
    fn drop(&mut self) {
        self.0.peers.set(self.0.peers.get().saturating_sub(1));
        self.0.state.changed();
    }
}
