//! Closes descriptors that other processes sent, on another thread.
//!
//! close(2) may wait for as long as a sender likes: for a socket with SO_LINGER and unsent data, or for a file of FUSE or
//! NFS. The close of a unix socket also closes the descriptors in its queue.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use smol::LocalExecutor;
use smol::future::or;

use crate::runtime::{Condition, Timer, task};
use crate::signal::Mask;

/// Number of descriptors to be closed from which on no more are accepted. Each may hold a thread, and livelet needs
/// descriptors for connections.
const MOST: usize = 64;

/// Time after which another thread is asked for while there is no room: none could be had, or each waits in close(2).
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Descriptors that wait to be closed, of one source of them.
#[derive(Debug)]
pub(crate) struct Closer {
    executor: Rc<LocalExecutor<'static>>,
    /// Number of descriptors that are not closed yet.
    open: Cell<usize>,
    closed: Condition,
}

impl Closer {
    /// Returns a closer that has nothing to close.
    pub(crate) fn new(executor: Rc<LocalExecutor<'static>>) -> Rc<Closer> {
        Rc::new(Closer {
            executor,
            open: Cell::new(0),
            closed: Condition::default(),
        })
    }

    /// Returns `true` if more descriptors can be received.
    pub(crate) fn has_room(&self) -> bool {
        self.open.get() < MOST
    }

    /// Waits until more descriptors can be received. With no limit a sender could use up livelet's descriptors, and then
    /// the kernel closes those of the next message on this thread.
    pub(crate) async fn have_room(&self) {
        while !self.has_room() {
            let ask_again = async {
                Timer::after(ASK_AGAIN).await;
                unblock(|| ()).detach();
            };
            or(self.closed.until(|| self.has_room()), ask_again).await;
        }
    }

    /// Closes descriptors on another thread. If there is none, they stay open until one can be had.
    pub(crate) fn close(self: &Rc<Closer>, descriptors: Vec<OwnedFd>) {
        let number = descriptors.len();
        if number == 0 {
            return;
        }
        self.open.set(self.open.get() + number);
        let closed = unblock(move || drop(descriptors));
        let closer = Rc::clone(self);
        task::spawn(&self.executor, async move {
            closed.await;
            closer.open.set(closer.open.get() - number);
            closer.closed.changed();
        });
    }
}

/// Runs `call` on a thread that runs no signal handlers. musl unblocks signals of its own when the first thread is made.
fn unblock(call: impl FnOnce() + Send + 'static) -> smol::Task<()> {
    let mask = Mask::all().set();
    let task = smol::unblock(call);
    mask.set();
    task
}
