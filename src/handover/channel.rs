//! The unix socket between two livelets: packets, a descriptor, and who is at the other end (unix(7)).

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

/// How many peers the kernel keeps for a holder that has not accepted them.
const BACKLOG: i32 = 8;

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

fn rendezvous(address: SocketAddr) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new_abstract_name(
        super::name(address).as_bytes(),
    )?)
}

/// Where askers come to.
pub(super) fn listen_for(address: SocketAddr) -> io::Result<Source<OwnedFd>> {
    let socket = socket()?;
    bind(&socket, &rendezvous(address)?)?;
    listen(&socket, BACKLOG)?;
    Ok(Source::new(socket))
}

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Source<OwnedFd>,
}

impl Channel {
    /// To the holder of an address.
    pub(super) fn connect(address: SocketAddr) -> io::Result<Channel> {
        let socket = socket()?;
        connect(&socket, &rendezvous(address)?)?;
        Ok(Channel {
            socket: Source::new(socket),
        })
    }

    /// From an asker; an error of kind `WouldBlock` where none is there.
    pub(super) fn accept(rendezvous: &OwnedFd) -> io::Result<Channel> {
        let socket = accept_with(rendezvous, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        Ok(Channel {
            socket: Source::new(socket),
        })
    }

    pub(super) fn send(&self, message: Message) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// Never waits: a peer that has no room for a message is no peer.
    pub(super) fn send_with(
        &self,
        message: Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = message.to_string();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg(
            self.socket.get_ref(),
            &parts,
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// The next message and the descriptor that came with it. `None` at the end; garbage ends a conversation too.
    pub(super) async fn receive(&self) -> Option<(Message, Option<OwnedFd>)> {
        self.socket.read_with(receive).await.ok().flatten()
    }

    /// A message that is there already.
    pub(super) fn received(&self) -> Option<(Message, Option<OwnedFd>)> {
        // The first call may report that the peer has closed before it returns what the peer had sent.
        let socket = self.socket.get_ref();
        receive(socket).or_else(|_| receive(socket)).ok().flatten()
    }

    /// From here on the peer can't send.
    pub(super) fn stop_receiving(&self) {
        // It fails only where the peer is gone.
        let _ = shutdown(self.socket.get_ref(), Shutdown::Read);
    }

    /// Whether the process at the other end is of this uid, whatever its pid namespace.
    pub(super) fn is_of_own_user(&self) -> bool {
        peer(self.socket.get_ref().as_fd()).is_some_and(Peer::is_of_own_user)
    }

    /// The process at the other end, where it is of this uid and this pid namespace and says what the kernel says.
    pub(super) fn is_peer(&self, claimed: i32) -> bool {
        peer(self.socket.get_ref().as_fd()).is_some_and(|peer| {
            peer.is_of_own_user() && peer.pid == claimed && peer.shares_pid_namespace()
        })
    }
}

fn receive(socket: &OwnedFd) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
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
    Ok(message.map(|message| (message, descriptor)))
}

/// Returns the process at the other end, as it was when it connected or listened.
#[allow(unsafe_code, reason = "rustix can't represent pid 0")]
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
