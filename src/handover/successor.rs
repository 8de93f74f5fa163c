//! The side that wants the socket.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::net::{SocketType, sockopt};
use rustix::process::getpid;
use socket2::SockRef;

use super::channel::{Channel, Received};
use super::message::Message;
use crate::close::Closer;

/// What there is at the rendezvous of an address.
#[derive(Debug)]
pub(crate) enum Contact {
    /// No process listens there.
    Absent,
    /// A process of another user or pid namespace, which is not talked to.
    Stranger,
    /// A livelet, which has been asked for the socket.
    Asked(Conversation),
}

/// A conversation with the holder of an address.
#[derive(Debug)]
pub(crate) struct Conversation {
    channel: Channel,
    address: SocketAddr,
}

/// What the holder says.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It keeps the socket for now; livelet is in line for it.
    Healthy(Livelet),
    /// The socket can be taken.
    Offered(OfferedSocket),
    /// It has closed the channel, or does not follow the protocol.
    Refused,
}

/// A livelet that serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Livelet {
    pub(crate) pid: i32,
    /// Seconds since it began to serve.
    pub(crate) seconds: u64,
}

/// A socket that the livelet with this pid offers.
#[derive(Debug)]
pub(crate) struct OfferedSocket {
    socket: OwnedFd,
    pid: i32,
}

/// Asks the holder of an address for its socket.
pub(crate) fn ask(address: SocketAddr, takeover: bool, closer: &Rc<Closer>) -> Contact {
    if !closer.has_room() {
        return Contact::Stranger;
    }
    let Ok(channel) = Channel::connect(address) else {
        return Contact::Absent;
    };
    if !channel.is_trusted() {
        closer.close(vec![channel.into_socket()]);
        return Contact::Stranger;
    }
    let pid = getpid().as_raw_pid();
    match channel.send(Message::Ask { pid, takeover }, None) {
        Ok(()) => Contact::Asked(Conversation { channel, address }),
        Err(_) => Contact::Absent,
    }
}

impl Conversation {
    /// Waits for what the holder says next.
    pub(crate) async fn reply(&self) -> Reply {
        let Some(Received {
            message,
            descriptor,
        }) = self.channel.receive().await
        else {
            return Reply::Refused;
        };
        match (message, descriptor) {
            (Message::Healthy { pid, seconds }, _) if self.channel.confirms(pid) => {
                Reply::Healthy(Livelet { pid, seconds })
            }
            (Message::Offer { pid }, Some(socket))
                if self.channel.confirms(pid) && listens_on(&socket, self.address) =>
            {
                Reply::Offered(OfferedSocket { socket, pid })
            }
            _ => Reply::Refused,
        }
    }

    /// Returns the offer that ends the conversation.
    pub(crate) fn into_offer(self, offered: OfferedSocket) -> Offer {
        Offer {
            channel: self.channel,
            offered,
        }
    }
}

/// A socket that is livelet's own once it is taken.
#[derive(Debug)]
pub(crate) struct Offer {
    channel: Channel,
    offered: OfferedSocket,
}

/// A socket that was taken, and the livelet that had it.
#[derive(Debug)]
pub(crate) struct TakenOver {
    pub(crate) socket: TcpListener,
    pub(crate) from: Predecessor,
}

/// The livelet that had the socket, and may still have the rendezvous.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) pid: i32,
    channel: Channel,
}

impl Offer {
    /// Takes the socket. Returns `None` if the offer has lapsed.
    pub(crate) fn take(self) -> Option<TakenOver> {
        let Offer { channel, offered } = self;
        let is_withdrawn = || {
            let received = channel.received();
            received.is_some_and(|received| received.message == Message::Withdrawn)
        };
        // If `Taken` can't be sent and the holder has not withdrawn the offer, the holder has died.
        let is_own = channel.send(Message::Taken, None).is_ok() || !is_withdrawn();
        is_own.then_some(TakenOver {
            socket: offered.socket.into(),
            from: Predecessor {
                pid: offered.pid,
                channel,
            },
        })
    }
}

impl Predecessor {
    /// Waits until it has given the rendezvous up: it closes the channel, and sends nothing before.
    pub(super) async fn left(self) {
        self.channel.receive().await;
    }
}

/// Returns `true` if `socket` is what was asked for, and can be accepted from without waiting.
fn listens_on(socket: &OwnedFd, address: SocketAddr) -> bool {
    let socket = SockRef::from(socket);
    let local = socket.local_addr();
    sockopt::socket_type(&*socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(&*socket) == Ok(true)
        && local.is_ok_and(|local| local.as_socket() == Some(address))
        && socket.set_nonblocking(true).is_ok()
}
