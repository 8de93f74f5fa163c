//! Signals as a stream. Those that livelet acts on itself come through signal-hook: its handler writes to a socket pair,
//! the executor reads it. A companion only passes the others on: they stay blocked, and are read from a signalfd(2).

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use libc::{SIGCHLD, SIGHUP};
use rustix::io::read;
use rustix::process::getpid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::runtime::{READ, Seat, Source};
use crate::signal::{Mask, STOPPING, is_hangup_ignored};

/// The signals that arrived.
pub(crate) struct Signals {
    /// Waits for the reading end of the socket pair.
    seat: Seat,
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    /// Set by the handler too: requests that were queued together with a signal must see it, and the socket pair only
    /// wakes with its turn in epoll.
    arrived: Arc<AtomicBool>,
    /// A companion's: all other signals.
    others: Option<Source<OwnedFd>>,
    /// The mask livelet was started with.
    inherited: Mask,
}

impl Signals {
    /// Takes signals over: from here on they no longer end the process. A responder handles those that stop it, a
    /// companion all that can be caught. A SIGHUP that is ignored stays ignored, as nohup(1) wants it.
    ///
    /// # Errors
    /// What socketpair(2), sigaction(2) or signalfd(2) failed with.
    pub(crate) fn new(is_companion: bool) -> io::Result<Signals> {
        let inherited = Mask::all().set();
        let (read, write) = UnixStream::pair()?;
        let arrived = Arc::new(AtomicBool::new(false));
        let mut handled = vec![SIGCHLD];
        for signal in STOPPING {
            if signal != SIGHUP || !is_hangup_ignored() {
                handled.push(signal);
            }
        }
        for &signal in &handled {
            signal_hook::flag::register(signal, Arc::clone(&arrived))?;
        }
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, handled)?;
        let others = if is_companion {
            let blocked = Mask::all().without(&STOPPING).without(&[SIGCHLD]);
            blocked.set();
            Some(Source::new(signal_fd(&blocked)?))
        } else {
            Mask::none().set();
            None
        };
        Ok(Signals {
            seat: Seat::take(),
            delivery,
            arrived,
            others,
            inherited,
        })
    }

    /// The mask livelet was started with, for what it starts.
    pub(crate) fn inherited(&self) -> Mask {
        self.inherited
    }

    /// Waits for signals and returns all that have arrived; the kernel keeps at most one of a kind (signal(7)), apart
    /// from real-time ones.
    pub(crate) async fn next(&mut self) -> Vec<i32> {
        poll_fn(|cx| {
            if self.arrived.swap(false, Ordering::SeqCst) {
                return Poll::Ready(());
            }
            let others = self.others.as_ref();
            let have_others = others.is_some_and(|others| others.poll_readable(cx).is_ready());
            // The socket pair only wakes: it can't end, and pending() empties it.
            let pair = self.delivery.get_read().as_fd();
            let has_woken = self.seat.poll(pair, READ, cx).is_ready();
            if have_others || has_woken {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        let mut arrived: Vec<i32> = self.delivery.pending().collect();
        if let Some(others) = &self.others {
            read_all(others.get_ref(), &mut arrived);
        }
        arrived
    }
}

/// Appends the signals in a signalfd, at most as many as one read(2) gives.
fn read_all(signals: &OwnedFd, arrived: &mut Vec<i32>) {
    /// struct signalfd_siginfo.
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    const PID_AT: usize = std::mem::offset_of!(libc::signalfd_siginfo, ssi_pid);
    let mut buffer = [0; 16 * SIZE];
    let length = read(signals, &mut buffer).unwrap_or_default();
    let own = u32::try_from(getpid().as_raw_pid()).unwrap_or_default();
    for info in buffer.get(..length).unwrap_or_default().chunks_exact(SIZE) {
        let number = |at: usize| {
            let bytes = info.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        // The kernel says SIGPIPE and SIGXFSZ in livelet's own name, for what it wrote in vain: that has an error.
        if number(PID_AT) != Some(own) {
            arrived.extend(number(0).map(|signal| signal as i32));
        }
    }
}

#[allow(unsafe_code)]
fn signal_fd(signals: &Mask) -> io::Result<OwnedFd> {
    // SAFETY: the set is valid for the call, and a descriptor that is returned is nobody else's.
    unsafe {
        let fd = libc::signalfd(
            -1,
            &raw const signals.0,
            libc::SFD_NONBLOCK | libc::SFD_CLOEXEC,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}
