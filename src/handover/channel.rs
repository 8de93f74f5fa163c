//! Unix sockets between two livelets (unix(7)): the rendezvous, to which successors connect, and
//! the channel for each conversation.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, connect, listen, recvmsg, sendmsg, shutdown, socket_with,
};

use super::message::{self, Message};
use crate::peer::Peer;
use crate::runtime::Source;

/// Maximum number of connections at a rendezvous that the kernel queues for livelet to accept. The
/// number is enough for several livelets that restart at once. A larger number would not help
/// against another program that fills the queue on purpose.
const BACKLOG: i32 = 128;

/// Number of the socket option that decides if a unix socket accepts descriptors (SCM_RIGHTS),
/// since Linux 6.16. The C libraries do not define the option yet.
const SO_PASSRIGHTS: i32 = 83;

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok(socket)
}

/// Returns the abstract name (unix(7)) of the rendezvous for the listening address `address`. The
/// rendezvous is the unix socket where other livelets ask for the listening socket.
fn name(address: SocketAddr) -> io::Result<SocketAddrUnix> {
    let name = format!("livelet/{address}");
    Ok(SocketAddrUnix::new_abstract_name(name.as_bytes())?)
}

/// Unix socket to which other livelets connect in order to take over the listening socket of one
/// address.
#[derive(Debug)]
pub(super) struct Rendezvous {
    socket: Source<OwnedFd>,
    /// `true` if peers can send descriptors (SCM_RIGHTS), because the kernel can't refuse
    /// descriptors before Linux 6.16. The queue of the socket or of an accepted connection may then
    /// contain descriptors. A close would close these as well, and could block (see
    /// [`crate::close`]).
    pub(super) takes_descriptors: bool,
}

impl Rendezvous {
    /// Creates the rendezvous for the listening address `address`: binds its unix socket and
    /// listens on it.
    ///
    /// # Errors
    /// Returns the error of socket(2), bind(2) or listen(2).
    pub(super) fn bind(address: SocketAddr) -> io::Result<Rendezvous> {
        let socket = socket()?;
        // Before listen(2): accepted sockets inherit the option.
        let takes_descriptors = !refuse_descriptors(&socket);
        bind(&socket, &name(address)?)?;
        listen(&socket, BACKLOG)?;
        Ok(Rendezvous {
            socket: Source::new(socket),
            takes_descriptors,
        })
    }

    /// Waits until a peer may have connected to the rendezvous. Lets other tasks run at least once.
    ///
    /// # Errors
    /// Returns the error of epoll_ctl(2).
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Accepts the next connection to the rendezvous, and returns the channel by which livelet and
    /// its peer exchange messages.
    ///
    /// # Errors
    /// Returns the error of accept4(2). Its kind is `WouldBlock` if no connection is queued.
    pub(super) fn accept(&self) -> io::Result<Channel> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(Channel::new(accept_with(self.socket.get_ref(), flags)?))
    }

    /// Returns the socket, so that the caller can close it.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket.into_inner()
    }
}

/// A message of a handover that a peer has sent, and the descriptor that came with it, if any.
#[derive(Debug)]
pub(super) struct ReceivedMessage {
    pub(super) message: Message,
    pub(super) descriptor: Option<OwnedFd>,
}

/// livelet's end of a unix socket connection to another livelet, over which a listening socket is
/// handed over.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Source<OwnedFd>,
    /// Process at the other end: the one that connected or, if livelet made the connection, the one
    /// that called listen(2). `None` if the kernel does not report the process.
    peer: Option<Peer>,
}

impl Channel {
    fn new(socket: OwnedFd) -> Channel {
        Channel {
            peer: peer(socket.as_fd()),
            socket: Source::new(socket),
        }
    }

    /// Connects to the rendezvous for the listening address `address`, the unix socket of the
    /// livelet that listens on this address.
    ///
    /// # Errors
    /// Returns the error of socket(2) or connect(2). Its kind is `WouldBlock` if too many
    /// connections are queued at the rendezvous.
    pub(super) fn connect(address: SocketAddr) -> io::Result<Channel> {
        let socket = socket()?;
        connect(&socket, &name(address)?)?;
        Ok(Channel::new(socket))
    }

    /// Returns `true` if the peer has livelet's own uid and is in livelet's pid namespace. [`Peer`]
    /// says what counts if the kernel or /proc does not show these. Returns `false` if the kernel
    /// does not report the peer.
    pub(super) fn is_trusted(&self) -> bool {
        let is_trusted = |peer: Peer| peer.is_of_own_user() && peer.shares_pid_namespace();
        self.peer.is_some_and(is_trusted)
    }

    /// Returns `true` if the kernel reports the same pid of the peer as `pid`, which the peer has
    /// sent in a message. The two differ if the peer is in another pid namespace.
    pub(super) fn confirms(&self, pid: i32) -> bool {
        self.peer.is_some_and(|peer| peer.pid == pid)
    }

    /// Returns the socket, so that the caller can close it.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket.into_inner()
    }

    /// Sends `message` to the peer, together with `descriptor` if that is `Some`. Never waits: a
    /// full queue is an error, because a peer that follows the protocol does not fill the queue.
    ///
    /// # Errors
    /// Returns the error of sendmsg(2).
    pub(super) fn send(
        &self,
        message: Message,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let text = message.to_string();
        let descriptors = descriptor.as_slice();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        let socket = self.socket.get_ref();
        sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the next message from the peer. Returns `None` if the channel is closed or the
    /// bytes are not a message.
    pub(super) async fn receive(&self) -> Option<ReceivedMessage> {
        self.socket.read_with(receive).await.ok().flatten()
    }

    /// Returns the next message if it has already arrived. Returns `None` if no message has arrived
    /// or the bytes are not a message.
    pub(super) fn received(&self) -> Option<ReceivedMessage> {
        // The first call may report that the peer has closed before it returns what the peer had
        // sent.
        let socket = self.socket.get_ref();
        receive(socket).or_else(|_| receive(socket)).ok().flatten()
    }

    /// Shuts down the receiving side of the channel. From then on the peer can't send, and what it
    /// has sent before can still be received.
    pub(super) fn stop_receiving(&self) {
        // This fails only if the peer has gone.
        let _ = shutdown(self.socket.get_ref(), Shutdown::Read);
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Option<ReceivedMessage>> {
    let mut bytes = [0; message::MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Ok(None);
    }
    let message = bytes.get(..received.bytes).and_then(message::parse);
    Ok(message.map(|message| ReceivedMessage {
        message,
        descriptor,
    }))
}

/// Makes the kernel refuse descriptors that are sent to `socket` or to sockets accepted from it.
/// Returns `false` if the kernel can't do so.
#[allow(unsafe_code, reason = "rustix does not have SO_PASSRIGHTS")]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the size of a C integer, a small number"
)]
fn refuse_descriptors(socket: &OwnedFd) -> bool {
    let off: libc::c_int = 0;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: SO_PASSRIGHTS reads `length` bytes from `off`.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            length,
        )
    };
    outcome == 0
}

/// Returns the process at the other end of the unix socket `socket`: the one that connected or, if
/// livelet made the connection, the one that called listen(2). Returns `None` if the kernel does
/// not report the process.
#[allow(unsafe_code, reason = "rustix can't represent pid 0")]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the size of three integers"
)]
fn peer(socket: BorrowedFd<'_>) -> Option<Peer> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: SO_PEERCRED writes at most `length` bytes to `credentials`, which are plain numbers.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    let libc::ucred { pid, uid, .. } = credentials;
    (outcome == 0).then_some(Peer { pid, uid })
}
