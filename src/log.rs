//! Lines on stderr, `livelet: what: object: cause` each.
//!
//! Nothing here stops the program: a closed stderr is ignored, and a line that a full pipe has no room for is dropped,
//! since a reader that stopped reading must not stop the probes.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The longest line, in bytes; under PIPE_BUF, so that a line goes into a pipe whole or not at all (pipe(7)).
const MAX_LINE: usize = 2048;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Failures alone.
    Quiet,
    /// What changes.
    Normal,
    /// Each request too.
    Verbose,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Normal as u8);

/// Sets how much is said from here on.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether [`detail`] says anything: ask before building something only for it.
#[must_use]
pub fn is_verbose() -> bool {
    LEVEL.load(Ordering::Relaxed) >= Level::Verbose as u8
}

/// Says why something failed, at every level.
pub fn failure(message: fmt::Arguments<'_>) {
    line(message);
}

/// Says what changed, unless quiet.
pub fn notice(message: fmt::Arguments<'_>) {
    if LEVEL.load(Ordering::Relaxed) >= Level::Normal as u8 {
        line(message);
    }
}

/// Says what is only worth a line with `--verbose`.
pub fn detail(message: fmt::Arguments<'_>) {
    if is_verbose() {
        line(message);
    }
}

/// Text of a system error as messages show it: without `(os error N)`, which [`io::Error`] adds.
pub(crate) struct Cause<'e>(pub(crate) &'e io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or_default())
    }
}

fn line(message: fmt::Arguments<'_>) {
    let mut line = Line(String::from("livelet: "));
    // Fails only to end an overlong line early.
    let _ = line.write_fmt(message);
    line.0.push('\n');
    let stderr = io::stderr();
    let mut writable = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut writable, Some(&Timespec::default())) == Ok(1) {
        let _ = stderr.lock().write_all(line.0.as_bytes());
    }
}

/// One line being put together: control characters are escaped, so that foreign text can't start another line.
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
    fn a_line_stays_one_line_and_short() {
        let mut line = Line(String::new());
        write!(line, "a\nb\u{1b}[31m").unwrap();
        assert_eq!(line.0, "a\\nb\\u{1b}[31m");
        assert!(write!(line, "{}", "x".repeat(5000)).is_err());
        assert!(line.0.len() < MAX_LINE);
    }
}
