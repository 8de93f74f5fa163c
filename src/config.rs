//! Configuration of a livelet that answers probes over HTTP.

use std::ffi::OsString;
use std::time::Duration;

use crate::check::Check;
use crate::health::Alias;
use crate::listen::Listen;
use crate::log::Level;

/// Rule of the option `--signal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// Number of the signal that livelet receives.
    pub from: i32,
    /// Number of the signal that the worker gets instead. If it is 0, livelet drops the signal.
    pub to: i32,
}

/// Settings of a livelet that answers probes over HTTP, with or without a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Addresses to listen on, at least one.
    pub listen: Vec<Listen>,
    /// `true` if the user set the addresses in `listen`. `false` if `listen` has its default, port
    /// 9090.
    pub has_addresses: bool,
    /// Checks that the user sets for liveness with `--live`. Liveness passes only if these checks
    /// and livelet's built-in checks pass.
    pub live: Vec<Check>,
    /// Checks that the user sets for readiness with `--ready`. Readiness passes only if these
    /// checks and livelet's built-in checks pass.
    pub ready: Vec<Check>,
    /// Additional URL paths of the health endpoints, from `--path`.
    pub paths: Vec<Alias>,
    /// Time limit for one run of a check.
    pub check_timeout: Duration,
    /// Value of the Host field in the requests of `http:` checks. If this is `None`, the value is
    /// the address in the check's URL.
    pub check_host: Option<String>,
    /// Time for which liveness has to fail without a break before livelet stops the worker and
    /// exits. `None` if livelet never stops the worker because of its health.
    pub exit_on_unhealthy: Option<Duration>,
    /// Time limit for connections that are still open when livelet stops serving, at most 5 s.
    /// After this time livelet closes them.
    pub drain: Duration,
    /// `true` if livelet shares its port with other processes on purpose (SO_REUSEPORT).
    pub reuse_port: bool,
    /// Maximum number of HTTP connections that are open at once, at least 1.
    pub max_connections: usize,
    /// Level of detail of the log on stderr.
    pub log: Level,
    /// Maximum time that livelet waits, at its start, until a port in use by another process is
    /// free.
    pub bind_wait: Duration,
    /// `true` if livelet, at its start, replaces a healthy livelet that uses the same port.
    pub takeover: bool,
    /// The worker's program and its arguments. Empty if livelet runs no worker.
    pub command: Vec<OsString>,
    /// Signals that livelet forwards to the worker as another signal.
    pub rewrites: Vec<Rewrite>,
    /// Exit codes of the worker that livelet reports as 0.
    pub ok_exits: Vec<u8>,
    /// Numbers of the signals that tell livelet to stop the worker and itself, at least one.
    pub stop_signals: Vec<i32>,
    /// `true` if livelet sends signals to the worker's whole process group. `false` if livelet
    /// sends signals to the worker alone.
    pub signals_group: bool,
    /// Time from the stop signal for the worker until livelet kills the worker, if it has not
    /// ended. If this is `None`, livelet does not kill a worker that it stops. The exception is a
    /// stop because of `exit_on_unhealthy`: then livelet kills the worker after 5 s.
    pub grace: Option<Duration>,
    /// Time from a stop signal's arrival at livelet until livelet forwards it to the worker.
    /// Readiness fails during this time.
    pub lame_duck: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec![Listen::Port(9090)],
            has_addresses: false,
            live: Vec::new(),
            ready: Vec::new(),
            paths: Vec::new(),
            check_timeout: Duration::from_millis(800),
            check_host: None,
            exit_on_unhealthy: None,
            drain: Duration::from_secs(5),
            reuse_port: false,
            max_connections: 256,
            log: Level::Normal,
            bind_wait: Duration::from_secs(10),
            takeover: false,
            command: Vec::new(),
            rewrites: Vec::new(),
            ok_exits: Vec::new(),
            stop_signals: vec![libc::SIGTERM, libc::SIGINT],
            signals_group: false,
            grace: None,
            lame_duck: Duration::ZERO,
        }
    }
}
