//! Durations as users write them, and as they read them. Pure.

use std::fmt;
use std::time::Duration;

/// Parses DUR: a whole number and its unit, `250ms`, `5s`, `2m` or `1h`.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number = whole_number(number)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

/// Digits alone: `str::parse` would take a sign.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// A duration for people: `250ms`, `41s`, `12m`, `3h`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Human(pub(crate) Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0 => write!(f, "{}ms", self.0.subsec_millis()),
            1..120 => write!(f, "{seconds}s"),
            120..7200 => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{}h", seconds / 3600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_for_people() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (41_000, "41s"),
            (119_000, "119s"),
            (720_000, "12m"),
            (7_200_000, "2h"),
        ] {
            assert_eq!(Human(Duration::from_millis(ms)).to_string(), text);
        }
    }
}
