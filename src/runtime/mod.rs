//! The runtime: one thread that waits in one place, and smol's executor, which runs the tasks.
//!
//! The core waits with an epoll of its own ([`reactor`]) and not with async-io, smol's reactor, for
//! two reasons:
//!
//! - async-io always starts a second thread. PID 1 must not depend on one: if the system refuses
//!   it, async-io panics.
//! - async-io sets interest again for every wait. A probe on a new connection takes 19 system calls
//!   with async-io and 6 here. The CPU time of such a probe, one in 100 ms, is 1.4 times that of
//!   nginx with async-io and 0.8 times here.
//!
//! `tests/bench/runtime` measures both. Connections of checks and of `livelet probe` go through
//! async-net. Calls that may block run on threads of their own (`crate::close`, `crate::check`),
//! and not through `smol::unblock`: it spins while the system refuses a thread.
//!
//! Sources and timers belong to the thread that calls [`block_on`]. Other threads only wake tasks
//! of that thread.

mod condition;
mod reactor;
pub(crate) mod task;
pub(crate) mod thread;
mod timer;

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use smol::LocalExecutor;

pub(crate) use condition::Condition;
pub(crate) use reactor::Source;
pub(crate) use timer::Timer;

/// Maximum number of times that tasks run before livelet asks epoll(7) for events. A limit is
/// needed because tasks that always have more to do would delay the events for other tasks.
const TASKS: usize = 256;

/// Runs `future` to its end on the calling thread, and returns its output. Runs the tasks of
/// `executor` meanwhile.
///
/// # Errors
/// Returns the error of epoll_create1(2), eventfd(2), epoll_ctl(2) or epoll_wait(2).
pub(crate) fn block_on<T>(
    executor: &LocalExecutor<'_>,
    future: impl Future<Output = T>,
) -> io::Result<T> {
    let alarm = Arc::new(Alarm {
        event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        has_rung: AtomicBool::new(false),
        is_waiting: AtomicBool::new(false),
    });
    reactor::open(&alarm.event)?;
    let [for_future, for_tasks] = [&alarm, &alarm].map(Wakeup::new);
    let [future_waker, tasks_waker] =
        [&for_future, &for_tasks].map(|wakeup| Waker::from(Arc::clone(wakeup)));
    let mut future = pin!(future);
    let mut next_task = pin!(executor.tick());
    let mut events = Vec::with_capacity(reactor::EVENTS);
    loop {
        alarm.has_rung.store(false, SeqCst);
        // The future runs first: a signal for it comes before all tasks that were queued with it.
        if for_future.is_due.swap(false, SeqCst) {
            let cx = &mut Context::from_waker(&future_waker);
            if let Poll::Ready(outcome) = future.as_mut().poll(cx) {
                return Ok(outcome);
            }
        }
        let has_more = (0..TASKS).all(|_| executor.try_tick());
        let cx = &mut Context::from_waker(&tasks_waker);
        if has_more || next_task.as_mut().poll(cx).is_ready() {
            next_task.set(executor.tick());
            alarm.has_rung.store(true, SeqCst);
        }
        alarm.is_waiting.store(true, SeqCst);
        let has_rung = alarm.has_rung.load(SeqCst);
        let timeout = if has_rung {
            Some(Duration::ZERO)
        } else {
            timer::next()
        };
        reactor::wait(&mut events, timeout)?;
        alarm.is_waiting.store(false, SeqCst);
        events.iter().for_each(reactor::wake);
        timer::wake_expired();
    }
}

/// Alarm that wakes the thread of [`block_on`], through an eventfd(2), if the thread is waiting in
/// epoll_wait(2).
#[derive(Debug)]
struct Alarm {
    event: OwnedFd,
    has_rung: AtomicBool,
    is_waiting: AtomicBool,
}

impl Alarm {
    fn ring(&self) {
        // `block_on` sets `is_waiting` and then reads `has_rung`. One of the two threads sees the
        // other's flag.
        if !self.has_rung.swap(true, SeqCst) && self.is_waiting.load(SeqCst) {
            // The write fails only if the eventfd is at its maximum, and then it has been reported.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

/// Data behind a waker of [`block_on`], which has two: one for its future, and one for its wait for
/// the next task. Waking records that the future or the wait is due to be polled, and rings the
/// alarm.
#[derive(Debug)]
struct Wakeup {
    alarm: Arc<Alarm>,
    is_due: AtomicBool,
}

impl Wakeup {
    /// Creates a wakeup that is already due, so that [`block_on`] polls in its first round.
    fn new(alarm: &Arc<Alarm>) -> Arc<Wakeup> {
        Arc::new(Wakeup {
            alarm: Arc::clone(alarm),
            is_due: AtomicBool::new(true),
        })
    }
}

impl Wake for Wakeup {
    fn wake(self: Arc<Wakeup>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Wakeup>) {
        self.is_due.store(true, SeqCst);
        self.alarm.ring();
    }
}
