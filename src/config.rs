//! The configuration of a livelet that serves.

use std::ffi::OsString;
use std::time::Duration;

use crate::check::Check;
use crate::health::Alias;
use crate::listen::Listen;
use crate::log::Level;

/// How to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where to listen, at least one address.
    pub listen: Vec<Listen>,
    /// The addresses were given, and are not the default.
    pub has_addresses: bool,
    /// What has to hold for liveness.
    pub live: Vec<Check>,
    /// What has to hold for readiness.
    pub ready: Vec<Check>,
    /// Further paths of the endpoints.
    pub paths: Vec<Alias>,
    /// For one check.
    pub check_timeout: Duration,
    /// The Host that `http:` checks send; `None` for the address that they ask.
    pub check_host: Option<String>,
    /// After how long a failure of liveness it ends.
    pub exit_on_unhealthy: Option<Duration>,
    /// How long open connections may finish in, at most 5 s.
    pub drain: Duration,
    /// Share the port with other processes that ask for it too.
    pub reuse_port: bool,
    /// Open connections at once, at least 1.
    pub max_connections: usize,
    /// How much is said on stderr.
    pub log: Level,
    /// How long to wait for a port that is held.
    pub bind_wait: Duration,
    /// Replace a healthy livelet that holds the port.
    pub takeover: bool,
    /// The worker's command and arguments; empty for a responder.
    pub command: Vec<OsString>,
    /// Signals to forward as another one, from and to; 0 drops it.
    pub rewrites: Vec<(i32, i32)>,
    /// Exit codes of the worker to report as 0.
    pub ok_exits: Vec<u8>,
    /// Signals that begin a stop, at least one.
    pub stop_signals: Vec<i32>,
    /// Signal the worker's whole process group, not the worker alone.
    pub signals_group: bool,
    /// When the worker is killed after it was asked to stop.
    pub grace: Option<Duration>,
    /// How long it is not ready before the worker is told to stop.
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
