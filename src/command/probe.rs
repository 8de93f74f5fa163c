//! `livelet probe`: one question, for images that have no shell and no curl. People who ask on a terminal get every
//! check, in colours.

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

/// Most bytes of an answer that are read and printed.
const MAX_BODY: usize = 4096;
/// Remedy if no process listens on the port that is asked.
const OTHER_PORT: &str = "; -l or LIVELET_LISTEN names another port";
/// Time between an attempt that failed and the next one.
const RETRY: Duration = Duration::from_millis(100);

/// A question of `livelet probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub query: Query,
    /// The query is an endpoint of livelet, whose answer is printed.
    pub is_endpoint: bool,
    /// Limit of one attempt: connecting, asking and reading together.
    pub timeout: Duration,
    /// Time for which failing attempts are repeated.
    pub wait: Duration,
}

/// Returns the address by which a livelet that listens there is asked from the same machine.
#[must_use]
pub fn address_of(listen: Listen) -> SocketAddr {
    match listen {
        Listen::Address(address) if !address.ip().is_unspecified() => address,
        _ => (Ipv4Addr::LOCALHOST, listen.port()).into(),
    }
}

/// Returns whether stdout is a terminal that shows colours, unless `NO_COLOR` is set (<https://no-color.org>).
#[must_use]
pub fn has_colours() -> bool {
    let value = |name| env::var_os(name).unwrap_or_default();
    std::io::stdout().is_terminal() && value("NO_COLOR").is_empty() && value("TERM") != "dumb"
}

/// Asks until the query holds or the time for that has passed. Returns whether it holds, and what to print.
#[must_use]
pub fn probe(mut probe: Probe, in_colours: bool) -> (bool, Vec<u8>) {
    if let Query::Http(url) = &mut probe.query {
        url.target.push_str(if probe.is_endpoint && in_colours {
            "?verbose"
        } else {
            ""
        });
    }
    let mut said = Vec::new();
    let asked = async {
        let late = async {
            Timer::after(probe.wait.max(probe.timeout)).await;
            false
        };
        or(ask(&probe, &mut said), late).await
    };
    let outcome = runtime::block_on(&LocalExecutor::new(), asked);
    let holds = outcome.unwrap_or_else(|cause| {
        said = format!("epoll: {}\n", log::Cause(&cause)).into_bytes();
        false
    });
    if in_colours {
        return (holds, painted(holds, &said).into_bytes());
    }
    (holds, said)
}

/// Each line in the colour of its verdict; what is said of the checks begins in one column.
fn painted(holds: bool, said: &[u8]) -> String {
    const GREEN: u8 = 32;
    const RED: u8 = 31;
    let verdict = if holds { GREEN } else { RED };
    let mut out = String::new();
    for line in String::from_utf8_lossy(said).lines() {
        let (colour, check) = match line.split_at_checked(3) {
            Some(("[+]", check)) => (GREEN, check.split_once(' ')),
            Some(("[-]", check)) => (RED, check.split_once(' ')),
            _ => (verdict, None),
        };
        let (name, rest) = check.unwrap_or((line, ""));
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\x1b[{colour}m{name:16} {rest}\x1b[m");
    }
    out
}

/// Makes attempts. `said` is what the last one has to say.
async fn ask(probe: &Probe, said: &mut Vec<u8>) -> bool {
    let memory = Memory::default();
    let began = Instant::now();
    loop {
        let attempt = Instant::now();
        // There is no worker's start: a file that is not there is older than any limit.
        let run = check::run(&probe.query, &memory, None);
        let outcome = check::within(probe.timeout, run).await;
        let (outcome, answer) = match outcome {
            Ok(run) => (run.outcome, run.answer),
            Err(late) => (Err(format!("{late}; see --timeout")), None),
        };
        let holds = outcome.is_ok();
        *said = match outcome {
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
                *said = answer.content;
            }
        }
        if holds || began.elapsed() >= probe.wait {
            return holds;
        }
        Timer::after(RETRY).await;
    }
}
