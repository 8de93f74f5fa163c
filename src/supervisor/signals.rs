//! Signals as a stream. SIGCHLD and the signals of a responder come through signal-hook: its
//! handler writes to a socket pair, the executor reads it (self-pipe trick). All other signals of a
//! companion stay blocked, and are read from a signalfd(2), which tells the sender too.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libc::{SIGCHLD, SIGHUP};
use rustix::io::read;
use rustix::process::getpid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use smol::future::or;

use super::lifecycle::RESPONDER_STOPS;
use crate::runtime::{Source, Timer};
use crate::signal::{Mask, is_hangup_ignored};

/// Time between two polls for signals if they can't be waited for: short enough for a stop, long
/// enough to cost nothing.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) signal: i32,
    /// Pid of the sender. 0 for the kernel, for another pid namespace, and if the sender is not
    /// known.
    pub(crate) sender: i32,
}

/// Source of signals.
pub(crate) struct Signals {
    handled: Source<Delivery>,
    /// All signals but SIGCHLD. `None` for a responder.
    others: Option<Source<OwnedFd>>,
    /// Signal mask that livelet was started with.
    inherited: Mask,
}

impl Signals {
    /// Catches signals: from here on they no longer end the process. A responder handles the
    /// signals that stop it, `stops` among them. A companion handles all that can be caught. A
    /// SIGHUP that is ignored stays ignored, as under nohup(1).
    ///
    /// # Errors
    /// Returns the error of socketpair(2), sigaction(2) or signalfd(2).
    pub(crate) fn new(is_companion: bool, stops: &[i32]) -> io::Result<Signals> {
        let inherited = Mask::all().set();
        let (read, write) = UnixStream::pair()?;
        let is_wanted = |signal: &i32| *signal != SIGHUP || !is_hangup_ignored();
        let mut handled = vec![SIGCHLD];
        if !is_companion {
            let all = RESPONDER_STOPS.iter().chain(stops).copied();
            handled.extend(all.filter(is_wanted));
        }
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, handled)?;
        let others = if is_companion {
            let mut blocked = Mask::all().without(&[SIGCHLD]);
            if !is_wanted(&SIGHUP) {
                // A blocked signal is not ignored.
                blocked = blocked.without(&[SIGHUP]);
            }
            blocked.set();
            Some(Source::new(signal_fd(&blocked)?))
        } else {
            Mask::none().set();
            None
        };
        Ok(Signals {
            handled: Source::new(Delivery(delivery)),
            others,
            inherited,
        })
    }

    /// Returns the signal mask that livelet was started with, for its children.
    pub(crate) fn inherited(&self) -> Mask {
        self.inherited
    }

    /// Waits for signals and returns them. The number of real-time signals is bounded. The kernel
    /// queues one signal of each other kind (signal(7)).
    pub(crate) async fn next(&mut self) -> Vec<Arrived> {
        let others = async {
            match &self.others {
                Some(others) => others.readable().await,
                None => pending().await,
            }
        };
        if or(self.handled.readable(), others).await.is_err() {
            // epoll refuses the descriptor (ENOSPC, ENOMEM): signals are looked for every now and
            // then.
            Timer::after(BACK_OFF).await;
        }
        let handled = self.handled.get_mut().0.pending();
        let mut arrived: Vec<Arrived> = handled
            .map(|signal| Arrived { signal, sender: 0 })
            .collect();
        if let Some(others) = &self.others {
            read_all(others.get_ref(), &mut arrived);
        }
        arrived
    }
}

/// signal-hook's end of the socket pair, to which its handler writes.
struct Delivery(SignalDelivery<UnixStream, SignalOnly>);

impl AsFd for Delivery {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
    }
}

/// Appends the signals in a signalfd, at most as many as one read(2) returns.
fn read_all(signals: &OwnedFd, arrived: &mut Vec<Arrived>) {
    /// Size in bytes of `struct signalfd_siginfo`.
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    const PID_AT: usize = std::mem::offset_of!(libc::signalfd_siginfo, ssi_pid);
    let mut buffer = [0; 16 * SIZE];
    let length = read(signals, &mut buffer).unwrap_or_default();
    let own = getpid().as_raw_pid();
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
