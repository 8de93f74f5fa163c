//! Threads for calls that may not return.

use std::io;
use std::thread;

use crate::signal::Mask;

/// Starts a thread that makes one call and ends. The thread runs no signal handlers. The mask is
/// set again afterwards, because musl unblocks its own signals when the first thread of a process
/// is made.
///
/// # Errors
/// Returns the error of pthread_create(3). The call is not made then.
pub(crate) fn start(stack: usize, call: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let mask = Mask::all().set();
    let started = thread::Builder::new().stack_size(stack).spawn(call);
    mask.set();
    started.map(drop)
}
