//! Connections to the sockets that checks and `livelet probe` ask, by async-net.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as Pair;
use std::thread;
use std::time::Duration;

use async_net::TcpStream;
use rustix::event::epoll::{self, CreateFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;
use smol::Async;
use socket2::SockRef;

use crate::signal::Mask;

/// Stack, in bytes, of the thread of async-io: what std gives a thread by itself.
const STACK: usize = 2 * 1024 * 1024;

/// Connects to the first of the addresses that accepts.
///
/// # Errors
/// Returns the error of the last address, or of starting async-io.
pub(super) async fn connect_to(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    start_async_io()?;
    let mut outcome = Err(ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        outcome = TcpStream::connect(address).await.and_then(not_itself);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Refuses a socket that is connected to itself. TCP allows that (simultaneous open, RFC 9293 section 3.5) if the kernel
/// chooses the port of a check as the source port and nobody listens there. SO_LINGER of 0 resets the connection, so that
/// no TIME_WAIT keeps the worker from the port.
fn not_itself(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? != stream.peer_addr()? {
        return Ok(stream);
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Err(ErrorKind::ConnectionRefused.into())
}

/// Starts async-io, the reactor below async-net, unless it runs. Without its thread and descriptors it would panic, and
/// panics of PID 1 end the container. So each of them is tried first, and a check that can't have them fails.
///
/// The thread runs no signal handlers. musl unblocks signals of its own when the first thread of a process is made.
fn start_async_io() -> io::Result<()> {
    thread_local! {
        static RUNS: Cell<bool> = const { Cell::new(false) };
    }
    if RUNS.get() {
        return Ok(());
    }
    let mask = Mask::all().set();
    let outcome = try_async_io();
    mask.set();
    RUNS.set(outcome.is_ok());
    outcome
}

fn try_async_io() -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let event = eventfd(0, EventfdFlags::CLOEXEC)?;
    let timer = fcntl_dupfd_cloexec(&event, 0)?;
    // With the space for two: where addresses are scarce (RLIMIT_AS), the second is for the sockets.
    let thread = thread::Builder::new().stack_size(2 * STACK).spawn(|| ())?;
    // The thread has nothing to fail with.
    let _ = thread.join();
    let (socket, _) = Pair::pair()?;
    drop((epoll, event, timer));
    Async::new(socket).map(drop)
}

/// Checks that one of the addresses accepts a connection.
pub(super) async fn accepts(addresses: &[SocketAddr]) -> Result<(), String> {
    match connect_to(addresses).await {
        Ok(_) => Ok(()),
        Err(cause) => Err(match addresses.first() {
            Some(address) => format!("{address}: {}", crate::log::Cause(&cause)),
            None => cause.to_string(),
        }),
    }
}
