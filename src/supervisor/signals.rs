//! Signals as a stream. Those that livelet acts on itself come through signal-hook: its handler writes to a socket pair,
//! the executor reads it. A companion only passes the others on: they stay blocked, and are read from a signalfd(2).

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use libc::{SIGCHLD, SIGHUP};
use rustix::io::read;
use rustix::process::getpid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use smol::future::or;

use super::lifecycle::RESPONDER_STOPS;
use crate::runtime::Source;
use crate::signal::{Mask, is_hangup_ignored};

/// The signals that arrived.
pub(crate) struct Signals {
    handled: Source<Delivery>,
    /// A companion's: all other signals.
    others: Option<Source<OwnedFd>>,
    /// The mask livelet was started with.
    inherited: Mask,
}

impl Signals {
    /// Takes signals over: from here on they no longer end the process. A responder handles the signals that stop it,
    /// with `stops` among them, a companion all that can be caught. A SIGHUP that is ignored stays ignored, as nohup(1)
    /// wants it.
    ///
    /// # Errors
    /// Returns the error of socketpair(2), sigaction(2) or signalfd(2).
    pub(crate) fn new(is_companion: bool, stops: &[i32]) -> io::Result<Signals> {
        let inherited = Mask::all().set();
        let (read, write) = UnixStream::pair()?;
        let mut handled = vec![SIGCHLD];
        for &signal in RESPONDER_STOPS.iter().chain(stops) {
            if signal != SIGHUP || !is_hangup_ignored() {
                handled.push(signal);
            }
        }
        let blocked = Mask::all().without(&handled).without(&[SIGHUP]);
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, handled)?;
        let others = if is_companion {
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

    /// The mask livelet was started with, for what it starts.
    pub(crate) fn inherited(&self) -> Mask {
        self.inherited
    }

    /// Waits for signals. Returns those that have arrived, of real-time signals a bounded number: the kernel keeps one of
    /// each other kind (signal(7)).
    pub(crate) async fn next(&mut self) -> Vec<i32> {
        let others = async {
            match &self.others {
                Some(others) => others.readable().await,
                None => pending().await,
            }
        };
        // An error here is of no use: the signals are looked at in any case.
        let _ = or(self.handled.readable(), others).await;
        let mut arrived: Vec<i32> = self.handled.get_mut().0.pending().collect();
        if let Some(others) = &self.others {
            read_all(others.get_ref(), &mut arrived);
        }
        arrived
    }
}

/// signal-hook's end of the socket pair that its handler writes to.
struct Delivery(SignalDelivery<UnixStream, SignalOnly>);

impl AsFd for Delivery {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_read().as_fd()
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
