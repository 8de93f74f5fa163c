//! Messages of sd_notify(3). Each line of a message is one assignment, such as `READY=1`. Pure.

use std::time::Duration;

/// Maximum length, in bytes, of an sd_notify message. livelet ignores a longer message. systemd has
/// the same limit.
pub(super) const MAX: usize = 4096;
/// Names of assignments, such as `MAINPID=1`, that livelet does not relay from the worker to its
/// own supervisor. For the supervisor the main process is livelet and not the worker, and livelet
/// relays no descriptors.
const NOT_RELAYED: [&[u8]; 9] = [
    b"MAINPID",
    b"MAINPIDFD",
    b"MAINPIDFDID",
    b"FDSTORE",
    b"FDSTOREREMOVE",
    b"FDNAME",
    b"FDPOLL",
    b"NOTIFYACCESS",
    b"BARRIER",
];

/// The text of an sd_notify(3) message: lines such as `READY=1`, without zero bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification<'m>(&'m [u8]);

/// An assignment such as `READY=1` in an sd_notify message. It changes the state of the worker in
/// [`super::Notified`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Ready,
    Stopping,
    Reloading,
    Status(String),
    Watchdog,
    WatchdogTrigger,
    WatchdogUsec(Duration),
    /// `EXTEND_TIMEOUT_USEC`: time from this message on during which a missing `WATCHDOG=1` does
    /// not make the `watchdog` check fail.
    ExtendTimeout(Duration),
}

impl<'m> Notification<'m> {
    /// Parses a datagram as a message. Drops a zero byte at the end, which ends a C string. Returns
    /// `None` if there is a zero byte elsewhere.
    #[must_use]
    pub fn parse(datagram: &'m [u8]) -> Option<Notification<'m>> {
        let text = datagram.strip_suffix(b"\0").unwrap_or(datagram);
        (!text.contains(&0)).then_some(Notification(text))
    }

    /// Returns the lines of the message that are not empty. A CR also ends a line, because systemd
    /// handles it so: otherwise systemd could see a line that livelet does not.
    fn lines(self) -> impl Iterator<Item = &'m [u8]> {
        let lines = self.0.split(|b| b"\n\r".contains(b));
        lines.filter(|line| !line.is_empty())
    }

    pub(super) fn fields(self) -> impl Iterator<Item = Field> {
        self.lines().filter_map(field)
    }

    /// Returns the text that livelet sends on to its own supervisor: the message without the
    /// assignments in [`NOT_RELAYED`].
    #[must_use]
    pub fn relayed(self) -> Vec<u8> {
        let is_relayed = |line: &&[u8]| {
            let name = line.split(|&b| b == b'=').next().unwrap_or_default();
            !NOT_RELAYED.contains(&name)
        };
        let lines: Vec<&[u8]> = self.lines().filter(is_relayed).collect();
        lines.join(&b'\n')
    }
}

fn field(line: &[u8]) -> Option<Field> {
    let (name, value) = line.split_at_checked(line.iter().position(|&b| b == b'=')?)?;
    let value = String::from_utf8_lossy(value.get(1..)?);
    Some(match (name, value.as_ref()) {
        (b"READY", "1") => Field::Ready,
        (b"STOPPING", "1") => Field::Stopping,
        (b"RELOADING", "1") => Field::Reloading,
        (b"WATCHDOG", "1") => Field::Watchdog,
        (b"WATCHDOG", "trigger") => Field::WatchdogTrigger,
        (b"WATCHDOG_USEC", usec) => Field::WatchdogUsec(microseconds(usec)?),
        (b"EXTEND_TIMEOUT_USEC", usec) => Field::ExtendTimeout(microseconds(usec)?),
        (b"STATUS", _) => Field::Status(value.into_owned()),
        _ => return None,
    })
}

/// Parses a number of microseconds. Returns `None` if `text` is not a number, is zero, or is the
/// number that systemd uses for infinity.
pub(super) fn microseconds(text: &str) -> Option<Duration> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let usec: u64 = text.parse().ok().filter(|_| digits)?;
    (1..u64::MAX)
        .contains(&usec)
        .then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_a_message_without_processes_and_descriptors() {
        for (message, relayed) in [
            (
                &b"READY=1\nMAINPID=7\nFDSTORE=1\nFDNAME=x\nSTATUS=a=b\nNOTIFYACCESS=all"[..],
                Some(&b"READY=1\nSTATUS=a=b"[..]),
            ),
            (
                b"RELOADING=1\nMONOTONIC_USEC=12\nX_MINE=y",
                Some(b"RELOADING=1\nMONOTONIC_USEC=12\nX_MINE=y"),
            ),
            (b"BARRIER=1", Some(b"")),
            (
                b"MAINPIDFD=1\nMAINPIDFDID=3\nFDPOLL=0\nERRNO=2",
                Some(b"ERRNO=2"),
            ),
            (b"STATUS=a\rREADY=1\r\r\n", Some(b"STATUS=a\nREADY=1")),
            (b"STATUS=\xff", Some(b"STATUS=\xff")),
            (b"READY=1\0", Some(b"READY=1")),
            (b"READY=1\0\0", None),
        ] {
            let parsed = Notification::parse(message);
            let got = parsed.map(Notification::relayed);
            assert_eq!(got.as_deref(), relayed, "{message:?}");
        }
    }

    #[test]
    fn rejects_zero_infinite_and_signed_microseconds() {
        for (text, expected) in [
            ("1", Some(Duration::from_micros(1))),
            (
                "18446744073709551614",
                Some(Duration::from_micros(u64::MAX - 1)),
            ),
            ("18446744073709551615", None),
            ("18446744073709551616", None),
            ("0", None),
            ("+1", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(microseconds(text), expected, "{text}");
        }
    }
}
