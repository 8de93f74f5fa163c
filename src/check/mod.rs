//! Checks: what a user wants to hold. One file a kind; the observer runs them for an endpoint, `probe` runs one.

mod file;
mod http;
mod runner;
mod socket;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::duration;

pub(crate) use file::Look;
pub use http::{Fetched, Head, Url, fetch, parse as parse_response};
pub(crate) use runner::Observer;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The worker has said READY=1, and nothing to the contrary since.
    Notify,
    /// The worker's last WATCHDOG=1 is younger than that.
    Watchdog(Duration),
    /// The file exists.
    File(PathBuf),
    /// The file's modification is younger than that.
    Heartbeat(PathBuf, Duration),
    /// One of these accepts a connection.
    Tcp(Vec<SocketAddr>),
    /// A socket at this path accepts a connection.
    Unix(PathBuf),
    /// A GET is answered with 2xx or 3xx.
    Http(Url),
    /// A program exits with 0; its path and its arguments.
    Exec(Vec<String>),
}

/// A check and the name it is listed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Unique in its endpoint.
    pub name: String,
    /// What it looks at.
    pub kind: Kind,
}

/// What is accepted where a check is.
pub const ACCEPTED: &str = "not a check; accepted: [NAME=] and one of notify, watchdog:30s, file:/path, heartbeat:/path:30s, \
                            tcp:127.0.0.1:5432, unix:/run/app.sock, http://127.0.0.1:3000/health, exec:/bin/check arg";
const NO_NAMES: &str = "names another host; accepted: an IP address or localhost, as a check of another machine \
                        makes its outage one of this worker too";

impl Kind {
    /// The word it starts with, and its default name.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Notify => "notify",
            Kind::Watchdog(_) => "watchdog",
            Kind::File(_) => "file",
            Kind::Heartbeat(..) => "heartbeat",
            Kind::Tcp(_) => "tcp",
            Kind::Unix(_) => "unix",
            Kind::Http(_) => "http",
            Kind::Exec(_) => "exec",
        }
    }

    /// Parses `KIND:...`.
    ///
    /// # Errors
    /// What is accepted instead.
    pub fn parse(text: &str) -> Result<Kind, &'static str> {
        if text == "notify" {
            return Ok(Kind::Notify);
        }
        let (word, rest) = text.split_once(':').ok_or(ACCEPTED)?;
        match word {
            "watchdog" => limit(rest).map(Kind::Watchdog),
            "file" => path(rest).map(Kind::File),
            "heartbeat" => {
                let (file, age) = rest.rsplit_once(':').ok_or(ACCEPTED)?;
                Ok(Kind::Heartbeat(path(file)?, limit(age)?))
            }
            "tcp" => addresses(rest, None).map(Kind::Tcp),
            "unix" => path(rest).map(Kind::Unix),
            "http" => Url::parse(rest).map(Kind::Http),
            "exec" if rest.starts_with('/') => {
                let words = rest.split(' ').filter(|word| !word.is_empty());
                Ok(Kind::Exec(words.map(String::from).collect()))
            }
            _ => Err(ACCEPTED),
        }
    }
}

/// A check as it is written, and its name where it has one: `NAME=KIND:...`.
///
/// # Errors
/// What is accepted instead.
pub fn parse(text: &str) -> Result<(Option<&str>, Kind), &'static str> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match text.split_once('=') {
        Some((name, check)) if is_name(name) => Ok((Some(name), Kind::parse(check)?)),
        _ => Ok((None, Kind::parse(text)?)),
    }
}

fn limit(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text)
        .filter(|limit| !limit.is_zero())
        .ok_or(ACCEPTED)
}

fn path(text: &str) -> Result<PathBuf, &'static str> {
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        Err(ACCEPTED)
    }
}

/// `IP:PORT`, `[IP]:PORT` or `localhost:PORT`, which is both of its addresses; the port may have a default.
fn addresses(text: &str, default: Option<u16>) -> Result<Vec<SocketAddr>, &'static str> {
    let has_port = text
        .rsplit_once(':')
        .is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let (host, port) = match (text.rsplit_once(':'), default) {
        (Some((host, port)), _) if has_port => {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            (
                host,
                port.parse()
                    .ok()
                    .filter(|&port: &u16| digits && port > 0)
                    .ok_or(ACCEPTED)?,
            )
        }
        (_, Some(port)) => (text, port),
        _ => return Err(ACCEPTED),
    };
    let ips = if host == "localhost" {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else if let Some(ip) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        vec![IpAddr::V6(ip.parse().map_err(|_| ACCEPTED)?)]
    } else {
        let is_name = host.bytes().any(|b| b.is_ascii_alphabetic());
        let refused = if is_name { NO_NAMES } else { ACCEPTED };
        vec![IpAddr::V4(host.parse().map_err(|_| refused)?)]
    };
    Ok(ips
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

/// Looks once; the error is the reason why it does not hold. It may wait for as long as a peer likes: the caller bounds
/// it. What was never seen counts from `start`.
///
/// # Errors
/// Why it does not hold.
pub(crate) async fn run(kind: &Kind, start: SystemTime, look: &Arc<Look>) -> Result<(), String> {
    match kind {
        Kind::Notify | Kind::Watchdog(_) | Kind::Exec(_) => {
            Err("only the livelet that runs the worker knows".to_string())
        }
        Kind::File(path) => file::exists(path, look.modified(path).await),
        Kind::Heartbeat(path, limit) => {
            file::is_fresh(path, look.modified(path).await, *limit, start)
        }
        Kind::Tcp(addresses) => socket::accepts(addresses).await,
        Kind::Unix(path) => socket::accepts_at(path).await,
        Kind::Http(url) => http::is_well(url).await,
    }
}

/// An error without its number.
fn said(cause: &std::io::Error) -> String {
    crate::log::Cause(cause).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_as_they_are_written() {
        let local = |port| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        let both = |port| {
            let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
            local(port).into_iter().chain([v6]).collect::<Vec<_>>()
        };
        let accepted = [
            ("file:/a=b:c", None, Kind::File("/a=b:c".into())),
            ("notify", None, Kind::Notify),
            (
                "beat=watchdog:9s",
                Some("beat"),
                Kind::Watchdog(Duration::from_secs(9)),
            ),
            ("up=file:/a", Some("up"), Kind::File("/a".into())),
            (
                "heartbeat:/tmp/a:b:30s",
                None,
                Kind::Heartbeat("/tmp/a:b".into(), Duration::from_secs(30)),
            ),
            ("tcp:127.0.0.1:5432", None, Kind::Tcp(local(5432))),
            ("tcp:localhost:1", None, Kind::Tcp(both(1))),
            (
                "exec:/bin/check a  b=c",
                None,
                Kind::Exec(["/bin/check", "a", "b=c"].map(String::from).to_vec()),
            ),
            ("db=unix:/run/x", Some("db"), Kind::Unix("/run/x".into())),
        ];
        for (text, name, kind) in accepted {
            assert_eq!(parse(text), Ok((name, kind)), "{text}");
        }
        for text in [
            "http://127.0.0.1:3000/health?a=b",
            "http://[::1]",
            "api=http://localhost/",
        ] {
            assert!(matches!(parse(text), Ok((_, Kind::Http(_)))), "{text}");
        }
        for text in [
            "",
            "file",
            "file:",
            "notify:",
            "watchdog",
            "watchdog:0s",
            "file:relative",
            "heartbeat:/a",
            "heartbeat:/a:0s",
            "heartbeat:/a:x",
            "tcp:127.0.0.1",
            "tcp:127.0.0.1:0",
            "tcp:127.0.0.1:+1",
            "tcp:::1:80",
            "unix:x",
            "http:127.0.0.1",
            "https://127.0.0.1/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1/a b",
            "=file:/a",
            "a b=file:/a",
            "exec:check",
            "exec:",
            "nope:/a",
        ] {
            assert_eq!(parse(text), Err(ACCEPTED), "{text}");
        }
        for text in ["tcp:db.example:5432", "http://example.com/health"] {
            assert_eq!(parse(text), Err(NO_NAMES), "{text}");
        }
    }
}
