//! Parses the values of options into the fields of the configuration.

use std::ffi::OsStr;
use std::time::Duration;

use super::options::Id;
use super::variables::Variable;
use crate::check::{self, Check};
use crate::config::{Config, Rewrite};
use crate::duration::{self, whole_number};
use crate::health::{Alias, Endpoint, OWN_NAMES};
use crate::listen::Listen;
use crate::log::Level;
use crate::signal;

const ADDR: &str =
    "not an IP address and port; accepted: 9090, :9090, 127.0.0.1:9090, [::1]:9090 or env:PORT";
const ADDR_TWICE: &str =
    "overlaps an earlier address; accepted: each once; [::] and a bare port include IPv4";
const DRAIN: &str = "not a duration with a unit, up to 5s; accepted: 0s to 5s, such as 250ms or 5s";
const CONNECTIONS: &str = "not a number of connections; accepted: 1 to 1000000";
const SWITCH: &str = "not a switch; accepted: 1, true, yes, on or 0, false, no, off";
const CHECK_TWICE: &str =
    "this name is taken; accepted: each name once, and not worker, livelet or shutdown";
const MAX_CHECK_TIMEOUT: Duration = Duration::from_secs(60);
const CHECK_TIMEOUT: &str =
    "not a duration with a unit, up to 60s; accepted: 1ms to 60s, such as 800ms";
const CHECK_HOST: &str = "not a host; accepted: a name or an address, such as app.example";
const DUR: &str =
    "not a duration with a unit, up to 8760h; accepted: for example 250ms, 5s, 2m or 1h";
const SIGNAL: &str = "not a signal to rewrite; accepted: FROM=TO, such as TERM=QUIT, or FROM=0";
const SIGNAL_TWICE: &str = "rewritten twice; accepted: once";
const ENV_UNSET: &str = "variable not set; accepted: env:NAME of a variable that holds a port";
const ENV_PORT: &str =
    "variable holds no port; accepted: env:NAME of a variable that holds 0 to 65535";
const PATH: &str = "not a path of an endpoint; accepted: /PATH=live, /PATH=ready or /PATH=startup";
const PATH_TWICE: &str = "path given twice; accepted: once";
const STOP_SIGNAL: &str =
    "not a signal that can begin a stop; accepted: for example TERM, QUIT or WINCH";
const EXIT_CODE: &str = "not an exit code; accepted: 0 to 255";

/// Parses `value` and stores it in the field of `config` that belongs to the option `id`.
/// `is_first` is `true` for the first value of a repeatable option. The first value replaces the
/// default, and further values are added. `variable` returns the value of an environment variable,
/// which `--listen env:NAME` needs.
///
/// # Errors
/// Returns an error, which says what is accepted, if `value` can't be used.
pub(super) fn set(
    config: &mut Config,
    id: Id,
    value: &OsStr,
    is_first: bool,
    variable: Variable<'_>,
) -> Result<(), &'static str> {
    let text = value.to_str().unwrap_or_default();
    match id {
        Id::Listen => {
            let address = match text.strip_prefix("env:") {
                Some(name) => port_of(name, variable)?,
                None => text.parse().map_err(|_| ADDR)?,
            };
            if is_first {
                config.listen.clear();
            }
            if config.listen.iter().any(|other| other.overlaps(&address)) {
                return Err(ADDR_TWICE);
            }
            config.listen.push(address);
            config.has_addresses = true;
        }
        Id::Live => add_check(&mut config.live, text)?,
        Id::Ready => add_check(&mut config.ready, text)?,
        Id::Path => {
            let alias = alias(text).ok_or(PATH)?;
            if config.paths.iter().any(|other| other.path == alias.path) {
                return Err(PATH_TWICE);
            }
            config.paths.push(alias);
        }
        Id::CheckTimeout => {
            let timeout = duration::parse(text).filter(|&d| !d.is_zero() && d <= MAX_CHECK_TIMEOUT);
            config.check_timeout = timeout.ok_or(CHECK_TIMEOUT)?;
        }
        Id::CheckHost => {
            let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
            if text.is_empty() || !text.bytes().all(is_host) {
                return Err(CHECK_HOST);
            }
            config.check_host = Some(text.to_string());
        }
        Id::ExitOnUnhealthy => {
            let limit = any_duration(text)?;
            config.exit_on_unhealthy = Some(limit);
        }
        Id::Drain => {
            let most = Config::default().drain;
            config.drain = duration::parse(text).filter(|&d| d <= most).ok_or(DRAIN)?;
        }
        Id::BindWait => config.bind_wait = any_duration(text)?,
        Id::Grace => config.grace = Some(any_duration(text)?),
        Id::LameDuck => config.lame_duck = any_duration(text)?,
        Id::Takeover => config.takeover = switch(text).ok_or(SWITCH)?,
        Id::StopSignal => {
            let signal = signal::number(text).filter(|&signal| signal::can_stop(signal));
            let signal = signal.ok_or(STOP_SIGNAL)?;
            if is_first {
                config.stop_signals.clear();
            }
            config.stop_signals.push(signal);
        }
        Id::Group => config.signals_group = switch(text).ok_or(SWITCH)?,
        Id::Signal => {
            let rewrite = rewrite(text).ok_or(SIGNAL)?;
            if config
                .rewrites
                .iter()
                .any(|other| other.from == rewrite.from)
            {
                return Err(SIGNAL_TWICE);
            }
            config.rewrites.push(rewrite);
        }
        Id::OkExit => {
            let code = whole_number(text).and_then(|code| u8::try_from(code).ok());
            config.ok_exits.push(code.ok_or(EXIT_CODE)?);
        }
        Id::MaxConnections => {
            let number = whole_number(text).ok_or(CONNECTIONS)?;
            config.max_connections = usize::try_from(number)
                .ok()
                .filter(|n| (1..=1_000_000).contains(n))
                .ok_or(CONNECTIONS)?;
        }
        Id::ReusePort => config.reuse_port = switch(text).ok_or(SWITCH)?,
        Id::Quiet => config.log = Level::Quiet,
        Id::Verbose => config.log = Level::Verbose,
        Id::Help | Id::Version => {}
    }
    Ok(())
}

/// Parses `text` as a check, and appends it to `checks`, the checks of one endpoint. A check
/// without a name gets the word of its kind as its name, such as `tcp`, or `tcp-2` if that name is
/// taken.
///
/// # Errors
/// Returns an error if `text` is not a check. Also returns an error if the name of the check
/// belongs to another check in `checks` or to one of livelet's built-in checks.
fn add_check(checks: &mut Vec<Check>, text: &str) -> Result<(), &'static str> {
    let (name, kind) = check::parse(text)?;
    let is_taken =
        |name: &str| OWN_NAMES.contains(&name) || checks.iter().any(|check| check.name == name);
    let name = match name {
        Some(name) if is_taken(name) => return Err(CHECK_TWICE),
        Some(name) => name.to_string(),
        None => {
            let numbered = (2..).map(|number| format!("{}-{number}", kind.word()));
            let mut names = std::iter::once(kind.word().to_string()).chain(numbered);
            names.find(|name| !is_taken(name)).unwrap_or_default()
        }
    };
    checks.push(Check { name, kind });
    Ok(())
}

/// Returns the address for `--listen env:NAME`: the port in the environment variable `name`, on
/// every IP address. Platforms give the port in such a variable, often `PORT`. `variable` returns
/// the value of an environment variable.
///
/// # Errors
/// Returns an error if the variable is unset, or if its value is not a port number.
fn port_of(name: &str, variable: Variable<'_>) -> Result<Listen, &'static str> {
    let value = variable(name).ok_or(ENV_UNSET)?;
    let port = value.to_str().and_then(whole_number);
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .ok_or(ENV_PORT)?;
    Ok(Listen::Port(port))
}

/// Parses a value of `--path`, an additional path of an endpoint: `PATH=live`, `PATH=ready` or
/// `PATH=startup`. Removes a trailing slash of the path. Returns `None` for any other text.
fn alias(text: &str) -> Option<Alias> {
    let (path, endpoint) = text.rsplit_once('=')?;
    let endpoint = match endpoint {
        "live" => Endpoint::Live,
        "ready" => Endpoint::Ready,
        "startup" => Endpoint::Startup,
        _ => return None,
    };
    let is_path = path.starts_with('/')
        && path
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"?#".contains(&b));
    let path = path
        .strip_suffix('/')
        .filter(|path| !path.is_empty())
        .unwrap_or(path)
        .to_string();
    is_path.then_some(Alias { path, endpoint })
}

/// Parses `FROM=TO`, a value of `--signal`. FROM is a signal that can be caught. TO is any signal,
/// or 0 if livelet drops FROM. Returns `None` for any other text.
fn rewrite(text: &str) -> Option<Rewrite> {
    let (from, to) = text.split_once('=')?;
    let from = signal::number(from).filter(|&from| from != 0 && signal::can_be_caught(from))?;
    let to = signal::number(to)?;
    Some(Rewrite { from, to })
}

pub(super) fn any_duration(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text).ok_or(DUR)
}

pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}
