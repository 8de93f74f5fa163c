//! The configuration of a livelet that serves.

use std::ffi::OsString;
use std::time::Duration;

use crate::check::Check;
use crate::health::Alias;
use crate::listen::Listen;
use crate::log::Level;

/// Settings of a livelet that serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Addresses to listen on, at least one.
    pub listen: Vec<Listen>,
    /// `true` if the user gave the addresses: they are not the default.
    pub has_addresses: bool,
    /// Checks of liveness.
    pub live: Vec<Check>,
    /// Checks of readiness.
    pub ready: Vec<Check>,
    /// Further paths of the endpoints.
    pub paths: Vec<Alias>,
    /// Time limit of one check.
    pub check_timeout: Duration,
    /// Host that `http:` checks send. `None` for the address that they connect to.
    pub check_host: Option<String>,
    /// Time for which liveness has to fail without a break before livelet stops the worker. `None`
    /// for never.
    pub exit_on_unhealthy: Option<Duration>,
    /// Time limit for open connections after the worker's end, at most 5 s.
    pub drain: Duration,
    /// Share the port with other processes on purpose (SO_REUSEPORT).
    pub reuse_port: bool,
    /// Most open connections at once, at least 1.
    pub max_connections: usize,
    /// Level of the log.
    pub log: Level,
    /// Time limit for a wait while another process holds the port.
    pub bind_wait: Duration,
    /// Replace a healthy livelet that holds the port.
    pub takeover: bool,
    /// The worker's command and arguments; empty for a responder.
    pub command: Vec<OsString>,
    /// Signals to forward as another one, from and to. A signal is dropped if its second number is
    /// 0.
    pub rewrites: Vec<(i32, i32)>,
    /// Exit codes of the worker to report as 0.
    pub ok_exits: Vec<u8>,
    /// Signals that begin a stop, at least one.
    pub stop_signals: Vec<i32>,
    /// Send signals to the worker's whole process group, not to the worker alone.
    pub signals_group: bool,
    /// Time from the stop of the worker until it is killed. `None` for never.
    pub grace: Option<Duration>,
    /// Time from a stop signal until the worker gets it. Readiness fails in this time.
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
