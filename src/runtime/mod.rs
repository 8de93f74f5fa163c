//! What livelet waits for on its one thread: a few descriptors and deadlines.
//!
//! smol's reactor is made for many threads, and costs accordingly: a second thread that takes turns with this one, two
//! descriptors set anew at every wait, interest that is armed again for every request. That is eleven system calls for a
//! probe on a new connection instead of five, and 70 KiB. So it waits only for the connections that find no seat here
//! (see `http::stream`).
//!
//! Seats and timers are of the thread that calls [`block_on`]; other threads do no more than wake it.

mod activity;
mod condition;
mod descriptors;
pub(crate) mod task;
mod timer;

use std::hint::black_box;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use smol::LocalExecutor;

pub(crate) use condition::Condition;
pub(crate) use descriptors::{READ, Seat, Source, WRITE};
pub(crate) use timer::Timer;

/// Between two waits, see `activity`; the kernel adds its timer slack of 50 us (prctl(2)).
const PAUSE: Duration = Duration::from_micros(1);
/// How many tasks are run before descriptors are looked at again.
const TASKS: usize = 256;

/// Runs a future to its end, and the tasks of the executor meanwhile.
///
/// # Errors
/// What epoll_create1(2) or eventfd(2) failed with.
pub(crate) fn block_on<T>(
    executor: &LocalExecutor<'_>,
    future: impl Future<Output = T>,
) -> io::Result<T> {
    descriptors::begin()?;
    let alarm = Arc::new(Alarm {
        event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        has_rung: AtomicBool::new(false),
        is_heard: AtomicBool::new(false),
    });
    let seat = Seat::take();
    let waker = Waker::from(Arc::clone(&alarm));
    let cx = &mut Context::from_waker(&waker);
    let mut future = pin!(future);
    // Has the alarm rung when there is a task.
    let mut next_task = pin!(executor.tick());
    let mut events = descriptors::Events::new();
    // The executor's queue takes and gives back blocks of this size, and musl gave their page back to the kernel each time,
    // 11 us: two that stay keep it.
    let _page = black_box([[0_u8; 504]; 2].map(Box::new));
    let mut rests = false;
    loop {
        alarm.has_rung.store(false, SeqCst);
        if let Poll::Ready(outcome) = future.as_mut().poll(cx) {
            return Ok(outcome);
        }
        let has_more = (0..TASKS).all(|_| executor.try_tick());
        if has_more || next_task.as_mut().poll(cx).is_ready() {
            next_task.set(executor.tick());
            alarm.has_rung.store(true, SeqCst);
        }
        if rests {
            thread::sleep(PAUSE);
        }
        // Until it is waited for again: whoever wakes next must be heard too.
        while seat.poll(alarm.event.as_fd(), READ, cx).is_ready() {
            // Whatever it holds, it is empty now.
            let _ = rustix::io::read(&alarm.event, &mut [0; 8]);
        }
        // Whoever wakes while it waits writes to the descriptor.
        alarm.is_heard.store(true, SeqCst);
        let only_look = alarm.has_rung.load(SeqCst).then_some(Duration::ZERO);
        let timeout = only_look.or_else(timer::next);
        let happened = descriptors::wait(&mut events, timeout);
        alarm.is_heard.store(false, SeqCst);
        rests = descriptors::wake(&happened);
        // A deadline that passes while there is something else to do is due at the next wait.
        if timeout == Some(Duration::ZERO) || happened.is_nothing() {
            timer::wake();
        }
    }
}

/// Wakes the thread, which listens to it only while it waits.
#[derive(Debug)]
struct Alarm {
    event: OwnedFd,
    has_rung: AtomicBool,
    is_heard: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Alarm>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Alarm>) {
        if !self.has_rung.swap(true, SeqCst) && self.is_heard.load(SeqCst) {
            // It can only fail where it is set already.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}
