//! A connection's socket. What can be read or written at once is; only what can't has to wait, so that a probe whose
//! request is there as soon as it is accepted is answered without any wait.
//!
//! A connection waits in a seat of the thread's own `reactor`; the many that find no seat are async-net's.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{self, Shutdown};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;

use async_net::TcpStream;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use smol::Async;
use smol::io::{AsyncRead as _, AsyncWrite as _};

use crate::runtime::{READ, Seat, WRITE};

/// How many connections may have a seat: as many as there are at the default `--max-connections`. A larger crowd is waited
/// for by who is made for that.
const SEATS: usize = 256;

/// What std gives a thread by itself.
const STACK: usize = 2 * 1024 * 1024;

thread_local! {
    /// How many have one.
    static SEATED: Cell<usize> = const { Cell::new(0) };
    /// smol's reactor runs.
    static HAS_CROWD: Cell<bool> = const { Cell::new(false) };
}

/// A non-blocking socket, in one of three forms.
pub(crate) enum Stream {
    /// It has not had to wait yet.
    Fresh(net::TcpStream),
    /// The seat comes first: it is dropped first.
    Seated(OneOfSeats, net::TcpStream),
    /// async-net waits for it.
    Registered(TcpStream),
    /// It can't be waited for.
    Lost,
}

impl Stream {
    /// Of a socket that is non-blocking already.
    pub(crate) fn new(socket: net::TcpStream) -> Stream {
        Stream::Fresh(socket)
    }

    /// Reads what there is. Where it `is_empty` as far as the caller knows, it may wait without a look.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
        is_empty: bool,
    ) -> Poll<io::Result<usize>> {
        if let Stream::Fresh(socket) | Stream::Seated(_, socket) = self {
            let looked = (!is_empty).then(|| at_once(|| socket.read(room)));
            if let Some(outcome) = looked.flatten() {
                return Poll::Ready(outcome);
            }
        }
        match self.wait(READ, cx)? {
            None => Poll::Pending,
            Some(stream) => Pin::new(stream).poll_read(cx, room),
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Stream::Fresh(socket) | Stream::Seated(_, socket) = self {
            if let Some(outcome) = at_once(|| socket.write(bytes)) {
                return Poll::Ready(outcome);
            }
        }
        match self.wait(WRITE, cx)? {
            None => Poll::Pending,
            Some(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// shutdown(2)
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Fresh(socket) | Stream::Seated(_, socket) => socket.shutdown(how),
            Stream::Registered(stream) => stream.shutdown(how),
            Stream::Lost => Ok(()),
        }
    }

    /// Has the task of `cx` woken when the socket is ready for what is `wanted`; where async-net does that, it has to be asked.
    fn wait(&mut self, wanted: EventFlags, cx: &Context<'_>) -> io::Result<Option<&mut TcpStream>> {
        if let Stream::Fresh(_) = self {
            if let Stream::Fresh(socket) = std::mem::replace(self, Stream::Lost) {
                *self = match OneOfSeats::take(SEATS) {
                    Some(seat) => Stream::Seated(seat, socket),
                    None if has_crowd() => {
                        Stream::Registered(Async::new_nonblocking(socket)?.into())
                    }
                    // More seats than are good cost time, but nobody is turned away.
                    None => match OneOfSeats::take(usize::MAX) {
                        Some(seat) => Stream::Seated(seat, socket),
                        None => Stream::Lost,
                    },
                };
            }
        }
        match self {
            Stream::Seated(seat, socket) => {
                seat.0.wait(socket.as_fd(), wanted, cx);
                Ok(None)
            }
            Stream::Registered(stream) => Ok(Some(stream)),
            Stream::Fresh(_) | Stream::Lost => Err(ErrorKind::NotConnected.into()),
        }
    }
}

/// What a call returned, unless it would have had to wait.
fn at_once(mut call: impl FnMut() -> io::Result<usize>) -> Option<io::Result<usize>> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            outcome => return Some(outcome),
        }
    }
}

/// One of [`SEATS`], or of more where there is nothing else.
pub(crate) struct OneOfSeats(Seat);

impl OneOfSeats {
    fn take(most: usize) -> Option<OneOfSeats> {
        let seated = SEATED.get();
        (seated < most).then(|| {
            SEATED.set(seated + 1);
            OneOfSeats(Seat::of_stream())
        })
    }
}

impl Drop for OneOfSeats {
    fn drop(&mut self) {
        let _ = SEATED.try_with(|seated| seated.set(seated.get() - 1));
    }
}

/// Whether smol's reactor runs, or can.
///
/// It begins with the first connection that is registered, and it panics where it can't have its thread and its
/// descriptors: so whether they are to be had is tried first.
fn has_crowd() -> bool {
    if !HAS_CROWD.get() {
        HAS_CROWD.set(try_crowd().is_ok());
    }
    HAS_CROWD.get()
}

fn try_crowd() -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let event = eventfd(0, EventfdFlags::CLOEXEC)?;
    epoll::add(&epoll, &event, EventData::new_u64(0), EventFlags::IN)?;
    let _for_its_timer = fcntl_dupfd_cloexec(&event, 0)?;
    // With the room of two: where addresses are scarce (RLIMIT_AS), the second is what connections need.
    let thread = thread::Builder::new().stack_size(2 * STACK).spawn(|| ())?;
    // It has nothing to fail with.
    let _ = thread.join();
    Ok(())
}
