//! Deadlines of tasks.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

/// When to wake whom; without a waker, it has passed.
type Deadlines = Slab<(Instant, Option<Waker>)>;

thread_local! {
    static DEADLINES: RefCell<Deadlines> = const { RefCell::new(Slab::new()) };
}

/// How long until the next deadline.
pub(super) fn next() -> Option<Duration> {
    let next = DEADLINES.with_borrow(first);
    next.map(|at| at.saturating_duration_since(Instant::now()))
}

/// Wakes who waits for a deadline that has passed; nothing is borrowed meanwhile, as wakers may do anything.
pub(super) fn wake() {
    while let Some(waker) = DEADLINES.with_borrow_mut(due) {
        waker.wake();
    }
}

fn first(deadlines: &Deadlines) -> Option<Instant> {
    let waited_for = deadlines.iter().filter(|(_, (_, waker))| waker.is_some());
    waited_for.map(|(_, (at, _))| *at).min()
}

fn due(deadlines: &mut Deadlines) -> Option<Waker> {
    let next = first(deadlines)?;
    if next > Instant::now() {
        return None;
    }
    let mut entries = deadlines.iter_mut().map(|(_, entry)| entry);
    let entry = entries.find(|(at, waker)| *at == next && waker.is_some());
    entry?.1.take()
}

/// Ends at its deadline.
#[derive(Debug)]
pub(crate) struct Timer {
    at: Option<Instant>,
    key: Option<usize>,
    of_this_thread: PhantomData<*const ()>,
}

impl Timer {
    pub(crate) fn never() -> Timer {
        Timer {
            at: None,
            key: None,
            of_this_thread: PhantomData,
        }
    }

    pub(crate) fn at(deadline: Instant) -> Timer {
        let mut timer = Timer::never();
        timer.set(Some(deadline));
        timer
    }

    /// What is too far away for the clock never comes.
    pub(crate) fn after(wait: Duration) -> Timer {
        let mut timer = Timer::never();
        timer.set(Instant::now().checked_add(wait));
        timer
    }

    /// Changes the deadline. The old one wakes nobody any more, and the new one nobody before the next poll.
    pub(crate) fn set(&mut self, deadline: Option<Instant>) {
        self.forget();
        self.at = deadline;
    }

    /// The deadline that it was given last.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    fn forget(&mut self) {
        if let Some(key) = self.key.take() {
            let _ = DEADLINES.try_with(|deadlines| deadlines.borrow_mut().try_remove(key));
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.forget();
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        if Instant::now() >= at {
            return Poll::Ready(());
        }
        let entry = (at, Some(cx.waker().clone()));
        self.key = Some(DEADLINES.with_borrow_mut(|deadlines| deadlines.insert(entry)));
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.forget();
    }
}
