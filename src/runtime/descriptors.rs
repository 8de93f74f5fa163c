//! Descriptors that tasks wait for, with epoll(7).
//!
//! A descriptor is registered when it is waited for the first time, and stays so: what is read or written at once costs
//! no call here, and what is waited for again and again only the first one.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

use super::activity::{Activity, LastEvent};

/// Something to read, or to accept, or the end of it.
pub(crate) const READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);
/// Room to write.
pub(crate) const WRITE: EventFlags = EventFlags::OUT;
/// Reported whether it is asked for or not.
const FAILED: EventFlags = EventFlags::ERR.union(EventFlags::HUP);
/// What does not pass.
const OVER: EventFlags = FAILED.union(EventFlags::RDHUP);
/// A stream's, once and for all.
const ALL_CHANGES: EventFlags = READ.union(WRITE).union(EventFlags::ET);

/// How long nothing is looked at where the system refuses to wait.
const REST: Duration = Duration::from_millis(10);
/// The longest wait at once, in seconds: the kernel counts milliseconds in an int.
const LONGEST: i64 = 24 * 60 * 60;
/// How many events are taken at once.
const AT_ONCE: usize = 64;

thread_local! {
    static TABLE: RefCell<Table> = const {
        RefCell::new(Table {
            epoll: None,
            places: Slab::new(),
            generation: 0,
            activity: Activity::new(),
            is_deaf: false,
        })
    };
}

/// What is waited for.
#[derive(Debug)]
struct Table {
    epoll: Option<OwnedFd>,
    places: Slab<Place>,
    /// Of the last place.
    generation: u32,
    activity: Activity,
    /// Not all that is waited for is registered.
    is_deaf: bool,
}

/// Of a seat.
#[derive(Debug)]
struct Place {
    /// Tells it from another with the same key: what another process still has open is reported even when it is closed here.
    generation: u32,
    is_stream: bool,
    descriptor: RawFd,
    /// What is registered; nothing at first.
    registered: EventFlags,
    wanted: EventFlags,
    waker: Option<Waker>,
    /// What was waited for has happened, and nobody has asked yet.
    is_ready: bool,
    /// What has been reported for good.
    over: EventFlags,
    last_event: LastEvent,
}

/// Where events are put.
pub(super) struct Events([MaybeUninit<Event>; AT_ONCE]);

impl Events {
    /// None yet.
    pub(super) fn new() -> Events {
        Events([const { MaybeUninit::uninit() }; AT_ONCE])
    }
}

/// Has to be called before anything is waited for.
pub(super) fn begin() -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    TABLE.with_borrow_mut(|table| table.epoll = Some(epoll));
    Ok(())
}

/// What has happened.
pub(super) struct Happened<'e> {
    events: &'e [Event],
    /// Anybody may be ready.
    is_deaf: bool,
}

impl Happened<'_> {
    pub(super) fn is_nothing(&self) -> bool {
        self.events.is_empty()
    }
}

/// Waits once, as long as there is nothing and the timeout has not passed.
///
/// Where the system refuses to wait, all that is waited for is taken for ready after a rest: whoever looks finds out, and
/// livelet is slow, not deaf.
pub(super) fn wait(room: &mut Events, timeout: Option<Duration>) -> Happened<'_> {
    TABLE.with_borrow_mut(|table| {
        let is_deaf = mem::take(&mut table.is_deaf);
        let timeout = if is_deaf {
            Some(timeout.map_or(REST, |timeout| timeout.min(REST)))
        } else {
            timeout
        };
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(LONGEST).min(LONGEST),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let epoll = table.epoll.as_ref().ok_or(Errno::BADF);
        match epoll.and_then(|epoll| epoll::wait(epoll, &mut room.0, timeout.as_ref())) {
            Ok((events, _)) => Happened { events, is_deaf },
            Err(error) => {
                // A signal ends a wait, too.
                let has_failed = error != Errno::INTR;
                if has_failed {
                    thread::sleep(REST);
                }
                Happened {
                    events: &[],
                    is_deaf: is_deaf || has_failed,
                }
            }
        }
    })
}

/// Wakes whom it concerns; nothing is borrowed meanwhile, as wakers may do anything. True where a rest before the next
/// wait is worth it.
pub(super) fn wake(happened: &Happened<'_>) -> bool {
    for event in happened.events {
        let (data, flags) = (event.data.u64(), event.flags);
        let waker = TABLE.with_borrow_mut(|table| table.fired(data, flags));
        waker.into_iter().for_each(Waker::wake);
    }
    if happened.is_deaf {
        let count = TABLE.with_borrow(|table| table.places.capacity());
        for key in 0..count {
            let waker = TABLE.with_borrow_mut(|table| table.places.get_mut(key)?.ready());
            waker.into_iter().for_each(Waker::wake);
        }
    }
    let count = happened.events.len();
    TABLE.with_borrow(|table| table.activity.deserves_a_rest(count))
}

impl Table {
    /// Has `cx` woken; true where that is now.
    fn begin(
        &mut self,
        key: usize,
        descriptor: BorrowedFd<'_>,
        wanted: EventFlags,
        cx: &Context<'_>,
    ) -> bool {
        let (Some(place), Some(epoll)) = (self.places.get_mut(key), &self.epoll) else {
            return true;
        };
        if !place
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            place.waker = Some(cx.waker().clone());
        }
        place.wanted = wanted;
        place.is_ready = false;
        let flags = if place.is_stream { ALL_CHANGES } else { wanted };
        if place.registered != flags {
            let data = EventData::new_u64(u64::from(place.generation) << 32 | key as u64);
            let outcome = if place.registered.is_empty() {
                epoll::add(epoll, descriptor, data, flags)
            } else {
                epoll::modify(epoll, descriptor, data, flags)
            };
            if outcome.is_ok() {
                place.registered = flags;
                place.descriptor = descriptor.as_raw_fd();
            } else {
                self.is_deaf = true;
            }
        }
        place.over.intersects(wanted | FAILED)
    }

    /// Who waits for what is reported.
    fn fired(&mut self, data: u64, flags: EventFlags) -> Option<Waker> {
        let key = data as u32 as usize;
        let place = self.places.get_mut(key)?;
        if u64::from(place.generation) != data >> 32 {
            return None;
        }
        if place.is_stream {
            place.over |= flags & OVER;
            self.activity.note(&mut place.last_event);
        }
        if flags.intersects(place.wanted | FAILED) && place.waker.is_some() {
            return place.ready();
        }
        if !place.is_stream {
            // It would be reported again at once.
            self.forget(key);
        }
        None
    }

    #[allow(unsafe_code)]
    fn forget(&mut self, key: usize) {
        if let (Some(place), Some(epoll)) = (self.places.get_mut(key), &self.epoll) {
            if !mem::replace(&mut place.registered, EventFlags::empty()).is_empty() {
                // SAFETY: a seat is dropped before its descriptor is closed.
                let descriptor = unsafe { BorrowedFd::borrow_raw(place.descriptor) };
                // It can only fail where that is not registered.
                let _ = epoll::delete(epoll, descriptor);
            }
        }
    }
}

impl Place {
    fn ready(&mut self) -> Option<Waker> {
        let waker = self.waker.take();
        self.is_ready |= waker.is_some();
        waker
    }
}

/// A place for one descriptor to be waited for. It has to be dropped before the descriptor is closed.
#[derive(Debug)]
pub(crate) struct Seat {
    key: usize,
    of_this_thread: PhantomData<*const ()>,
}

impl Seat {
    pub(crate) fn take() -> Seat {
        Seat::new(false)
    }

    /// For a stream that nobody shares, and that is only waited for by who has just read all there was, or written all
    /// there was room for: only what changes is reported.
    pub(crate) fn of_stream() -> Seat {
        Seat::new(true)
    }

    fn new(is_stream: bool) -> Seat {
        let key = TABLE.with_borrow_mut(|table| {
            table.generation = table.generation.wrapping_add(1);
            table.places.insert(Place {
                generation: table.generation,
                is_stream,
                descriptor: -1,
                registered: EventFlags::empty(),
                wanted: EventFlags::empty(),
                waker: None,
                is_ready: false,
                over: EventFlags::empty(),
                last_event: LastEvent::default(),
            })
        });
        Seat {
            key,
            of_this_thread: PhantomData,
        }
    }

    /// Ready where an earlier wait has ended; else begins one, as [`Seat::wait`].
    pub(crate) fn poll(
        &self,
        descriptor: BorrowedFd<'_>,
        wanted: EventFlags,
        cx: &Context<'_>,
    ) -> Poll<()> {
        let is_over = TABLE.with_borrow_mut(|table| {
            let place = table.places.get_mut(self.key)?;
            let is_ready = mem::take(&mut place.is_ready);
            (!is_ready).then(|| table.begin(self.key, descriptor, wanted, cx))
        });
        match is_over {
            None => return Poll::Ready(()),
            Some(true) => cx.waker().wake_by_ref(),
            Some(false) => {}
        }
        Poll::Pending
    }

    /// Has the task of `cx` woken once when the descriptor is ready, or has failed.
    pub(crate) fn wait(&self, descriptor: BorrowedFd<'_>, wanted: EventFlags, cx: &Context<'_>) {
        if TABLE.with_borrow_mut(|table| table.begin(self.key, descriptor, wanted, cx)) {
            cx.waker().wake_by_ref();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // When the thread ends, nothing is waited for any more.
        let _ = TABLE.try_with(|table| {
            let mut table = table.borrow_mut();
            // What is closed is forgotten by itself, unless another process has it too.
            let is_stream = table
                .places
                .get(self.key)
                .is_some_and(|place| place.is_stream);
            if !is_stream {
                table.forget(self.key);
            }
            table.places.try_remove(self.key)
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
        poll_fn(|cx| self.seat.poll(self.io.as_fd(), WRITE, cx)).await;
    }

    /// Ready where a wait for something to read, or to accept, has ended; else begins one.
    pub(crate) fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        self.seat.poll(self.io.as_fd(), READ, cx)
    }

    /// Reads as soon as there is something.
    pub(crate) async fn read_with<R>(
        &self,
        read: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.retry(READ, read).await
    }

    /// Writes as soon as there is room.
    pub(crate) async fn write_with<R>(
        &self,
        write: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        self.retry(WRITE, write).await
    }

    async fn retry<R>(
        &self,
        wanted: EventFlags,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        poll_fn(|cx| {
            loop {
                match operation(&self.io) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.seat.wait(self.io.as_fd(), wanted, cx);
                        return Poll::Pending;
                    }
                    outcome => return Poll::Ready(outcome),
                }
            }
        })
        .await
    }
}
