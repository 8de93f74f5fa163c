//! The private directory with the notify socket, to which the worker sends sd_notify messages. The
//! socket has a path because many libraries do not support abstract names of sockets.
//!
//! A worker that changes its uid can still reach the socket, but an unrelated process can't find
//! it. The directory can be searched and not listed, and the name of the socket is random.
//! /proc/net/unix shows the name under which a socket was bound, so the file is renamed after
//! bind(2).

use std::env;
use std::fs::{self, DirBuilder, DirEntry, Permissions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use rustix::net::{SocketAddrUnix, bind};
use rustix::process::geteuid;

/// Prefix of the name of each notify directory: the private directory with the socket for the
/// worker's sd_notify(3) messages.
const PREFIX: &str = "livelet-notify-";
/// Maximum number of tries to make the private directory of the notify socket in one parent
/// directory. A program that cleans up /tmp can remove a new directory before its socket is bound.
const TRIES: usize = 3;

/// A directory with the socket for the worker's sd_notify(3) messages. The directory and the socket
/// are removed when the value is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    directory: PathBuf,
    /// Path of the socket, which the worker gets in NOTIFY_SOCKET.
    pub(super) socket: PathBuf,
}

impl Directory {
    /// Binds `socket` to a path in a new directory. Tries one parent directory after the other, and
    /// returns `None` if all of them fail.
    pub(super) fn bind(socket: &OwnedFd) -> Option<Directory> {
        places().iter().find_map(|place| {
            remove_leftovers(place);
            (0..TRIES).find_map(|_| Directory::bind_below(place, socket).ok())
        })
    }

    fn bind_below(place: &Path, socket: &OwnedFd) -> io::Result<Directory> {
        let directory = place.join(format!("{PREFIX}{:016x}", random()));
        let bound = directory.join("bound");
        let made = Directory {
            socket: directory.join(format!("{:016x}", random())),
            directory,
        };
        // Returns an error if the path is too long for clients: the socket is bound to a shorter
        // one.
        SocketAddr::from_pathname(&made.socket)?;
        DirBuilder::new().mode(0o700).create(&made.directory)?;
        // The umask may have taken bits away.
        fs::set_permissions(&made.directory, Permissions::from_mode(0o700))?;
        bind(socket, &SocketAddrUnix::new(&bound)?)?;
        fs::set_permissions(&bound, Permissions::from_mode(0o777))?;
        fs::rename(&bound, &made.socket)?;
        // Only after the rename: until then no process of another user can connect by the old name.
        fs::set_permissions(&made.directory, Permissions::from_mode(0o711))?;
        Ok(made)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.directory, |_| true);
    }
}

/// Returns the directories in which livelet tries to make the directory of the worker's notify
/// socket: `$XDG_RUNTIME_DIR`, `/run` and `/tmp`. Leaves out those that the worker can't reach.
fn places() -> Vec<PathBuf> {
    let own = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let all = own.into_iter().chain(["/run".into(), "/tmp".into()]);
    all.filter(|place| place.is_absolute() && is_reachable(place))
        .collect()
}

/// Returns `true` if the worker can reach files in the directory `place`. If livelet runs as root,
/// other users must also be able to reach these files, because the worker may drop root's rights.
fn is_reachable(place: &Path) -> bool {
    let is_searchable = |mode: u32| mode & 0o001 != 0;
    fs::metadata(place)
        .is_ok_and(|found| found.is_dir() && (!geteuid().is_root() || is_searchable(found.mode())))
}

/// Returns a random number that other processes can't guess. The number depends on a hasher's keys,
/// which come from getrandom(2).
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Removes the directories of notify sockets that crashed livelets of the same user have left
/// behind in `place`.
fn remove_leftovers(place: &Path) {
    for entry in entries(place) {
        let name = entry.file_name();
        let is_ours = || {
            let found = entry.metadata();
            found.is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
        };
        if name.to_string_lossy().starts_with(PREFIX) && is_ours() {
            remove(&entry.path(), is_dead);
        }
    }
}

/// Returns the entries of a directory, or an empty list if the directory can't be read.
fn entries(directory: &Path) -> Vec<DirEntry> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.flatten().collect()
}

/// Returns the paths of the sockets in a directory.
fn sockets(directory: &Path) -> Vec<PathBuf> {
    let mut found = entries(directory);
    found.retain(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()));
    found.iter().map(DirEntry::path).collect()
}

/// Returns `true` if no process has the socket at the path `socket` open any more. The test is that
/// connect(2) is refused, which also works for processes in other pid namespaces.
fn is_dead(socket: &Path) -> bool {
    let connected = UnixDatagram::unbound().and_then(|client| client.connect(socket));
    connected.is_err_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

/// Removes the sockets in `directory` for which `is_unused` returns `true`. Then removes the
/// directory, unless it still has files.
fn remove(directory: &Path, is_unused: fn(&Path) -> bool) {
    for socket in sockets(directory) {
        if is_unused(&socket) {
            // A socket that stays keeps its directory, which the next start tries to remove.
            let _ = fs::remove_file(socket);
        }
    }
    let _ = fs::remove_dir(directory);
}
