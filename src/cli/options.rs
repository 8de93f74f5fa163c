//! The table of options. The parser, the variables, `--help`, the man page and the completions are
//! all made from it.

/// Option of livelet's command line, with its name, its variable and its description in `--help`.
#[derive(Debug)]
pub struct Flag {
    pub(super) id: Id,
    /// Letter of the option's short form, such as `l` for `-l`. `None` if the option has only a
    /// long form.
    pub short: Option<char>,
    /// Long name of the option, without its dashes.
    pub long: &'static str,
    /// Environment variable that sets the option if the command line does not. `None` if the option
    /// has no variable of its own.
    pub variable: Option<&'static str>,
    /// Placeholder for the option's value in `--help`. Empty if the option takes no value.
    pub value: &'static str,
    /// Description of the option's effect in `--help`.
    pub help: &'static str,
}

impl Flag {
    /// Returns `true` if `word` names this option: two dashes and its long name, or one dash and
    /// its letter.
    pub(super) fn is_called(&self, word: &str) -> bool {
        match (word.strip_prefix("--"), self.short) {
            (Some(name), _) => name == self.long,
            (None, Some(letter)) => word.chars().eq(['-', letter]),
            (None, None) => false,
        }
    }

    /// Returns the heading that `--help` shows before the option, if the option is the first of its
    /// group. Returns `None` for the other options.
    #[must_use]
    pub fn heading(&self) -> Option<&'static str> {
        let (_, heading) = HEADINGS.iter().find(|(first, _)| *first == self.id)?;
        Some(heading)
    }

    /// Returns `true` if the option can be given several times. The variable of such an option can
    /// have several values.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        REPEATABLE.contains(&self.id)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Id {
    Listen,
    Live,
    Ready,
    Path,
    CheckTimeout,
    CheckHost,
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

/// All options, in the order of `--help`. `packaging/pages.rs` makes the man page and the
/// completions from this table.
pub const FLAGS: [Flag; 22] = [
    Flag {
        id: Id::Listen,
        short: Some('l'),
        long: "listen",
        variable: Some("LIVELET_LISTEN"),
        value: "ADDR",
        help: "9090, [::1]:9090 or env:PORT (default 9090)",
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
        help: "maximum of open connections (default 256)",
    },
    Flag {
        id: Id::Live,
        short: None,
        long: "live",
        variable: Some("LIVELET_LIVE"),
        value: "CHECK",
        help: "add a check of liveness",
    },
    Flag {
        id: Id::Ready,
        short: None,
        long: "ready",
        variable: Some("LIVELET_READY"),
        value: "CHECK",
        help: "add a check of readiness",
    },
    Flag {
        id: Id::CheckTimeout,
        short: None,
        long: "check-timeout",
        variable: Some("LIVELET_CHECK_TIMEOUT"),
        value: "DUR",
        help: "time limit of one check (default 800ms)",
    },
    Flag {
        id: Id::CheckHost,
        short: None,
        long: "check-host",
        variable: Some("LIVELET_CHECK_HOST"),
        value: "NAME",
        help: "Host of http: checks (default their address)",
    },
    Flag {
        id: Id::Path,
        short: None,
        long: "path",
        variable: Some("LIVELET_PATH"),
        value: "PATH=ENDPOINT",
        help: "add a path for live, ready or startup",
    },
    Flag {
        id: Id::ExitOnUnhealthy,
        short: None,
        long: "exit-on-unhealthy",
        variable: Some("LIVELET_EXIT_ON_UNHEALTHY"),
        value: "DUR",
        help: "if liveness fails this long: stop, exit 75",
    },
    Flag {
        id: Id::StopSignal,
        short: None,
        long: "stop-signal",
        variable: Some("LIVELET_STOP_SIGNAL"),
        value: "SIG",
        help: "signal that begins a stop (default TERM, INT)",
    },
    Flag {
        id: Id::LameDuck,
        short: None,
        long: "lame-duck",
        variable: Some("LIVELET_LAME_DUCK"),
        value: "DUR",
        help: "fail /readyz this long before TERM (default 0s)",
    },
    Flag {
        id: Id::Drain,
        short: None,
        long: "drain",
        variable: Some("LIVELET_DRAIN"),
        value: "DUR",
        help: "wait for open connections, at most 5s (default)",
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
        help: "kill the command this long after the signal",
    },
    Flag {
        id: Id::OkExit,
        short: None,
        long: "ok-exit",
        variable: Some("LIVELET_OK_EXIT"),
        value: "CODE",
        help: "report this exit code of the command as 0",
    },
    Flag {
        id: Id::Quiet,
        short: Some('q'),
        long: "quiet",
        variable: None,
        value: "",
        help: "log only failures",
    },
    Flag {
        id: Id::Verbose,
        short: Some('v'),
        long: "verbose",
        variable: None,
        value: "",
        help: "log each request as well",
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

/// Headings of the groups of options in `--help`, each with the first option of its group.
const HEADINGS: [(Id, &str); 5] = [
    (Id::Listen, "Listening"),
    (Id::Live, "Health"),
    (Id::StopSignal, "Stopping"),
    (Id::Signal, "The command"),
    (Id::Quiet, "Output"),
];

/// Options that can be given several times. The environment variable of each can have several
/// values.
const REPEATABLE: [Id; 7] = [
    Id::Listen,
    Id::Live,
    Id::Ready,
    Id::Path,
    Id::StopSignal,
    Id::Signal,
    Id::OkExit,
];

/// Options that have an effect only on a worker. livelet refuses these options on a command line
/// that gives no command to run as the worker.
pub(super) const NEED_WORKER: [Id; 4] = [Id::Signal, Id::Group, Id::Grace, Id::OkExit];

/// Environment variable that stands for two options: its value `quiet` is `--quiet`, and `verbose`
/// is `--verbose`. Every other variable stands for a single option.
pub(super) const LOG_VARIABLE: &str = "LIVELET_LOG";
