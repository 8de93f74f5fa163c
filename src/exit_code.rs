//! The exit codes that livelet chooses itself.

/// Failure of livelet itself, as `docker run` reports its own.
pub const FAILURE: u8 = 125;
/// The command exists and can't be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub const NOT_FOUND: u8 = 127;
/// End of a livelet that gave an unhealthy worker up: EX_TEMPFAIL of sysexits(3).
pub const UNHEALTHY: u8 = 75;

/// Returns the exit code that reports an end by a signal: 128 and its number, as shells report it.
#[must_use]
pub fn ended_by(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |number| number.saturating_add(128))
}
