//! Checks: conditions that a user sets for an endpoint.
//!
//! [`spec`] parses the checks as users write them. The [`Observer`] runs those of all endpoints,
//! `livelet probe` runs one [`Query`] by [`run`]. Each kind has a file.

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
pub(crate) use runner::Observer;

/// State that a query keeps for its next run.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    paths: Arc<path::PathCalls>,
    beat: Cell<Option<path::Beat>>,
    /// Age of the heartbeat when the last query ended. `None` if the file was not there.
    beat_age: Cell<Option<Duration>>,
}

/// Result of a query.
#[derive(Debug)]
pub(crate) struct Run {
    /// The reason if the check fails.
    pub(crate) outcome: Result<(), String>,
    /// The answer by HTTP, whose content has yet to be read.
    pub(crate) answer: Option<Answer>,
}

/// Makes a query. The query may wait without end for its peer: the caller bounds it with
/// [`within`]. The age of a missing file counts from `start`.
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

/// Waits for an outcome until a timeout.
///
/// # Errors
/// Returns an error if the timeout comes first.
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

/// Returns the text of an error without its number.
fn text_of(cause: &std::io::Error) -> String {
    crate::log::Cause(cause).to_string()
}
