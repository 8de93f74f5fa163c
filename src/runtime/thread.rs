//! Threads for calls that may not return.

use std::io;
use std::thread;

use crate::signal::Mask;

/// Starts a thread that makes a call and ends. It runs no signal handlers; and musl unblocks signals of its own when the
/// first thread of a process is made.
///
/// # Errors
/// Returns the error of pthread_create(3). The call is not made then.
pub(crate) fn start(stack: usize, call: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let mask = Mask::all().set();
    let started = thread::Builder::new().stack_size(stack).spawn(call);
    mask.set();
    started.map(drop)
}
