//! Checks: conditions that a user sets for an endpoint.
//!
//! [`spec`] parses the checks as users write them. The [`Observer`] runs the checks of all
//! endpoints. `livelet probe` runs a single [`Query`] with [`run`]. Each group of check kinds has a
//! file of its own.

mod exec;
mod http;
mod path;
mod runner;
mod socket;
mod spec;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::future::or;

use crate::duration::Human;
use crate::runtime::Timer;

pub(crate) use spec::UNKNOWN_KIND;
pub use spec::{Check, Kind, Query, Url, parse};

pub(crate) use http::Answer;
pub(crate) use runner::{Observed, Observer};

/// State that one check keeps between its runs: a system call that has not returned, and the last
/// heartbeat. Only checks of files and of unix sockets use this state.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    paths: Arc<path::PathCalls>,
    beat: Cell<Option<path::Beat>>,
    /// Age of the last heartbeat that the last run of a `heartbeat:` check found. `None` for other
    /// kinds of checks, and if the heartbeat's file was missing.
    beat_age: Cell<Option<Duration>>,
}

/// Result of one run of a check.
#[derive(Debug)]
pub(crate) struct Run {
    /// Outcome of the check: `Err` with the reason if the check failed.
    pub(crate) outcome: Result<(), String>,
    /// Response to the request of an `http:` check. The caller still has to read the content of the
    /// response. `None` for other kinds of checks, and if no response arrived.
    pub(crate) answer: Option<Answer>,
}

/// Runs the check that `query` describes once, and returns its result. The check may never end, so
/// the caller limits its time with [`within`]. `memory` is the state that this check keeps between
/// its runs. `start` is the time at which the worker started: the age of a missing heartbeat file
/// counts from `start`. If `start` is `None`, the check of a missing heartbeat file fails at once.
pub(crate) async fn run(query: &Query, memory: &Memory, start: Option<Instant>) -> Run {
    let paths = &memory.paths;
    let mut answer = None;
    let outcome = match query {
        Query::File(at) => path::exists(paths, at).await,
        Query::Heartbeat(at, limit) => path::is_fresh(memory, at, *limit, start).await,
        Query::Tcp(addresses) => socket::accepts(addresses).await,
        Query::Unix(at) => path::accepts(paths, at).await,
        Query::Http(url) => match http::ask(url).await {
            Ok(found) => {
                let verdict = found.verdict(url);
                answer = Some(found);
                verdict
            }
            Err(reason) => Err(reason),
        },
    };
    Run { outcome, answer }
}

/// Waits until the future `outcome` completes, at most for `timeout`, and returns its output.
///
/// # Errors
/// Returns an error if `timeout` passes first.
pub(crate) async fn within<T>(
    timeout: Duration,
    outcome: impl Future<Output = T>,
) -> Result<T, String> {
    let late = async {
        Timer::after(timeout).await;
        Err(format!("no outcome within {}", Human(timeout)))
    };
    or(async { Ok(outcome.await) }, late).await
}

/// Returns the text of the system error `cause`, without the `(os error N)` that std appends.
fn text_of(cause: &std::io::Error) -> String {
    crate::log::Cause(cause).to_string()
}
