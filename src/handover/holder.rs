//! The side that has the socket.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use smol::LocalExecutor;
use smol::future::or;

use super::SILENCE;
use super::channel::{self, Channel};
use super::message::Message;
use super::successor::Predecessor;
use crate::log;
use crate::runtime::{Condition, Source, Timer, task};

/// How many askers are talked to at once.
const PEERS: usize = 8;
/// How long nothing is accepted after accepting has failed.
const REST: Duration = Duration::from_millis(100);
/// How often, and how long apart, the rendezvous that a predecessor gave up is tried.
const TRIES: (u32, Duration) = (50, Duration::from_millis(10));

/// A listening socket, and the rendezvous where a successor asks for it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: Source<TcpListener>,
    address: SocketAddr,
    rendezvous: RefCell<Option<Source<OwnedFd>>>,
    is_offered: Cell<bool>,
    is_taken: Cell<bool>,
}

impl Listener {
    /// Without a rendezvous: nobody can ask for it.
    pub(crate) fn new(socket: TcpListener) -> io::Result<Rc<Listener>> {
        Ok(Rc::new(Listener {
            address: socket.local_addr()?,
            socket: Source::new(socket),
            rendezvous: RefCell::default(),
            is_offered: Cell::new(false),
            is_taken: Cell::new(false),
        }))
    }

    /// Makes the rendezvous.
    fn meet(&self) -> io::Result<()> {
        let rendezvous = channel::listen_for(self.address)?;
        self.rendezvous.replace(Some(rendezvous));
        Ok(())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A successor accepts from it: nobody else does.
    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken.get()
    }
}

/// A socket that went to a successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) address: SocketAddr,
    pub(crate) pid: i32,
    /// It was asked for, not left over by a stop.
    pub(crate) by_takeover: bool,
}

/// Answers askers.
#[derive(Debug)]
pub(crate) struct Holder {
    executor: Rc<LocalExecutor<'static>>,
    since: Instant,
    is_stopping: Cell<bool>,
    peers: Cell<usize>,
    has_handed_over: Cell<bool>,
    /// Not yet returned by [`Holder::taken`].
    taken: RefCell<Vec<Taken>>,
    /// Any of this, or what is offered.
    state: Condition,
}

impl Holder {
    pub(crate) fn new(executor: Rc<LocalExecutor<'static>>) -> Rc<Holder> {
        Rc::new(Holder {
            executor,
            since: Instant::now(),
            is_stopping: Cell::new(false),
            peers: Cell::new(0),
            has_handed_over: Cell::new(false),
            taken: RefCell::default(),
            state: Condition::default(),
        })
    }

    /// Answers those who ask for this socket, as soon as a predecessor has left.
    pub(crate) fn answer_for(
        self: &Rc<Holder>,
        listener: &Rc<Listener>,
        before: Option<Predecessor>,
    ) {
        // At once where nobody is in the way: whoever knows of the socket may ask for it.
        let is_met = before.is_none() && listener.meet().is_ok();
        let holder = Rc::clone(self);
        let listener = Rc::downgrade(listener);
        task::spawn(&self.executor, async move {
            if let Some(predecessor) = before {
                predecessor.left().await;
            }
            if !is_met {
                if let Err(cause) = meet(&listener).await {
                    return log::notice(format_args!(
                        "handover: rendezvous: {cause}; a successor will have to wait for the port"
                    ));
                }
            }
            holder.accept_loop(&listener).await;
        });
    }

    /// A stop has begun: the sockets are there for whoever asks.
    pub(crate) fn stop(&self) {
        if !self.is_stopping.replace(true) {
            self.state.changed();
        }
    }

    /// Whether a successor is there, or has a socket already.
    pub(crate) fn has_successor(&self) -> bool {
        self.peers.get() > 0 || self.has_handed_over.get()
    }

    /// Waits until sockets have been taken, and returns them.
    pub(crate) async fn taken(&self) -> Vec<Taken> {
        self.state.until(|| !self.taken.borrow().is_empty()).await;
        self.taken.take()
    }

    /// Waits until nobody asks; bounded once a stop has begun.
    pub(crate) async fn alone(&self) {
        self.state.until(|| self.peers.get() == 0).await;
    }

    async fn accept_loop(self: Rc<Holder>, listener: &Weak<Listener>) {
        while let Some(accepted) = next_asker(listener).await {
            match accepted {
                // Anybody may come to an abstract name; nobody else's process is waited for, nor takes a place.
                Ok(channel) if !channel.is_of_own_user() => {
                    log::detail(format_args!("handover: an asker: refused: of another user"))
                }
                Ok(_) if self.peers.get() >= PEERS => {}
                Ok(channel) => {
                    let guest = Guest::arrive(&self);
                    let listener = Weak::clone(listener);
                    let conversation = async move { guest.0.converse(&listener, channel).await };
                    task::spawn(&self.executor, conversation);
                }
                Err(_) => Timer::after(REST).await,
            }
        }
    }

    async fn converse(&self, listener: &Weak<Listener>, channel: Channel) {
        let Some(Message::Ask { pid, takeover }) = within_silence(&channel).await.flatten() else {
            return log::detail(format_args!(
                "handover: an asker: said nothing that is known"
            ));
        };
        if !channel.is_peer(pid) {
            return log::detail(format_args!(
                "handover: an asker: refused: of another pid namespace"
            ));
        }
        let own = getpid().as_raw_pid();
        let may_have = || takeover || self.is_stopping.get();
        let is_free = || {
            let listener = listener.upgrade();
            listener.is_none_or(|listener| !listener.is_offered.get())
        };
        // Whose line it is in must be known before it is told.
        self.state.until(is_free).await;
        if listener
            .upgrade()
            .is_none_or(|listener| listener.is_taken())
        {
            return;
        }
        if !may_have() {
            let seconds = self.since.elapsed().as_secs();
            if channel
                .send(Message::Healthy { pid: own, seconds })
                .is_err()
            {
                return;
            }
        }
        let gone = async {
            channel.receive().await;
            false
        };
        let turn = async {
            self.state.until(|| may_have() && is_free()).await;
            true
        };
        if !or(gone, turn).await {
            return;
        }
        let Some(listener) = listener.upgrade() else {
            return;
        };
        let offered = [listener.socket.get_ref().as_fd()];
        if listener.is_taken()
            || channel
                .send_with(Message::Offer { pid: own }, &offered)
                .is_err()
        {
            return;
        }
        listener.is_offered.set(true);
        if was_taken(&channel).await {
            listener.is_taken.set(true);
            listener.rendezvous.take();
            self.has_handed_over.set(true);
            self.taken.borrow_mut().push(Taken {
                address: listener.address,
                pid,
                by_takeover: takeover,
            });
        }
        listener.is_offered.set(false);
        self.state.changed();
    }
}

/// The commit point, see the module above.
async fn was_taken(channel: &Channel) -> bool {
    let answer = match within_silence(channel).await {
        Some(answer) => answer,
        None => {
            // A peer that can't be told finds the conversation closed, as if livelet had died; but it is hung, and by
            // the time it goes on the port is not its own: so it is told before it can't send any more.
            let _ = channel.send(Message::Withdrawn);
            channel.stop_receiving();
            channel.received().map(|(message, _)| message)
        }
    };
    answer == Some(Message::Taken)
}

/// The next message, `Some(None)` at the end of the conversation, `None` where none comes in time.
async fn within_silence(channel: &Channel) -> Option<Option<Message>> {
    let message = async { Some(channel.receive().await.map(|(message, _)| message)) };
    let silence = async {
        Timer::after(SILENCE).await;
        None
    };
    or(message, silence).await
}

/// Makes the rendezvous. Where the predecessor is gone its name may be in use for a moment longer.
async fn meet(listener: &Weak<Listener>) -> io::Result<()> {
    let (tries, apart) = TRIES;
    let mut failures = 0;
    loop {
        let Some(listener) = listener.upgrade() else {
            return Ok(());
        };
        match listener.meet() {
            Ok(()) => return Ok(()),
            Err(error) if failures == tries => return Err(error),
            Err(_) => failures += 1,
        }
        drop(listener);
        Timer::after(apart).await;
    }
}

/// Waits for the next asker. Returns `None` once the rendezvous is gone, or the socket that it is for. The rendezvous is
/// only borrowed, because its name is free for the successor as soon as the listener drops it.
async fn next_asker(listener: &Weak<Listener>) -> Option<io::Result<Channel>> {
    poll_fn(|cx| {
        let listener = listener.upgrade();
        let rendezvous = listener
            .as_ref()
            .map(|listener| listener.rendezvous.borrow());
        match rendezvous
            .as_ref()
            .and_then(|rendezvous| rendezvous.as_ref())
        {
            Some(rendezvous) => rendezvous.poll_with(cx, Channel::accept).map(Some),
            None => Poll::Ready(None),
        }
    })
    .await
}

/// Counts an asker as long as it is talked to.
#[derive(Debug)]
struct Guest(Rc<Holder>);

impl Guest {
    fn arrive(holder: &Rc<Holder>) -> Guest {
        holder.peers.set(holder.peers.get() + 1);
        Guest(Rc::clone(holder))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.peers.set(self.0.peers.get().saturating_sub(1));
        self.0.state.changed();
    }
}
