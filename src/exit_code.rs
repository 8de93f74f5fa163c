//! The exit codes that livelet chooses itself.

/// Failure of livelet itself, as `docker run` reports its own.
pub const FAILURE: u8 = 125;
/// The command exists and can't be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command does not exist.
pub const NOT_FOUND: u8 = 127;
/// Liveness failed for too long, see `--exit-on-unhealthy`. EX_TEMPFAIL of sysexits(3).
pub const UNHEALTHY: u8 = 75;

/// Returns the exit code for an end by a signal: 128 and the number of the signal, as in shells.
#[must_use]
pub fn ended_by(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |number| number.saturating_add(128))
}
