//! Signals as a stream: signal-hook's handler writes to a socket pair, the executor reads it.

use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use smol::Async;

/// What ends a responder: SIGUSR2 is nodemon's.
const STOPPING: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR2];

/// The signals that arrived.
pub(crate) struct Signals {
    delivery: SignalDelivery<Async<UnixStream>, SignalOnly>,
    /// Set by the handler too: requests that were queued together with a signal must see it, and the socket pair only
    /// wakes with its turn in epoll.
    arrived: Arc<AtomicBool>,
}

impl Signals {
    /// Takes the signals over: from here on they no longer end the process.
    ///
    /// # Errors
    /// What socketpair(2), epoll_ctl(2) or sigaction(2) failed with.
    pub(crate) fn new() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let read = Async::new(read)?;
        let arrived = Arc::new(AtomicBool::new(false));
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, STOPPING)?;
        for signal in STOPPING {
            signal_hook::flag::register(signal, Arc::clone(&arrived))?;
        }
        Ok(Signals { delivery, arrived })
    }

    /// Waits for signals and returns all that have arrived; the kernel keeps at most one of a kind (signal(7)).
    pub(crate) async fn next(&mut self) -> impl Iterator<Item = i32> + use<> {
        poll_fn(|cx| {
            if self.arrived.swap(false, Ordering::SeqCst) {
                return Poll::Ready(());
            }
            // The socket pair only wakes: it can't end, and pending() empties it.
            self.delivery.get_read().poll_readable(cx).map(drop)
        })
        .await;
        self.delivery.pending()
    }
}

/// The name by which users know a signal, without SIG.
pub(crate) fn name(signal: i32) -> &'static str {
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("SIG?");
    name.strip_prefix("SIG").unwrap_or(name)
}
