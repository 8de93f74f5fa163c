//! Signals as a stream: signal-hook's handler writes to a socket pair, the executor reads it.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use libc::{SIGBUS, SIGCHLD, SIGFPE, SIGHUP, SIGILL, SIGINT, SIGKILL, SIGPIPE, SIGQUIT};
use libc::{SIGSEGV, SIGSTOP, SIGTERM, SIGUSR2, SIGXFSZ};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;
use signal_hook::low_level::emulate_default_handler;
use smol::Async;

/// What ends a responder: SIGUSR2 is nodemon's.
pub(crate) const STOPPING: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR2];

/// What the kernel also sends livelet for what livelet does itself: a fault, or a write to what nobody reads or may not
/// grow. Sent by another process, they are signals like any other.
const OWN: [i32; 6] = [SIGILL, SIGBUS, SIGFPE, SIGSEGV, SIGPIPE, SIGXFSZ];

/// The signals that arrived.
pub(crate) struct Signals {
    delivery: SignalDelivery<Async<UnixStream>, SignalOnly>,
    /// Set by the handler too: requests that were queued together with a signal must see it, and the socket pair only
    /// wakes with its turn in epoll.
    arrived: Arc<AtomicBool>,
    /// Those of [`OWN`] that another process sent, a bit each.
    sent: Arc<AtomicU64>,
    /// The mask livelet was started with.
    inherited: Mask,
}

impl Signals {
    /// Takes signals over: from here on they no longer end the process. A responder handles those that stop it, a
    /// companion all that can be caught. A SIGHUP that is ignored stays ignored, as nohup(1) wants it.
    ///
    /// # Errors
    /// What socketpair(2), epoll_ctl(2) or sigaction(2) failed with.
    pub(crate) fn new(is_companion: bool) -> io::Result<Signals> {
        // The reactor's thread begins with the first Async and inherits this: every signal is the main thread's, so
        // that what it does next already knows of it.
        let inherited = Mask::all().set();
        let (read, write) = UnixStream::pair()?;
        write.set_nonblocking(true)?;
        let read = Async::new(read)?;
        let arrived = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let mut handled: Vec<i32> = if is_companion {
            let forwarded = (1..=31).chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
            forwarded
                .filter(|signal| !OWN.contains(signal) && can_be_caught(*signal))
                .collect()
        } else {
            STOPPING.to_vec()
        };
        if is_ignored(SIGHUP) {
            handled.retain(|&signal| signal != SIGHUP);
        }
        handled.push(SIGCHLD);
        if is_companion {
            catch_when_sent(&write, &arrived, &sent)?;
        }
        for &signal in &handled {
            signal_hook::flag::register(signal, Arc::clone(&arrived))?;
        }
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, handled)?;
        Mask::none().set();
        Ok(Signals {
            delivery,
            arrived,
            sent,
            inherited,
        })
    }

    /// The mask livelet was started with, for what it starts.
    pub(crate) fn inherited(&self) -> Mask {
        self.inherited
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
        let sent = self.sent.swap(0, Ordering::SeqCst);
        let of_others = OWN.into_iter().filter(move |&n| sent & bit(n) != 0);
        self.delivery.pending().chain(of_others)
    }
}

/// The kernel keeps KILL and STOP for itself, and CHLD is about livelet's own children.
pub(crate) fn can_be_caught(signal: i32) -> bool {
    ![SIGKILL, SIGSTOP, SIGCHLD].contains(&signal)
}

fn bit(signal: i32) -> u64 {
    1 << (signal & 63)
}

/// Handles the signals of [`OWN`]: what another process sent is noted, a fault of livelet's own ends it as it would have
/// without this, and what it wrote in vain it has an error for.
#[allow(unsafe_code)]
fn catch_when_sent(
    write: &UnixStream,
    arrived: &Arc<AtomicBool>,
    sent: &Arc<AtomicU64>,
) -> io::Result<()> {
    let own_pid = rustix::process::getpid().as_raw_pid();
    let write = Arc::new(write.try_clone()?);
    for signal in OWN {
        let (arrived, sent) = (Arc::clone(arrived), Arc::clone(sent));
        let write = Arc::clone(&write);
        let action = move |info: &libc::siginfo_t| {
            // sigaction(2): kill, tkill and sigqueue have codes of 0 and below. SAFETY: those fill in the sender.
            let is_fault = info.si_code > 0;
            if is_fault {
                // Returns only for a signal that it does not know.
                let _ = emulate_default_handler(signal);
            } else if unsafe { info.si_pid() } != own_pid {
                sent.fetch_or(bit(signal), Ordering::SeqCst);
                arrived.store(true, Ordering::SeqCst);
                // A full socket pair wakes too.
                let _ = (&*write).write(&[0]);
            }
        };
        // SAFETY: signal(2) with SIG_DFL takes no pointer; it removes the handler of Rust's runtime, which would end
        // livelet at the second signal. The action does atomic stores and a non-blocking send(2), all of it on
        // signal-safety(7)'s list, and does not return from a fault.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            signal_hook_registry::register_unchecked(signal, action)?;
        }
    }
    Ok(())
}

#[allow(unsafe_code)]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction(2) with no new action only writes the current one to `action`, for which zeroes are a value.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// A set of blocked signals.
#[derive(Clone, Copy)]
pub(crate) struct Mask(libc::sigset_t);

impl Mask {
    /// Every signal that can be blocked.
    pub(crate) fn all() -> Mask {
        Mask::filled(libc::sigfillset)
    }

    /// No signal.
    pub(crate) fn none() -> Mask {
        Mask::filled(libc::sigemptyset)
    }

    #[allow(unsafe_code)]
    fn filled(fill: unsafe extern "C" fn(*mut libc::sigset_t) -> i32) -> Mask {
        // SAFETY: a signal set is plain bits, zeroes are a value of it, and `fill` writes to nothing else.
        unsafe {
            let mut set = std::mem::zeroed();
            fill(&raw mut set);
            Mask(set)
        }
    }

    /// Blocks these signals, and no others, in this thread; returns what was blocked. It may be called between fork and
    /// exec.
    #[allow(unsafe_code)]
    pub(crate) fn set(&self) -> Mask {
        let mut before = Mask::none();
        // SAFETY: both sets are valid for the call; it can only fail for a first argument that is not SIG_SETMASK.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, &raw mut before.0) };
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
            (0..=31).contains(number) || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(number)
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
