//! Signals as a stream. Those that livelet acts on itself come through signal-hook: its handler writes to a socket pair,
//! the executor reads it. A companion only passes the others on: they stay blocked, and are read from a signalfd(2).

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use libc::{SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, SIGUSR2};
use rustix::io::read;
use rustix::process::getpid;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::reactor::{READ, Seat, Source};

/// The first real-time signal, as glibc and kill(1) number them: musl keeps one more for itself.
const SIGRTMIN: i32 = 34;

/// What ends a responder: SIGUSR2 is nodemon's.
pub(crate) const STOPPING: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR2];

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

/// The kernel keeps KILL and STOP for itself, and CHLD is about livelet's own children.
pub(crate) fn can_be_caught(signal: i32) -> bool {
    ![SIGKILL, SIGSTOP, SIGCHLD].contains(&signal)
}

#[allow(unsafe_code)]
fn is_hangup_ignored() -> bool {
    // SAFETY: sigaction(2) with no new action only writes the current one to `action`, for which zeroes are a value.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(SIGHUP, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Resets every disposition to its default, but for a SIGHUP that is ignored. It may be called between fork and exec.
#[allow(unsafe_code)]
pub(crate) fn reset_dispositions() {
    let keeps_hangup = is_hangup_ignored();
    for signal in 1..=libc::SIGRTMAX() {
        if signal != SIGHUP || !keeps_hangup {
            // SAFETY: SIG_DFL is no pointer; where a signal has no disposition to set, the call fails and does nothing.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

/// A set of blocked signals.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    /// Every signal. sigfillset(3) leaves out what the C library wants for itself to cancel threads, three in musl, one
    /// of which is SIGRTMIN to everybody else: livelet cancels none, and is to pass it on.
    pub(crate) fn all() -> Mask {
        Mask::filled(u8::MAX)
    }

    /// No signal.
    pub(crate) fn none() -> Mask {
        Mask::filled(0)
    }

    #[allow(unsafe_code)]
    fn filled(byte: u8) -> Mask {
        // SAFETY: a signal set is plain bits, and any of them are a value of it.
        unsafe {
            let mut set = std::mem::zeroed();
            std::ptr::write_bytes(&raw mut set, byte, 1);
            Mask(set)
        }
    }

    #[allow(unsafe_code)]
    fn without(mut self, signals: &[i32]) -> Mask {
        for &signal in signals {
            // SAFETY: the set is valid for the call.
            unsafe { libc::sigdelset(&raw mut self.0, signal) };
        }
        self
    }

    /// Blocks these signals, and no others, in this thread; returns what was blocked. It may be called between fork and
    /// exec. The C library has the same call, but leaves out the signals that it wants for itself.
    #[allow(unsafe_code)]
    pub(crate) fn set(&self) -> Mask {
        /// The kernel's set is the beginning of the C library's.
        const SIZE: usize = size_of::<u64>();
        let mut before = Mask::none();
        // SAFETY: both sets are valid for the call; it can only fail for another size or first argument.
        unsafe {
            let (set, before) = (&raw const self.0, &raw mut before.0);
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_SETMASK,
                set,
                before,
                SIZE,
            );
        }
        before
    }
}

/// Names by number, as kill(1) lists them, without SIG.
const NAMES: [&str; 32] = [
    "0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The name by which users know a signal, or its number where it has none.
pub(crate) fn name(signal: i32) -> Cow<'static, str> {
    let index = usize::try_from(signal).unwrap_or(usize::MAX);
    match NAMES.get(index) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(signal.to_string()),
    }
}

/// The signal of a name or number: `TERM`, `SIGTERM` or `15`; 0 is 0.
pub(crate) fn number(text: &str) -> Option<i32> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let named = NAMES.iter().position(|&known| known == name);
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    named
        .and_then(|index| i32::try_from(index).ok())
        .or_else(|| text.parse().ok().filter(|_| digits))
        .filter(|number| {
            (0..=31).contains(number) || (SIGRTMIN..=libc::SIGRTMAX()).contains(number)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, expected) in [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("15", Some(15)),
            ("0", Some(0)),
            ("USR2", Some(12)),
            ("64", Some(64)),
            ("34", Some(34)),
            ("32", None),
            ("65", None),
            ("+15", None),
            ("-1", None),
            ("term", None),
            ("SIG15", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        for number in 1..=31 {
            let listed = std::process::Command::new("sh")
                .args(["-c", &format!("kill -l {number}")])
                .output()
                .unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            assert!(
                ["POLL", &*name(number), &*number.to_string()].contains(&listed.trim()),
                "{number}"
            );
        }
    }
}
