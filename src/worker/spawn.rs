//! fork(2) and exec(3): a child, and what it does of its own before it becomes another program.
//!
//! std's `Command` runs signal handlers of livelet's in the child, which would take a signal that is meant for the new
//! program, and is 20 KB of features that nobody asks for here.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::ptr::null;

use rustix::fs::{Access, access};
use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, setpgid, waitpid,
};

use super::environment::Environment;
use crate::signal::{self, Mask};

/// Where PATH is not set: as musl's execvp(3) has it.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";
/// What runs a file that is executable and of no known format, as execvp(3) and shells do.
const SHELL: &CStr = c"/bin/sh";

/// The file that a program's name stands for: in PATH where it has no slash.
///
/// # Errors
/// What execvp(3) would fail with.
pub(crate) fn find(program: &OsStr) -> Result<PathBuf, Errno> {
    let candidates: Vec<PathBuf> = if program.is_empty() {
        Vec::new()
    } else if program.as_bytes().contains(&b'/') {
        vec![PathBuf::from(program)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let directories = std::env::split_paths(&path);
        directories
            .map(|directory| directory.join(program))
            .collect()
    };
    let mut cause = Errno::NOENT;
    for candidate in candidates {
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => cause = error,
        }
    }
    Err(cause)
}

fn executable(path: &Path) -> Result<(), Errno> {
    access(path, Access::EXEC_OK)?;
    if path.is_dir() {
        return Err(Errno::ACCESS);
    }
    Ok(())
}

/// What exec takes: the addresses of strings, and a null pointer.
struct Args {
    addresses: Vec<*const c_char>,
    /// What they point to.
    _strings: Vec<CString>,
}

impl Args {
    fn new(strings: Vec<CString>) -> Args {
        let mut addresses: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        addresses.push(null());
        Args {
            addresses,
            _strings: strings,
        }
    }
}

/// Starts a program as leader of a process group of its own, with default signal dispositions and this signal mask. It
/// dies when livelet does (PR_SET_PDEATHSIG, prctl(2)). `prepare` is called in the child, where all signals are blocked;
/// it may do what signal-safety(7) allows.
///
/// # Errors
/// What looking for it, fork(2), `prepare` or execve(2) failed with; no child is left then.
#[allow(unsafe_code)]
pub(crate) fn spawn(
    command: &[impl AsRef<OsStr>],
    environment: Environment,
    mask: Mask,
    prepare: impl FnOnce() -> Result<(), Errno>,
) -> io::Result<Pid> {
    let program = command.first().map_or(OsStr::new(""), AsRef::as_ref);
    let file = CString::new(find(program)?.into_os_string().into_vec())?;
    let mut args = Vec::new();
    for arg in command {
        args.push(CString::new(arg.as_ref().as_bytes())?);
    }
    let mut to_shell = vec![SHELL.to_owned(), file.clone()];
    to_shell.extend(args.iter().skip(1).cloned());
    let (args, to_shell) = (Args::new(args), Args::new(to_shell));
    // exec closes it; what is written to it is why there was none.
    let (reason, end_of_child) = pipe_with(PipeFlags::CLOEXEC)?;
    let livelet = getpid();
    let before = Mask::all().set();
    // SAFETY: livelet's other threads may hold a lock, so the child only makes system calls until it becomes another
    // program or exits (signal-safety(7)).
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        let error = become_program(
            livelet,
            &file,
            [&args, &to_shell],
            environment,
            mask,
            prepare,
        );
        // Nobody is left to tell where this fails.
        let _ = write(&end_of_child, &error.raw_os_error().to_ne_bytes());
        // SAFETY: it ends the process, without what the parent has registered for its own end.
        unsafe { libc::_exit(127) };
    }
    let failure = io::Error::last_os_error();
    before.set();
    drop(end_of_child);
    let child = Pid::from_raw(forked.max(0)).ok_or(failure)?;
    match failure_of(reason) {
        None => Ok(child),
        Some(error) => {
            while matches!(waitpid(Some(child), WaitOptions::empty()), Err(Errno::INTR)) {}
            Err(error)
        }
    }
}

/// Why exec was not reached; `None` once it was.
fn failure_of(reason: OwnedFd) -> Option<io::Error> {
    let mut number = [0; size_of::<i32>()];
    let read = File::from(reason).read_exact(&mut number);
    read.ok()
        .map(|()| io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
}

/// Only returns with the reason why it could not.
#[allow(unsafe_code)]
fn become_program(
    livelet: Pid,
    file: &CStr,
    [args, to_shell]: [&Args; 2],
    mut environment: Environment,
    mask: Mask,
    prepare: impl FnOnce() -> Result<(), Errno>,
) -> Errno {
    let prepared = (|| {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // livelet may have died before that: the signal would never come.
        if getppid() != Some(livelet) {
            return Err(Errno::SRCH);
        }
        setpgid(None, None)?;
        prepare()
    })();
    if let Err(error) = prepared {
        return error;
    }
    signal::reset_dispositions();
    let variables = environment.enter();
    // Whatever has come meanwhile does now what it does by default.
    mask.set();
    // SAFETY: all of them end in a null pointer, what is before that points to strings that end in zero bytes, and all of
    // it outlives the calls.
    unsafe {
        libc::execve(file.as_ptr(), args.addresses.as_ptr(), variables);
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOEXEC) {
            libc::execve(SHELL.as_ptr(), to_shell.addresses.as_ptr(), variables);
        }
        Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
    }
}
