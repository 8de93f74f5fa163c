//! Signals: their names and numbers, masks and dispositions.

use std::borrow::Cow;

use libc::{
    SIGBUS, SIGCHLD, SIGCONT, SIGFPE, SIGHUP, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGURG, SIGWINCH,
};

/// First real-time signal, as glibc and kill(1) number the signals. musl starts at 35, because it
/// keeps one more signal for itself.
const SIGRTMIN: i32 = 34;

/// Returns `true` if livelet can catch `signal` and forward it to the worker. Returns `false` for
/// KILL and STOP, which no process can catch, and for CHLD, which is about livelet's own children.
pub(crate) fn can_be_caught(signal: i32) -> bool {
    ![SIGKILL, SIGSTOP, SIGCHLD].contains(&signal)
}

/// Returns `true` if a user may choose `signal` as a signal that stops livelet. Returns `false` for
/// 0, for KILL, STOP and CHLD, and for the signals that the kernel raises for a fault of livelet
/// itself, such as SEGV.
pub(crate) fn can_stop(signal: i32) -> bool {
    signal != 0 && can_be_caught(signal) && ![SIGILL, SIGBUS, SIGFPE, SIGSEGV].contains(&signal)
}

/// Returns `true` if livelet logs that it has received `signal`. Returns `false` for WINCH, CONT
/// and URG, which terminals and sockets cause in normal use.
pub(crate) fn is_worth_a_line(signal: i32) -> bool {
    ![SIGWINCH, SIGCONT, SIGURG].contains(&signal)
}

/// A set of signals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// Returns `true` if `signal` is in the set.
    #[must_use]
    pub fn contains(self, signal: i32) -> bool {
        self.0 & SignalSet::bit(signal) != 0
    }

    fn bit(signal: i32) -> u64 {
        let shift = u32::try_from(signal - 1).unwrap_or(u32::MAX);
        1_u64.checked_shl(shift).unwrap_or(0)
    }
}

impl FromIterator<i32> for SignalSet {
    fn from_iter<I: IntoIterator<Item = i32>>(signals: I) -> SignalSet {
        SignalSet(
            signals
                .into_iter()
                .map(SignalSet::bit)
                .fold(0, |a, b| a | b),
        )
    }
}

/// Returns `true` if SIGHUP is ignored, as under nohup(1).
#[allow(unsafe_code, reason = "sigaction(2)")]
pub(crate) fn is_hangup_ignored() -> bool {
    // SAFETY: zeroes are a value of each field of `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action the call only writes the current one to `action`.
    let outcome = unsafe { libc::sigaction(SIGHUP, std::ptr::null(), &raw mut action) };
    outcome == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Resets the disposition of every signal to its default. A SIGHUP that is ignored stays ignored.
/// May be called between fork and exec.
pub(crate) fn reset_dispositions() {
    let keeps_hangup = is_hangup_ignored();
    for signal in 1..=libc::SIGRTMAX() {
        if signal != SIGHUP || !keeps_hangup {
            reset_disposition(signal);
        }
    }
}

/// Resets the disposition of `signal` to its default. Does nothing for a signal whose disposition
/// can't change, such as KILL. May be called between fork and exec.
#[allow(unsafe_code, reason = "signal(2)")]
pub(crate) fn reset_disposition(signal: i32) {
    // SAFETY: SIG_DFL is no pointer. The call fails and does nothing if there is nothing to set.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// A set of signals, as the signal mask of a thread or for a signalfd(2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mask(pub(crate) libc::sigset_t);

impl Mask {
    /// Returns the set of all signals. sigfillset(3) would leave out the signals that the C library
    /// reserves, three in musl. Programs with glibc use one of these three as SIGRTMIN, so livelet
    /// must be able to forward it.
    pub(crate) fn all() -> Mask {
        Mask::filled(u8::MAX)
    }

    /// Returns the empty set.
    pub(crate) fn none() -> Mask {
        Mask::filled(0)
    }

    #[allow(unsafe_code, reason = "sigfillset(3) leaves signals out")]
    fn filled(byte: u8) -> Mask {
        // SAFETY: a signal set is plain bits, and zeroes are a value of it.
        let mut set = unsafe { std::mem::zeroed() };
        // SAFETY: any bits are a value of a signal set.
        unsafe { std::ptr::write_bytes(&raw mut set, byte, 1) };
        Mask(set)
    }

    /// Returns the set without the signals in `signals`.
    #[allow(unsafe_code, reason = "sigdelset(3)")]
    pub(crate) fn without(mut self, signals: &[i32]) -> Mask {
        for &signal in signals {
            // SAFETY: the set is valid for the call.
            unsafe { libc::sigdelset(&raw mut self.0, signal) };
        }
        self
    }

    /// Blocks the signals of this set, and no others, in the calling thread. Returns the signals
    /// that were blocked before. May be called between fork and exec. The system call is made
    /// directly, because pthread_sigmask(3) never blocks the signals that the C library reserves.
    #[allow(unsafe_code, reason = "rt_sigprocmask(2)")]
    pub(crate) fn set(&self) -> Mask {
        /// Size, in bytes, of the kernel's signal set, with which the C library's `sigset_t`
        /// begins.
        const SIZE: usize = size_of::<u64>();
        let mut before = Mask::none();
        // SAFETY: both sets are valid for the call; it can only fail for another size or first
        // argument.
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

/// Names of the signals, without `SIG`, as kill(1) lists them. The index is the number of the
/// signal.
const NAMES: [&str; 32] = [
    "0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Returns the name of `signal` without `SIG`, or its number as text if the signal has no name.
pub(crate) fn name(signal: i32) -> Cow<'static, str> {
    let index = usize::try_from(signal).unwrap_or(usize::MAX);
    match NAMES.get(index) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(signal.to_string()),
    }
}

/// Parses a signal in one of the forms `TERM`, `SIGTERM` and `15`. Returns its number. Accepts 0,
/// which stands for no signal. Returns `None` if there is no such signal.
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
    fn signals_have_names_and_numbers() {
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
                ["POLL", &*name(number), &*number.to_string()].contains(&listed.trim_ascii()),
                "{number}"
            );
        }
    }
}
