//! `livelet probe`: asks a livelet for its health or runs one check, for images that have no shell
//! and no curl. On a terminal the output lists every check, in colours.

use std::env;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use smol::LocalExecutor;
use smol::future::or;

use crate::check::{self, Memory, Query};
use crate::listen::Listen;
use crate::log;
use crate::runtime::{self, Timer};

/// Maximum number of bytes that `livelet probe` reads from a response's content and prints.
const MAX_BODY: usize = 4096;
/// End of the error message if no process listens on the port that `livelet probe` asks: advice to
/// name another port.
const OTHER_PORT: &str = "; -l or LIVELET_LISTEN names another port";
/// Time between the end of a failed attempt of `livelet probe` and the next attempt.
const RETRY: Duration = Duration::from_millis(100);

/// Settings of one call of `livelet probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Check to run. If `livelet probe` asks another livelet for its health, this is an `http:`
    /// check of the endpoint's URL.
    pub query: Query,
    /// `true` if `query` asks another livelet for its health. `livelet probe` then prints the
    /// content of the response.
    pub is_endpoint: bool,
    /// Time limit of one attempt: connecting, sending the request and reading the response.
    pub timeout: Duration,
    /// Time, from the start of `livelet probe`, for which failed attempts are repeated. If this
    /// time is 0, there is a single attempt.
    pub wait: Duration,
}

/// Result of one call of `livelet probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// `true` if the check passed.
    pub passed: bool,
    /// Text to print.
    pub output: Vec<u8>,
}

/// Returns the address at which a process of the same machine reaches a livelet that listens on
/// `listen`. This is 127.0.0.1 if the livelet listens on every address.
#[must_use]
pub fn address_of(listen: Listen) -> SocketAddr {
    match listen {
        Listen::Address(address) if !address.ip().is_unspecified() => address,
        _ => (Ipv4Addr::LOCALHOST, listen.port()).into(),
    }
}

/// Returns `true` if stdout is a terminal that shows colours and `NO_COLOR` is unset or empty
/// (<https://no-color.org>).
#[must_use]
pub fn has_colours() -> bool {
    let value = |name| env::var_os(name).unwrap_or_default();
    std::io::stdout().is_terminal() && value("NO_COLOR").is_empty() && value("TERM") != "dumb"
}

/// Runs the check in `probe.query`, and repeats it after each failure until it passes or
/// `probe.wait` is over. If `in_colours` is `true`, the output has colours for a terminal, and a
/// request for a livelet's health asks for one line for each check.
#[must_use]
// Inlined, its 16 KiB would be part of `main`'s frame, and resident while the supervisor runs.
#[inline(never)]
pub fn probe(mut probe: Probe, in_colours: bool) -> Probed {
    if let Query::Http(url) = &mut probe.query {
        url.target.push_str(if probe.is_endpoint && in_colours {
            "?verbose"
        } else {
            ""
        });
    }
    let mut output = Vec::new();
    let asked = async {
        let late = async {
            Timer::after(probe.wait.max(probe.timeout)).await;
            false
        };
        or(ask(&probe, &mut output), late).await
    };
    let outcome = runtime::block_on(&LocalExecutor::new(), asked);
    let passed = outcome.unwrap_or_else(|cause| {
        output = format!("runtime: cannot wait: {}\n", log::Cause(&cause)).into_bytes();
        false
    });
    if in_colours {
        output = painted(passed, &output).into_bytes();
    }
    Probed { passed, output }
}

/// Returns `output`, the text of `livelet probe`, with each line in colour: green for a pass, red
/// for a failure. A line about one check has the colour of that check's outcome. Every other line
/// has the colour of `holds`, the outcome of the whole probe. The texts after the checks' names are
/// aligned.
fn painted(holds: bool, output: &[u8]) -> String {
    const GREEN: u8 = 32;
    const RED: u8 = 31;
    let verdict = if holds { GREEN } else { RED };
    let mut out = String::new();
    for line in String::from_utf8_lossy(output).lines() {
        let (colour, check) = match line.split_at_checked(3) {
            Some(("[+]", check)) => (GREEN, check.split_once(' ')),
            Some(("[-]", check)) => (RED, check.split_once(' ')),
            _ => (verdict, None),
        };
        let (name, text) = check.unwrap_or((line, ""));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\x1b[{colour}m{name:16} {text}\x1b[m");
    }
    out
}

/// Runs the check in `probe.query`, and repeats it after each failure until it passes or
/// `probe.wait` is over. Returns `true` if the check passed. Stores the text to print about the
/// last attempt in `output`.
async fn ask(probe: &Probe, output: &mut Vec<u8>) -> bool {
    let memory = Memory::default();
    let began = Instant::now();
    loop {
        let attempt = Instant::now();
        // Without a worker's start the age of a missing file has no limit: the check fails.
        let run = check::run(&probe.query, &memory, None);
        let outcome = check::within(probe.timeout, run).await;
        let (outcome, answer) = match outcome {
            Ok(run) => (run.outcome, run.answer),
            Err(late) => (Err(format!("{late}; see --timeout")), None),
        };
        let holds = outcome.is_ok();
        *output = match outcome {
            Ok(()) => b"ok\n".to_vec(),
            Err(reason) => {
                let is_refused = probe.is_endpoint && reason.ends_with("refused");
                let remedy = if is_refused { OTHER_PORT } else { "" };
                format!("{reason}{remedy}\n").into_bytes()
            }
        };
        if let Some(mut answer) = answer {
            let left = probe.timeout.saturating_sub(attempt.elapsed());
            or(answer.read(MAX_BODY), Timer::after(left)).await;
            if probe.is_endpoint {
                *output = answer.content;
            }
        }
        if holds || began.elapsed() >= probe.wait {
            return holds;
        }
        Timer::after(RETRY).await;
    }
}
