//! livelet's own supervisor, such as systemd. livelet sends messages to the socket that its own
//! NOTIFY_SOCKET names (sd_notify(3)).

use std::cell::Cell;
use std::env;
use std::ffi::OsString;
use std::process;
use std::time::Duration;

use super::message::microseconds;
use super::send::{Waiting, send};
use crate::log;

/// livelet's own supervisor, such as systemd, as livelet's environment variables describe it.
/// livelet may also run without a supervisor.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Value of NOTIFY_SOCKET in livelet's environment. `None` if the variable is missing or empty.
    socket: Option<OsString>,
    /// Maximum time that the supervisor allows between two `WATCHDOG=1` from livelet. `None` if the
    /// supervisor expects no `WATCHDOG=1`.
    pub(crate) watchdog: Option<Duration>,
    /// `true` once a failure to send has been logged.
    has_failed: Cell<bool>,
}

impl Upstream {
    /// Returns the supervisor that livelet's environment variables describe.
    pub(crate) fn from_environment() -> Upstream {
        Upstream {
            socket: env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
            watchdog: watchdog(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID")),
            has_failed: Cell::new(false),
        }
    }

    pub(crate) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends `message` to livelet's own supervisor, if there is one. If the supervisor can't
    /// receive the message now, drops the message and logs that, because livelet must not wait.
    pub(crate) fn send(&self, message: &[u8]) {
        let Some(socket) = &self.socket else { return };
        let Err(cause) = send(socket, message, Waiting::Never) else {
            return;
        };
        let name = socket.to_string_lossy();
        let cause = log::Cause(&cause);
        let is_new = !self.has_failed.replace(true);
        let log = if is_new { log::notice } else { log::detail };
        log(format_args!(
            "notify: supervisor: {name}: message dropped: {cause}"
        ));
    }
}

/// Returns the supervisor's time limit for `WATCHDOG=1`, from the values `usec` of WATCHDOG_USEC
/// and `pid` of WATCHDOG_PID. Returns `None` if `usec` is missing or not a time, or if `pid` names
/// another process (sd_watchdog_enabled(3)).
fn watchdog(usec: Option<OsString>, pid: Option<OsString>) -> Option<Duration> {
    let is_for_us = pid.is_none_or(|pid| pid == process::id().to_string().as_str());
    microseconds(usec?.to_str()?).filter(|_| is_for_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_limit_for_another_pid_is_ignored() {
        let own = process::id().to_string();
        let second = Duration::from_secs(1);
        for (usec, pid, expected) in [
            (Some("1000000"), None, Some(second)),
            (Some("1000000"), Some(own.as_str()), Some(second)),
            (Some("1000000"), Some("1"), None),
            (Some("0"), None, None),
            (Some("18446744073709551615"), None, None),
            (Some("x"), None, None),
            (None, Some(own.as_str()), None),
        ] {
            let got = watchdog(usec.map(OsString::from), pid.map(OsString::from));
            assert_eq!(got, expected, "{usec:?} {pid:?}");
        }
    }
}
