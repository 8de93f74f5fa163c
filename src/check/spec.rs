//! Checks as users write them: parses names, kinds and addresses. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::duration;

/// Named condition that a user sets for a health endpoint. The endpoint passes only if the
/// condition is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Name of the check in responses and in the log, unique in its endpoint.
    pub name: String,
    /// Kind of the check, with its arguments.
    pub kind: Kind,
}

/// Kind of a check: the condition under which the check passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Condition that the worker has sent READY=1 over sd_notify(3), and neither STOPPING=1 nor
    /// RELOADING=1 since.
    Notify,
    /// Condition that the worker's last WATCHDOG=1 over sd_notify(3) is younger than this limit.
    Watchdog(Duration),
    /// Condition that a program exits with 0. The list is the program's path and its arguments.
    /// `livelet probe` can't run this kind, because only a livelet that serves reaps child
    /// processes.
    Exec(Vec<String>),
    /// Condition on a file, a socket or an HTTP response, which `livelet probe` can check as well.
    Query(Query),
}

/// Condition that any process, such as `livelet probe`, can check: it depends only on a file, a
/// socket or an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Condition that a file exists at this path.
    File(PathBuf),
    /// Condition that the file at this path was last modified at most this time ago.
    Heartbeat(PathBuf, Duration),
    /// Condition that one of these addresses accepts a TCP connection.
    Tcp(Vec<SocketAddr>),
    /// Condition that a unix socket at this path accepts a connection.
    Unix(PathBuf),
    /// Condition that a GET of this URL is answered with status 2xx or 3xx.
    Http(Url),
}

/// HTTP URL, parsed into the parts that a request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Addresses of the server. livelet tries them in order until one accepts a connection.
    pub addresses: Vec<SocketAddr>,
    /// Address of the server as the user wrote it, for messages.
    pub authority: String,
    /// Value of the Host field in a request for this URL.
    pub host: String,
    /// Path and query of the URL, as the request line needs them.
    pub target: String,
}

impl Url {
    /// Parses `rest`, the part of an HTTP URL after `http:`. `rest` has to consist of `//`, the
    /// server's address, and optionally a path and a query. The address is an IP address or
    /// `localhost`, with or without a port.
    ///
    /// # Errors
    /// Returns an error, which says what is accepted, if `rest` has any other form.
    fn parse(rest: &str) -> Result<Url, &'static str> {
        let rest = rest.strip_prefix("//").ok_or(HTTP)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(HTTP);
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url {
            addresses: addresses(authority, Some(80), HTTP)?,
            authority: authority.to_string(),
            host: authority.to_string(),
            target: format!("{slash}{target}"),
        })
    }

    /// Returns the URL of `target`, a path with or without a query, on the server at `address`.
    #[must_use]
    pub fn at(address: SocketAddr, target: &str) -> Url {
        Url {
            addresses: vec![address],
            authority: address.to_string(),
            host: address.to_string(),
            target: target.to_string(),
        }
    }
}

/// Error message for a check whose kind livelet does not know.
pub(crate) const UNKNOWN_KIND: &str = "not a check; accepted: [NAME=] and one of notify, watchdog:30s, file:/path, heartbeat:/path:30s, \
                       tcp:127.0.0.1:5432, unix:/run/app.sock, http://127.0.0.1:3000/health, exec:/bin/check arg";
const NAME: &str =
    "not a name before =; accepted: NAME=CHECK, a name of letters, digits, -, _ and .";
const NOTIFY: &str = "takes nothing after it; accepted: notify";
const WATCHDOG: &str = "needs a duration above 0; accepted: for example watchdog:30s";
const UNIT: &str =
    "its duration needs a unit; accepted: ms, s, m or h, as in watchdog:30s or heartbeat:/path:30s";
const FILE: &str = "needs a path with a leading slash; accepted: for example file:/path";
const BEAT_PATH: &str =
    "needs a path with a leading slash; accepted: for example heartbeat:/path:30s";
const BEAT_AGE: &str =
    "needs a duration above 0 after its path; accepted: for example heartbeat:/path:30s";
const TCP: &str =
    "needs an IP address and a port; accepted: for example tcp:127.0.0.1:5432 or tcp:[::1]:5432";
const UNIX: &str = "needs a path with a leading slash; accepted: for example unix:/run/app.sock";
const HTTP: &str = "not a URL of an IP address; accepted: for example http://127.0.0.1:3000/health";
const HTTPS: &str =
    "https is not supported; accepted: http://, or exec: with a client that speaks it";
const EXEC: &str = "needs a program with a leading slash, and each quote closed; accepted: for example exec:/bin/check arg";
const NO_NAMES: &str = "names another host; accepted: an IP address or localhost; a check of another machine \
                        spreads its outage to this worker";

impl Kind {
    /// Returns the word with which a check of this kind begins, such as `tcp`. livelet also uses
    /// this word to name a check that has no name from the user.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Kind::Notify => "notify",
            Kind::Watchdog(_) => "watchdog",
            Kind::Exec(_) => "exec",
            Kind::Query(Query::File(_)) => "file",
            Kind::Query(Query::Heartbeat(..)) => "heartbeat",
            Kind::Query(Query::Tcp(_)) => "tcp",
            Kind::Query(Query::Unix(_)) => "unix",
            Kind::Query(Query::Http(_)) => "http",
        }
    }

    /// Parses `text`, the kind of a check with its arguments: `KIND` or `KIND:ARGUMENTS`, such as
    /// `notify` or `tcp:127.0.0.1:5432`.
    ///
    /// # Errors
    /// Returns an error, which says what is accepted, if `text` is not such a kind.
    pub fn parse(text: &str) -> Result<Kind, &'static str> {
        let (word, rest) = text.split_once(':').unwrap_or((text, ""));
        let query = match word {
            "notify" if text == word => return Ok(Kind::Notify),
            "notify" => return Err(NOTIFY),
            "watchdog" => return limit(rest, WATCHDOG).map(Kind::Watchdog),
            "exec" => return command(rest).map(Kind::Exec),
            "file" => Query::File(path(rest, FILE)?),
            "heartbeat" => {
                let (file, age) = rest.rsplit_once(':').unwrap_or((rest, ""));
                Query::Heartbeat(path(file, BEAT_PATH)?, limit(age, BEAT_AGE)?)
            }
            "tcp" => Query::Tcp(addresses(rest, None, TCP)?),
            "unix" => Query::Unix(path(rest, UNIX)?),
            "http" => Query::Http(Url::parse(rest)?),
            "https" => return Err(HTTPS),
            _ => return Err(UNKNOWN_KIND),
        };
        Ok(Kind::Query(query))
    }
}

/// Parses `text`, a check with or without a name: `NAME=KIND:ARGUMENTS` or `KIND:ARGUMENTS`.
/// Returns the name, or `None` if the text has no name, and the kind.
///
/// # Errors
/// Returns an error, which says what is accepted, if `text` is not such a check.
pub fn parse(text: &str) -> Result<(Option<&str>, Kind), &'static str> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match text.split_once('=') {
        Some((name, check)) if is_name(name) => Ok((Some(name), Kind::parse(check)?)),
        // A check itself has a colon before what may have an equals sign.
        Some((name, _)) if !name.contains(':') => Err(NAME),
        _ => Ok((None, Kind::parse(text)?)),
    }
}

/// Parses `text`, the time limit of a check: a duration above 0 such as `30s`.
///
/// # Errors
/// Returns an error about the unit if `text` is a number without a unit. Returns `missing` as the
/// error message for any other text that is not such a duration.
fn limit(text: &str, missing: &'static str) -> Result<Duration, &'static str> {
    let reason = match duration::whole_number(text) {
        Some(_) => UNIT,
        None => missing,
    };
    duration::parse(text)
        .filter(|limit| !limit.is_zero())
        .ok_or(reason)
}

/// Splits `text`, the command of an `exec:` check, into words as a shell does: quotes and
/// backslashes work, but nothing is expanded.
///
/// # Errors
/// Returns an error if a quote is not closed, or if the first word, the program, has no leading
/// slash.
fn command(text: &str) -> Result<Vec<String>, &'static str> {
    let words = shlex::split(text).unwrap_or_default();
    if words
        .first()
        .is_some_and(|program| program.starts_with('/'))
    {
        Ok(words)
    } else {
        Err(EXEC)
    }
}

fn path(text: &str, missing: &'static str) -> Result<PathBuf, &'static str> {
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        Err(missing)
    }
}

/// Parses `text`, an address of the form `IP:PORT`, `[IP]:PORT` or `localhost:PORT`. Returns an
/// IPv4 and an IPv6 address for `localhost`. `default` is the port if `text` has no port. If
/// `default` is `None`, `text` must have a port.
///
/// # Errors
/// Returns an error about names if the host is a name other than `localhost`. Returns `missing` as
/// the error message for any other text that can't be used.
fn addresses(
    text: &str,
    default: Option<u16>,
    missing: &'static str,
) -> Result<Vec<SocketAddr>, &'static str> {
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
                    .ok_or(missing)?,
            )
        }
        (_, Some(port)) => (text, port),
        _ => return Err(missing),
    };
    let ips = if host == "localhost" {
        vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
    } else if let Some(ip) = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        vec![IpAddr::V6(ip.parse().map_err(|_| missing)?)]
    } else {
        let is_name = host.bytes().any(|b| b.is_ascii_alphabetic());
        let refused = if is_name { NO_NAMES } else { missing };
        vec![IpAddr::V4(host.parse().map_err(|_| refused)?)]
    };
    Ok(ips
        .into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_kind_of_check() {
        let local = |port| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        let both = |port| {
            let v6 = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port);
            local(port).into_iter().chain([v6]).collect::<Vec<_>>()
        };
        let accepted = [
            (
                "file:/a=b:c",
                None,
                Kind::Query(Query::File("/a=b:c".into())),
            ),
            ("notify", None, Kind::Notify),
            (
                "beat=watchdog:9s",
                Some("beat"),
                Kind::Watchdog(Duration::from_secs(9)),
            ),
            (
                "up=file:/a",
                Some("up"),
                Kind::Query(Query::File("/a".into())),
            ),
            (
                "heartbeat:/tmp/a:b:30s",
                None,
                Kind::Query(Query::Heartbeat("/tmp/a:b".into(), Duration::from_secs(30))),
            ),
            (
                "tcp:127.0.0.1:5432",
                None,
                Kind::Query(Query::Tcp(local(5432))),
            ),
            ("tcp:localhost:1", None, Kind::Query(Query::Tcp(both(1)))),
            (
                r#"exec:/bin/check a  b=c 'd e' "f'" \g"#,
                None,
                Kind::Exec(
                    ["/bin/check", "a", "b=c", "d e", "f'", "g"]
                        .map(String::from)
                        .to_vec(),
                ),
            ),
            (
                "db=unix:/run/x",
                Some("db"),
                Kind::Query(Query::Unix("/run/x".into())),
            ),
        ];
        for (text, name, kind) in accepted {
            assert_eq!(parse(text), Ok((name, kind)), "{text}");
        }
        for text in [
            "http://127.0.0.1:3000/health?a=b",
            "http://[::1]",
            "api=http://localhost/",
        ] {
            assert!(
                matches!(parse(text), Ok((_, Kind::Query(Query::Http(_))))),
                "{text}"
            );
        }
        for (text, reason) in [
            ("", UNKNOWN_KIND),
            ("nope:/a", UNKNOWN_KIND),
            ("file", FILE),
            ("file:", FILE),
            ("file:relative", FILE),
            ("unix:x", UNIX),
            ("notify:", NOTIFY),
            ("watchdog", WATCHDOG),
            ("watchdog:0s", WATCHDOG),
            ("watchdog:30", UNIT),
            ("heartbeat:a:30s", BEAT_PATH),
            ("heartbeat:30s:/a", BEAT_PATH),
            ("heartbeat:/a", BEAT_AGE),
            ("heartbeat:/a:0s", BEAT_AGE),
            ("heartbeat:/a:x", BEAT_AGE),
            ("heartbeat:/a:30", UNIT),
            ("tcp:127.0.0.1", TCP),
            ("tcp:127.0.0.1:0", TCP),
            ("tcp:127.0.0.1:+1", TCP),
            ("tcp:::1:80", TCP),
            ("http:127.0.0.1", HTTP),
            ("http://127.0.0.1:99999/", HTTP),
            ("http://127.0.0.1/a b", HTTP),
            ("https://127.0.0.1/", HTTPS),
            ("=file:/a", NAME),
            ("a b=file:/a", NAME),
            ("exec:check", EXEC),
            ("exec:", EXEC),
            ("exec:/bin/check 'a", EXEC),
            ("exec:''", EXEC),
        ] {
            assert_eq!(parse(text), Err(reason), "{text}");
        }
        for text in ["tcp:db.example:5432", "http://example.com/health"] {
            assert_eq!(parse(text), Err(NO_NAMES), "{text}");
        }
    }
}
