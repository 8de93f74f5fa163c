//! The successor's side of a handover. The successor is the livelet that wants the listening
//! socket.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::net::{SocketType, sockopt};
use rustix::process::getpid;
use socket2::SockRef;

use super::channel::{Channel, Received};
use super::message::Message;
use crate::close::Closer;

/// Result of an attempt to ask the holder of an address.
#[derive(Debug)]
pub(crate) enum Contact {
    /// No process can be asked: none listens at the rendezvous, or its queue is full.
    Absent,
    /// A process that is not trusted listens at the rendezvous, or too many descriptors wait to be
    /// closed. No message was sent.
    Stranger,
    /// A livelet listens at the rendezvous, and has been asked for the socket.
    Asked(Conversation),
}

/// An exchange of messages with the livelet that listens on `address`.
#[derive(Debug)]
pub(crate) struct Conversation {
    channel: Channel,
    address: SocketAddr,
}

/// Reply from the holder.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The holder keeps the socket for now. The successor may wait in line for it.
    Healthy(Livelet),
    /// The holder offers its listening socket.
    Offered(OfferedSocket),
    /// The holder has closed the channel, or does not follow the protocol.
    Refused,
}

/// A livelet that holds a socket, as it describes itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Livelet {
    pub(crate) pid: i32,
    /// Seconds since this livelet began to serve.
    pub(crate) seconds: u64,
}

/// A listening socket that the livelet `pid` offers.
#[derive(Debug)]
pub(crate) struct OfferedSocket {
    socket: OwnedFd,
    pid: i32,
}

/// Asks the livelet that holds `address` for its listening socket. `takeover` also asks a healthy
/// holder to stop. `closer` closes the channel of a process that is not trusted.
pub(crate) fn ask(address: SocketAddr, takeover: bool, closer: &Rc<Closer>) -> Contact {
    if !closer.is_below_limit() {
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
    /// Waits for the next reply from the holder.
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

    /// Ends the conversation and returns the holder's offer, which can then be accepted.
    pub(crate) fn into_offer(self, offered: OfferedSocket) -> Offer {
        Offer {
            channel: self.channel,
            offered,
        }
    }
}

/// An offer of the holder's listening socket, which the successor may accept.
#[derive(Debug)]
pub(crate) struct Offer {
    channel: Channel,
    offered: OfferedSocket,
}

/// A listening socket that the successor has taken, and the livelet that had it before.
#[derive(Debug)]
pub(crate) struct TakenOver {
    pub(crate) socket: TcpListener,
    pub(crate) from: Predecessor,
}

/// The livelet that had the socket before. It may still have the rendezvous.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) pid: i32,
    channel: Channel,
}

impl Offer {
    /// Accepts the offer. Returns `None` if the holder has withdrawn it.
    pub(crate) fn accept(self) -> Option<TakenOver> {
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
    /// Waits until the predecessor has released the rendezvous. The predecessor then closes the
    /// channel, and sends nothing before.
    pub(super) async fn gone(self) {
        self.channel.receive().await;
    }
}

/// Returns `true` if `socket` is a TCP socket that listens on `address`. Also sets it to
/// non-blocking mode.
fn listens_on(socket: &OwnedFd, address: SocketAddr) -> bool {
    let socket = SockRef::from(socket);
    let local = socket.local_addr();
    sockopt::socket_type(&*socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(&*socket) == Ok(true)
        && local.is_ok_and(|local| local.as_socket() == Some(address))
        && socket.set_nonblocking(true).is_ok()
}
