//! Threads for system calls that may never return.

use std::io;
use std::thread;

use crate::signal::Mask;

/// Starts a thread that runs `call` and ends. The thread has a stack of `stack` bytes and blocks
/// all signals. The caller's signal mask is restored afterwards, because musl unblocks its own
/// signals when a process starts its first thread.
///
/// # Errors
/// Returns the error of pthread_create(3). In this case `call` does not run.
pub(crate) fn start(stack: usize, call: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    let mask = Mask::all().set();
    let started = thread::Builder::new().stack_size(stack).spawn(call);
    mask.set();
    started.map(drop)
}
