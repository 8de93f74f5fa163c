//! Closes descriptors that other processes sent, on another thread.
//!
//! close(2) may wait for as long as a sender likes: for a socket with SO_LINGER and unsent data, or for a file of FUSE or
//! NFS. The close of a unix socket also closes the descriptors in its queue.
//!
//! The threads are not those of `smol::unblock`: while no thread can be had, `blocking` 1.7 tries without end, on the
//! thread that calls it, and a stranger's message would hold livelet. `tests/system/senders` shows that.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use smol::LocalExecutor;

use crate::runtime::{Condition, Timer, task, thread};

/// Number of descriptors to be closed from which on no more are accepted. Each may hold a thread, and livelet needs
/// descriptors for connections.
const MOST: usize = 64;

/// Time until a thread is asked for again when none could be had.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes of a thread's stack: more than close(2) takes.
const STACK: usize = 32 * 1024;

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
        self.closed.until(|| self.has_room()).await;
    }

    /// Closes descriptors on another thread. While there is none, they stay open.
    pub(crate) fn close(self: &Rc<Closer>, descriptors: Vec<OwnedFd>) {
        let number = descriptors.len();
        if number == 0 {
            return;
        }
        self.open.set(self.open.get() + number);
        let closer = Rc::clone(self);
        task::spawn(&self.executor, async move {
            let lot = Arc::new(Lot::of(descriptors));
            while lot.begin().is_err() {
                Timer::after(RETRY).await;
            }
            poll_fn(|cx| lot.poll_closed(cx)).await;
            closer.open.set(closer.open.get() - number);
            closer.closed.changed();
        });
    }
}

/// Descriptors that one thread closes.
#[derive(Debug)]
struct Lot(Mutex<LotState>);

#[derive(Debug)]
struct LotState {
    descriptors: Vec<OwnedFd>,
    is_closed: bool,
    waiting: Option<Waker>,
}

impl Lot {
    fn of(descriptors: Vec<OwnedFd>) -> Lot {
        Lot(Mutex::new(LotState {
            descriptors,
            is_closed: false,
            waiting: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, LotState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// Returns the error of pthread_create(3). The lot keeps its descriptors then: they are not closed on this thread.
    fn begin(self: &Arc<Lot>) -> io::Result<()> {
        let lot = Arc::clone(self);
        thread::start(STACK, Box::new(move || lot.close()))
    }

    fn close(&self) {
        let descriptors = std::mem::take(&mut self.state().descriptors);
        drop(descriptors);
        let mut state = self.state();
        state.is_closed = true;
        if let Some(waker) = state.waiting.take() {
            waker.wake();
        }
    }

    fn poll_closed(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.is_closed {
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}
