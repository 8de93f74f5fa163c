//! Timers for the tasks of one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Key of a timer in the map of timers: its deadline, and a number that no other timer has.
/// async-io uses a map with the same type of key, so the binary has the map's code only once.
type Key = (Instant, usize);

thread_local! {
    static TIMERS: RefCell<Timers> = const {
        RefCell::new(Timers { wakers: BTreeMap::new(), next_number: 0 })
    };
}

/// Timers that tasks wait for, ordered by deadline.
#[derive(Debug)]
struct Timers {
    wakers: BTreeMap<Key, Waker>,
    next_number: usize,
}

/// Returns the time until the earliest deadline. Returns `None` if no task waits for a timer.
pub(super) fn next() -> Option<Duration> {
    let next = TIMERS.with_borrow(|timers| timers.wakers.keys().next().copied());
    next.map(|(deadline, _)| deadline.saturating_duration_since(Instant::now()))
}

/// Wakes each task that waits for a timer whose deadline has passed.
pub(super) fn wake_expired() {
    let now = Instant::now();
    while let Some(waker) = TIMERS.with_borrow_mut(|timers| {
        let next = timers.wakers.first_entry()?;
        (next.key().0 <= now).then(|| next.remove())
    }) {
        // The timers are not borrowed here: waking a task may do anything.
        waker.wake();
    }
}

/// A future that completes at its deadline.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Option<Instant>,
    /// Number that is part of the timer's [`Key`] in the map of timers. `None` while no task waits
    /// for the timer.
    number: Option<usize>,
    of_this_thread: PhantomData<*const ()>,
}

impl Timer {
    /// Creates a timer that never completes.
    pub(crate) fn never() -> Timer {
        Timer {
            deadline: None,
            number: None,
            of_this_thread: PhantomData,
        }
    }

    /// Creates a timer that completes at `deadline`.
    pub(crate) fn at(deadline: Instant) -> Timer {
        Timer {
            deadline: Some(deadline),
            ..Timer::never()
        }
    }

    /// Creates a timer that completes after `duration`. If `duration` is too long for an
    /// [`Instant`], the timer never completes.
    pub(crate) fn after(duration: Duration) -> Timer {
        Timer {
            deadline: Instant::now().checked_add(duration),
            ..Timer::never()
        }
    }

    /// Replaces the deadline. The caller must poll the timer again to be woken at the new deadline.
    pub(crate) fn set(&mut self, deadline: Instant) {
        if self.deadline != Some(deadline) {
            self.forget();
            self.deadline = Some(deadline);
        }
    }

    /// Removes the timer from the map of timers, so that it wakes no task.
    fn forget(&mut self) {
        if let (Some(deadline), Some(number)) = (self.deadline, self.number.take()) {
            let key = (deadline, number);
            // `try_with` fails when the thread ends, and then nothing waits any more.
            let waker = TIMERS.try_with(|timers| timers.borrow_mut().wakers.remove(&key));
            drop(waker);
        }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        if Instant::now() >= deadline {
            self.forget();
            return Poll::Ready(());
        }
        let replaced = TIMERS.with_borrow_mut(|timers| {
            let number = *self.number.get_or_insert(timers.next_number);
            timers.next_number = timers.next_number.max(number.wrapping_add(1));
            timers.wakers.insert((deadline, number), cx.waker().clone())
        });
        // The timers are not borrowed here: dropping a waker may drop its task.
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.forget();
    }
}
