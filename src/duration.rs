//! Durations: parses those that users write, and formats those that users read. Pure.

use std::fmt;
use std::time::Duration;

/// Maximum duration that a user can configure: one year. livelet can add a duration up to this
/// maximum to the present time, or convert it to microseconds, without an overflow.
const MAX: Duration = Duration::from_secs(8760 * 3600);

/// Parses a duration: a whole number and its unit, such as `250ms`, `5s`, `2m` or `1h`. Returns
/// `None` for any other text, and for a duration over one year.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let number = whole_number(number)?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        _ => return None,
    };
    Some(duration).filter(|&duration| duration <= MAX)
}

/// Parses a number that consists of decimal digits only. Returns `None` for any other text, such as
/// a number with a sign, which `str::parse` would accept. Also returns `None` if the number
/// overflows.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// Wrapper that displays a duration as one whole number, rounded down, and its unit: `250ms`,
/// `41s`, `12m` or `3h`.
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
    fn a_duration_that_could_overflow_is_refused() {
        for text in [
            "18446744073709552ms",
            "18446744073709551615s",
            "31536001s",
            "8761h",
            "18446744073709551616ms",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse("8760h"), Some(MAX));
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
    }

    #[test]
    fn writes_durations_in_one_unit() {
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
