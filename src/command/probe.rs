//! `livelet probe`: one question, for images that have no shell and no curl. People who ask on a terminal get every
//! check, in colours.

use std::env;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use smol::future::or;

use smol::LocalExecutor;

use crate::check::{self, Kind, Url};
use crate::duration::Human;
use crate::listen::Listen;
use crate::log;
use crate::runtime::{self, Timer};

/// The most that is printed of an answer, in bytes.
const MAX_BODY: usize = 4096;

/// What to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An endpoint of the livelet at this address, by its path.
    Endpoint(SocketAddr, &'static str),
    /// A check.
    Check(Kind),
}

/// What to ask, and how long all of it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What to ask.
    pub target: Target,
    /// For connecting, asking and reading together.
    pub timeout: Duration,
}

/// Where a livelet that listens there is asked from the same machine.
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

/// Asks once; whether it holds, and what to print.
#[must_use]
pub fn probe(probe: &Probe, in_colours: bool) -> (bool, Vec<u8>) {
    let late = async {
        Timer::after(probe.timeout).await;
        let said = format!(
            "no outcome within {}; see --timeout\n",
            Human(probe.timeout)
        );
        (false, said.into_bytes())
    };
    let asked = or(ask(&probe.target, in_colours), late);
    let (holds, said) = runtime::block_on(&LocalExecutor::new(), asked).unwrap_or_else(|cause| {
        let said = format!("epoll: {}\n", log::Cause(&cause));
        (false, said.into_bytes())
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

async fn ask(target: &Target, verbose: bool) -> (bool, Vec<u8>) {
    let outcome = match target {
        Target::Endpoint(address, path) => {
            let query = if verbose { "?verbose" } else { "" };
            let url = Url::at(*address, &[path, query].concat());
            match check::fetch(&url, MAX_BODY).await {
                Ok(answer) => return ((200..400).contains(&answer.status), answer.body),
                Err(reason) => Err(reason),
            }
        }
        // A heartbeat has no start to count from: what is not there is not young.
        Target::Check(kind) => check::run(kind, SystemTime::UNIX_EPOCH, &Arc::default()).await,
    };
    match outcome {
        Ok(()) => (true, b"ok\n".to_vec()),
        Err(reason) => (false, format!("{reason}\n").into_bytes()),
    }
}
