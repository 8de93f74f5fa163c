//! Parsers of the command lines that begin with `probe`, `notify`, `install` or `help`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::error::UsageError;
use super::help::Page;
use super::options::{FLAGS, Id, LOG_VARIABLE};
use super::values::{any_duration, set};
use super::words::{Part, Words};
use super::{Command, Variable, near, unknown_option, variables};
use crate::check::{Kind, Query, UNKNOWN_KIND, Url};
use crate::command::probe::{Probe, address_of};
use crate::config::Config;
use crate::listen::Listen;

const NOT_ASKABLE: &str = "not a check that probe can make; accepted: file, heartbeat, tcp, unix, http; see livelet --help";
const NO_PAGE: &str = "no page of help; accepted: probe, notify or install";
const ASSIGNMENT: &str = "not an assignment; accepted: NAME=VALUE..., such as READY=1";
const PATH: &str = "needs the PATH to write to; accepted: livelet install PATH";
const ONE_PATH: &str = "a second path; accepted: livelet install PATH";
const ONE_CHECK: &str = "a second check; accepted: livelet probe [OPTIONS] [CHECK]";
const NO_EFFECT: &str = "has no effect on a check; accepted: the option or a check";
const UNKNOWN: &str = "unknown option; see livelet probe --help";
const NO_OPTIONS: &str = "unknown option; see livelet install --help";

/// Long names of the options of `livelet probe`, without dashes.
const OPTIONS: [&str; 5] = ["ready", "listen", "timeout", "wait", "help"];

/// Words that `livelet help` accepts: the subcommands that have a help page.
const PAGES: [&str; 3] = ["probe", "notify", "install"];

/// Function that parses the words of a command line after a subcommand such as `probe`. Its second
/// argument is a function that returns the value of an environment variable.
pub(super) type Subcommand = fn(&mut Words, Variable<'_>) -> Result<Command, UsageError>;

/// Parses the words that follow `livelet probe`, and the environment variables on which that
/// subcommand depends. `variable` returns the value of an environment variable.
///
/// # Errors
/// Returns an error about the first word or variable that can't be used.
pub(super) fn probe(words: &mut Words, variable: Variable<'_>) -> Result<Command, UsageError> {
    let mut path = "/livez";
    let mut query = None;
    let mut timeout = Duration::from_secs(1);
    let mut wait = Duration::ZERO;
    let mut config = Config::default();
    let mut given = Vec::new();
    while let Some(part) = words.next_part() {
        let option = match part {
            Part::Option(option) => option,
            Part::Value(value) if query.is_none() => {
                let askable = match Kind::parse(value.to_str().unwrap_or_default()) {
                    Ok(Kind::Query(query)) => Ok(query),
                    Ok(Kind::Notify | Kind::Watchdog(_) | Kind::Exec(_)) | Err(UNKNOWN_KIND) => {
                        Err(NOT_ASKABLE)
                    }
                    Err(reason) => Err(reason),
                };
                query =
                    Some(askable.map_err(|reason| UsageError::of_value("probe", &value, reason))?);
                continue;
            }
            Part::Value(value) => return Err(UsageError::of_value("probe", &value, ONE_CHECK)),
        };
        match option.as_str() {
            "--ready" => {
                words.no_value("--ready")?;
                path = "/readyz";
            }
            "--timeout" => timeout = duration_after(words, "--timeout")?,
            "--wait" => wait = duration_after(words, "--wait")?,
            "--listen" | "-l" => {
                let value = words.value();
                set(&mut config, Id::Listen, &value, given.is_empty(), variable)
                    .map_err(|reason| UsageError::of_value("--listen", &value, reason))?;
                given.push(Id::Listen);
            }
            "--help" | "-h" => return Ok(Command::Help(Page::Probe)),
            _ => return Err(unknown_option(&option, &OPTIONS, UNKNOWN)),
        }
    }
    let is_endpoint = query.is_none();
    if !is_endpoint && path != "/livez" {
        return Err(UsageError::new("--ready", NO_EFFECT));
    }
    if !is_endpoint && !given.is_empty() {
        return Err(UsageError::new("--listen", NO_EFFECT));
    }
    let wanted = if is_endpoint {
        Id::Listen
    } else {
        Id::CheckHost
    };
    let others = FLAGS.iter().map(|flag| flag.id);
    given.extend(others.filter(|&id| id != wanted));
    variables::apply(&mut config, &given, &|name| {
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

/// Takes the value of `option` from `words`, and parses it as a duration.
///
/// # Errors
/// Returns an error if the value is missing or is not a duration.
fn duration_after(words: &mut Words, option: &str) -> Result<Duration, UsageError> {
    let value = words.value();
    any_duration(value.to_str().unwrap_or_default())
        .map_err(|reason| UsageError::of_value(option, &value, reason))
}

/// Parses the words that follow `livelet notify`: assignments such as `READY=1`.
///
/// # Errors
/// Returns an error if no word follows, or if a word is not an assignment.
pub(super) fn notify(words: &mut Words, _: Variable<'_>) -> Result<Command, UsageError> {
    let assignments = words.remaining();
    let is_assignment = |word: &OsString| {
        let equals = word.as_bytes().iter().position(|&b| b == b'=');
        equals.is_some_and(|at| at > 0)
    };
    match assignments.iter().find(|word| !is_assignment(word)) {
        Some(word) if word == "-h" || word == "--help" => Ok(Command::Help(Page::Notify)),
        Some(word) => Err(UsageError::of_value("notify", word, ASSIGNMENT)),
        None if assignments.is_empty() => {
            Err(UsageError::of_value("notify", OsStr::new(""), ASSIGNMENT))
        }
        None => Ok(Command::Notify(assignments)),
    }
}

/// Parses the words that follow `livelet install`: the path to write to.
///
/// # Errors
/// Returns an error if the path is missing, or if a second path or an unknown option follows.
pub(super) fn install(words: &mut Words, _: Variable<'_>) -> Result<Command, UsageError> {
    let mut path = None;
    while let Some(part) = words.next_part() {
        match part {
            Part::Option(option) if option == "--help" || option == "-h" => {
                return Ok(Command::Help(Page::Install));
            }
            Part::Option(option) => return Err(unknown_option(&option, &[], NO_OPTIONS)),
            Part::Value(value) if value.is_empty() => {}
            Part::Value(value) if path.is_none() => path = Some(PathBuf::from(value)),
            Part::Value(value) => return Err(UsageError::of_value("install", &value, ONE_PATH)),
        }
    }
    path.map(Command::Install)
        .ok_or_else(|| UsageError::new("install", PATH))
}

/// Parses the word that follows `livelet help`: the subcommand whose help page is printed. If no
/// word follows, the page is that of `livelet --help`.
///
/// # Errors
/// Returns an error if the word is not a subcommand that has a help page.
pub(super) fn help(words: &mut Words, _: Variable<'_>) -> Result<Command, UsageError> {
    let topic = words.next_word().unwrap_or_default();
    Ok(Command::Help(match topic.to_str() {
        Some("") => Page::Livelet,
        Some("probe") => Page::Probe,
        Some("notify") => Page::Notify,
        Some("install") => Page::Install,
        _ => {
            let word = &topic.to_string_lossy();
            let near = near::misspelt(word, &PAGES).map(String::from);
            return Err(UsageError::unknown(word, near, NO_PAGE));
        }
    }))
}
