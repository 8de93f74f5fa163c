//! fork(2) and exec(3): a child, and what it does of its own before it becomes another program.
//!
//! std's `Command` runs signal handlers of livelet's in the child, which would take a signal that is meant for the new
//! program, and is 20 KB of features that nobody asks for here.

use std::ffi::{CString, OsStr, c_char};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::ptr::null;

use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, setpgid, waitpid,
};

use crate::environment::Environment;
use crate::signals::{self, Mask};

/// Starts a program, found in PATH where its name has no slash, as leader of a process group of its own, with default
/// signal dispositions and this signal mask. It dies when livelet does (PR_SET_PDEATHSIG, prctl(2)). `prepare` is called
/// in the child, where all signals are blocked; it may do what signal-safety(7) allows.
///
/// # Errors
/// What fork(2), `prepare` or execvpe(3) failed with; no child is left then.
#[allow(unsafe_code)]
pub(crate) fn spawn(
    command: &[impl AsRef<OsStr>],
    environment: Environment,
    mask: Mask,
    prepare: impl FnOnce() -> Result<(), Errno>,
) -> io::Result<Pid> {
    let mut args = Vec::new();
    for arg in command {
        args.push(CString::new(arg.as_ref().as_bytes())?);
    }
    let mut addresses: Vec<*const c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    addresses.push(null());
    // exec closes it; what is written to it is why there was none.
    let (reason, end_of_child) = pipe_with(PipeFlags::CLOEXEC)?;
    let livelet = getpid();
    let before = Mask::all().set();
    // SAFETY: livelet's other threads may hold a lock, so the child only makes system calls until it becomes another
    // program or exits (signal-safety(7)).
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        let error = become_program(livelet, &addresses, environment, mask, prepare);
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
    args: &[*const c_char],
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
    signals::reset_dispositions();
    let variables = environment.enter();
    // Whatever has come meanwhile does now what it does by default.
    mask.set();
    let Some(program) = args.first().filter(|program| !program.is_null()) else {
        return Errno::NOENT;
    };
    // SAFETY: both end in a null pointer, what is before that points to strings that end in zero bytes, and all of it
    // outlives the call.
    unsafe { libc::execvpe(*program, args.as_ptr(), variables) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
