//! TCP connections that checks and `livelet probe` make to other processes, with async-net.

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

/// Size, in bytes, of the stack of the thread that the crate async-io starts: std's default for a
/// thread. [`try_async_io`] uses this size to test whether such a thread can be started.
const STACK: usize = 2 * 1024 * 1024;

/// Connects by TCP to the first of `addresses` that accepts, and returns the connection. Tries the
/// addresses in order.
///
/// # Errors
/// Returns the error of the last address if no address accepts. Returns another error if async-io,
/// which waits for the sockets, can't be started.
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

/// Returns `stream`, but refuses one that is connected to itself (simultaneous open, RFC 9293
/// section 3.5). This happens if no process listens on the port and the kernel chooses that port as
/// the source port. The refused connection is reset (SO_LINGER of 0), because a TIME_WAIT would
/// keep the worker from binding the port.
///
/// # Errors
/// Returns `ConnectionRefused` if the socket is connected to itself, or the error of a failed
/// system call.
fn not_itself(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? != stream.peer_addr()? {
        return Ok(stream);
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Err(ErrorKind::ConnectionRefused.into())
}

/// Starts async-io, the reactor below async-net, unless async-io already runs. async-io panics if
/// its thread or one of its descriptors can't be created, and a panic of PID 1 ends the container.
/// So this function first creates a thread and each descriptor once, as a trial.
///
/// The function blocks all signals while async-io's thread is created, so that this thread receives
/// no signal. Afterwards the function restores the caller's signal mask.
///
/// # Errors
/// Returns an error if the thread or a descriptor can't be created.
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
    // The stack has space for two. If addresses are scarce (RLIMIT_AS), the second half is for the
    // sockets.
    let thread = thread::Builder::new().stack_size(2 * STACK).spawn(|| ())?;
    // The thread does nothing that could fail.
    let _ = thread.join();
    // musl unblocks signals 33 and 34 when a process makes its first thread. In async-io's thread
    // they would end livelet.
    Mask::all().set();
    let (socket, _) = Pair::pair()?;
    drop((epoll, event, timer));
    Async::new(socket).map(drop)
}

/// Checks that at least one of `addresses` accepts a TCP connection. Returns the reason as an error
/// if no address accepts.
pub(super) async fn accepts(addresses: &[SocketAddr]) -> Result<(), String> {
    match connect_to(addresses).await {
        Ok(_) => Ok(()),
        Err(cause) => Err(match addresses.first() {
            Some(address) => format!("{address}: {}", crate::log::Cause(&cause)),
            None => cause.to_string(),
        }),
    }
}
