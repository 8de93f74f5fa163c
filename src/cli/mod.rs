//! The command line and the environment variables: parses both into a validated configuration.
//! livelet binds no address and starts no process before all of it is valid.

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

/// Text that `livelet --version` prints.
pub const VERSION: &str = concat!("livelet ", env!("CARGO_PKG_VERSION"), "\n");

/// Command that the user has given on the command line, with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Answer probes over HTTP, with or without a worker.
    Run(Box<Config>),
    /// Ask another livelet for its health, or run one check.
    Probe(Probe),
    /// Send these assignments, such as `READY=1`, to the socket that the variable `NOTIFY_SOCKET`
    /// names.
    Notify(Vec<OsString>),
    /// Write livelet's executable to this path.
    Install(PathBuf),
    /// Print the text that [`help()`] returns for this page.
    Help(Page),
    /// Print [`VERSION`].
    Version,
}

/// Words that select a subcommand if one of them is the first argument. Without a subcommand,
/// livelet serves probes.
const SUBCOMMANDS: [&str; 5] = ["probe", "notify", "install", "help", "version"];

const NO_COMMAND: &str = "no command after it; accepted: -- COMMAND [ARG]...";
const NO_SINGLE: &str = "is the default; accepted: --group, which signals the whole process group";
const NEEDS_WORKER: &str = "needs a command to run; accepted: with -- COMMAND [ARG]...";
const ONE_DASH: &str = "one dash for a long option; accepted: two, as in --listen";
const UNKNOWN: &str = "unknown option; see livelet --help";
const STRAY: &str =
    "unexpected argument; a command goes after --: livelet [OPTIONS] -- COMMAND [ARG]...";
const LATE: &str = "goes first, before all options; accepted: for example livelet probe --ready";
const SWITCH_VALUE: &str = "an option that is a switch takes no value; accepted: the option alone";
const QUIET_VERBOSE: &str = "both given; accepted: one of them";

/// Parses `args`, the words of the command line beginning with the program's name, and the
/// environment variables. `variable` returns the value of an environment variable.
///
/// # Errors
/// Returns an error about the first word or value that can't be used. The command line is parsed
/// before the variables.
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

/// Refuses options and checks that need a worker. The caller calls this function only if livelet
/// runs no worker. `given` lists the options on the command line. The function accepts an option
/// that an environment variable sets, because an image may set the variable for every container.
///
/// # Errors
/// Returns an error if `given` contains an option that needs a worker, or if `config` contains a
/// check that needs a worker.
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

/// Returns `true` if `word` is one dash and the long name of an option, such as `-listen`, with or
/// without `=` and a value.
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

/// Creates an error about `option`, a word that is no known option. `names` are the long names of
/// the known options. `reason` describes the problem; after its semicolon it gives advice. If the
/// user probably meant one of `names`, the message suggests that name in place of the advice.
fn unknown_option(option: &str, names: &[&str], reason: &'static str) -> UsageError {
    let near = near::option(option.trim_start_matches('-'), names);
    let near = near.map(|near| ["--", near].concat());
    UsageError::unknown(option, near, reason)
}

/// Creates an error about `word`, a word on the command line where livelet accepts only options.
/// `follows_option` is `true` if an option comes before `word`. The user may then have meant `word`
/// as a value of that option.
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
