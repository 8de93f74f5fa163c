//! The command line and its variables, to a validated configuration.
//!
//! [`FLAGS`] is the one table of options: the parser, the variables and `--help` all read it, and so do the man page and
//! the completions. Nothing is bound or started before all of it is valid.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};

use crate::check::{self, Check};
use crate::command::probe::{Probe, Target, address_of};
use crate::config::Config;
use crate::duration::{self, whole_number};
use crate::health::{Alias, Endpoint, OWN_NAMES};
use crate::listen::Listen;
use crate::log::Level;
use crate::signal;

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

/// One option.
#[derive(Debug)]
pub struct Flag {
    id: Id,
    /// Its letter.
    pub short: Option<char>,
    /// Its name.
    pub long: &'static str,
    /// The variable that stands in where the flag is not given.
    pub variable: Option<&'static str>,
    /// What its value is called; empty for a switch.
    pub value: &'static str,
    /// What it does, for `--help`.
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id {
    Listen,
    Live,
    Ready,
    Path,
    CheckTimeout,
    ExitOnUnhealthy,
    Drain,
    BindWait,
    Takeover,
    ReusePort,
    MaxConnections,
    Signal,
    OkExit,
    StopSignal,
    Group,
    Grace,
    LameDuck,
    Quiet,
    Verbose,
    Help,
    Version,
}

/// Every option, in the order of `--help`; `packaging/pages.rs` makes the man page and the completions of it.
pub const FLAGS: [Flag; 21] = [
    Flag {
        id: Id::Listen,
        short: Some('l'),
        long: "listen",
        variable: Some("LIVELET_LISTEN"),
        value: "ADDR",
        help: "9090, :9090, [::1]:9090; repeatable (default 9090)",
    },
    Flag {
        id: Id::Live,
        short: None,
        long: "live",
        variable: Some("LIVELET_LIVE"),
        value: "CHECK",
        help: "liveness: file:/path, heartbeat:/path:9s (repeats)",
    },
    Flag {
        id: Id::Ready,
        short: None,
        long: "ready",
        variable: Some("LIVELET_READY"),
        value: "CHECK",
        help: "readiness: tcp:IP:PORT, unix:/path, http://IP:PORT/",
    },
    Flag {
        id: Id::Path,
        short: None,
        long: "path",
        variable: Some("LIVELET_PATH"),
        value: "PATH=WHAT",
        help: "one more path of live, ready or startup (repeats)",
    },
    Flag {
        id: Id::CheckTimeout,
        short: None,
        long: "check-timeout",
        variable: Some("LIVELET_CHECK_TIMEOUT"),
        value: "DUR",
        help: "for one check (default 800ms)",
    },
    Flag {
        id: Id::ExitOnUnhealthy,
        short: None,
        long: "exit-on-unhealthy",
        variable: Some("LIVELET_EXIT_ON_UNHEALTHY"),
        value: "DUR",
        help: "liveness failing this long: stop, exit 75",
    },
    Flag {
        id: Id::Drain,
        short: None,
        long: "drain",
        variable: Some("LIVELET_DRAIN"),
        value: "DUR",
        help: "deadline for open connections (default and most 5s)",
    },
    Flag {
        id: Id::BindWait,
        short: None,
        long: "bind-wait",
        variable: Some("LIVELET_BIND_WAIT"),
        value: "DUR",
        help: "how long to wait for a held port (default 10s)",
    },
    Flag {
        id: Id::Takeover,
        short: None,
        long: "takeover",
        variable: Some("LIVELET_TAKEOVER"),
        value: "",
        help: "replace a healthy livelet that holds the port",
    },
    Flag {
        id: Id::ReusePort,
        short: None,
        long: "reuse-port",
        variable: Some("LIVELET_REUSE_PORT"),
        value: "",
        help: "share the port on purpose (SO_REUSEPORT)",
    },
    Flag {
        id: Id::MaxConnections,
        short: None,
        long: "max-connections",
        variable: Some("LIVELET_MAX_CONNECTIONS"),
        value: "N",
        help: "open connections at once (default 256)",
    },
    Flag {
        id: Id::Signal,
        short: None,
        long: "signal",
        variable: Some("LIVELET_SIGNAL"),
        value: "FROM=TO",
        help: "forward a signal as another; TERM=0 drops it",
    },
    Flag {
        id: Id::OkExit,
        short: None,
        long: "ok-exit",
        variable: Some("LIVELET_OK_EXIT"),
        value: "CODE",
        help: "report this exit code as 0; repeatable",
    },
    Flag {
        id: Id::StopSignal,
        short: None,
        long: "stop-signal",
        variable: Some("LIVELET_STOP_SIGNAL"),
        value: "SIG",
        help: "begins a stop; repeatable (default TERM and INT)",
    },
    Flag {
        id: Id::Group,
        short: None,
        long: "group",
        variable: Some("LIVELET_GROUP"),
        value: "",
        help: "signal the command's whole process group",
    },
    Flag {
        id: Id::Grace,
        short: None,
        long: "grace",
        variable: Some("LIVELET_GRACE"),
        value: "DUR",
        help: "asked to stop, it is killed after this; else never",
    },
    Flag {
        id: Id::LameDuck,
        short: None,
        long: "lame-duck",
        variable: Some("LIVELET_LAME_DUCK"),
        value: "DUR",
        help: "on TERM: not ready for this long before it is told",
    },
    Flag {
        id: Id::Quiet,
        short: Some('q'),
        long: "quiet",
        variable: None,
        value: "",
        help: "say failures alone (LIVELET_LOG=quiet)",
    },
    Flag {
        id: Id::Verbose,
        short: Some('v'),
        long: "verbose",
        variable: None,
        value: "",
        help: "say each request too (LIVELET_LOG=verbose)",
    },
    Flag {
        id: Id::Help,
        short: Some('h'),
        long: "help",
        variable: None,
        value: "",
        help: "print this",
    },
    Flag {
        id: Id::Version,
        short: Some('V'),
        long: "version",
        variable: None,
        value: "",
        help: "print the version",
    },
];

/// The one variable that stands for two flags.
const LOG_VARIABLE: &str = "LIVELET_LOG";

/// A flag, variable or value that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError {
    /// The flag or variable, as the user wrote it.
    culprit: String,
    /// The value it had, if that is what is wrong.
    value: Option<OsString>,
    /// What is accepted.
    accepted: &'static str,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.culprit)?;
        if let Some(value) = &self.value {
            write!(f, "\"{}\": ", value.to_string_lossy())?;
        }
        f.write_str(self.accepted)
    }
}

impl std::error::Error for UsageError {}

const UNEXPECTED: &str = "unexpected argument; a command goes after --; see --help";
const NO_COMMAND: &str = "no command after it; accepted: -- COMMAND [ARG]...";
const ADDR: &str = "not an address; accepted: 9090, :9090, 127.0.0.1:9090 or [::1]:9090";
const ADDR_TWICE: &str =
    "overlaps an address before it; accepted: each once, and [::] or a bare port takes IPv4 too";
const DRAIN: &str = "not a duration up to 5s; accepted: 0s to 5s, such as 250ms or 5s";
const CONNECTIONS: &str = "not a number of connections; accepted: 1 to 1000000";
const SWITCH: &str = "not a switch; accepted: 1, true, yes, on or 0, false, no, off";
const CHECK_TWICE: &str =
    "its name is taken; accepted: each name once, and not worker, livelet or shutdown";
const MAX_CHECK_TIMEOUT: Duration = Duration::from_secs(60);
const CHECK_TIMEOUT: &str = "not a duration up to 60s; accepted: 1ms to 60s, such as 800ms";
const DUR: &str = "not a duration up to 8760h; accepted: such as 250ms, 5s, 2m or 1h";
const SIGNAL: &str = "not a signal to rewrite; accepted: FROM=TO, such as TERM=QUIT, or FROM=0";
const SIGNAL_TWICE: &str = "rewritten twice; accepted: once";
const ENV_UNSET: &str = "variable not set; accepted: env:NAME of a variable that holds a port";
const ENV_PORT: &str =
    "variable holds no port; accepted: env:NAME of a variable that holds 0 to 65535";
const PATH: &str = "not a path of an endpoint; accepted: /PATH=live, /PATH=ready or /PATH=startup";
const PATH_TWICE: &str = "path given twice; accepted: once";
const STOP_SIGNAL: &str =
    "not a signal that can begin a stop; accepted: such as TERM, QUIT or WINCH";
const NO_SINGLE: &str = "is the default; accepted: --group, which signals the whole process group";
const EXIT_CODE: &str = "not an exit code; accepted: 0 to 255";
const NO_WORKER: &str =
    "is told by a worker, and there is none; accepted: with -- COMMAND [ARG]...";
const NOT_ASKABLE: &str =
    "for the livelet that runs the worker alone; accepted: file, heartbeat, tcp, unix, http";
const ASSIGNMENT: &str = "not an assignment; accepted: NAME=VALUE..., such as READY=1";
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
            "probe" => Some(probe as Own),
            "notify" => Some(notify as Own),
            "install" => Some(install as Own),
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
        let workers =
            |kind: &&check::Kind| matches!(kind, check::Kind::Notify | check::Kind::Watchdog(_));
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

/// A command of livelet's own.
type Own = fn(&mut Parser, Variable<'_>) -> Result<Command, UsageError>;

fn probe(parser: &mut Parser, variable: Variable<'_>) -> Result<Command, UsageError> {
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

fn notify(parser: &mut Parser, _: Variable<'_>) -> Result<Command, UsageError> {
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

fn install(parser: &mut Parser, _: Variable<'_>) -> Result<Command, UsageError> {
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

fn unexpected_end(command: &str, accepted: &'static str) -> UsageError {
    UsageError {
        culprit: command.to_string(),
        value: None,
        accepted,
    }
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
            for (index, one) in text.split_ascii_whitespace().enumerate() {
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

/// Applies one value; the first one of a repeatable option replaces the default. The error is what is accepted.
fn set(
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
                None => text.parse().map_err(|()| ADDR)?,
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
            if config.rewrites.iter().any(|&(from, _)| from == rewrite.0) {
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

/// Adds a check under its name, or that of its kind with a number where that is taken.
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

/// Returns the port that a variable holds, as platforms give it in $PORT.
fn port_of(name: &str, variable: Variable<'_>) -> Result<Listen, &'static str> {
    let value = variable(name).ok_or(ENV_UNSET)?;
    let port = value.to_str().and_then(whole_number);
    let port = port
        .and_then(|port| u16::try_from(port).ok())
        .ok_or(ENV_PORT)?;
    Ok(Listen::Port(port))
}

/// Parses `PATH=live`, `PATH=ready` or `PATH=startup`. A trailing slash of the path makes no difference.
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

/// FROM=TO, of which FROM can be caught and TO is a signal or 0.
fn rewrite(text: &str) -> Option<(i32, i32)> {
    let (from, to) = text.split_once('=')?;
    let from = signal::number(from).filter(|&from| from != 0 && signal::can_be_caught(from))?;
    Some((from, signal::number(to)?))
}

fn any_duration(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text).ok_or(DUR)
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn wrong(culprit: String, value: OsString, accepted: &'static str) -> UsageError {
    UsageError {
        culprit,
        value: Some(value),
        accepted,
    }
}

fn unexpected(culprit: String) -> UsageError {
    UsageError {
        culprit,
        value: None,
        accepted: UNEXPECTED,
    }
}

fn from_lexopt(error: lexopt::Error) -> UsageError {
    match error {
        lexopt::Error::MissingValue { option } => UsageError {
            culprit: option.unwrap_or_default(),
            value: None,
            accepted: "needs a value; see --help",
        },
        lexopt::Error::UnexpectedValue { option, value } => {
            wrong(option, value, "takes no value; see --help")
        }
        lexopt::Error::UnexpectedOption(option) => unexpected(option),
        // Nothing here has it parse a value, or asks for UTF-8.
        _ => unexpected("argument".to_string()),
    }
}

/// The text of `--help`: 80 columns at most.
#[must_use]
pub fn help() -> String {
    const COLUMN: usize = 27;
    let mut text = String::from(
        "Usage: livelet [OPTIONS] [-- COMMAND [ARG]...]\n\
         \x20      livelet probe [--ready] [--timeout DUR] [CHECK] | notify NAME=VALUE...\n\
         \x20      livelet install PATH\n\
         Answers health probes over HTTP, for itself or for the command that it runs.\n",
    );
    for flag in &FLAGS {
        let short = flag.short.map_or("   ".to_string(), |c| format!("-{c},"));
        let left = format!("{short} --{} {}", flag.long, flag.value);
        let mut lines = flag.help.lines();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(text, "  {left:COLUMN$}{first}");
        for line in lines {
            let _ = writeln!(text, "  {:COLUMN$}{line}", "");
        }
    }
    text.push_str(
        "Each option but the last four has a variable: --bind-wait is LIVELET_BIND_WAIT.\n",
    );
    text
}
