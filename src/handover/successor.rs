//! The successor's side of a handover. The successor is the livelet that wants the listening
//! socket.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::net::{SocketType, sockopt};
use rustix::process::getpid;
use socket2::SockRef;

use super::channel::{Channel, ReceivedMessage};
use super::message::Message;
use crate::close::Closer;

/// Result of an attempt to ask the livelet that listens on an address for its listening socket.
#[derive(Debug)]
pub(crate) enum Contact {
    /// No process can be asked. Either none listens at the rendezvous, or the queue of the
    /// rendezvous is full, or the process at the rendezvous has closed the connection.
    Absent,
    /// No message was sent. Either the process that listens at the rendezvous is not trusted, or
    /// livelet did not connect because the [`Closer`] has too many descriptors that are not closed
    /// yet.
    Stranger,
    /// A livelet listens at the rendezvous. It has been asked for its listening socket, and its
    /// replies can be read from the conversation.
    Asked(Conversation),
}

/// An exchange of messages in which livelet asks another livelet for the listening socket of
/// `address`.
#[derive(Debug)]
pub(crate) struct Conversation {
    channel: Channel,
    address: SocketAddr,
}

/// Reply from the holder, the livelet that has been asked for its listening socket.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The holder is healthy and keeps the socket for now. The livelet that asks may wait for a
    /// later offer.
    Healthy(Livelet),
    /// The holder offers its listening socket.
    Offered(OfferedSocket),
    /// The holder has closed the connection, or does not follow the protocol.
    Refused,
}

/// Description of a livelet that has a listening socket, from a message of that livelet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Livelet {
    pub(crate) pid: i32,
    /// Seconds since this livelet began to serve.
    pub(crate) seconds: u64,
}

/// A listening socket that the livelet with the pid `pid` offers.
#[derive(Debug)]
pub(crate) struct OfferedSocket {
    socket: OwnedFd,
    pid: i32,
}

/// Asks the livelet that listens on `address` for its listening socket. If `takeover` is `true`,
/// also asks a healthy livelet to hand its socket over and stop. `closer` closes the connection to
/// a process that is not trusted.
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
    /// Waits for the next reply from the livelet that has been asked.
    pub(crate) async fn reply(&self) -> Reply {
        let Some(ReceivedMessage {
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

    /// Ends the conversation after the reply that offered the socket `offered`. Returns the offer,
    /// which can then be accepted.
    pub(crate) fn into_offer(self, offered: OfferedSocket) -> Offer {
        Offer {
            channel: self.channel,
            offered,
        }
    }
}

/// Another livelet's offer of its listening socket, which livelet may accept.
#[derive(Debug)]
pub(crate) struct Offer {
    channel: Channel,
    offered: OfferedSocket,
}

/// A listening socket that livelet has taken over, and the livelet that had the socket before.
#[derive(Debug)]
pub(crate) struct TakenOver {
    pub(crate) socket: TcpListener,
    pub(crate) from: Predecessor,
}

/// The livelet that had livelet's listening socket before. It may still listen at the rendezvous,
/// where a next successor would ask for the socket.
#[derive(Debug)]
pub(crate) struct Predecessor {
    pub(crate) pid: i32,
    channel: Channel,
}

impl Offer {
    /// Accepts the offer and returns the listening socket. Returns `None` if the other livelet has
    /// withdrawn its offer.
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
    /// channel, and sends no message before.
    pub(super) async fn gone(self) {
        self.channel.receive().await;
    }
}

/// Returns `true` if `socket` is a TCP socket that listens on `address`. Also sets the socket to
/// non-blocking mode.
fn listens_on(socket: &OwnedFd, address: SocketAddr) -> bool {
    let socket = SockRef::from(socket);
    let local = socket.local_addr();
    sockopt::socket_type(&*socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(&*socket) == Ok(true)
        && local.is_ok_and(|local| local.as_socket() == Some(address))
        && socket.set_nonblocking(true).is_ok()
}
