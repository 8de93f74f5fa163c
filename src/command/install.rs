//! `livelet install`: writes livelet's own executable to a path. An init container uses it to give
//! livelet to a container whose image can't be rebuilt.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::log;

/// Path of the executable that this process runs (proc(5)).
const OWN: &str = "/proc/self/exe";
/// Name of the installed file if the user gives the path of a directory.
const NAME: &str = "livelet";
/// Maximum number of symlinks that are followed from the destination. The kernel has the same limit
/// (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// Error of a failed `livelet install`: the path of the destination, and the reason. The file at
/// the destination is unchanged.
#[derive(Debug)]
pub struct InstallError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    NotAFile,
    DanglingSymlink,
    NoExecutable(io::Error),
    NotWritten(io::Error),
    NotReplaced(io::Error),
}

impl fmt::Display for InstallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = log::Cause;
        write!(f, "install: {}: ", self.path.display())?;
        match &self.reason {
            Reason::NotAFile => f.write_str("names neither a directory nor a file"),
            Reason::DanglingSymlink => f.write_str("is a symlink to nothing"),
            Reason::NoExecutable(error) => {
                write!(f, "cannot read livelet: {OWN}: {}", cause(error))?;
                if error.kind() == io::ErrorKind::NotFound {
                    f.write_str("; is /proc mounted?")?;
                }
                Ok(())
            }
            Reason::NotWritten(error) => {
                write!(f, "cannot write into its directory: {}", cause(error))
            }
            Reason::NotReplaced(error) => write!(f, "cannot replace the file: {}", cause(error)),
        }
    }
}

impl Error for InstallError {}

/// Writes the executable of this process to the file `path`, with mode 0755. If `path` is a
/// directory, the destination is the file `livelet` in `path`. If the destination is a symlink,
/// writes to the symlink's target, as cp(1) does.
///
/// The new file is written under another name in the destination's directory, and then renamed to
/// the destination. So no process sees a part of the file, and an executable that runs from the
/// destination is not changed.
///
/// # Errors
/// Returns an error if the executable can't be read, if `path` can't name a file, or if the new
/// file can't be written or renamed.
pub fn install(path: &Path) -> Result<(), InstallError> {
    let failed = |path: &Path, reason| InstallError {
        path: path.to_path_buf(),
        reason,
    };
    let path = &destination(path).map_err(|reason| failed(path, reason))?;
    let own = fs::read(OWN).map_err(|error| failed(path, Reason::NoExecutable(error)))?;
    let beside = beside(path).ok_or_else(|| failed(path, Reason::NotAFile))?;
    let outcome = write(&beside, &own)
        .map_err(Reason::NotWritten)
        .and_then(|()| fs::rename(&beside, path).map_err(Reason::NotReplaced));
    outcome.map_err(|reason| {
        // The file may not exist.
        let _ = fs::remove_file(&beside);
        failed(path, reason)
    })
}

/// Returns the path of the file to install: `path`, or the file `livelet` in `path` if `path` is a
/// directory. If that file is a symlink, returns the target of the symlink.
///
/// # Errors
/// Returns an error if `path` ends in a slash without being a directory, or if a symlink points to
/// nothing.
fn destination(path: &Path) -> Result<PathBuf, Reason> {
    let path = if path.is_dir() {
        path.join(NAME)
    } else if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(Reason::NotAFile);
    } else {
        path.to_path_buf()
    };
    let mut file = path.clone();
    for _ in 0..MAX_SYMLINKS {
        let Ok(target) = fs::read_link(&file) else {
            break;
        };
        // An absolute target replaces the whole path.
        file.set_file_name(target);
    }
    if path.is_symlink() && !file.exists() {
        return Err(Reason::DanglingSymlink);
    }
    // If the file does not exist yet, the write reports why it can't be had.
    Ok(file)
}

/// Returns the path of a temporary file in the directory of `path`. The file's name is a dot, the
/// file name of `path`, a dot and the process id. Without the first dot, a name such as `livelet.1`
/// would look like a manual page. Returns `None` if `path` has no file name.
fn beside(path: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(path.file_name()?);
    name.push(format!(".{}", std::process::id()));
    Some(path.with_file_name(name))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A try that was killed has left its file, and as PID 1 each try has the same name for it.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    // A full disk may only show here.
    file.sync_all()
}
