//! The only place where livelet waits: an edge-triggered epoll(7) with every descriptor except
//! those of async-net. [`crate::runtime`] says why livelet does not use async-io here.
//!
//! A system call is tried first. If it would block, the source is registered once and keeps the
//! waker of its task. Any change of the descriptor wakes the task, which tries the call again. This
//! order has two effects:
//!
//! - An event for a call that has succeeded meanwhile makes a task try in vain, and does no harm.
//!   So keys are used again without a generation. A source is never removed by EPOLL_CTL_DEL: the
//!   kernel removes a descriptor when it is closed.
//! - EPOLL_CTL_ADD and EPOLL_CTL_MOD report a source that is ready already. So no change is lost
//!   between the call that would have blocked and the registration.
//!
//! Memory safety does not depend on this order: `epoll_ctl` borrows the descriptor from the source
//! that owns it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use slab::Slab;

/// Events of epoll(7) that end a wait for reading or for writing. Each is reported once
/// (edge-triggered).
const ANY_CHANGE: EventFlags = READABLE.union(EventFlags::OUT);
/// Events of epoll(7) that end a wait for reading: bytes, connections or the end of the stream.
/// Each is reported once (edge-triggered).
const READABLE: EventFlags = EventFlags::IN
    .union(EventFlags::RDHUP)
    .union(EventFlags::ET);
/// Maximum number of events that one epoll_wait(2) returns. The next call returns further events.
pub(super) const EVENTS: usize = 64;
/// Maximum timeout of one epoll_wait(2), in seconds. The kernel counts milliseconds in an `int`.
const MAX_TIMEOUT: i64 = 24 * 60 * 60;

thread_local! {
    static REACTOR: RefCell<Reactor> = const {
        RefCell::new(Reactor { epoll: None, wakers: Slab::new() })
    };
}

/// The epoll(7) descriptor of this thread, and the wakers of the tasks that wait for a source.
#[derive(Debug)]
struct Reactor {
    epoll: Option<OwnedFd>,
    /// Wakers of tasks, one for each registered source: that of the last task that waited for the
    /// source. The index of the waker is the key of the source.
    wakers: Slab<Waker>,
}

/// Opens the epoll(7) descriptor of this thread. Each write to `alarm`, an eventfd(2), ends the
/// running call of [`wait`].
///
/// # Errors
/// Returns the error of epoll_create1(2) or epoll_ctl(2).
pub(super) fn open(alarm: &OwnedFd) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    // Edge-triggered, so the eventfd is never read.
    epoll::add(&epoll, alarm, EventData::new_u64(u64::MAX), READABLE)?;
    REACTOR.with_borrow_mut(|reactor| reactor.epoll = Some(epoll));
    Ok(())
}

/// Waits until a registered descriptor has changed or `timeout` has passed. Replaces the content of
/// `events` by the changes, up to its capacity. Waits without limit if `timeout` is `None`.
///
/// # Errors
/// Returns the error of epoll_wait(2). A wait that a signal interrupts is no error, and has no
/// events.
pub(super) fn wait(events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
    events.clear();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).map_or(MAX_TIMEOUT, |secs| secs.min(MAX_TIMEOUT)),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let waited = REACTOR.with_borrow(|reactor| {
        let epoll = reactor.epoll.as_ref().ok_or(Errno::BADF)?;
        epoll::wait(epoll, spare_capacity(events), timeout.as_ref())
    });
    match waited {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Wakes the task that waits for the source to which `event` belongs.
pub(super) fn wake(event: &Event) {
    let key = usize::try_from(event.data.u64()).unwrap_or(usize::MAX);
    let waker = REACTOR.with_borrow(|reactor| reactor.wakers.get(key).cloned());
    // The reactor is not borrowed here: waking a task may do anything.
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A descriptor in non-blocking mode that a task of this thread can wait for. Only one task may
/// wait at a time.
#[derive(Debug)]
pub(crate) struct Source<T> {
    io: T,
    registration: Registration,
}

impl<T: AsFd> Source<T> {
    /// Wraps `io`, which must be in non-blocking mode.
    pub(crate) fn new(io: T) -> Source<T> {
        Source {
            io,
            registration: Registration::default(),
        }
    }

    /// Returns the wrapped descriptor.
    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }

    /// Returns the wrapped descriptor. The descriptor stays registered with epoll(7) until it is
    /// closed.
    pub(crate) fn into_inner(self) -> T {
        self.io
    }

    /// Returns the wrapped descriptor for calls that need it as mutable.
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// Calls `operation` until it succeeds, or fails with an error other than `WouldBlock`. Waits
    /// for a change of the descriptor between two calls.
    ///
    /// # Errors
    /// Returns the error of `operation`, or of epoll_ctl(2).
    pub(crate) async fn read_with<R>(
        &self,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        poll_fn(|cx| self.poll_with(cx, &mut operation)).await
    }

    /// Calls `operation` and returns its result. If the result is `WouldBlock`, returns
    /// `Poll::Pending`, and registers the task of `cx` to be woken by the next change of the
    /// descriptor.
    pub(crate) fn poll_with<R>(
        &self,
        cx: &Context<'_>,
        mut operation: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            match operation(&self.io) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                outcome => return Poll::Ready(outcome),
            }
        }
        match self.registration.keep(self.io.as_fd(), cx.waker()) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Waits until the descriptor is readable, or until the task is woken for another reason. If
    /// the descriptor is readable already, waits only until epoll(7) has reported that, and other
    /// tasks run meanwhile.
    ///
    /// So a loop that handles one item after each wait does not hold up other tasks, even if a peer
    /// sends without pause. Such a loop is also cheaper than one that calls accept4(2) until the
    /// queue is empty: the last of these calls makes a socket in vain, and costs more than the
    /// epoll_ctl(2) of a wait.
    ///
    /// # Errors
    /// Returns the error of epoll_ctl(2).
    pub(crate) async fn readable(&self) -> io::Result<()> {
        let mut is_asked = false;
        poll_fn(|cx| {
            if is_asked {
                return Poll::Ready(Ok(()));
            }
            is_asked = true;
            match self.registration.ask(self.io.as_fd(), READABLE, cx.waker()) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }
}

/// Registration of a [`Source`] with the epoll(7) descriptor of this thread.
#[derive(Debug, Default)]
struct Registration {
    /// Key of the source, and the events registered for it. `None` until a task waits for the
    /// source for the first time.
    registered: Cell<Option<Registered>>,
    of_this_thread: PhantomData<*const ()>,
}

#[derive(Debug, Clone, Copy)]
struct Registered {
    /// Key of the waker in [`Reactor::wakers`].
    key: usize,
    /// `true` if epoll reports any change of the descriptor. `false` if it reports only that the
    /// descriptor is readable.
    is_for_any: bool,
}

impl Registration {
    /// Registers `io` with epoll(7) for any change, unless that has been done. Stores `waker`: the
    /// next change of `io` wakes its task.
    fn keep(&self, io: BorrowedFd<'_>, waker: &Waker) -> io::Result<()> {
        match self.registered.get() {
            Some(registered) if registered.is_for_any => {
                keep(registered.key, waker);
                Ok(())
            }
            _ => self.ask(io, ANY_CHANGE, waker),
        }
    }

    /// Makes epoll(7) report the events `changes` of `io`, also if `io` is ready already. Stores
    /// `waker`: the next event wakes its task.
    fn ask(&self, io: BorrowedFd<'_>, changes: EventFlags, waker: &Waker) -> io::Result<()> {
        let data = |key| EventData::new_u64(key as u64);
        let key = REACTOR.with_borrow_mut(|reactor| {
            let epoll = reactor.epoll.as_ref().ok_or(Errno::BADF)?;
            if let Some(Registered { key, .. }) = self.registered.get() {
                epoll::modify(epoll, io, data(key), changes)?;
                return Ok::<_, Errno>(key);
            }
            let key = reactor.wakers.vacant_key();
            epoll::add(epoll, io, data(key), changes)?;
            Ok(reactor.wakers.insert(waker.clone()))
        })?;
        let is_for_any = changes == ANY_CHANGE;
        self.registered.set(Some(Registered { key, is_for_any }));
        keep(key, waker);
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(Registered { key, .. }) = self.registered.get() {
            // `try_with` fails when the thread ends, and then nothing waits any more.
            let waker = REACTOR.try_with(|reactor| reactor.borrow_mut().wakers.try_remove(key));
            drop(waker);
        }
    }
}

/// Stores `waker` for the source with the key `key`. The next event of the source wakes the waker's
/// task.
fn keep(key: usize, waker: &Waker) {
    let replaced = REACTOR.with_borrow_mut(|reactor| match reactor.wakers.get_mut(key) {
        Some(kept) if !kept.will_wake(waker) => Some(std::mem::replace(kept, waker.clone())),
        _ => None,
    });
    // The reactor is not borrowed here: dropping a waker may drop its task.
    drop(replaced);
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::thread;
    use std::time::Instant;

    use smol::LocalExecutor;
    use smol::future::or;

    use super::*;
    use crate::runtime::{Timer, block_on};

    fn run<T>(future: impl Future<Output = T>) -> T {
        block_on(&LocalExecutor::new(), future).unwrap()
    }

    fn pair() -> [Source<UnixStream>; 2] {
        let (one, two) = UnixStream::pair().unwrap();
        [one, two].map(|stream| {
            stream.set_nonblocking(true).unwrap();
            Source::new(stream)
        })
    }

    async fn read(source: &Source<UnixStream>) -> io::Result<usize> {
        source
            .read_with(|mut stream| stream.read(&mut [0; 64]))
            .await
    }

    #[test]
    fn bytes_written_later_are_read() {
        run(async {
            let [reader, writer] = pair();
            let write = async {
                Timer::after(Duration::from_millis(5)).await;
                writer.get_ref().write_all(b"abc").unwrap();
                pending().await
            };
            assert_eq!(or(read(&reader), write).await.unwrap(), 3);
            drop(writer);
            assert_eq!(read(&reader).await.unwrap(), 0, "the end is a change, too");
        });
    }

    #[test]
    fn a_full_socket_is_written_to_when_there_is_space() {
        run(async {
            let [reader, writer] = pair();
            let mut unread = 0;
            while let Ok(count) = writer.get_ref().write(&[0; 4096]) {
                unread += count;
            }
            let write = writer.read_with(|mut stream| stream.write(&[0; 1]));
            let drain = async {
                while unread > 0 {
                    let mut buffer = [0; 65536];
                    unread -= reader
                        .read_with(|mut stream| stream.read(&mut buffer))
                        .await?;
                }
                pending().await
            };
            assert_eq!(or(write, drain).await.unwrap(), 1);
        });
    }

    #[test]
    fn each_of_many_sources_wakes_its_own_task() {
        const MANY: usize = 10 * EVENTS;
        let executor = LocalExecutor::new();
        let pairs: Rc<Vec<_>> = Rc::new((0..MANY).map(|_| pair()).collect());
        let read_all = async {
            let mut tasks = Vec::new();
            for index in 0..MANY {
                let pairs = Rc::clone(&pairs);
                tasks.push(executor.spawn(async move { read(&pairs[index][0]).await.unwrap() }));
            }
            Timer::after(Duration::ZERO).await;
            for (index, [_, writer]) in pairs.iter().enumerate() {
                writer
                    .get_ref()
                    .write_all(&[0; 64][..index % 64 + 1])
                    .unwrap();
            }
            for (index, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await, index % 64 + 1);
            }
        };
        block_on(&executor, read_all).unwrap();
    }

    #[test]
    fn another_thread_ends_the_wait() {
        let executor = LocalExecutor::new();
        let unblocked = executor.spawn(smol::unblock(|| thread::sleep(Duration::from_millis(20))));
        block_on(&executor, unblocked).unwrap();
        run(smol::unblock(|| thread::sleep(Duration::from_millis(20))));
    }

    #[test]
    fn a_timer_ends_at_its_deadline_and_not_before() {
        run(async {
            for ms in [0, 1, 7, 30] {
                let deadline = Instant::now() + Duration::from_millis(ms);
                Timer::at(deadline).await;
                assert!(Instant::now() >= deadline);
            }
            let mut timer = Timer::after(Duration::from_secs(3600));
            timer.set(Instant::now());
            timer.await;
        });
    }

    #[test]
    fn readable_reports_again_what_is_left_in_the_queue() {
        run(async {
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let address = socket.local_addr().unwrap();
            let listener = Source::new(socket);
            let clients: Vec<_> = (0..3)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect();
            for client in &clients {
                listener.readable().await.unwrap();
                let (_, from) = listener.get_ref().accept().unwrap();
                assert_eq!(from, client.local_addr().unwrap());
            }
            let more = async { listener.readable().await.map(|()| false) };
            let none = async {
                Timer::after(Duration::from_millis(5)).await;
                Ok(true)
            };
            assert!(or(none, more).await.unwrap(), "an empty queue is no report");
        });
    }

    #[test]
    fn a_source_dropped_while_waiting_frees_its_key() {
        run(async {
            for _ in 0..100 {
                let [reader, writer] = pair();
                let wait = async { read(&reader).await.map(|_| ()) };
                let give_up = async {
                    Timer::after(Duration::ZERO).await;
                    Ok(())
                };
                or(wait, give_up).await.unwrap();
                drop((reader, writer));
            }
            let [reader, writer] = pair();
            writer.get_ref().write_all(b"x").unwrap();
            reader.readable().await.unwrap();
            let keys = REACTOR.with_borrow(|reactor| reactor.wakers.capacity());
            assert!(keys < 20, "{keys} keys");
        });
    }

    #[test]
    fn a_stale_event_only_makes_a_task_try_in_vain() {
        run(async {
            let [reader, writer] = pair();
            // A duplicate keeps the registration in the kernel after the source is gone.
            let duplicate = reader.get_ref().try_clone().unwrap();
            let wait = async { read(&reader).await.map(|_| ()) };
            or(wait, async {
                Timer::after(Duration::ZERO).await;
                Ok(())
            })
            .await
            .unwrap();
            drop(reader);
            let [other, other_writer] = pair();
            writer.get_ref().write_all(b"stale").unwrap();
            let write = async {
                Timer::after(Duration::from_millis(5)).await;
                other_writer.get_ref().write_all(b"ab").unwrap();
                pending().await
            };
            assert_eq!(or(read(&other), write).await.unwrap(), 2);
            drop(duplicate);
        });
    }

    #[test]
    fn a_signal_that_interrupts_the_wait_is_no_error() {
        let waiting = thread::spawn(|| {
            signal_hook::flag::register(libc::SIGURG, std::sync::Arc::default()).unwrap();
            let id = rustix::thread::gettid();
            let interrupt = thread::spawn(move || {
                for _ in 0..20 {
                    thread::sleep(Duration::from_millis(1));
                    tgkill(id);
                }
            });
            run(Timer::after(Duration::from_millis(30)));
            interrupt.join().unwrap();
        });
        waiting.join().unwrap();
    }

    #[allow(unsafe_code, reason = "rustix has no tgkill(2)")]
    fn tgkill(thread: rustix::thread::Pid) {
        let process = rustix::process::getpid().as_raw_pid();
        // SAFETY: tgkill(2) takes three numbers.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread.as_raw_pid(), libc::SIGURG) };
    }

    #[test]
    fn a_failed_registration_is_an_error_of_the_wait() {
        run(async {
            // Regular files are always ready, and epoll_ctl(2) refuses them.
            let file = Source::new(std::fs::File::open("/proc/self/stat").unwrap());
            let refused = file.readable().await.unwrap_err();
            assert_eq!(Errno::from_io_error(&refused), Some(Errno::PERM));
            let blocked = || io::Error::from(ErrorKind::WouldBlock);
            let refused = file
                .read_with(|_| Err::<(), _>(blocked()))
                .await
                .unwrap_err();
            assert_eq!(Errno::from_io_error(&refused), Some(Errno::PERM));
        });
    }
}
