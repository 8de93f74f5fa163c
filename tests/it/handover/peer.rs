//! The other end of a rendezvous, for a test to play.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept,
    bind, connect, listen, recvmsg, sendmsg, shutdown, socket_with,
};

use crate::support::{SOON, uninterrupted, wait_for};

fn socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

fn rendezvous(addr: SocketAddr) -> SocketAddrUnix {
    SocketAddrUnix::new_abstract_name(format!("livelet/{addr}").as_bytes()).unwrap()
}

/// A rendezvous of the test's own.
pub(crate) struct Rendezvous(OwnedFd);

impl Rendezvous {
    pub(crate) fn new(addr: SocketAddr) -> Rendezvous {
        let socket = socket();
        bind(&socket, &rendezvous(addr)).unwrap();
        listen(&socket, 8).unwrap();
        Rendezvous(socket)
    }

    pub(crate) fn accept(&self) -> Peer {
        assert!(is_readable(&self.0, SOON), "nobody came");
        Peer(accept(&self.0).unwrap())
    }
}

/// One conversation.
pub(crate) struct Peer(OwnedFd);

impl Peer {
    /// Connects to the livelet that serves this address. Waits until it has its rendezvous.
    pub(crate) fn connect(addr: SocketAddr) -> Peer {
        let mut peer = None;
        wait_for("the rendezvous", || {
            let socket = socket();
            if connect(&socket, &rendezvous(addr)).is_ok() {
                peer = Some(Peer(socket));
            }
            peer.is_some()
        });
        peer.unwrap()
    }

    /// Sends a message. Returns `false` if the other end accepts no more.
    pub(crate) fn send(&self, message: &str) -> bool {
        self.send_with(message.as_bytes(), None)
    }

    /// Withdraws the offer as a holder does. From here on the peer can't send, also if a child that
    /// another test forks has the socket until its exec.
    pub(crate) fn withdraw(&self) {
        self.send("livelet 1 withdrawn");
        shutdown(&self.0, Shutdown::Read).unwrap();
    }

    pub(crate) fn send_with(&self, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> bool {
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let parts = [IoSlice::new(message)];
        sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL).is_ok()
    }

    pub(crate) fn ask(&self, takeover: bool) {
        let pid = std::process::id();
        self.send(&format!(
            "livelet 1 ask pid={pid} takeover={}",
            u8::from(takeover)
        ));
    }

    /// Returns the next message and its descriptor. An empty message is the end.
    pub(crate) fn receive(&self) -> (String, Option<OwnedFd>) {
        assert!(is_readable(&self.0, SOON), "no message arrived");
        let mut bytes = [0; 512];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let Ok(received) = recvmsg(&self.0, &mut parts, &mut control, flags) else {
            return (String::new(), None);
        };
        let descriptor = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let text = std::str::from_utf8(&bytes[..received.bytes]).unwrap();
        (text.to_string(), descriptor)
    }

    pub(crate) fn assert_receives(&self, expected: &str) -> Option<OwnedFd> {
        let (message, descriptor) = self.receive();
        assert!(
            message.starts_with(expected),
            "{message:?}, not {expected:?}"
        );
        descriptor
    }

    pub(crate) fn assert_closed(&self) {
        assert_eq!(self.receive().0, "");
    }
}

fn is_readable(socket: impl AsFd, within: Duration) -> bool {
    let mut polled = [PollFd::new(&socket, PollFlags::IN)];
    let limit = Timespec::try_from(within).unwrap();
    uninterrupted(|| Ok(poll(&mut polled, Some(&limit))?)).unwrap() == 1
}
