//! fork(2) and exec(3): a child, and what it does of its own before it becomes another program.
//!
//! std's `Command` runs signal handlers of livelet's in the child, which would take a signal that is meant for the new
//! program, and is 20 KB of features that nobody asks for here.

use std::ffi::{CStr, CString, OsString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::ptr::null;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access, stat};
use rustix::io::{Errno, read, write};
use rustix::process::{Pid, Signal, set_parent_process_death_signal, setpgid};

use super::environment::Environment;
use crate::signal::{self, Mask};

/// Where PATH is not set: as musl's execvp(3) has it.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";
/// What runs a file that is executable and of no known format, as execvp(3) and shells do.
const SHELL: &CStr = c"/bin/sh";

/// Returns the files that a program's name may stand for: in PATH if the name has no slash.
fn candidates(program: &[u8]) -> io::Result<Vec<CString>> {
    let mut candidates = Vec::new();
    let path = match program {
        [] => return Ok(candidates),
        _ if program.contains(&b'/') => OsString::new(),
        _ => std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
    };
    for directory in path.as_bytes().split(|&byte| byte == b':') {
        // An empty one is the directory that livelet was started in.
        let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        candidates.push(CString::new([directory, slash, program].concat())?);
    }
    Ok(candidates)
}

fn executable(path: &CStr) -> Result<(), Errno> {
    access(path, Access::EXEC_OK)?;
    if stat(path)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::ACCESS);
    }
    Ok(())
}

/// A program that is found and executed in a child, where nothing is allocated.
struct Program<'e> {
    candidates: Vec<CString>,
    /// The addresses of the shell's name and of each word of the command, and a null pointer. From the second one on they
    /// are the arguments of the program; with the program's file in its place, all of them are those of the shell.
    addresses: Vec<*const c_char>,
    /// What the addresses point to.
    _words: Vec<CString>,
    environment: &'e mut Environment,
}

impl<'e> Program<'e> {
    fn new(
        command: &mut dyn Iterator<Item = &[u8]>,
        environment: &'e mut Environment,
    ) -> io::Result<Program<'e>> {
        let mut words = Vec::new();
        let mut addresses = vec![SHELL.as_ptr()];
        for word in command {
            let word = CString::new(word.to_vec())?;
            addresses.push(word.as_ptr());
            words.push(word);
        }
        addresses.push(null());
        let program = words.first().map_or(&b""[..], |program| program.to_bytes());
        Ok(Program {
            candidates: candidates(program)?,
            addresses,
            _words: words,
            environment,
        })
    }

    /// Executes the file that was found. Returns only if that has failed, with the reason.
    #[allow(unsafe_code, reason = "execve(2)")]
    fn execute(&mut self, Found(file): Found) -> Errno {
        let variables = self.environment.enter();
        let file = self.candidates.get(file);
        let (Some(file), [_, args @ ..]) = (file, &mut *self.addresses) else {
            return Errno::NOENT;
        };
        // SAFETY: each list ends in a null pointer, the pointers before it are to strings that end in a zero byte, and all
        // of it outlives the call.
        unsafe { libc::execve(file.as_ptr(), args.as_ptr(), variables) };
        if last_error() == Errno::NOEXEC {
            if let [program, ..] = args {
                *program = file.as_ptr();
            }
            // SAFETY: as above.
            unsafe { libc::execve(SHELL.as_ptr(), self.addresses.as_ptr(), variables) };
        }
        last_error()
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// What a child has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It has found its program, and waits for [`Report::go_on`].
    Found,
    /// The reason why it has not become another program.
    Failed(Errno),
    /// It has executed its program, or was killed.
    Through,
}

/// Parent's end of the socket pair by which a child tells why it has not become another program; exec closes the child's
/// end (close-on-exec errno pipe). It is in non-blocking mode: a child below a mount that hangs tells nothing.
#[derive(Debug)]
pub(crate) struct Report(UnixStream);

impl Report {
    /// Returns what the child has told since the last time.
    ///
    /// # Errors
    /// Returns an error that asks for another try if the child has told nothing.
    pub(crate) fn told(&self) -> io::Result<Told> {
        let mut number = [0; size_of::<i32>()];
        match (read(&self.0, &mut number), i32::from_ne_bytes(number)) {
            (Err(error @ (Errno::AGAIN | Errno::INTR)), _) => Err(error.into()),
            // ECONNRESET is the end of a child that was to go on and has not read that.
            (Ok(0) | Err(_), _) => Ok(Told::Through),
            (Ok(_), 0) => Ok(Told::Found),
            (Ok(_), error) => Ok(Told::Failed(Errno::from_raw_os_error(error))),
        }
    }

    /// Lets a child that waits in [`Child::wait_to_go_on`] execute its program.
    pub(crate) fn go_on(&self) {
        // A child that has ended needs it no more.
        let _ = write(&self.0, &[0]);
    }
}

impl AsFd for Report {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Index of the candidate that [`Child::find`] has found.
pub(crate) struct Found(usize);

/// A child between fork(2) and execve(2).
pub(crate) struct Child<'e> {
    program: Program<'e>,
    /// The child's own end of the socket pair.
    parent: UnixStream,
}

impl Child<'_> {
    /// Returns the descriptor that must be left open.
    pub(crate) fn report(&self) -> RawFd {
        self.parent.as_raw_fd()
    }

    /// Looks for the file to execute. Below a mount that hangs, this may have no end.
    ///
    /// # Errors
    /// Returns what execvp(3) would fail with.
    pub(crate) fn find(&self) -> Result<Found, Errno> {
        let mut cause = Errno::NOENT;
        for (index, candidate) in self.program.candidates.iter().enumerate() {
            match executable(candidate) {
                Ok(()) => return Ok(Found(index)),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => cause = error,
            }
        }
        Err(cause)
    }

    /// Tells the parent that the program is found, and waits until the child may go on.
    ///
    /// # Errors
    /// Returns an error if the parent has ended.
    pub(crate) fn wait_to_go_on(&self) -> Result<(), Errno> {
        self.tell(0);
        match read(&self.parent, &mut [0])? {
            0 => Err(Errno::SRCH),
            _ => Ok(()),
        }
    }

    fn tell(&self, number: i32) {
        // There is no other way to tell.
        let _ = write(&self.parent, &number.to_ne_bytes());
    }

    /// Becomes the program, or tells why not and ends.
    #[allow(unsafe_code, reason = "_exit(2)")]
    fn run(
        &mut self,
        report: &Report,
        mask: Mask,
        prepare: &dyn Fn(&Child<'_>) -> Result<Found, Errno>,
    ) -> ! {
        let prepared = self.detach(report).and_then(|()| prepare(self));
        let error = match prepared {
            Ok(file) => {
                signal::reset_dispositions();
                // A signal that has come meanwhile acts now, by default.
                mask.set();
                self.program.execute(file)
            }
            Err(error) => error,
        };
        self.tell(error.raw_os_error());
        // SAFETY: it ends the process without what the parent has registered for its own end.
        unsafe { libc::_exit(127) }
    }

    fn detach(&self, report: &Report) -> Result<(), Errno> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if self.parent_has_died(report) {
            return Err(Errno::SRCH);
        }
        setpgid(None, None)
    }

    /// Returns `true` if livelet died before the child asked for a signal at that: the signal would never come. getppid(2)
    /// does not tell: it is 0 in a new pid namespace (`unshare -p` without a fork).
    #[allow(unsafe_code, reason = "close(2)")]
    fn parent_has_died(&self, report: &Report) -> bool {
        // SAFETY: it is the child's own copy, which is neither used nor dropped in the child.
        unsafe { libc::close(report.0.as_raw_fd()) };
        let mut parent = [PollFd::new(&self.parent, PollFlags::empty())];
        let polled = poll(&mut parent, Some(&Timespec::default()));
        polled.is_ok()
            && parent
                .iter()
                .any(|fd| fd.revents().contains(PollFlags::HUP))
    }
}

/// Starts a child that executes a program as leader of a process group of its own, with default signal dispositions and
/// this signal mask. The child dies when livelet does (PR_SET_PDEATHSIG, prctl(2)), and reports why it could not execute the
/// program. `prepare` is called in the child, where all signals are blocked. It may do what signal-safety(7) allows, and
/// ends with [`Child::find`].
///
/// # Errors
/// Returns the error of socketpair(2) or fork(2).
#[allow(unsafe_code, reason = "fork(2)")]
pub(crate) fn start(
    command: &mut dyn Iterator<Item = &[u8]>,
    environment: &mut Environment,
    mask: Mask,
    prepare: &dyn Fn(&Child<'_>) -> Result<Found, Errno>,
) -> io::Result<(Pid, Report)> {
    let program = Program::new(command, environment)?;
    let (report, parent) = UnixStream::pair()?;
    report.set_nonblocking(true)?;
    let report = Report(report);
    let mut child = Child { program, parent };
    let before = Mask::all().set();
    // SAFETY: another thread may hold the allocator's lock, and no other thread goes on in the child. `run` only makes
    // system calls (signal-safety(7)) and does not return, so that nothing of the parent is freed in the child.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        child.run(&report, mask, prepare);
    }
    let failure = io::Error::last_os_error();
    before.set();
    let pid = Pid::from_raw(forked.max(0)).ok_or(failure)?;
    Ok((pid, report))
}
