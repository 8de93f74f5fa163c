//! Files: there, and young enough.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Human, said};

pub(super) fn exists(path: &Path) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(cause) => Err(format!("{}: {}", path.display(), said(&cause))),
    }
}

/// A file that is not there yet, or is older than the worker, is as old as that.
pub(super) fn is_fresh(path: &Path, limit: Duration, start: SystemTime) -> Result<(), String> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
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
