//! `livelet probe`: one question, for images that have no shell and no curl.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use smol::future::or;

use crate::check::{self, Human, Kind, Url};
use crate::listen::Listen;
use crate::reactor::{self, Timer};

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

/// Asks once; whether it holds, and what to print.
#[must_use]
pub fn probe(probe: &Probe) -> (bool, Vec<u8>) {
    let late = async {
        Timer::after(probe.timeout).await;
        let said = format!(
            "no outcome within {}; see --timeout\n",
            Human(probe.timeout)
        );
        (false, said.into_bytes())
    };
    reactor::block_on(or(ask(&probe.target), late)).unwrap_or_else(|cause| {
        let said = format!("eventfd: {cause}\n");
        (false, said.into_bytes())
    })
}

async fn ask(target: &Target) -> (bool, Vec<u8>) {
    let outcome = match target {
        Target::Endpoint(address, path) => {
            match check::fetch(&Url::at(*address, path), MAX_BODY).await {
                Ok(answer) => return ((200..400).contains(&answer.status), answer.body),
                Err(reason) => Err(reason),
            }
        }
        // A heartbeat has no start to count from: what is not there is not young.
        Target::Check(kind) => check::run(kind, SystemTime::UNIX_EPOCH).await,
    };
    match outcome {
        Ok(()) => (true, b"ok\n".to_vec()),
        Err(reason) => (false, format!("{reason}\n").into_bytes()),
    }
}
