//! CHECK and DUR as users write them: what is accepted means what it says.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use livelet::check::{self, Kind, Query};
use livelet::cli;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match check::parse(text) {
        Ok((name, kind)) => {
            let written = name.map_or(text, |name| {
                text.strip_prefix(name).unwrap().strip_prefix('=').unwrap()
            });
            assert!(written.starts_with(kind.word()));
            is_as_written(&kind, written);
        }
        Err(why) => assert!(!why.is_empty() && !why.contains('\n')),
    }
    // A duration, against one that is read in another way.
    let expected = duration(text);
    let watchdog = match Kind::parse(&format!("watchdog:{text}")) {
        Ok(Kind::Watchdog(limit)) => Some(limit),
        _ => None,
    };
    assert_eq!(
        watchdog,
        expected.filter(|limit| !limit.is_zero()),
        "{text:?}"
    );
    for (flag, most) in [("--drain", Duration::from_secs(5)), ("--grace", YEAR)] {
        // With a command, because `--grace` needs one.
        let args = ["livelet", flag, text, "--", "true"];
        let args = args.map(Into::into).to_vec();
        let is_accepted = match cli::parse(args, &|_| None) {
            Ok(_) => true,
            Err(error) => {
                assert!(error.to_string().starts_with(flag), "{error}");
                false
            }
        };
        let fits = expected.is_some_and(|limit| limit <= most);
        assert_eq!(is_accepted, fits, "{flag} {text:?}");
    }
});

fn is_as_written(kind: &Kind, written: &str) {
    let rest = written.strip_prefix(kind.word()).unwrap();
    match kind {
        Kind::Notify => assert_eq!(rest, ""),
        Kind::Watchdog(limit) => assert_eq!(duration(&rest[1..]), Some(*limit)),
        Kind::Query(Query::File(path) | Query::Unix(path)) => {
            assert_eq!(path.to_str(), Some(&rest[1..]));
            assert!(path.is_absolute());
        }
        Kind::Query(Query::Heartbeat(path, limit)) => {
            assert!(path.is_absolute() && !limit.is_zero());
            assert!(rest.starts_with(&format!(":{}:", path.display())));
        }
        Kind::Query(Query::Tcp(addresses)) => {
            assert!(!addresses.is_empty() && addresses.iter().all(|address| address.port() > 0));
            assert!(
                rest.contains("localhost") || rest.bytes().any(|b| b.is_ascii_digit() || b == b':')
            );
        }
        Kind::Query(Query::Http(_)) => assert!(rest.starts_with("://")),
        Kind::Exec(words) => {
            assert!(words[0].starts_with('/'));
            let plain = !rest.contains(['"', '\'', '\\', '#']);
            assert!(!plain || words.iter().all(|word| !word.contains([' ', '\t', '\n'])));
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let units = [("ms", 1_u128), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let (digits, unit) = units
        .iter()
        .filter_map(|(unit, ms)| Some((text.strip_suffix(unit)?, ms)))
        .find(|(digits, _)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))?;
    let number: u64 = digits.parse().ok()?;
    let ms = u128::from(number) * unit;
    let limit = Duration::new((ms / 1000).try_into().ok()?, (ms % 1000) as u32 * 1_000_000);
    Some(limit).filter(|&limit| limit <= YEAR)
}

/// The longest duration that is accepted.
const YEAR: Duration = Duration::from_secs(8760 * 3600);
