//! The side that wants the socket.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::{SocketType, sockopt};
use rustix::process::getpid;
use socket2::SockRef;

use super::channel::Channel;
use super::message::Message;

/// A conversation with the holder of an address.
#[derive(Debug)]
pub(crate) struct Asking {
    channel: Channel,
    address: SocketAddr,
}

/// What the holder says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is healthy and keeps the socket; the asker is in line for it.
    Healthy { pid: i32, seconds: u64 },
    /// The socket is there to be accepted.
    Offered { socket: OwnedFd, pid: i32 },
    /// It has closed, or is not what may be talked to.
    Refused,
}

/// A socket that is the asker's as soon as it takes it.
#[derive(Debug)]
pub(crate) struct Offer {
    channel: Channel,
    socket: TcpListener,
    pid: i32,
}

/// The holder before, which may still have the rendezvous.
#[derive(Debug)]
pub(crate) struct Predecessor {
    channel: Channel,
}

impl Asking {
    /// Asks whoever is at the rendezvous of an address; `None` where nobody is. Another user's process is told nothing.
    pub(crate) fn begin(address: SocketAddr, takeover: bool) -> Option<Asking> {
        let channel = Channel::connect(address).ok()?;
        if channel.is_of_own_user() {
            let pid = getpid().as_raw_pid();
            channel.send(Message::Ask { pid, takeover }).ok()?;
        }
        Some(Asking { channel, address })
    }

    /// Waits for what the holder says next.
    pub(crate) async fn answer(&self) -> Answer {
        if !self.channel.is_of_own_user() {
            return Answer::Refused;
        }
        match self.channel.receive().await {
            Some((Message::Healthy { pid, seconds }, _)) if self.channel.is_peer(pid) => {
                Answer::Healthy { pid, seconds }
            }
            Some((Message::Offer { pid }, Some(socket)))
                if self.channel.is_peer(pid) && listens_on(&socket, self.address) =>
            {
                Answer::Offered { socket, pid }
            }
            _ => Answer::Refused,
        }
    }

    /// Ends the conversation with an offer.
    pub(crate) fn accept(self, socket: OwnedFd, pid: i32) -> Offer {
        Offer {
            channel: self.channel,
            socket: socket.into(),
            pid,
        }
    }
}

impl Offer {
    /// The holder.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Takes the socket; `None` where the offer has lapsed.
    pub(crate) fn take(self) -> Option<(TcpListener, Predecessor)> {
        let Offer {
            channel, socket, ..
        } = self;
        let is_ours = channel.send(Message::Taken).is_ok()
            // Where it can't be sent and the holder did not withdraw, the holder has died.
            || !matches!(channel.received(), Some((Message::Withdrawn, _)));
        is_ours.then_some((socket, Predecessor { channel }))
    }
}

impl Predecessor {
    /// Waits until it has given the rendezvous up.
    pub(super) async fn left(self) {
        while self.channel.receive().await.is_some() {}
    }
}

/// Whether it is what was asked for, and can be accepted from without waiting: whoever is at the rendezvous could send
/// anything.
fn listens_on(socket: &OwnedFd, address: SocketAddr) -> bool {
    let socket = SockRef::from(socket);
    let local = socket.local_addr();
    sockopt::socket_type(&*socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(&*socket) == Ok(true)
        && local.is_ok_and(|local| local.as_socket() == Some(address))
        && socket.set_nonblocking(true).is_ok()
}
