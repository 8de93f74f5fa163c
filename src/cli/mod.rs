//! The command line and its variables, parsed to a validated configuration. Nothing is bound or
//! started before all of it is valid.

mod error;
mod help;
mod near;
mod options;
mod subcommand;
mod values;
mod variables;
mod words;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::check::{Kind, Query};
use crate::command::probe::Probe;
use crate::config::Config;
use options::{Id, NEED_WORKER};
use subcommand::Subcommand;
use values::{set, switch};
use words::{Part, Words};

pub use error::UsageError;
pub use help::{Page, help};
pub use options::{FLAGS, Flag};
pub use variables::{Variable, unknown as unknown_variable};

/// Output of `--version`.
pub const VERSION: &str = concat!("livelet ", env!("CARGO_PKG_VERSION"), "\n");

/// Command that the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Answer probes, with a worker or without.
    Run(Box<Config>),
    /// Ask a livelet, or make a check.
    Probe(Probe),
    /// Send these assignments to NOTIFY_SOCKET.
    Notify(Vec<OsString>),
    /// Write livelet's executable to this path.
    Install(PathBuf),
    /// Print a page of [`help()`].
    Help(Page),
    /// Print [`VERSION`].
    Version,
}

/// Names of livelet's own commands.
const SUBCOMMANDS: [&str; 5] = ["probe", "notify", "install", "help", "version"];

const NO_COMMAND: &str = "no command after it; accepted: -- COMMAND [ARG]...";
const NO_SINGLE: &str = "is the default; accepted: --group, which signals the whole process group";
const NEEDS_WORKER: &str = "needs a command to run; accepted: with -- COMMAND [ARG]...";
const ONE_DASH: &str = "one dash for a long option; accepted: two, as in --listen";
const UNKNOWN: &str = "unknown option; see livelet --help";
const STRAY: &str =
    "unexpected argument; a command goes after --: livelet [OPTIONS] -- COMMAND [ARG]...";
const LATE: &str = "goes first, before each option; accepted: such as livelet probe --ready";
const SWITCH_VALUE: &str = "an option that is a switch takes no value; accepted: the option alone";
const QUIET_VERBOSE: &str = "both given; accepted: one of them";

/// Parses a command line and the variables that `variable` returns. The first word is the name of
/// the program.
///
/// # Errors
/// Returns an error for the first word or value that can't be used. The command line comes before
/// the variables.
pub fn parse(args: Vec<OsString>, variable: Variable<'_>) -> Result<Command, UsageError> {
    let mut words = Words::new(args);
    words.next_word();
    let subcommand = match words.peek().to_str() {
        Some("probe") => Some(subcommand::probe as Subcommand),
        Some("notify") => Some(subcommand::notify as Subcommand),
        Some("install") => Some(subcommand::install as Subcommand),
        Some("help") => Some(subcommand::help as Subcommand),
        Some("version") => return Ok(Command::Version),
        _ => None,
    };
    if let Some(subcommand) = subcommand {
        words.next_word();
        return subcommand(&mut words, variable);
    }
    let mut config = Config::default();
    let mut given = Vec::new();
    loop {
        if words.peek() == "--" {
            words.next_word();
            config.command = words.remaining();
            if config.command.is_empty() {
                return Err(UsageError::new("--", NO_COMMAND));
            }
            break;
        }
        if let Some(word) = words.peek().to_str().filter(has_one_dash) {
            return Err(UsageError::new(word, ONE_DASH));
        }
        let option = match words.next_part() {
            None => break,
            Some(Part::Value(word)) => {
                return Err(stray(&word.to_string_lossy(), !given.is_empty()));
            }
            Some(Part::Option(option)) => option,
        };
        let Some(flag) = FLAGS.iter().find(|flag| flag.is_called(&option)) else {
            return Err(match option.as_str() {
                "--single" => UsageError::new("--single", NO_SINGLE),
                _ => unknown_option(&option, &names(), UNKNOWN),
            });
        };
        match flag.id {
            Id::Help => return Ok(Command::Help(Page::Livelet)),
            Id::Version => return Ok(Command::Version),
            _ => {}
        }
        let value = match flag.value {
            "" => words.no_value(&option).map(|()| OsString::from("on"))?,
            _ => words.value(),
        };
        let is_first = !given.contains(&flag.id);
        set(&mut config, flag.id, &value, is_first, variable)
            .map_err(|reason| UsageError::of_value(&dashed(flag), &value, reason))?;
        given.push(flag.id);
    }
    if given.contains(&Id::Quiet) && given.contains(&Id::Verbose) {
        return Err(UsageError::new("--quiet --verbose", QUIET_VERBOSE));
    }
    variables::apply(&mut config, &given, variable)?;
    if config.command.is_empty() {
        refuse_what_needs_a_worker(&config, &given)?;
    }
    for check in config.live.iter_mut().chain(&mut config.ready) {
        if let (Kind::Query(Query::Http(url)), Some(host)) = (&mut check.kind, &config.check_host) {
            url.host.clone_from(host);
        }
    }
    Ok(Command::Run(Box::new(config)))
}

/// Refuses options and checks that need a worker. A variable of such an option is not refused: an
/// image may set it.
///
/// # Errors
/// Returns an error if such an option was given, or if there is such a check.
fn refuse_what_needs_a_worker(config: &Config, given: &[Id]) -> Result<(), UsageError> {
    let needs_worker = |flag: &&Flag| NEED_WORKER.contains(&flag.id) && given.contains(&flag.id);
    if let Some(flag) = FLAGS.iter().find(needs_worker) {
        return Err(UsageError::new(&dashed(flag), NEEDS_WORKER));
    }
    let checks = [
        (Id::Live, "--live", "LIVELET_LIVE", &config.live),
        (Id::Ready, "--ready", "LIVELET_READY", &config.ready),
    ];
    for (id, flag, variable, checks) in checks {
        let mut kinds = checks.iter().map(|check| &check.kind);
        let workers = |kind: &&Kind| matches!(kind, Kind::Notify | Kind::Watchdog(_));
        if let Some(kind) = kinds.find(workers) {
            let culprit = if given.contains(&id) { flag } else { variable };
            return Err(UsageError::of_value(
                culprit,
                OsStr::new(kind.word()),
                NEEDS_WORKER,
            ));
        }
    }
    Ok(())
}

/// Returns `true` if the word is the name of an option after one dash.
fn has_one_dash(word: &&str) -> bool {
    let word = word.split('=').next().unwrap_or_default();
    let name = word.strip_prefix('-').unwrap_or_default();
    FLAGS.iter().any(|flag| flag.long == name)
}

fn dashed(flag: &Flag) -> String {
    ["--", flag.long].concat()
}

fn names() -> Vec<&'static str> {
    FLAGS.iter().map(|flag| flag.long).collect()
}

/// Returns the error of an option that is none of `names`.
fn unknown_option(option: &str, names: &[&str], reason: &'static str) -> UsageError {
    let near = near::option(option.trim_start_matches('-'), names);
    let near = near.map(|near| ["--", near].concat());
    UsageError::unknown(option, near, reason)
}

/// Returns the error of a word where an option is expected.
fn stray(word: &str, follows_option: bool) -> UsageError {
    let near = near::misspelt(word, &SUBCOMMANDS).filter(|_| !follows_option);
    let near = near.map(|near| ["livelet ", near].concat());
    let reason = if SUBCOMMANDS.contains(&word) {
        LATE
    } else if follows_option && switch(word).is_some() {
        SWITCH_VALUE
    } else {
        STRAY
    };
    UsageError::unknown(&["\"", word, "\""].concat(), near, reason)
}
