//! The exit codes of livelet that are not the worker's own.

/// Exit code if livelet itself fails. `docker run` reports its own failures with the same code.
pub const FAILURE: u8 = 125;
/// Exit code if the worker's command exists but can't be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit code if the worker's command does not exist.
pub const NOT_FOUND: u8 = 127;
/// Exit code if livelet stopped because liveness had failed for longer than the option
/// `--exit-on-unhealthy` allows. The number is EX_TEMPFAIL of sysexits(3).
pub const UNHEALTHY: u8 = 75;

/// Returns the exit code for a process that a signal ended: 128 plus the number of the signal, as
/// in shells.
#[must_use]
pub fn ended_by(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |number| number.saturating_add(128))
}
