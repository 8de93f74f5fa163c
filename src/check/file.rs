//! Files: there, and young enough.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, SystemTime};

use super::said;
use crate::duration::Human;
use crate::signal::Mask;

/// More than stat(2) takes.
const STACK: usize = 32 * 1024;

/// When a file was modified, looked at on a thread of its own: a mount that hangs holds whoever looks at it, and livelet
/// has one thread for all else. The thread ends with its look; as long as one is held, no other is started.
#[derive(Debug, Default)]
pub(crate) struct Look(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_out: bool,
    modified: Option<io::Result<SystemTime>>,
    waiting: Option<Waker>,
}

impl Look {
    pub(super) async fn modified(self: &Arc<Look>, path: &Path) -> io::Result<SystemTime> {
        // What was waited for in vain says nothing of now.
        self.with(|state| state.modified = None);
        poll_fn(|cx| {
            let starts = self.with(|state| {
                if let Some(modified) = state.modified.take() {
                    return Err(modified);
                }
                state.waiting = Some(cx.waker().clone());
                Ok(!std::mem::replace(&mut state.is_out, true))
            });
            match starts {
                Err(modified) => return Poll::Ready(modified),
                Ok(false) => return Poll::Pending,
                Ok(true) => {}
            }
            let (look, at) = (Arc::clone(self), path.to_path_buf());
            let thread = thread::Builder::new().stack_size(STACK);
            // It runs no handlers; and musl unblocks signals of its own where the first thread is begun.
            let mask = Mask::all().set();
            let started = thread.spawn(move || look.done(modified(&at)));
            mask.set();
            match started {
                Ok(_) => Poll::Pending,
                // As many as there may be: better to be held than to report a file that is fine.
                Err(_) => {
                    self.with(|state| state.is_out = false);
                    Poll::Ready(modified(path))
                }
            }
        })
        .await
    }

    fn done(&self, modified: io::Result<SystemTime>) {
        let waiting = self.with(|state| {
            state.is_out = false;
            state.modified = Some(modified);
            state.waiting.take()
        });
        waiting.into_iter().for_each(Waker::wake);
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    fs::metadata(path)?.modified()
}

pub(super) fn exists(path: &Path, modified: io::Result<SystemTime>) -> Result<(), String> {
    match modified {
        Ok(_) => Ok(()),
        Err(cause) => Err(format!("{}: {}", path.display(), said(&cause))),
    }
}

/// A file that is not there yet, or is older than the worker, is as old as that.
pub(super) fn is_fresh(
    path: &Path,
    modified: io::Result<SystemTime>,
    limit: Duration,
    start: SystemTime,
) -> Result<(), String> {
    let seen = match &modified {
        Ok(modified) => start.max(*modified),
        Err(_) => start,
    };
    // What lies in the future, after the clock was set back, is fresh.
    let age = seen.elapsed().unwrap_or_default();
    if age <= limit {
        return Ok(());
    }
    let path = path.display();
    match modified {
        Ok(_) => Err(format!(
            "{path} is {} old, limit {}",
            Human(age),
            Human(limit)
        )),
        Err(cause) => Err(format!("{path}: {}, limit {}", said(&cause), Human(limit))),
    }
}
