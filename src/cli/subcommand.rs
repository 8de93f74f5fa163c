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
use crate::check;
use crate::command::probe::{Probe, Target, address_of};
use crate::config::Config;
use crate::listen::Listen;

const NOT_ASKABLE: &str =
    "for the livelet that runs the worker alone; accepted: file, heartbeat, tcp, unix, http";
const ASSIGNMENT: &str = "not an assignment; accepted: NAME=VALUE..., such as READY=1";

/// A command of livelet's own.
pub(super) type Own = fn(&mut Parser, Variable<'_>) -> Result<Command, UsageError>;

pub(super) fn probe(parser: &mut Parser, variable: Variable<'_>) -> Result<Command, UsageError> {
    let mut path = "/livez";
    let mut kind = None;
    let mut timeout = Duration::from_secs(1);
    while let Some(arg) = parser.next().map_err(from_lexopt)? {
        match arg {
            Arg::Long("ready") => path = "/readyz",
            Arg::Long("timeout") => {
                let value = parser.value().map_err(from_lexopt)?;
                let given = any_duration(value.to_str().unwrap_or_default());
                timeout =
                    given.map_err(|accepted| wrong("--timeout".to_string(), value, accepted))?;
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help),
            Arg::Value(value) if kind.is_none() => {
                let parsed = check::Kind::parse(value.to_str().unwrap_or_default());
                let askable = parsed.and_then(|kind| match kind {
                    check::Kind::Notify | check::Kind::Watchdog(_) | check::Kind::Exec(_) => {
                        Err(NOT_ASKABLE)
                    }
                    kind => Ok(kind),
                });
                kind =
                    Some(askable.map_err(|accepted| wrong("probe".to_string(), value, accepted))?);
            }
            Arg::Value(value) => return Err(unexpected(value.to_string_lossy().into_owned())),
            arg => return Err(from_lexopt(arg.unexpected())),
        }
    }
    let target = match kind {
        Some(_) if path != "/livez" => {
            return Err(unexpected("--ready with a check".to_string()));
        }
        Some(kind) => Target::Check(kind),
        None => {
            let mut config = Config::default();
            let none = FLAGS
                .iter()
                .map(|flag| flag.id)
                .filter(|&id| id != Id::Listen);
            let others: Vec<Id> = none.collect();
            variables(&mut config, &others, &|name| {
                variable(name).filter(|_| name != LOG_VARIABLE)
            })?;
            let first = config.listen.first().copied().unwrap_or(Listen::Port(9090));
            Target::Endpoint(address_of(first), path)
        }
    };
    Ok(Command::Probe(Probe { target, timeout }))
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
