//! Start of the livelet process: finds the listening sockets, starts the worker and begins to
//! serve.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::getpid;
use smol::future::or;

use super::lifecycle::Event;
use super::signals::Arrived;
use super::{Process, RunError};
use crate::check::{Check, Kind};
use crate::handover::{Listener, Predecessor, TakenOver};
use crate::listen::{self, Found, Listen, ListenError, Wait};
use crate::log;
use crate::notify::{NotifySocket, Upstream};
use crate::responder::Responder;
use crate::runtime::{Source, Timer, task};
use crate::worker::{ChildProgress, ChildReport, SpawnError};

/// Time from the end of livelet's start until it reads from /proc which signals the worker catches.
/// It is long enough for programs to set their handlers. It is short enough to come before the
/// first stop by a file watcher, which waits until a developer saves a file.
const SETTLED_IN: Duration = Duration::from_secs(1);

/// Time after which the worker counts as late if it has not executed its program. Below one second,
/// so that a prober that waits for one second still gets a response with the reason.
const LATE: Duration = Duration::from_millis(800);

/// Name of the environment variable with the address of the socket for sd_notify(3) messages.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A listening socket, and how livelet got it.
struct Listening {
    socket: TcpListener,
    origin: Origin,
}

enum Origin {
    Bound,
    Inherited,
    TakenOver(Predecessor),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Bound => Ok(()),
            Origin::Inherited => f.write_str(" (inherited)"),
            Origin::TakenOver(from) => write!(f, " (taken over from pid {})", from.pid),
        }
    }
}

impl Process<'_> {
    /// Starts the worker and begins to serve on the sockets in `inherited`. If the list is empty,
    /// listens on the configured addresses instead. Returns early if a stop begins or the worker
    /// ends.
    pub(super) async fn start(&mut self, inherited: Vec<TcpListener>) -> Result<(), RunError> {
        let sockets = if inherited.is_empty() {
            self.open_sockets().await?
        } else {
            let sockets = inherited.into_iter().map(|socket| Listening {
                socket,
                origin: Origin::Inherited,
            });
            sockets.collect()
        };
        if self.lifecycle.is_stopping() {
            return Ok(());
        }
        self.serve_and_start_worker(sockets).await?;
        if self.lifecycle.is_stopping() {
            return Ok(());
        }
        if let Some(limit) = self.config.exit_on_unhealthy {
            let watch = Rc::clone(&self.responder).watch(limit);
            task::spawn(&self.executor, watch);
        }
        if let Some(pid) = self.tree.worker() {
            log::notice(format_args!("worker: pid {pid}: started"));
        }
        self.leave_directory();
        self.say_ready();
        // A file watcher runs in the same container, above livelet. So livelet is not PID 1 there.
        if self.has_worker() && !getpid().is_init() {
            self.catchers_at = Some(Instant::now() + SETTLED_IN);
        }
        self.step(Event::Started);
        Ok(())
    }

    /// Returns a listening socket for each configured address. If another livelet offers its
    /// socket, first starts the worker and then accepts the offer: if the worker can't be started,
    /// the other livelet keeps its socket. If a stop begins, returns only the sockets found so far.
    async fn open_sockets(&mut self) -> Result<Vec<Listening>, RunError> {
        let wait = Wait {
            limit: self.config.bind_wait,
            takeover: self.config.takeover,
            reuse_port: self.config.reuse_port,
        };
        let mut missing: Vec<Listen> = self.config.listen.clone();
        let mut sockets = Vec::new();
        while !missing.is_empty() {
            let Some(found) = self.find_sockets(&missing, wait).await? else {
                return Ok(sockets);
            };
            if found.iter().any(|found| matches!(found, Found::Offered(_))) {
                self.serve_and_start_worker(Vec::new()).await?;
                if self.lifecycle.is_stopping() {
                    return Ok(sockets);
                }
            }
            let mut lapsed = Vec::new();
            for (address, found) in missing.into_iter().zip(found) {
                match found {
                    Found::Bound(socket) => sockets.push(Listening {
                        socket,
                        origin: Origin::Bound,
                    }),
                    Found::Offered(offer) => match offer.accept() {
                        Some(TakenOver { socket, from }) => sockets.push(Listening {
                            socket,
                            origin: Origin::TakenOver(from),
                        }),
                        None => lapsed.push(address),
                    },
                }
            }
            missing = lapsed;
        }
        Ok(sockets)
    }

    /// Finds a listening socket, or another livelet's offer of one, for each of `addresses`. Waits
    /// for addresses in use as `wait` says, and handles signals meanwhile. Returns `None` if a stop
    /// begins first.
    async fn find_sockets(
        &mut self,
        addresses: &[Listen],
        wait: Wait,
    ) -> Result<Option<Vec<Found>>, RunError> {
        enum Happened {
            Signals(Vec<Arrived>),
            Found(Result<Vec<Found>, ListenError>),
        }
        let closer = Rc::clone(self.holder.closer());
        let mut found = pin!(listen::find(addresses, wait, &closer));
        loop {
            let signalled = async { Happened::Signals(self.signals.next().await) };
            let found = async { Happened::Found(found.as_mut().await) };
            match or(signalled, found).await {
                Happened::Found(found) => return found.map(Some).map_err(RunError::Listen),
                Happened::Signals(arrived) => {
                    for event in self.events_of(&arrived) {
                        self.step(event);
                    }
                }
            }
            if self.lifecycle.is_stopping() {
                return Ok(None);
            }
        }
    }

    /// Changes livelet's working directory to `/`, so that livelet keeps no mount busy. Does
    /// nothing if a check runs a program, because the program needs the original directory.
    fn leave_directory(&self) {
        if !self
            .checks()
            .any(|check| matches!(check.kind, Kind::Exec(_)))
        {
            // The worker does not depend on this, so an error is ignored.
            let _ = std::env::set_current_dir("/");
        }
    }

    /// Begins to serve on `sockets`, and starts the worker unless it is already running. Waits
    /// until the worker has executed its program, and handles events once the worker counts as
    /// late. Returns early if a stop begins.
    async fn serve_and_start_worker(&mut self, sockets: Vec<Listening>) -> Result<(), RunError> {
        if !self.has_worker() || self.tree.worker().is_some() {
            return self.serve(sockets);
        }
        let report = Source::new(self.fork_worker()?);
        let late_at = Instant::now() + LATE;
        let mut sockets = Some(sockets);
        loop {
            let progress = async {
                // If epoll refuses the descriptor (ENOSPC, ENOMEM), the child counts as started. If
                // it has failed, SIGCHLD reports that.
                let progress = report.read_with(ChildReport::progress).await;
                (Some(progress.unwrap_or(ChildProgress::Done)), Vec::new())
            };
            let late = async {
                Timer::at(late_at).await;
                let events = if self.is_worker_late {
                    self.next_events().await
                } else {
                    Vec::new()
                };
                // These events may include the end of the child, and its error came before.
                (report.get_ref().progress().ok(), events)
            };
            let (progress, events) = or(progress, late).await;
            if let Some(ChildProgress::Failed(cause)) = progress {
                self.tree.reap_failed_worker();
                return Err(self.cannot_start(cause.into()));
            }
            if let Some(sockets) = sockets.take() {
                // Unless livelet takes a socket over, the ready line is written before the worker's
                // program runs, whose output may fill the pipe of stderr.
                self.serve(sockets)?;
                let gone_on = report.get_ref().go_on();
                gone_on.map_err(|cause| self.cannot_start(cause.into()))?;
            }
            for event in events {
                self.step(event);
            }
            if self.lifecycle.is_stopping() {
                return Ok(());
            }
            if progress == Some(ChildProgress::Done) {
                self.is_worker_late = false;
                self.begin_checks();
                self.step(Event::WorkerStarted);
                return Ok(());
            }
            if progress.is_none() && !self.is_worker_late {
                log::notice(format_args!(
                    "worker: its program cannot be executed yet; a mount may hang"
                ));
                self.is_worker_late = true;
                self.publish();
            }
        }
    }

    /// Forks the child that becomes the worker. Returns the channel over which the child reports
    /// its progress.
    fn fork_worker(&mut self) -> Result<ChildReport, RunError> {
        let mut notify_socket = self.open_notify_socket()?;
        let passed_on = std::mem::take(&mut self.passed_on);
        let mut variables = passed_on.variables();
        let socket_name = notify_socket.as_ref().map(|socket| socket.name.clone());
        variables.extend(socket_name.map(|name| (NOTIFY_SOCKET, name)));
        variables.extend(self.watchdog().map(|limit| {
            let usec = limit.as_micros().to_string();
            ("WATCHDOG_USEC", usec.into())
        }));
        let mask = self.signals.inherited();
        let report = self
            .tree
            .start_worker(&self.config.command, mask, &variables, &passed_on)
            .map_err(|cause| self.cannot_start(cause))?;
        if let Some(socket) = &mut notify_socket {
            let (notified, upstream) = (self.responder.notified(), Rc::clone(&self.upstream));
            socket.listen(&self.executor, notified, upstream);
        }
        self.notify_socket = notify_socket;
        Ok(report)
    }

    fn cannot_start(&self, cause: io::Error) -> RunError {
        RunError::Spawn(SpawnError::new(&self.config.command, cause))
    }

    /// Opens the socket for the worker's sd_notify(3) messages. Returns `None` if neither a check
    /// nor livelet's own supervisor needs the socket. Also returns `None` if only the supervisor
    /// needs the socket and it can't be opened.
    fn open_notify_socket(&self) -> Result<Option<NotifySocket>, RunError> {
        let mut kinds = self.checks().map(|check| &check.kind);
        let is_checked = kinds.any(|kind| matches!(kind, Kind::Notify | Kind::Watchdog(_)));
        if !is_checked && !self.upstream.is_there() {
            return Ok(None);
        }
        match NotifySocket::open() {
            Ok(socket) => Ok(Some(socket)),
            Err(cause) if is_checked => Err(RunError::System(NOTIFY_SOCKET, cause)),
            Err(cause) => {
                let cause = log::Cause(&cause);
                log::notice(format_args!(
                    "notify: socket: cannot be opened for the worker: {cause}"
                ));
                Ok(None)
            }
        }
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.config.live.iter().chain(&self.config.ready)
    }

    /// Returns the time limit that the worker gets in WATCHDOG_USEC: the smallest of the limits
    /// that `watchdog` checks and livelet's own supervisor set. Returns `None` if none of them sets
    /// a limit.
    fn watchdog(&self) -> Option<Duration> {
        let limits = self.checks().filter_map(|check| match check.kind {
            Kind::Watchdog(limit) => Some(limit),
            _ => None,
        });
        limits.chain(self.upstream.watchdog).min()
    }

    /// Sends READY=1 to livelet's own supervisor. If livelet has a worker and the check `notify` is
    /// configured, does not send it, because the worker sends READY=1 itself. If livelet has no
    /// worker and the supervisor sets a watchdog limit, also starts to send WATCHDOG=1.
    fn say_ready(&self) {
        let says_itself =
            self.has_worker() && self.checks().any(|check| check.kind == Kind::Notify);
        if !says_itself {
            self.upstream.send(b"READY=1");
        }
        if let Some(limit) = self.upstream.watchdog.filter(|_| !self.has_worker()) {
            let (responder, upstream) = (Rc::clone(&self.responder), Rc::clone(&self.upstream));
            task::spawn(&self.executor, feed_watchdog(responder, upstream, limit));
        }
    }

    /// Starts to accept connections on `sockets`, and logs the address of each.
    fn serve(&self, sockets: Vec<Listening>) -> Result<(), RunError> {
        // A probe may be answered before the worker's program is executed.
        self.begin_checks();
        self.publish();
        let failed = |cause| RunError::System("listening socket", cause);
        for Listening { socket, origin } in sockets {
            let address = socket.local_addr().map_err(failed)?;
            let ready = format!("listening on http://{address}{origin}");
            let listener = Listener::new(socket).map_err(failed)?;
            self.server.accept_from(Rc::clone(&listener));
            match origin {
                Origin::Bound if !self.config.reuse_port => {
                    self.holder.answer_for(&listener, None);
                }
                Origin::TakenOver(from) => self.holder.answer_for(&listener, Some(from)),
                Origin::Bound | Origin::Inherited => {}
            }
            log::notice(format_args!("{ready}"));
        }
        Ok(())
    }

    /// Records the present time; the last call counts. Until the first heartbeat comes, the checks
    /// `heartbeat:` and `watchdog:` count its age from this time. Programs of `exec:` checks
    /// get the signal mask that livelet was started with.
    fn begin_checks(&self) {
        self.responder.observer().begin(self.signals.inherited());
    }
}

/// Runs the liveness checks again and again, with a pause of half of `limit`. Sends `WATCHDOG=1` to
/// `upstream`, livelet's own supervisor, each time that liveness passes. Never returns.
async fn feed_watchdog(responder: Rc<Responder>, upstream: Rc<Upstream>, limit: Duration) {
    loop {
        if responder.lives().await {
            upstream.send(b"WATCHDOG=1");
        }
        Timer::after(limit / 2).await;
    }
}
