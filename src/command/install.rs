//! `livelet install`: its own executable as a file, for an init container that hands it to an image which can't be
//! rebuilt.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Writes the running executable to `path`, mode 0755: beside it first, then in its place, so that nobody ever sees half
/// of it and one that runs is not written to.
///
/// # Errors
/// What failed, on which file; one line for stderr. `path` is as it was.
pub fn install(path: &Path) -> Result<(), String> {
    let failed =
        |what: &str, cause: io::Error| format!("install: {}: {what}: {cause}", path.display());
    let Some(name) = path.file_name() else {
        return Err(format!("install: {}: names no file", path.display()));
    };
    // Hidden, and of no name that anything else has: as PID 1 it would be `livelet.1`, a page of the manual.
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(beside);
    let outcome = write(&beside)
        .map_err(|cause| failed("cannot write beside it", cause))
        .and_then(|()| {
            fs::rename(&beside, path).map_err(|cause| failed("cannot replace it", cause))
        });
    if outcome.is_err() {
        // It may never have come to be.
        let _ = fs::remove_file(&beside);
    }
    outcome
}

fn write(path: &Path) -> io::Result<()> {
    let own = fs::read("/proc/self/exe")?;
    // One that was killed halfway left its own: as PID 1 of every try it would be in its own way.
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(path)?;
    file.write_all(&own)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    // A full disk may only show here.
    file.sync_all()
}
