//! Starts programs by fork(2) and execve(2). Between the two calls the child process prepares
//! itself for the program.
//!
//! The `Command` of std is not used. In the child it lets livelet's signal handlers run, which
//! would catch a signal that is meant for the program. It also has 20 KB of features that livelet
//! does not need.

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

/// Directories to search for programs if PATH is not set, as in musl's execvp(3).
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";
/// Shell that runs an executable file of unknown format, as with execvp(3) and in shells.
const SHELL: &CStr = c"/bin/sh";

/// Returns the paths to try for the program name `program`. A name without a slash stands for one
/// file in each directory of PATH.
fn candidates(program: &[u8]) -> io::Result<Vec<CString>> {
    let mut candidates = Vec::new();
    let path = match program {
        [] => return Ok(candidates),
        _ if program.contains(&b'/') => OsString::new(),
        _ => std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
    };
    for directory in path.as_bytes().split(|&byte| byte == b':') {
        // An empty entry of PATH is livelet's first directory.
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

/// A program that a child process finds and executes. Everything is allocated before fork(2), so
/// that the child allocates nothing.
struct Executable<'e> {
    candidates: Vec<CString>,
    /// Addresses for execve(2): of the shell's path, of each word of the command, and a null
    /// pointer at the end. The program gets the addresses after the first one as its arguments. If
    /// the shell has to run the program's file, the address of the file's path replaces that of the
    /// first word. The shell then gets all addresses as its arguments.
    addresses: Vec<*const c_char>,
    /// Strings that `addresses` points to, from the second address on.
    _words: Vec<CString>,
    environment: &'e mut Environment,
}

impl<'e> Executable<'e> {
    fn new(
        command: &mut dyn Iterator<Item = &[u8]>,
        environment: &'e mut Environment,
    ) -> io::Result<Executable<'e>> {
        let mut words = Vec::new();
        let mut addresses = vec![SHELL.as_ptr()];
        for word in command {
            let word = CString::new(word.to_vec())?;
            addresses.push(word.as_ptr());
            words.push(word);
        }
        addresses.push(null());
        let program = words.first().map_or(&b""[..], |program| program.to_bytes());
        Ok(Executable {
            candidates: candidates(program)?,
            addresses,
            _words: words,
            environment,
        })
    }

    /// Executes the program's file, which has the index `file` among the paths to try. If the
    /// kernel does not know the file's format, executes the shell instead. Returns only if this
    /// fails, with the error.
    #[allow(unsafe_code, reason = "execve(2)")]
    fn execute(&mut self, FoundFile(file): FoundFile) -> Errno {
        let variables = self.environment.enter();
        let file = self.candidates.get(file);
        let (Some(file), [_, args @ ..]) = (file, &mut *self.addresses) else {
            return Errno::NOENT;
        };
        // SAFETY: each list ends in a null pointer. The pointers before it are to strings that end
        // in a zero byte. All of it lives longer than the call.
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

/// Progress of a child process between fork(2) and execve(2), as the child reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildProgress {
    /// State: the child has found its program, and waits for [`ChildReport::go_on`].
    Found,
    /// Outcome: the child could not execute its program. The error is that of execve(2) or of an
    /// earlier step.
    Failed(Errno),
    /// Outcome: the child has executed its program, or was killed before.
    Done,
}

/// livelet's end of the socket pair over which a child process reports its progress. The child's
/// end closes when the child executes its program (close-on-exec errno pipe). livelet's end is in
/// non-blocking mode, because a child may hang and report nothing.
#[derive(Debug)]
pub(crate) struct ChildReport(UnixStream);

impl ChildReport {
    /// Returns the progress that the child has reported since the last call.
    ///
    /// # Errors
    /// Returns an error of kind `WouldBlock` or `Interrupted` if the child has reported nothing
    /// since then.
    pub(crate) fn progress(&self) -> io::Result<ChildProgress> {
        let mut number = [0; size_of::<i32>()];
        match (read(&self.0, &mut number), i32::from_ne_bytes(number)) {
            (Err(error @ (Errno::AGAIN | Errno::INTR)), _) => Err(error.into()),
            // ECONNRESET is the end of a child that has not read the byte of `go_on`.
            (Ok(0) | Err(_), _) => Ok(ChildProgress::Done),
            (Ok(_), 0) => Ok(ChildProgress::Found),
            (Ok(_), error) => Ok(ChildProgress::Failed(Errno::from_raw_os_error(error))),
        }
    }

    /// Lets the child continue, which waits in [`Child::wait_to_go_on`]. The child then executes
    /// its program.
    ///
    /// # Errors
    /// Returns the error of write(2), unless the child has ended. In that case
    /// [`ChildReport::progress`] tells why.
    pub(crate) fn go_on(&self) -> Result<(), Errno> {
        match write(&self.0, &[0]) {
            Ok(_) | Err(Errno::PIPE) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for ChildReport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Index of the program's file that [`Child::find`] has found, in the list of paths to try.
pub(crate) struct FoundFile(usize);

/// A child process between fork(2) and execve(2).
pub(crate) struct Child<'e> {
    program: Executable<'e>,
    /// Child's end of the socket pair over which the child reports its progress to livelet.
    parent: UnixStream,
}

impl Child<'_> {
    /// Returns the descriptor over which the child reports its progress. The descriptor must stay
    /// open until execve(2).
    pub(crate) fn report(&self) -> RawFd {
        self.parent.as_raw_fd()
    }

    /// Searches for the program's file. Hangs if a file is below a mount that hangs.
    ///
    /// # Errors
    /// Returns the same error as execvp(3) if no candidate can be executed.
    pub(crate) fn find(&self) -> Result<FoundFile, Errno> {
        let mut cause = Errno::NOENT;
        for (index, candidate) in self.program.candidates.iter().enumerate() {
            match executable(candidate) {
                Ok(()) => return Ok(FoundFile(index)),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => cause = error,
            }
        }
        Err(cause)
    }

    /// Reports that the child has found its program, and waits until livelet calls
    /// [`ChildReport::go_on`].
    ///
    /// # Errors
    /// Returns an error if livelet has ended.
    pub(crate) fn wait_to_go_on(&self) -> Result<(), Errno> {
        self.report_number(0);
        match read(&self.parent, &mut [0])? {
            0 => Err(Errno::SRCH),
            _ => Ok(()),
        }
    }

    fn report_number(&self, number: i32) {
        // An error can't be reported.
        let _ = write(&self.parent, &number.to_ne_bytes());
    }

    /// Runs in the child process: executes the program and never returns. Before that, gives the
    /// child its own process group, calls `prepare`, which finds the program's file, and sets the
    /// signal mask `mask`. Reports the error to livelet and exits if a step fails. `report` is the
    /// child's copy of livelet's end of the socket pair. The child closes it, to find out if
    /// livelet has died.
    #[allow(unsafe_code, reason = "_exit(2)")]
    fn run(
        &mut self,
        report: &ChildReport,
        mask: Mask,
        prepare: &dyn Fn(&Child<'_>) -> Result<FoundFile, Errno>,
    ) -> ! {
        let prepared = self.detach(report).and_then(|()| prepare(self));
        let error = match prepared {
            Ok(file) => {
                signal::reset_dispositions();
                // A signal that has arrived by now acts here, by its default.
                mask.set();
                self.program.execute(file)
            }
            Err(error) => error,
        };
        self.report_number(error.raw_os_error());
        // SAFETY: the call ends the process without the exit handlers of the parent.
        unsafe { libc::_exit(127) }
    }

    fn detach(&self, report: &ChildReport) -> Result<(), Errno> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if self.parent_has_died(report) {
            return Err(Errno::SRCH);
        }
        setpgid(None, None)
    }

    /// Returns `true` if livelet died before the child asked for its parent-death signal, which
    /// would then never come. Closes `report`, the child's copy of livelet's end of the socket
    /// pair, and checks if livelet still has that end open. getppid(2) can't tell: in a new pid
    /// namespace (`unshare -p` without a fork) it always returns 0.
    #[allow(unsafe_code, reason = "close(2)")]
    fn parent_has_died(&self, report: &ChildReport) -> bool {
        // SAFETY: the descriptor is the child's own copy, which is neither used nor dropped in the
        // child.
        unsafe { libc::close(report.0.as_raw_fd()) };
        let mut parent = [PollFd::new(&self.parent, PollFlags::empty())];
        let polled = poll(&mut parent, Some(&Timespec::default()));
        polled.is_ok()
            && parent
                .iter()
                .any(|fd| fd.revents().contains(PollFlags::HUP))
    }
}

/// A child process that livelet has started.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) pid: Pid,
    /// Channel over which the child reports that it can't execute its program.
    pub(crate) report: ChildReport,
}

/// Starts a child process that executes `command`, a program and its arguments, with the variables
/// in `environment`. The child leads its own process group and has default signal dispositions and
/// the signal mask `mask`. The child dies when livelet does (PR_SET_PDEATHSIG, prctl(2)).
///
/// The child calls `prepare` while all signals are blocked. `prepare` may only do what
/// signal-safety(7) allows. It must return the result of [`Child::find`].
///
/// # Errors
/// Returns the error of socketpair(2) or fork(2). Also returns an error if a word of the command
/// has a zero byte in it.
#[allow(unsafe_code, reason = "fork(2)")]
pub(crate) fn start(
    command: &mut dyn Iterator<Item = &[u8]>,
    environment: &mut Environment,
    mask: Mask,
    prepare: &dyn Fn(&Child<'_>) -> Result<FoundFile, Errno>,
) -> io::Result<Forked> {
    let program = Executable::new(command, environment)?;
    let (report, parent) = UnixStream::pair()?;
    report.set_nonblocking(true)?;
    let report = ChildReport(report);
    let mut child = Child { program, parent };
    let before = Mask::all().set();
    // SAFETY: another thread may hold the allocator's lock, and no other thread runs on in the
    // child. `run` only makes system calls (signal-safety(7)). It does not return, so nothing of
    // the parent is freed in the child.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        child.run(&report, mask, prepare);
    }
    let failure = io::Error::last_os_error();
    before.set();
    let pid = Pid::from_raw(forked.max(0)).ok_or(failure)?;
    Ok(Forked { pid, report })
}
