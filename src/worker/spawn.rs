//! fork(2) and exec(3): a child, and what it does of its own before it becomes another program.
//!
//! std's `Command` runs signal handlers of livelet's in the child, which would take a signal that is meant for the new
//! program, and is 20 KB of features that nobody asks for here.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::ptr::null;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access};
use rustix::io::{Errno, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, set_parent_process_death_signal, setpgid, waitpid,
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

/// A program, ready to be executed.
struct Program<'e> {
    file: CString,
    args: Args,
    /// Arguments of the shell that runs a file of no known format.
    to_shell: Args,
    environment: &'e mut Environment,
}

impl<'e> Program<'e> {
    fn new(
        file: PathBuf,
        command: &[impl AsRef<OsStr>],
        environment: &'e mut Environment,
    ) -> io::Result<Program<'e>> {
        let file = CString::new(file.into_os_string().into_vec())?;
        let mut args = Vec::new();
        for arg in command {
            args.push(CString::new(arg.as_ref().as_bytes())?);
        }
        let mut to_shell = vec![SHELL.to_owned(), file.clone()];
        to_shell.extend(args.iter().skip(1).cloned());
        Ok(Program {
            file,
            args: Args::new(args),
            to_shell: Args::new(to_shell),
            environment,
        })
    }

    /// Executes the program. Returns only if that has failed, with the reason.
    #[allow(unsafe_code, reason = "execve(2)")]
    fn execute(&mut self) -> Errno {
        let variables = self.environment.enter();
        for (file, args) in [(self.file.as_c_str(), &self.args), (SHELL, &self.to_shell)] {
            // SAFETY: each list ends in a null pointer, the pointers before it are to strings that end in a zero byte, and
            // all of it outlives the call.
            unsafe { libc::execve(file.as_ptr(), args.addresses.as_ptr(), variables) };
            if last_error() != Errno::NOEXEC {
                break;
            }
        }
        last_error()
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Pipe by which a child tells why it has not become another program; exec closes it (close-on-exec errno pipe).
#[derive(Debug)]
pub(crate) struct Report(File);

impl Report {
    /// Returns the reason why exec was not reached. Waits for exec or the child's end, unless in non-blocking mode.
    pub(crate) fn failure(mut self) -> Option<io::Error> {
        let mut number = [0; size_of::<i32>()];
        let read = self.0.read_exact(&mut number);
        read.ok()
            .map(|()| io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Both ends of the pipe of a [`Report`].
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// Starts a program that is found by its name, and waits until it is executed. [`start`] says how it runs.
///
/// # Errors
/// Returns the error of the search for the program, fork(2), `prepare` or execve(2); no child is left then.
pub(crate) fn spawn(
    command: &[impl AsRef<OsStr>],
    environment: &mut Environment,
    mask: Mask,
    prepare: &dyn Fn(BorrowedFd<'_>) -> Result<(), Errno>,
) -> io::Result<Pid> {
    let file = find(command.first().map_or(OsStr::new(""), AsRef::as_ref))?;
    let (child, report) = start(file, command, environment, mask, prepare)?;
    match report.failure() {
        None => Ok(child),
        Some(error) => {
            while matches!(waitpid(Some(child), WaitOptions::empty()), Err(Errno::INTR)) {}
            Err(error)
        }
    }
}

/// Starts a program as leader of a process group of its own, with default signal dispositions and this signal mask. It
/// dies when livelet does (PR_SET_PDEATHSIG, prctl(2)). `prepare` is called in the child, where all signals are blocked,
/// with the end of the pipe that it must leave open; it may do what signal-safety(7) allows. The child reports why it could
/// not execute `file`.
///
/// # Errors
/// Returns the error of pipe(2) or fork(2).
#[allow(unsafe_code, reason = "fork(2)")]
pub(crate) fn start(
    file: PathBuf,
    command: &[impl AsRef<OsStr>],
    environment: &mut Environment,
    mask: Mask,
    prepare: &dyn Fn(BorrowedFd<'_>) -> Result<(), Errno>,
) -> io::Result<(Pid, Report)> {
    let mut program = Program::new(file, command, environment)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let ends = Ends { reader, writer };
    let before = Mask::all().set();
    // SAFETY: another thread may hold the allocator's lock, and no other thread goes on in the child. `be_child` only
    // makes system calls (signal-safety(7)) and does not return, so that nothing of the parent is freed in the child.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        be_child(&mut program, &ends, mask, prepare);
    }
    let failure = io::Error::last_os_error();
    before.set();
    let child = Pid::from_raw(forked.max(0)).ok_or(failure)?;
    Ok((child, Report(ends.reader.into())))
}

/// Is the child: becomes the program, or reports why not and ends.
#[allow(unsafe_code, reason = "_exit(2)")]
fn be_child(
    program: &mut Program<'_>,
    report: &Ends,
    mask: Mask,
    prepare: &dyn Fn(BorrowedFd<'_>) -> Result<(), Errno>,
) -> ! {
    let error = match prepare_child(report, prepare) {
        Ok(()) => {
            signal::reset_dispositions();
            // A signal that has come meanwhile acts now, by default.
            mask.set();
            program.execute()
        }
        Err(error) => error,
    };
    // The parent's end of the pipe is the only one to tell.
    let _ = write(&report.writer, &error.raw_os_error().to_ne_bytes());
    // SAFETY: it ends the process without what the parent has registered for its own end.
    unsafe { libc::_exit(127) }
}

fn prepare_child(
    report: &Ends,
    prepare: &dyn Fn(BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if parent_has_died(report) {
        return Err(Errno::SRCH);
    }
    setpgid(None, None)?;
    prepare(report.writer.as_fd())
}

/// Returns `true` if livelet died before the child asked for a signal at that: the signal would never come. The pipe has
/// no reader then. getppid(2) does not tell: it is 0 in a new pid namespace (`unshare -p` without a fork).
#[allow(unsafe_code, reason = "close(2)")]
fn parent_has_died(report: &Ends) -> bool {
    // SAFETY: it is the child's own copy, which is neither used nor dropped in the child.
    unsafe { libc::close(report.reader.as_raw_fd()) };
    let mut writer = [PollFd::new(&report.writer, PollFlags::empty())];
    let polled = poll(&mut writer, Some(&Timespec::default()));
    polled.is_ok()
        && writer
            .iter()
            .any(|fd| fd.revents().contains(PollFlags::ERR))
}
