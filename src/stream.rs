//! A connection's socket. The reactor learns of it when a first call would block: a probe whose request is there as soon
//! as it is accepted is answered without epoll.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{self, Shutdown};
use std::pin::Pin;
use std::task::{Context, Poll};

use async_net::TcpStream;
use smol::Async;
use smol::io::{AsyncRead as _, AsyncWrite as _};

/// A non-blocking socket, in one of two forms.
pub(crate) enum Stream {
    /// Not known to the reactor; `None` only while it becomes known, and where that has failed.
    Fresh(Option<net::TcpStream>),
    /// Wakes the task that waits for it.
    Registered(TcpStream),
}

impl Stream {
    /// Of a socket that is non-blocking already.
    pub(crate) fn new(socket: net::TcpStream) -> Stream {
        Stream::Fresh(Some(socket))
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if let Stream::Fresh(Some(socket)) = self {
            if let Some(outcome) = at_once(socket.read(room)) {
                return Poll::Ready(outcome);
            }
        }
        Pin::new(self.registered()?).poll_read(cx, room)
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Stream::Fresh(Some(socket)) = self {
            if let Some(outcome) = at_once(socket.write(bytes)) {
                return Poll::Ready(outcome);
            }
        }
        Pin::new(self.registered()?).poll_write(cx, bytes)
    }

    /// shutdown(2)
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Fresh(socket) => socket
                .as_ref()
                .map_or(Ok(()), |socket| socket.shutdown(how)),
            Stream::Registered(stream) => stream.shutdown(how),
        }
    }

    fn registered(&mut self) -> io::Result<&mut TcpStream> {
        if let Stream::Fresh(socket) = self {
            let socket = socket.take().ok_or(ErrorKind::NotConnected)?;
            *self = Stream::Registered(Async::new_nonblocking(socket)?.into());
        }
        match self {
            Stream::Registered(stream) => Ok(stream),
            Stream::Fresh(_) => Err(ErrorKind::NotConnected.into()),
        }
    }
}

/// What a call returned, unless it would have had to wait.
fn at_once(outcome: io::Result<usize>) -> Option<io::Result<usize>> {
    let waits =
        |error: &io::Error| [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind());
    Some(outcome).filter(|outcome| !outcome.as_ref().is_err_and(waits))
}
