//! What livelet waits for on its one thread: a few sockets and deadlines, with one ppoll(2).
//!
//! smol's reactor is made for thousands of sockets, and costs accordingly: a second thread that takes turns with this
//! one, two descriptors set anew at every wait, interest that is armed again for every request. That is eleven system
//! calls for a probe on a new connection instead of five, and 70 KiB. So it waits only for the connections that find no
//! seat here (see `stream`).
//!
//! Seats and timers are of the thread that calls [`block_on`]; other threads do no more than wake it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use slab::Slab;

/// How long nothing is looked at where ppoll(2) fails.
const REST: Duration = Duration::from_millis(10);

/// What is waited for.
#[derive(Debug)]
struct Waiting {
    seats: Slab<State>,
    /// For ppoll(2), by the keys of the seats; -1 where nothing is waited for.
    descriptors: Vec<libc::pollfd>,
    /// Without a waker, it has passed.
    deadlines: Slab<(Instant, Option<Waker>)>,
}

/// Of a seat.
#[derive(Debug)]
enum State {
    Free,
    Waits(Waker),
    /// What was waited for has happened, and nobody has asked yet.
    Ready,
}

thread_local! {
    static WAITING: RefCell<Waiting> = const {
        RefCell::new(Waiting {
            seats: Slab::new(),
            descriptors: Vec::new(),
            deadlines: Slab::new(),
        })
    };
}

/// Runs a future to its end.
///
/// # Errors
/// What eventfd(2) failed with.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let alarm = Arc::new(Alarm {
        event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        has_rung: AtomicBool::new(false),
        is_heard: AtomicBool::new(false),
    });
    let seat = Seat::take();
    let waker = Waker::from(Arc::clone(&alarm));
    let cx = &mut Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        alarm.has_rung.store(false, SeqCst);
        if let Poll::Ready(outcome) = future.as_mut().poll(cx) {
            return Ok(outcome);
        }
        // Until it is waited for again: whoever wakes next must be heard too.
        while seat.poll(alarm.event.as_fd(), libc::POLLIN, cx).is_ready() {
            // Whatever it holds, it is empty now.
            let _ = rustix::io::read(&alarm.event, &mut [0; 8]);
        }
        // Whoever wakes while it waits writes to the descriptor.
        alarm.is_heard.store(true, SeqCst);
        let is_any_ready = wait(alarm.has_rung.load(SeqCst));
        alarm.is_heard.store(false, SeqCst);
        wake(is_any_ready);
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

/// Waits once, or only looks; whether any descriptor is ready.
fn wait(only_look: bool) -> bool {
    WAITING.with_borrow_mut(|waiting| {
        let timeout = if only_look {
            Some(Duration::ZERO)
        } else {
            let next = waiting.next_deadline();
            next.map(|at| at.saturating_duration_since(Instant::now()))
        };
        ppoll(&mut waiting.descriptors, timeout)
    })
}

/// Wakes whom it concerns; nothing is borrowed meanwhile, as wakers may do anything.
fn wake(is_any_ready: bool) {
    let count = WAITING.with_borrow(|waiting| waiting.descriptors.len());
    for key in 0..if is_any_ready { count } else { 0 } {
        let waker = WAITING.with_borrow_mut(|waiting| waiting.fired(key));
        waker.into_iter().for_each(Waker::wake);
    }
    while let Some(waker) = WAITING.with_borrow_mut(Waiting::due) {
        waker.wake();
    }
}

impl Waiting {
    fn begin(&mut self, key: usize, descriptor: BorrowedFd<'_>, events: i16, cx: &Context<'_>) {
        match self.seats.get_mut(key) {
            Some(State::Waits(waker)) => waker.clone_from(cx.waker()),
            Some(state) => *state = State::Waits(cx.waker().clone()),
            None => {}
        }
        if let Some(entry) = self.descriptors.get_mut(key) {
            entry.fd = descriptor.as_raw_fd();
            entry.events = events;
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let waited_for = self
            .deadlines
            .iter()
            .filter(|(_, (_, waker))| waker.is_some());
        waited_for.map(|(_, (at, _))| *at).min()
    }

    /// Who waits for a descriptor that is ready.
    fn fired(&mut self, key: usize) -> Option<Waker> {
        let descriptor = self.descriptors.get_mut(key)?;
        if descriptor.revents == 0 {
            return None;
        }
        descriptor.fd = -1;
        match std::mem::replace(self.seats.get_mut(key)?, State::Ready) {
            State::Waits(waker) => Some(waker),
            State::Free | State::Ready => None,
        }
    }

    /// Who waits for a deadline that has passed.
    fn due(&mut self) -> Option<Waker> {
        let next = self.next_deadline()?;
        if next > Instant::now() {
            return None;
        }
        let mut entries = self.deadlines.iter_mut().map(|(_, entry)| entry);
        let entry = entries.find(|(at, waker)| *at == next && waker.is_some());
        entry?.1.take()
    }
}

/// False where nothing is ready, or a signal ended the wait. Where the system refuses to wait, all that is waited for is
/// taken for ready after a rest: whoever looks finds out, and livelet is slow, not deaf.
#[allow(unsafe_code)]
fn ppoll(descriptors: &mut [libc::pollfd], timeout: Option<Duration>) -> bool {
    let timeout = timeout.map(|timeout| {
        // SAFETY: zeroes are a value of it; on some machines it has padding.
        let mut time: libc::timespec = unsafe { std::mem::zeroed() };
        time.tv_sec = timeout.as_secs().try_into().unwrap_or(i32::MAX.into());
        time.tv_nsec = timeout.subsec_nanos().into();
        time
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the descriptors and the time are valid for the call; no signal mask is given.
    let ready = unsafe {
        libc::ppoll(
            descriptors.as_mut_ptr(),
            descriptors.len() as libc::nfds_t,
            timeout,
            ptr::null(),
        )
    };
    if ready < 0 && io::Error::last_os_error().kind() != ErrorKind::Interrupted {
        thread::sleep(REST);
        for entry in descriptors {
            entry.revents = if entry.fd < 0 { 0 } else { entry.events };
        }
        return true;
    }
    ready > 0
}

/// A place for one descriptor to be waited for. It has to be dropped before the descriptor is closed.
#[derive(Debug)]
pub(crate) struct Seat {
    key: usize,
    of_this_thread: PhantomData<*const ()>,
}

impl Seat {
    pub(crate) fn take() -> Seat {
        WAITING.with_borrow_mut(|waiting| {
            let key = waiting.seats.insert(State::Free);
            if waiting.descriptors.len() <= key {
                waiting.descriptors.push(libc::pollfd {
                    fd: -1,
                    events: 0,
                    revents: 0,
                });
            }
            Seat {
                key,
                of_this_thread: PhantomData,
            }
        })
    }

    /// Ready where an earlier wait has ended; else begins one, as [`Seat::wait`].
    pub(crate) fn poll(
        &self,
        descriptor: BorrowedFd<'_>,
        events: i16,
        cx: &Context<'_>,
    ) -> Poll<()> {
        WAITING.with_borrow_mut(|waiting| {
            let state = waiting.seats.get_mut(self.key);
            if let Some(state @ State::Ready) = state {
                *state = State::Free;
                return Poll::Ready(());
            }
            waiting.begin(self.key, descriptor, events, cx);
            Poll::Pending
        })
    }

    /// Has the task of `cx` woken once when the descriptor is ready for `events`, or has failed (poll(2)).
    pub(crate) fn wait(&self, descriptor: BorrowedFd<'_>, events: i16, cx: &Context<'_>) {
        WAITING.with_borrow_mut(|waiting| waiting.begin(self.key, descriptor, events, cx));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // When the thread ends, nothing is waited for any more.
        let _ = WAITING.try_with(|waiting| {
            let mut waiting = waiting.borrow_mut();
            if let Some(entry) = waiting.descriptors.get_mut(self.key) {
                entry.fd = -1;
            }
            waiting.seats.try_remove(self.key)
        });
    }
}

/// A non-blocking socket, or what else can be waited for. One task at a time waits for it.
#[derive(Debug)]
pub(crate) struct Source<T> {
    // First, so that it is dropped first.
    seat: Seat,
    io: T,
}

impl<T: AsFd> Source<T> {
    /// Of what is non-blocking already.
    pub(crate) fn new(io: T) -> Source<T> {
        Source {
            seat: Seat::take(),
            io,
        }
    }

    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }

    /// The same source as another type.
    pub(crate) fn map<U>(self, convert: impl FnOnce(T) -> U) -> Source<U> {
        Source {
            seat: self.seat,
            io: convert(self.io),
        }
    }

    /// Waits once for room to write, or for an error.
    pub(crate) async fn writable(&self) {
        poll_fn(|cx| self.seat.poll(self.io.as_fd(), libc::POLLOUT, cx)).await;
    }

    /// Ready where a wait for something to read, or to accept, has ended; else begins one.
    pub(crate) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        self.seat.poll(self.io.as_fd(), libc::POLLIN, cx)
    }

    /// Reads as soon as there is something.
    pub(crate) async fn read_with<R>(
        &self,
        read: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.retry(libc::POLLIN, read).await
    }

    /// Writes as soon as there is room.
    pub(crate) async fn write_with<R>(
        &self,
        write: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.retry(libc::POLLOUT, write).await
    }

    async fn retry<R>(
        &self,
        events: i16,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        poll_fn(|cx| {
            loop {
                match operation(&self.io) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.seat.wait(self.io.as_fd(), events, cx);
                        return Poll::Pending;
                    }
                    outcome => return Poll::Ready(outcome),
                }
            }
        })
        .await
    }
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
            let _ = WAITING.try_with(|waiting| waiting.borrow_mut().deadlines.try_remove(key));
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
        self.key = Some(WAITING.with_borrow_mut(|waiting| waiting.deadlines.insert(entry)));
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.forget();
    }
}
