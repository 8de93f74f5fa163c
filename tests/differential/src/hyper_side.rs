//! hyper's verdict on the request that some bytes begin with.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

/// Outcome of parsing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accepted,
    Rejected,
    Incomplete,
}

/// A client that has sent some bytes and waits.
struct Client {
    bytes: Vec<u8>,
    read: usize,
    has_answer: Rc<Cell<bool>>,
}

impl Read for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let rest = &self.bytes[self.read..];
        let count = rest.len().min(room.remaining());
        if count == 0 {
            return Poll::Pending;
        }
        room.put_slice(&rest[..count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.has_answer.set(true);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Nothing;

impl hyper::body::Body for Nothing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(0)
    }
}

/// Returns hyper's outcome, with its own defaults and no timer.
pub fn verdict(bytes: &[u8]) -> (Verdict, String) {
    let has_answer = Rc::new(Cell::new(false));
    let was_called = Rc::new(Cell::new(false));
    let called = Rc::clone(&was_called);
    let service = service_fn(move |_: Request<Incoming>| {
        called.set(true);
        async { Ok::<_, Infallible>(Response::new(Nothing)) }
    });
    let client = Client {
        bytes: bytes.to_vec(),
        read: 0,
        has_answer: Rc::clone(&has_answer),
    };
    let connection = http1::Builder::new()
        .half_close(true)
        .serve_connection(client, service);
    let mut connection = pin!(connection);
    let context = &mut Context::from_waker(Waker::noop());
    let mut outcome = Poll::Pending;
    for _ in 0..8 {
        outcome = connection.as_mut().poll(context);
        if outcome.is_ready() || was_called.get() {
            break;
        }
    }
    let verdict = match outcome {
        _ if was_called.get() => Verdict::Accepted,
        Poll::Ready(_) => Verdict::Rejected,
        Poll::Pending if has_answer.get() => Verdict::Rejected,
        Poll::Pending => Verdict::Incomplete,
    };
    let said = match outcome {
        Poll::Ready(Err(error)) => error.to_string(),
        _ => String::new(),
    };
    (verdict, said)
}
