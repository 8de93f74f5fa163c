//! Log lines on stderr, each of the form `livelet: area: object: cause`.
//!
//! Logging never stops the program: a reader of stderr that has stopped reading must not stop the
//! probes. A closed stderr is ignored, and a line for which stderr has no space is dropped.
//!
//! A write(2) to a terminal or a pipe may block although poll(2) has reported it as writable. The
//! terminal may have less space than the line needs, or the worker may have filled the pipe
//! meanwhile. So livelet opens the terminal or the pipe again, in non-blocking mode. O_NONBLOCK on
//! the inherited stderr would affect each process that shares that stderr.

use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::net::{SendFlags, send};
use rustix::termios::isatty;

/// Maximum length of a log line, in bytes. It is under PIPE_BUF, so that a pipe takes the whole
/// line or nothing (pipe(7)).
const MAX_LINE: usize = 2048;

/// Path at which livelet can open a second time the file that its stderr refers to (proc(5)).
const STDERR: &str = "/proc/self/fd/2";

/// Level of the log: which lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only failures are logged.
    Quiet,
    /// Failures and changes of state are logged.
    Normal,
    /// Failures, changes of state and details, such as each request, are logged.
    Verbose,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Normal as u8);

/// Sets the level of the log for the whole process.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Returns `true` if [`detail`] writes its line at the current level. If not, a caller can skip
/// work that only such a line needs.
#[must_use]
pub fn is_verbose() -> bool {
    LEVEL.load(Ordering::Relaxed) >= Level::Verbose as u8
}

/// Logs a failure, at every level.
pub fn failure(message: fmt::Arguments<'_>) {
    line(message);
}

/// Logs a change of state, unless the level is [`Level::Quiet`].
pub fn notice(message: fmt::Arguments<'_>) {
    if LEVEL.load(Ordering::Relaxed) >= Level::Normal as u8 {
        line(message);
    }
}

/// Logs a detail, only if the level is [`Level::Verbose`].
pub fn detail(message: fmt::Arguments<'_>) {
    if is_verbose() {
        line(message);
    }
}

/// Wrapper that displays a system error as messages show it: with a small first letter, and without
/// the `(os error N)` of [`io::Error`].
#[derive(Debug)]
pub struct Cause<'e>(pub &'e io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        if self.0.raw_os_error().is_some() {
            text.truncate(text.rfind('(').unwrap_or(text.len()));
        }
        // The first letter of "I/O error" stays.
        let is_word = text.as_bytes().get(1).is_some_and(u8::is_ascii_lowercase);
        if let Some(first) = text.get_mut(..1).filter(|_| is_word) {
            first.make_ascii_lowercase();
        }
        f.write_str(text.trim_ascii_end())
    }
}

fn line(message: fmt::Arguments<'_>) {
    let mut line = Line(String::from("livelet: "));
    // The write fails only at the end of a line that is too long.
    let _ = line.write_fmt(message);
    line.0.push('\n');
    let mut output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    output.write(line.0);
}

/// Closes the second descriptor that livelet has opened for its stderr, if any. Once descriptor 2
/// is closed as well, a process that reads livelet's stderr sees the end of the file.
pub(crate) fn close() {
    let mut output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner);
    output.mode = Some(WriteMode::Polled);
}

static OUTPUT: Mutex<Output> = Mutex::new(Output {
    mode: None,
    is_cut: false,
});

/// State of the output to stderr.
struct Output {
    /// Way in which lines are written to stderr. `None` until the first line is written.
    mode: Option<WriteMode>,
    /// `true` if only a part of the last line was written. A line end is then written before the
    /// next line.
    is_cut: bool,
}

enum WriteMode {
    /// stderr is a terminal or a pipe, and lines are written to this descriptor: the same terminal
    /// or pipe, opened a second time in non-blocking mode.
    Reopened(OwnedFd),
    Socket,
    /// stderr is another kind of file, or a terminal or a pipe that livelet can't open a second
    /// time, such as another user's. livelet calls poll(2) before each write, and drops the line if
    /// stderr is not writable.
    Polled,
}

impl Output {
    fn write(&mut self, mut line: String) {
        if self.is_cut {
            line.insert(0, '\n');
        }
        let bytes = line.as_bytes();
        let stderr = io::stderr();
        let written = match self.mode.get_or_insert_with(WriteMode::of_stderr) {
            WriteMode::Reopened(file) => rustix::io::write(file, bytes),
            WriteMode::Socket => send(&stderr, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            WriteMode::Polled => {
                let mut writable = [PollFd::new(&stderr, PollFlags::OUT)];
                match poll(&mut writable, Some(&Timespec::default())) {
                    Ok(1) => rustix::io::write(&stderr, bytes),
                    _ => Ok(0),
                }
            }
        };
        match written {
            Ok(count) if count > 0 => self.is_cut = count < bytes.len(),
            _ => {}
        }
    }
}

impl WriteMode {
    fn of_stderr() -> WriteMode {
        let stderr = io::stderr();
        let stderr = stderr.as_fd();
        let kind = fstat(stderr).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let is_terminal = isatty(stderr);
        match kind {
            Ok(FileType::Socket) => WriteMode::Socket,
            Ok(kind) if is_terminal || kind == FileType::Fifo => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                open(STDERR, flags, Mode::empty()).map_or(WriteMode::Polled, WriteMode::Reopened)
            }
            _ => WriteMode::Polled,
        }
    }
}

/// One log line while its text is appended. Control characters are escaped, so that text from
/// another process can't start a second line.
struct Line(String);

impl fmt::Write for Line {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for c in part.chars() {
            if self.0.len() > MAX_LINE - 16 {
                return Err(fmt::Error);
            }
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_are_in_lower_case_and_without_their_numbers() {
        for (error, text) in [
            (
                io::Error::from_raw_os_error(libc::ENOENT),
                "no such file or directory",
            ),
            (
                io::Error::from_raw_os_error(libc::EPERM),
                "operation not permitted",
            ),
            (
                io::Error::other("closed (by the peer)"),
                "closed (by the peer)",
            ),
            (io::Error::other("I/O error"), "I/O error"),
            (io::Error::other(""), ""),
        ] {
            assert_eq!(Cause(&error).to_string(), text);
        }
    }

    #[test]
    fn a_log_line_is_one_line_and_short() {
        let mut line = Line(String::new());
        write!(line, "a\nb\u{1b}[31m").unwrap();
        assert_eq!(line.0, "a\\nb\\u{1b}[31m");
        assert!(write!(line, "{}", "x".repeat(5000)).is_err());
        assert!(line.0.len() < MAX_LINE);
    }
}
