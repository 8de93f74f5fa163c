//! The command lines of `livelet probe`, `livelet notify` and `livelet install`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};

use super::error::{UsageError, from_lexopt, unexpected, unexpected_end, wrong};
use super::options::{FLAGS, Id, LOG_VARIABLE};
use super::values::any_duration;
use super::{Command, Variable, variables};
use crate::check::{Kind, Query, Url};
use crate::command::probe::{Probe, address_of};
use crate::config::Config;
use crate::listen::Listen;

const NOT_ASKABLE: &str =
    "for the livelet that runs the worker alone; accepted: file, heartbeat, tcp, unix, http";
const ASSIGNMENT: &str = "not an assignment; accepted: NAME=VALUE..., such as READY=1";

/// A command of livelet's own.
pub(super) type Own = fn(&mut Parser, Variable<'_>) -> Result<Command, UsageError>;

pub(super) fn probe(parser: &mut Parser, variable: Variable<'_>) -> Result<Command, UsageError> {
    let mut path = "/livez";
    let mut query = None;
    let mut timeout = Duration::from_secs(1);
    let mut wait = Duration::ZERO;
    while let Some(arg) = parser.next().map_err(from_lexopt)? {
        match arg {
            Arg::Long("ready") => path = "/readyz",
            Arg::Long("timeout") => timeout = duration_after(parser, "--timeout")?,
            Arg::Long("wait") => wait = duration_after(parser, "--wait")?,
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Value(value) if query.is_none() => {
                let askable = match Kind::parse(value.to_str().unwrap_or_default()) {
                    Ok(Kind::Query(query)) => Ok(query),
                    Ok(Kind::Notify | Kind::Watchdog(_) | Kind::Exec(_)) => Err(NOT_ASKABLE),
                    Err(accepted) => Err(accepted),
                };
                query =
                    Some(askable.map_err(|accepted| wrong("probe".to_string(), value, accepted))?);
            }
            Arg::Value(value) => return Err(unexpected(value.to_string_lossy().into_owned())),
            arg => return Err(from_lexopt(arg.unexpected())),
        }
    }
    let is_endpoint = query.is_none();
    if !is_endpoint && path != "/livez" {
        return Err(unexpected("--ready with a check".to_string()));
    }
    let mut config = Config::default();
    let wanted = if is_endpoint {
        Id::Listen
    } else {
        Id::CheckHost
    };
    let others = FLAGS.iter().map(|flag| flag.id).filter(|&id| id != wanted);
    variables(&mut config, &others.collect::<Vec<_>>(), &|name| {
        variable(name).filter(|_| name != LOG_VARIABLE)
    })?;
    let mut query = query.unwrap_or_else(|| {
        let first = config.listen.first().copied().unwrap_or(Listen::Port(9090));
        Query::Http(Url::at(address_of(first), path))
    });
    if let (Query::Http(url), Some(host)) = (&mut query, config.check_host) {
        url.host = host;
    }
    Ok(Command::Probe(Probe {
        query,
        is_endpoint,
        timeout,
        wait,
    }))
}

/// Takes the duration after an option.
fn duration_after(parser: &mut Parser, option: &str) -> Result<Duration, UsageError> {
    let value = parser.value().map_err(from_lexopt)?;
    any_duration(value.to_str().unwrap_or_default())
        .map_err(|accepted| wrong(option.to_string(), value, accepted))
}

pub(super) fn notify(parser: &mut Parser, _: Variable<'_>) -> Result<Command, UsageError> {
    let rest: Vec<OsString> = parser.raw_args().map_err(from_lexopt)?.collect();
    let is_assignment = |word: &OsString| {
        word.as_bytes()
            .iter()
            .position(|&b| b == b'=')
            .is_some_and(|at| at > 0)
    };
    match rest.iter().find(|word| !is_assignment(word)) {
        Some(word) if word == "-h" || word == "--help" => Ok(Command::Help),
        Some(word) => Err(wrong("notify".to_string(), word.clone(), ASSIGNMENT)),
        None if rest.is_empty() => Err(unexpected_end("notify", ASSIGNMENT)),
        None => Ok(Command::Notify(rest)),
    }
}

pub(super) fn install(parser: &mut Parser, _: Variable<'_>) -> Result<Command, UsageError> {
    let mut path = None;
    while let Some(arg) = parser.next().map_err(from_lexopt)? {
        match arg {
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Value(value) if path.is_none() && !value.is_empty() => {
                path = Some(PathBuf::from(value))
            }
            Arg::Value(value) => return Err(unexpected(value.to_string_lossy().into_owned())),
            arg => return Err(from_lexopt(arg.unexpected())),
        }
    }
    path.map(Command::Install)
        .ok_or_else(|| unexpected_end("install", "needs the PATH to write to"))
}
