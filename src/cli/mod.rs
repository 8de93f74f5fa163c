//! The command line and its variables, to a validated configuration. Nothing is bound or started before all of it is valid.

mod error;
mod help;
mod options;
mod subcommand;
mod values;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::{Arg, Parser};

use crate::check::{Kind, Query};
use crate::command::probe::Probe;
use crate::config::Config;
use crate::log::Level;
use error::{from_lexopt, unexpected, wrong};
use options::{Id, LOG_VARIABLE};
use subcommand::Own;
use values::set;

pub use error::UsageError;
pub use help::help;
pub use options::{FLAGS, Flag};

/// What `--version` prints.
pub const VERSION: &str = concat!("livelet ", env!("CARGO_PKG_VERSION"), "\n");

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Run(Box<Config>),
    /// Ask once.
    Probe(Probe),
    /// Send these assignments to NOTIFY_SOCKET.
    Notify(Vec<OsString>),
    /// Write the executable there.
    Install(PathBuf),
    /// Print [`help`].
    Help,
    /// Print [`VERSION`].
    Version,
}

const NO_COMMAND: &str = "no command after it; accepted: -- COMMAND [ARG]...";
const NO_SINGLE: &str = "is the default; accepted: --group, which signals the whole process group";
const NO_WORKER: &str =
    "is told by a worker, and there is none; accepted: with -- COMMAND [ARG]...";
const WORDS: &str = "not words; accepted: each quote closed, as in a shell";
const LOG: &str = "not a log level; accepted: quiet or verbose";

/// The value of an environment variable, by its name.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Parses a command line, its first word being the program's name, and the variables of `variable`.
///
/// # Errors
/// The first thing on the command line, or else among the variables, that can't be used.
pub fn parse(args: Vec<OsString>, variable: Variable<'_>) -> Result<Command, UsageError> {
    let mut config = Config::default();
    let mut given = Vec::new();
    let mut parser = Parser::from_iter(args);
    let first = parser
        .try_raw_args()
        .and_then(|rest| rest.peek().map(OsStr::to_os_string));
    if let Some(name) = first.as_deref().and_then(OsStr::to_str) {
        let own = match name {
            "probe" => Some(subcommand::probe as Own),
            "notify" => Some(subcommand::notify as Own),
            "install" => Some(subcommand::install as Own),
            _ => None,
        };
        if let Some(own) = own {
            // It was peeked at.
            let _ = parser.next();
            return own(&mut parser, variable);
        }
    }
    loop {
        if let Some(command) = after_dashes(&mut parser) {
            if command.is_empty() {
                return Err(UsageError {
                    culprit: "--".to_string(),
                    value: None,
                    accepted: NO_COMMAND,
                });
            }
            config.command = command;
            break;
        }
        let Some(arg) = parser.next().map_err(from_lexopt)? else {
            break;
        };
        let flag = match arg {
            Arg::Long(name) => FLAGS.iter().find(|flag| flag.long == name),
            Arg::Short(name) => FLAGS.iter().find(|flag| flag.short == Some(name)),
            Arg::Value(value) => return Err(unexpected(value.to_string_lossy().into_owned())),
        };
        let Some(flag) = flag else {
            if arg == Arg::Long("single") {
                return Err(UsageError {
                    culprit: "--single".to_string(),
                    value: None,
                    accepted: NO_SINGLE,
                });
            }
            return Err(from_lexopt(arg.unexpected()));
        };
        match flag.id {
            Id::Help => return Ok(Command::Help),
            Id::Version => return Ok(Command::Version),
            _ => {}
        }
        let value = match flag.value {
            "" => OsString::from("on"),
            _ => parser.value().map_err(from_lexopt)?,
        };
        let is_first = !given.contains(&flag.id);
        set(&mut config, flag.id, &value, is_first, variable)
            .map_err(|accepted| wrong(format!("--{}", flag.long), value, accepted))?;
        given.push(flag.id);
    }
    if given.contains(&Id::Quiet) && given.contains(&Id::Verbose) {
        return Err(UsageError {
            culprit: "--quiet --verbose".to_string(),
            value: None,
            accepted: "both given; accepted: one of them",
        });
    }
    variables(&mut config, &given, variable)?;
    if config.command.is_empty() {
        refuse_workers_checks(&config, &given)?;
    }
    for check in config.live.iter_mut().chain(&mut config.ready) {
        if let (Kind::Query(Query::Http(url)), Some(host)) = (&mut check.kind, &config.check_host) {
            url.host.clone_from(host);
        }
    }
    Ok(Command::Run(Box::new(config)))
}

/// Refuses the checks that only a worker can pass.
///
/// # Errors
/// Returns an error if there is one.
fn refuse_workers_checks(config: &Config, given: &[Id]) -> Result<(), UsageError> {
    let checks = [
        (Id::Live, "live", "LIVELET_LIVE", &config.live),
        (Id::Ready, "ready", "LIVELET_READY", &config.ready),
    ];
    for (id, flag, variable, checks) in checks {
        let mut kinds = checks.iter().map(|check| &check.kind);
        let workers = |kind: &&Kind| matches!(kind, Kind::Notify | Kind::Watchdog(_));
        if let Some(kind) = kinds.find(workers) {
            let culprit = if given.contains(&id) {
                format!("--{flag}")
            } else {
                variable.to_string()
            };
            return Err(wrong(culprit, kind.word().into(), NO_WORKER));
        }
    }
    Ok(())
}

/// All that follows a `--`, if that is what comes next: the worker's, whatever it looks like.
fn after_dashes(parser: &mut Parser) -> Option<Vec<OsString>> {
    let mut rest = parser.try_raw_args()?;
    if rest.peek()? != "--" {
        return None;
    }
    rest.next();
    Some(rest.collect())
}

/// Applies the variables of flags that were not given. An empty one counts as unset.
fn variables(config: &mut Config, given: &[Id], variable: Variable<'_>) -> Result<(), UsageError> {
    let get = |name: &str| variable(name).filter(|value| !value.is_empty());
    for flag in FLAGS.iter().filter(|flag| !given.contains(&flag.id)) {
        let Some((name, value)) = flag.variable.and_then(|name| Some((name, get(name)?))) else {
            continue;
        };
        let refused = |accepted| wrong(name.to_string(), value.clone(), accepted);
        if matches!(
            flag.id,
            Id::Listen | Id::Signal | Id::StopSignal | Id::OkExit | Id::Live | Id::Ready | Id::Path
        ) {
            // What is not UTF-8 is no value of any of them.
            let text = value.to_str().unwrap_or("?");
            let words = shlex::split(text).ok_or(WORDS).map_err(refused)?;
            for (index, one) in words.iter().enumerate() {
                set(config, flag.id, OsStr::new(one), index == 0, variable).map_err(refused)?;
            }
        } else {
            set(config, flag.id, &value, true, variable).map_err(refused)?;
        }
    }
    if !given.contains(&Id::Quiet) && !given.contains(&Id::Verbose) {
        if let Some(value) = get(LOG_VARIABLE) {
            config.log = match value.to_str() {
                Some("quiet") => Level::Quiet,
                Some("verbose") => Level::Verbose,
                _ => return Err(wrong(LOG_VARIABLE.to_string(), value, LOG)),
            };
        }
    }
    Ok(())
}
