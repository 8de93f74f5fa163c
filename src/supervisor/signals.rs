//! Source of the signals that livelet receives. Those of a responder (livelet without a worker)
//! come through signal-hook: its handler writes to a socket pair, which the executor reads
//! (self-pipe trick). Those of a companion (livelet with a worker) stay blocked and are read from a
//! signalfd(2), which also reports the sender.
//!
//! A companion has no signal handler, because a handler may run without end. While real-time
//! signals are queued, the kernel searches all of them each time it delivers another signal. The
//! next child may end before the search is over, and the handler runs again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libc::{SIGCHLD, SIGHUP};
use rustix::io::read;
use rustix::process::getpid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use super::lifecycle::RESPONDER_STOPS;
use crate::log;
use crate::runtime::{Source, Timer};
use crate::signal::{Mask, is_hangup_ignored, reset_disposition};

/// Time between two tries to read signals while epoll refuses to watch the descriptor from which
/// they are read. Short enough for a stop to be noticed, long enough to cost nothing.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A signal that livelet received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) signal: i32,
    /// Pid of the sender. 0 if the sender is the kernel, is in another pid namespace or is unknown.
    pub(crate) sender: i32,
}

/// Source of the signals that livelet receives.
pub(crate) struct Signals {
    source: SignalSource,
    /// Signal mask that livelet was started with.
    inherited: Mask,
    /// `true` if epoll(7) has refused at least once to watch for signals (ENOSPC, ENOMEM).
    has_backed_off: bool,
}

enum SignalSource {
    /// Source for a livelet without a worker: signal-hook's handlers write to a socket pair.
    Handled(Source<Delivery>),
    /// Source for a livelet with a worker: the signals are blocked and read from a signalfd(2).
    Blocked(Source<OwnedFd>),
}

impl Signals {
    /// Begins to catch signals, so that they no longer end livelet. If `is_companion` is `true`,
    /// livelet has a worker and catches all signals that can be caught. Otherwise it catches
    /// SIGCHLD, the usual stop signals and `stops`. A SIGHUP that is ignored stays ignored, as
    /// under nohup(1).
    ///
    /// # Errors
    /// Returns the error of socketpair(2), sigaction(2) or signalfd(2).
    pub(crate) fn new(is_companion: bool, stops: &[i32]) -> io::Result<Signals> {
        let inherited = Mask::all().set();
        let is_wanted = |signal: &i32| *signal != SIGHUP || !is_hangup_ignored();
        let source = if is_companion {
            // The kernel reaps the children of a process that ignores SIGCHLD.
            reset_disposition(SIGCHLD);
            let mut blocked = Mask::all();
            if !is_wanted(&SIGHUP) {
                // A blocked signal is not ignored.
                blocked = blocked.without(&[SIGHUP]);
            }
            blocked.set();
            SignalSource::Blocked(Source::new(signal_fd(&blocked)?))
        } else {
            let stops = RESPONDER_STOPS
                .iter()
                .chain(stops)
                .filter(|signal| is_wanted(signal));
            let handled = [SIGCHLD].iter().chain(stops);
            let (read, write) = UnixStream::pair()?;
            let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, handled)?;
            Mask::none().set();
            SignalSource::Handled(Source::new(Delivery(delivery)))
        };
        Ok(Signals {
            source,
            inherited,
            has_backed_off: false,
        })
    }

    /// Returns the signal mask that livelet was started with. Children get the same mask.
    pub(crate) fn inherited(&self) -> Mask {
        self.inherited
    }

    /// Waits until at least one signal may have arrived, and returns the signals that have arrived.
    /// The list may be empty. It is never long: the kernel limits the number of queued real-time
    /// signals, and queues other signals once each (signal(7)).
    pub(crate) async fn next(&mut self) -> Vec<Arrived> {
        let readable = match &self.source {
            SignalSource::Handled(delivery) => delivery.readable().await,
            SignalSource::Blocked(signals) => signals.readable().await,
        };
        if let Err(cause) = readable {
            if !std::mem::replace(&mut self.has_backed_off, true) {
                log::notice(format_args!(
                    "signal: epoll can't watch for signals: {}; looked for every 100 ms",
                    log::Cause(&cause)
                ));
            }
            Timer::after(BACK_OFF).await;
        }
        match &mut self.source {
            SignalSource::Handled(delivery) => {
                let pending = delivery.get_mut().0.pending();
                pending
                    .map(|signal| Arrived { signal, sender: 0 })
                    .collect()
            }
            SignalSource::Blocked(signals) => read_from(signals.get_ref()),
        }
    }
}

/// Reading end of the socket pair that signal-hook's handler writes to.
struct Delivery(SignalDelivery<UnixStream, SignalOnly>);

impl AsFd for Delivery {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}

/// Reads up to four signals from the signalfd(2) `signals`. The next call reads further ones.
/// Leaves out signals whose sender is livelet itself, such as the SIGPIPE of a failed write.
fn read_from(signals: &OwnedFd) -> Vec<Arrived> {
    /// Size in bytes of `struct signalfd_siginfo`.
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    const PID_AT: usize = std::mem::offset_of!(libc::signalfd_siginfo, ssi_pid);
    let mut buffer = [0; 4 * SIZE];
    let length = read(signals, &mut buffer).unwrap_or_default();
    let own = getpid().as_raw_pid();
    let mut arrived = Vec::new();
    for info in buffer.get(..length).unwrap_or_default().chunks_exact(SIZE) {
        let number = |at: usize| {
            let bytes = info.get(at..at + 4)?.try_into().ok()?;
            Some(i32::from_ne_bytes(bytes))
        };
        let (Some(signal), Some(sender)) = (number(0), number(PID_AT)) else {
            continue;
        };
        // The kernel sends SIGPIPE and SIGXFSZ in livelet's own name for a failed write. The write
        // returns an error too.
        if sender != own {
            arrived.push(Arrived { signal, sender });
        }
    }
    arrived
}

#[allow(unsafe_code, reason = "signalfd(2)")]
fn signal_fd(signals: &Mask) -> io::Result<OwnedFd> {
    let flags = libc::SFD_NONBLOCK | libc::SFD_CLOEXEC;
    // SAFETY: the set is valid for the call.
    let fd = unsafe { libc::signalfd(-1, &raw const signals.0, flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
