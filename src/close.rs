//! Closes descriptors that other processes sent over unix sockets (SCM_RIGHTS), on another thread.
//!
//! close(2) can wait without end if the sender arranges that: for a socket with SO_LINGER and
//! unsent data, or for a file of FUSE or NFS. The close of a unix socket also closes the
//! descriptors in its queue.
//!
//! The threads are not those of `smol::unblock`. If the system refuses a thread, `blocking` 1.7
//! tries without end on the calling thread: a stranger's message would stop livelet.
//! `tests/system/senders` shows that.

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

/// Limit for the number of descriptors that wait to be closed. At this number livelet stops
/// receiving descriptors from other processes. A limit is needed because each descriptor may block
/// a thread in close(2), and because livelet needs descriptors for connections.
const MOST: usize = 64;

/// Time between two tries to start a thread that closes descriptors, while the system refuses
/// threads.
const RETRY: Duration = Duration::from_secs(1);

/// Size, in bytes, of the stack of a thread that closes descriptors. close(2) needs less.
const STACK: usize = 32 * 1024;

/// Service that closes descriptors which other processes sent. It uses separate threads, because
/// close(2) of such a descriptor may block. It also counts the descriptors that are not closed yet.
#[derive(Debug)]
pub(crate) struct Closer {
    executor: Rc<LocalExecutor<'static>>,
    /// Number of descriptors that were given to [`Closer::close`] and are not closed yet.
    open: Cell<usize>,
    closed: Condition,
}

impl Closer {
    /// Creates a closer that has no descriptors to close. Its tasks run on `executor`.
    pub(crate) fn new(executor: Rc<LocalExecutor<'static>>) -> Rc<Closer> {
        Rc::new(Closer {
            executor,
            open: Cell::new(0),
            closed: Condition::default(),
        })
    }

    /// Returns `true` if livelet may receive more descriptors from other processes: fewer than
    /// [`MOST`] wait to be closed.
    pub(crate) fn is_below_limit(&self) -> bool {
        self.open.get() < MOST
    }

    /// Waits until fewer than [`MOST`] descriptors wait to be closed. livelet calls this before it
    /// receives from other processes, because a sender could otherwise use up livelet's
    /// descriptors. If livelet can have no more descriptors, the kernel closes those that arrive on
    /// the thread that receives, which is livelet's main thread, and close(2) may block.
    pub(crate) async fn below_limit(&self) {
        self.closed.until(|| self.is_below_limit()).await;
    }

    /// Closes `descriptors` on a new thread, and returns at once. If the system refuses a thread, a
    /// task tries again every [`RETRY`], and the descriptors stay open until then.
    pub(crate) fn close(self: &Rc<Closer>, descriptors: Vec<OwnedFd>) {
        let number = descriptors.len();
        if number == 0 {
            return;
        }
        self.open.set(self.open.get() + number);
        let closer = Rc::clone(self);
        task::spawn(&self.executor, async move {
            let closing = Arc::new(Closing::of(descriptors));
            while closing.begin().is_err() {
                Timer::after(RETRY).await;
            }
            poll_fn(|cx| closing.poll_closed(cx)).await;
            closer.open.set(closer.open.get() - number);
            closer.closed.changed();
        });
    }
}

/// Descriptors from one call of [`Closer::close`]. One thread closes them all, while a task waits
/// for the end.
#[derive(Debug)]
struct Closing(Mutex<ClosingState>);

#[derive(Debug)]
struct ClosingState {
    descriptors: Vec<OwnedFd>,
    is_closed: bool,
    waiting: Option<Waker>,
}

impl Closing {
    fn of(descriptors: Vec<OwnedFd>) -> Closing {
        Closing(Mutex::new(ClosingState {
            descriptors,
            is_closed: false,
            waiting: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, ClosingState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread that closes the descriptors.
    ///
    /// # Errors
    /// Returns the error of pthread_create(3). The descriptors stay open in this case, so that the
    /// caller can try again.
    fn begin(self: &Arc<Closing>) -> io::Result<()> {
        let closing = Arc::clone(self);
        thread::start(STACK, Box::new(move || closing.close()))
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
