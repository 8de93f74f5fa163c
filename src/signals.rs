//! Signals as a stream: signal-hook's handler writes to a socket pair, the executor reads it.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use smol::Async;

/// What ends a responder: SIGUSR2 is nodemon's.
const STOPPING: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR2];

/// The signals that arrived.
pub(crate) struct Signals(SignalDelivery<Async<UnixStream>, SignalOnly>);

impl Signals {
    /// Takes the signals over: from here on they no longer end the process.
    ///
    /// # Errors
    /// What socketpair(2), epoll_ctl(2) or sigaction(2) failed with.
    pub(crate) fn new() -> io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let read = Async::new(read)?;
        Ok(Signals(SignalDelivery::with_pipe(
            read, write, SignalOnly, STOPPING,
        )?))
    }

    /// Waits for signals and returns all that have arrived; the kernel keeps at most one of a kind (signal(7)).
    pub(crate) async fn next(&mut self) -> impl Iterator<Item = i32> + use<> {
        // The pipe only wakes: it can't end, and pending() empties it.
        let _ = self.0.get_read().readable().await;
        self.0.pending()
    }
}

/// The name by which users know a signal, without SIG.
pub(crate) fn name(signal: i32) -> &'static str {
    let name = signal_hook::low_level::signal_name(signal).unwrap_or("SIG?");
    name.strip_prefix("SIG").unwrap_or(name)
}
