//! Checks of paths: that a file exists or was modified lately, and that a unix socket accepts.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{Memory, text_of};
use crate::duration::Human;
use crate::runtime::thread;

/// Size, in bytes, of the stack of a thread that calls stat(2) or connect(2). It is more than these
/// calls need.
const STACK: usize = 32 * 1024;
/// Maximum time that connect(2) waits while the backlog of a unix socket is full. It is the longest
/// `--check-timeout` that a user can set.
const BACKLOG_WAIT: Duration = Duration::from_secs(60);

/// Runner of the system calls stat(2) and connect(2) for one path. Such a call may never return if
/// the path is on a mount that hangs, and livelet does all other work on a single thread. So each
/// call runs on a new thread, which ends with the call. While one call runs, no second call is
/// started.
///
/// The threads are not those of `smol::unblock`. If the system refuses a thread, the crate
/// `blocking` 1.7 tries again for ever, which would stop livelet's main thread. Here the check
/// fails instead, with the reason that no thread can be started. `tests/system/checks` shows that
/// such a check fails.
#[derive(Debug, Default)]
pub(crate) struct PathCalls(Mutex<CallState>);

/// Function that makes a system call on a path, and may hang. Returns the file's modification time
/// after stat(2), or the time of the connection after connect(2).
type Call = fn(&Path) -> io::Result<SystemTime>;

/// Reason why a system call on a path has no result.
#[derive(Debug)]
enum CallError {
    /// No thread could be started for the call.
    Thread(io::Error),
    /// The call failed.
    Call(io::Error),
}

impl CallError {
    /// Returns the text with which a check fails that looked at `path`.
    fn text(&self, path: &Path) -> String {
        match self {
            CallError::Thread(cause) => {
                format!("cannot start a thread for the check: {}", text_of(cause))
            }
            CallError::Call(cause) => format!("{}: {}", path.display(), text_of(cause)),
        }
    }
}

#[derive(Debug, Default)]
struct CallState {
    is_running: bool,
    found: Option<io::Result<SystemTime>>,
    waiting: Option<Waker>,
}

impl PathCalls {
    /// Runs `call_for_path`, a function that makes a system call, with `path` on a new thread.
    /// Returns the result of the system call. If an earlier call still runs, waits for the earlier
    /// call instead and returns its result.
    ///
    /// # Errors
    /// Returns an error if no thread can be started, or if the system call fails.
    async fn call(
        self: &Arc<PathCalls>,
        path: &Path,
        call_for_path: Call,
    ) -> Result<SystemTime, CallError> {
        // A result that an earlier check did not wait for is too old.
        self.with(|state| state.found = None);
        poll_fn(|cx| {
            let starts = self.with(|state| {
                if let Some(found) = state.found.take() {
                    return Err(found);
                }
                state.waiting = Some(cx.waker().clone());
                Ok(!std::mem::replace(&mut state.is_running, true))
            });
            match starts {
                Err(found) => return Poll::Ready(found.map_err(CallError::Call)),
                Ok(false) => return Poll::Pending,
                Ok(true) => {}
            }
            let (paths, at) = (Arc::clone(self), path.to_path_buf());
            match thread::start(STACK, Box::new(move || paths.finish(call_for_path(&at)))) {
                Ok(()) => Poll::Pending,
                Err(cause) => {
                    self.with(|state| state.is_running = false);
                    Poll::Ready(Err(CallError::Thread(cause)))
                }
            }
        })
        .await
    }

    fn finish(&self, found: io::Result<SystemTime>) {
        let waiting = self.with(|state| {
            state.is_running = false;
            state.found = Some(found);
            state.waiting.take()
        });
        waiting.into_iter().for_each(Waker::wake);
    }

    fn with<T>(&self, change: impl FnOnce(&mut CallState) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

/// Connects to the unix socket at `path`, and returns the time at which the connection was made.
/// While the socket's backlog is full, waits for at most [`BACKLOG_WAIT`]: SO_SNDTIMEO limits
/// connect(2) as well (socket(7)).
fn connect(path: &Path) -> io::Result<SystemTime> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(BACKLOG_WAIT))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(SystemTime::now())
}

/// Checks that a file exists at `path`. Returns the reason as an error if stat(2) fails, or if no
/// thread can be started. `paths` makes the system call on a thread.
pub(super) async fn exists(paths: &Arc<PathCalls>, path: &Path) -> Result<(), String> {
    outcome(path, paths.call(path, modified).await)
}

/// Checks that a unix socket at `path` accepts a connection. Returns the reason as an error if
/// connect(2) fails, or if no thread can be started. `paths` makes the system call on a thread.
pub(super) async fn accepts(paths: &Arc<PathCalls>, path: &Path) -> Result<(), String> {
    outcome(path, paths.call(path, connect).await)
}

fn outcome(path: &Path, found: Result<SystemTime, CallError>) -> Result<(), String> {
    found.map(drop).map_err(|error| error.text(path))
}

/// Last heartbeat of a `heartbeat:` check: the last modification of its file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beat {
    modified: SystemTime,
    /// Time at which livelet first saw that the heartbeat's file has the modification time
    /// `modified`.
    seen: Instant,
}

impl Beat {
    /// Returns the last heartbeat of a worker whose heartbeat file has the modification time
    /// `modified`. This is `before`, the heartbeat that the previous run found, if the modification
    /// time is the same. Otherwise it is a new heartbeat, first seen at `now`.
    fn after(before: Option<Beat>, modified: SystemTime, now: Instant) -> Beat {
        match before {
            Some(beat) if beat.modified == modified => beat,
            _ => Beat {
                modified,
                seen: now,
            },
        }
    }

    /// Returns the age of the heartbeat: the time from the file's modification to `clock`, the
    /// present time of the system clock, but at most `since_start`, the time since the worker's
    /// start.
    ///
    /// If the time from `seen` to `now` is longer than that, returns this longer time, which does
    /// not depend on the system clock. So livelet finds a worker that hangs even if the clock was
    /// set back.
    fn age(self, clock: SystemTime, now: Instant, since_start: Duration) -> Duration {
        let age = clock.duration_since(self.modified).unwrap_or_default();
        age.min(since_start)
            .max(now.saturating_duration_since(self.seen))
    }
}

/// Checks that the heartbeat file at `path` was last modified at most `limit` ago. A file that is
/// missing or older than the worker's start counts as modified at `start`, the time of that start.
/// If `start` is `None`, a missing file fails at once. `memory` keeps the last heartbeat between
/// the runs. Returns the reason as an error if the last modification is longer ago than `limit`, or
/// if no thread for stat(2) can be started.
pub(super) async fn is_fresh(
    memory: &Memory,
    path: &Path,
    limit: Duration,
    start: Option<Instant>,
) -> Result<(), String> {
    let found = memory.paths.call(path, modified).await;
    let now = Instant::now();
    let since_start = start.map_or(Duration::MAX, |start| now.saturating_duration_since(start));
    let age = match found {
        Ok(modified) => {
            let beat = Beat::after(memory.beat.get(), modified, now);
            memory.beat.set(Some(beat));
            beat.age(SystemTime::now(), now, since_start)
        }
        Err(CallError::Call(_)) => since_start,
        Err(error @ CallError::Thread(_)) => return Err(error.text(path)),
    };
    memory.beat_age.set(found.is_ok().then_some(age));
    if age <= limit {
        return Ok(());
    }
    let limit = Human(limit);
    Err(match found {
        Ok(_) => format!("{} is {} old, limit {limit}", path.display(), Human(age)),
        Err(error) => format!("{}, limit {limit}", error.text(path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_hides_no_hang() {
        let (clock, now) = (SystemTime::now(), Instant::now());
        let secs = Duration::from_secs;
        let running = secs(1000);
        let beat = Beat::after(None, clock, now);
        assert_eq!(beat.age(clock + secs(9), now + secs(9), running), secs(9));
        // The clock is set back by an hour, and later it shows the time of the beat again.
        let back = clock - secs(3600);
        let same = Beat::after(Some(beat), clock, now + secs(10));
        assert_eq!(same.age(back, now + secs(10), running), secs(10));
        assert_eq!(same.age(clock, now + secs(3610), secs(9999)), secs(3610));
        let next = Beat::after(Some(same), back + secs(11), now + secs(11));
        assert_eq!(next.age(back + secs(11), now + secs(11), running), secs(0));
    }

    #[test]
    fn a_beat_in_the_future_counts_from_its_first_observation() {
        let (clock, now) = (SystemTime::now(), Instant::now());
        let ahead = clock + Duration::from_secs(3600);
        let beat = Beat::after(None, ahead, now);
        for secs in [0, 5, 60] {
            let later = Duration::from_secs(secs);
            let beat = Beat::after(Some(beat), ahead, now + later);
            assert_eq!(beat.age(clock + later, now + later, Duration::MAX), later);
        }
    }

    #[test]
    fn a_beat_from_before_the_start_counts_from_the_start() {
        let (clock, now) = (SystemTime::now(), Instant::now());
        let beat = Beat::after(None, clock - Duration::from_secs(3600), now);
        let started = Duration::from_secs(2);
        assert_eq!(beat.age(clock, now, started), started);
        assert_eq!(
            beat.age(clock, now, Duration::MAX),
            Duration::from_secs(3600)
        );
    }
}
