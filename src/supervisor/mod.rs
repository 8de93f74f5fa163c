//! Runs livelet: sets up, listens and starts the worker. Then passes events to the lifecycle until
//! the lifecycle ends the process.
//!
//! Only [`Process`] changes the state of the livelet process. [`lifecycle`] decides what to do, and
//! `Process` does it.

pub mod lifecycle;
mod signals;

use std::fmt;
use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libc::SIGCHLD;
use rustix::pipe::pipe;
use rustix::process::getpid;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use smol::LocalExecutor;
use smol::future::{or, yield_now};

use crate::check::{Check, Kind};
use crate::config::Config;
use crate::exit_code;
use crate::handover::{Holder, Listener, Predecessor, Taken, TakenOver};
use crate::health::Snapshot;
use crate::http::server::Server;
use crate::listen::{self, Found, Inherited, Listen, ListenError, PassedOn, Sharing, Wait};
use crate::log;
use crate::notify::{NotifySocket, Upstream};
use crate::responder::Responder;
use crate::runtime::{self, Source, Timer, task};
use crate::signal;
use crate::worker::{ChildProgress, Ended, Report, SpawnError, Tree};

use lifecycle::{Action, Draining, Event, Lifecycle, Plan, Received};
use signals::{Arrived, Signals};

/// Maximum time for which an idle connection stays open in a drain, after another livelet has taken
/// over the listening socket. A client that does not know of this handover can send one more
/// request and gets a response.
const HANDOVER_GRACE: Duration = Duration::from_secs(2);

/// Time from the end of livelet's start until it reads from /proc which signals the worker catches.
/// It is long enough for programs to set their handlers. It is short enough to come before the
/// first stop by a file watcher, which waits until a developer saves a file.
const SETTLED_IN: Duration = Duration::from_secs(1);

/// Time after which the worker counts as late if it has not executed its program. Below one second,
/// so that a prober that waits for one second still gets a response with the reason.
const LATE: Duration = Duration::from_millis(800);

/// Name of the environment variable with the address of the socket for sd_notify(3) messages.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Reason why livelet could not start.
#[derive(Debug)]
pub enum RunError {
    /// livelet could not listen on an address.
    Listen(ListenError),
    /// livelet could not start the worker.
    Spawn(SpawnError),
    /// The system refused something else that livelet needs. The fields are a name for it and the
    /// error.
    System(&'static str, io::Error),
}

impl RunError {
    /// Returns livelet's exit code for this error: 125, or that of [`SpawnError`] if the worker
    /// could not be started.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Spawn(error) => error.exit_code(),
            RunError::Listen(_) | RunError::System(..) => exit_code::FAILURE,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Listen(error) => error.fmt(f),
            RunError::Spawn(error) => error.fmt(f),
            RunError::System(what, cause) => write!(f, "start: {what}: {}", log::Cause(cause)),
        }
    }
}

impl std::error::Error for RunError {}

/// Serves until a signal ends livelet or the worker has ended. Returns livelet's exit code.
///
/// # Errors
/// Returns an error if livelet could not start, or if epoll(7) fails. If the start fails, no worker
/// is running.
pub fn run(config: &Config) -> Result<u8, RunError> {
    // Before anything is opened: inherited sockets are known by their numbers alone.
    let Inherited { own, passed_on } = listen::take_inherited(Sharing {
        has_worker: !config.command.is_empty(),
        has_addresses: config.has_addresses,
    })
    .map_err(|cause| RunError::System("LISTEN_FDS", cause))?;
    let executor = Rc::new(LocalExecutor::new());
    let process = Process::set_up(config, &executor, passed_on)?;
    runtime::block_on(&executor, process.serve_until_exit(own))
        .map_err(|cause| RunError::System("epoll", cause))?
}

/// Sends `WATCHDOG=1` to `upstream`, livelet's own supervisor, twice in each period of `limit`.
/// Sends nothing while liveness fails. Never returns.
async fn feed_watchdog(responder: Rc<Responder>, upstream: Rc<Upstream>, limit: Duration) {
    loop {
        if responder.lives().await {
            upstream.send(b"WATCHDOG=1");
        }
        Timer::after(limit / 2).await;
    }
}

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

/// The livelet process while it runs. Passes events to the lifecycle, and performs the actions that
/// the lifecycle returns. No other type changes the state of the lifecycle.
struct Process<'c> {
    config: &'c Config,
    executor: Rc<LocalExecutor<'static>>,
    signals: Signals,
    lifecycle: Lifecycle,
    responder: Rc<Responder>,
    server: Rc<Server>,
    holder: Rc<Holder>,
    tree: Tree,
    /// livelet's own supervisor, such as systemd.
    upstream: Rc<Upstream>,
    /// Socket for the worker's sd_notify(3) messages. `None` before the start of the worker. Also
    /// `None` if neither a check nor livelet's own supervisor needs the socket, or if only the
    /// supervisor needs it and it can't be opened.
    notify_socket: Option<NotifySocket>,
    /// Sockets that livelet has inherited and passes on to the worker. Empty after the start of the
    /// worker.
    passed_on: PassedOn,
    /// `true` if livelet must now reap the children that have ended, and not wait for a SIGCHLD.
    must_reap: bool,
    /// `true` if the worker has not executed its program within [`LATE`].
    is_worker_late: bool,
    /// Time at which livelet reads from /proc which signals the worker catches. `None` before the
    /// worker's start, after the reading, and if livelet does not need the signals.
    catchers_at: Option<Instant>,
    /// Exit code of livelet. `None` until the lifecycle has ended.
    exit_code: Option<u8>,
}

impl<'c> Process<'c> {
    fn set_up(
        config: &'c Config,
        executor: &Rc<LocalExecutor<'static>>,
        passed_on: PassedOn,
    ) -> Result<Process<'c>, RunError> {
        let has_worker = !config.command.is_empty();
        // This comes first, so that no signal is lost: the kernel drops signals that PID 1 has no
        // handler for.
        let signals = Signals::new(has_worker, &config.stop_signals)
            .map_err(|cause| RunError::System("signals", cause))?;
        let tree = Tree::new(config.signals_group);
        let responder = Responder::new(Rc::clone(executor), config);
        let server = Server::new(
            Rc::clone(executor),
            config.max_connections,
            Rc::clone(&responder),
        );
        let stop_with = config.stop_signals.first().copied().unwrap_or_default();
        let lifecycle = Lifecycle::new(Plan {
            has_worker,
            is_init: getpid().is_init(),
            has_earlier_children: tree.has_earlier,
            drain: config.drain,
            grace: config.grace,
            lame_duck: config.lame_duck,
            stop_signals: config.stop_signals.iter().copied().collect(),
            stop_with: rewritten(config, stop_with),
        });
        Ok(Process {
            config,
            executor: Rc::clone(executor),
            signals,
            lifecycle,
            responder,
            server,
            holder: Holder::new(Rc::clone(executor)),
            tree,
            upstream: Rc::new(Upstream::from_environment()),
            notify_socket: None,
            passed_on,
            must_reap: false,
            is_worker_late: false,
            catchers_at: None,
            exit_code: None,
        })
    }

    /// Starts livelet with the listening sockets in `inherited`, then handles events until the
    /// lifecycle ends. Returns livelet's exit code.
    async fn serve_until_exit(mut self, inherited: Vec<TcpListener>) -> Result<u8, RunError> {
        match self.start(inherited).await {
            Ok(()) => {}
            Err(error) if self.tree.worker().is_none() => return Err(error),
            Err(error) => {
                log::failure(format_args!("{error}"));
                self.step(Event::ListenFailed);
            }
        }
        loop {
            if let Some(code) = self.exit_code {
                return Ok(code);
            }
            for event in self.next_events().await {
                self.step(event);
            }
        }
    }

    /// Starts the worker and begins to serve on the sockets in `inherited`. If the list is empty,
    /// listens on the configured addresses instead. Returns early if a stop begins or the worker
    /// ends.
    async fn start(&mut self, inherited: Vec<TcpListener>) -> Result<(), RunError> {
        let sockets = if inherited.is_empty() {
            self.listen().await?
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
        self.start_worker(sockets).await?;
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
        // A watcher is a process of the same container, so livelet is not PID 1 there.
        if self.has_worker() && !getpid().is_init() {
            self.catchers_at = Some(Instant::now() + SETTLED_IN);
        }
        self.step(Event::Listening);
        Ok(())
    }

    /// Returns a listening socket for each configured address. If another livelet offers its
    /// socket, first starts the worker and then accepts the offer: if the worker can't be started,
    /// the other livelet keeps its socket. If a stop begins, returns only the sockets found so far.
    async fn listen(&mut self) -> Result<Vec<Listening>, RunError> {
        let wait = Wait {
            limit: self.config.bind_wait,
            takeover: self.config.takeover,
            reuse_port: self.config.reuse_port,
        };
        let mut missing: Vec<Listen> = self.config.listen.clone();
        let mut sockets = Vec::new();
        while !missing.is_empty() {
            let Some(found) = self.find(&missing, wait).await? else {
                return Ok(sockets);
            };
            if found.iter().any(|found| matches!(found, Found::Offered(_))) {
                self.start_worker(Vec::new()).await?;
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
    async fn find(
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
        let mut checks = self.config.live.iter().chain(&self.config.ready);
        if !checks.any(|check| matches!(check.kind, Kind::Exec(_))) {
            // The worker does not depend on this, so an error is ignored.
            let _ = std::env::set_current_dir("/");
        }
    }

    fn has_worker(&self) -> bool {
        !self.config.command.is_empty()
    }

    /// Begins to serve on `sockets`, and starts the worker unless it is already running. Handles
    /// events while a mount that hangs delays the worker's program. Returns early if a stop begins.
    async fn start_worker(&mut self, sockets: Vec<Listening>) -> Result<(), RunError> {
        if !self.has_worker() || self.tree.worker().is_some() {
            return self.serve(sockets);
        }
        let report = Source::new(self.fork_worker()?);
        let late_at = Instant::now() + LATE;
        let mut sockets = Some(sockets);
        loop {
            let progress = async {
                // If epoll refuses the descriptor (ENOSPC, ENOMEM), SIGCHLD reports a child that
                // has failed.
                let progress = report.read_with(Report::progress).await;
                (Some(progress.unwrap_or(ChildProgress::Done)), Vec::new())
            };
            let late = async {
                Timer::at(late_at).await;
                let events = if self.is_worker_late {
                    self.next_events().await
                } else {
                    Vec::new()
                };
                // If the child has ended, its error has arrived by now.
                (report.get_ref().progress().ok(), events)
            };
            let (progress, events) = or(progress, late).await;
            if let Some(ChildProgress::Failed(cause)) = progress {
                self.tree.reap_failed_worker();
                return Err(self.cannot_start(cause.into()));
            }
            if let Some(sockets) = sockets.take() {
                // The ready line comes before the worker, which may fill the pipe of stderr.
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
    fn fork_worker(&mut self) -> Result<Report, RunError> {
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

    /// Records the present time as the start of the worker. Until the first heartbeat comes, the
    /// checks `heartbeat:` and `watchdog:` count its age from this time. Programs of `exec:` checks
    /// get the signal mask that livelet was started with.
    fn begin_checks(&self) {
        self.responder.observer().begin(self.signals.inherited());
    }

    /// Passes `event` to the lifecycle, publishes the new state and performs the actions that the
    /// lifecycle returns.
    fn step(&mut self, event: Event) {
        let actions = self.lifecycle.step(event, Instant::now());
        if self.lifecycle.is_stopping() {
            self.holder.stop();
            self.server.stop();
        }
        self.publish();
        for action in actions {
            self.act(action);
        }
    }

    /// Publishes the state of the livelet process to the tasks that answer probes.
    fn publish(&self) {
        self.responder.publish(Snapshot {
            has_worker: self.has_worker(),
            is_stopping: self.lifecycle.is_stopping(),
            has_worker_failed: self.lifecycle.worker_has_failed(),
            is_worker_late: self.is_worker_late,
            pid: self
                .tree
                .worker()
                .map_or_else(std::process::id, i32::unsigned_abs),
        });
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Stop(signal) => self.tree.stop(signal),
            Action::Forward(signal) => self.tree.forward(signal),
            Action::StopLeftovers(signal) => self.tree.stop_leftovers(signal),
            Action::ForwardToLeftovers(signal) => self.tree.forward_to_leftovers(signal),
            Action::Kill => {
                self.tree.kill();
                self.must_reap = true;
            }
            Action::Drain => self.drain(),
            Action::EndListening => self.server.end_listening(),
            Action::Cut => {
                let open = self.server.open_connections();
                log::notice(format_args!("drain: {open} connections: cut; see --drain"));
                self.server.cut();
            }
            Action::CloseOutput => {
                close_output();
                self.must_reap = true;
            }
            Action::Exit(code) => self.exit_code = Some(code),
        }
    }

    /// Begins the drain of the HTTP server, in which open connections finish. Idle connections are
    /// closed at once, or in a handover after at most [`HANDOVER_GRACE`].
    fn drain(&self) {
        let idle_for = if self.holder.has_successor() {
            HANDOVER_GRACE.min(self.config.drain)
        } else {
            Duration::ZERO
        };
        self.server.drain(Instant::now() + idle_for);
    }

    /// Waits for the next events and returns them. The list may be empty.
    async fn next_events(&mut self) -> Vec<Event> {
        enum Happened {
            Signals(Vec<Arrived>),
            Taken(Vec<Taken>),
            Catchers,
            Other(Event),
        }
        if self.must_reap {
            // Connections are handled between two rounds.
            yield_now().await;
            return self.reap();
        }
        let Process {
            signals,
            lifecycle,
            responder,
            server,
            holder,
            catchers_at,
            ..
        } = self;
        let signalled = async { Happened::Signals(signals.next().await) };
        let taken = async { Happened::Taken(holder.taken().await) };
        let drained = async {
            let event = match lifecycle.draining() {
                Some(Draining::Older) => {
                    server.older_finished().await;
                    Event::OlderFinished
                }
                Some(Draining::Successors) => {
                    holder.alone().await;
                    Event::Alone
                }
                Some(Draining::Queue) => {
                    server.drained().await;
                    Event::Drained
                }
                None => pending().await,
            };
            Happened::Other(event)
        };
        let unhealthy = async {
            // Liveness may fail while the worker stops.
            if lifecycle.is_stopping() {
                pending::<()>().await;
            }
            responder.unhealthy().await;
            Happened::Other(Event::Unhealthy)
        };
        let due = async {
            lifecycle
                .deadline()
                .map_or_else(Timer::never, Timer::at)
                .await;
            Happened::Other(Event::Tick)
        };
        let catchers = async {
            catchers_at.map_or_else(Timer::never, Timer::at).await;
            Happened::Catchers
        };
        let due = or(due, catchers);
        match or(signalled, or(taken, or(drained, or(unhealthy, due)))).await {
            Happened::Signals(arrived) => self.events_of(&arrived),
            Happened::Taken(taken) => self.handed_over(&taken),
            Happened::Catchers => {
                self.catchers_at = None;
                self.tree.note_catchers();
                log::detail(format_args!("worker: noted which signals it catches"));
                Vec::new()
            }
            Happened::Other(event) => {
                if event == Event::Unhealthy {
                    log::notice(format_args!(
                        "health: livez: has failed for too long: stopping; see --exit-on-unhealthy"
                    ));
                }
                vec![event]
            }
        }
    }

    /// Stops accepting connections on the sockets in `taken`, which a successor has taken. Returns
    /// a list with [`Event::Replaced`] if the successor was started with `--takeover` and livelet
    /// is not stopping yet. Otherwise returns an empty list.
    fn handed_over(&self, taken: &[Taken]) -> Vec<Event> {
        self.server.released();
        for Taken { address, pid, .. } in taken {
            log::notice(format_args!("handover: {address}: taken over by pid {pid}"));
        }
        let replaced = taken.iter().any(|taken| taken.by_takeover);
        if replaced && !self.lifecycle.is_stopping() {
            vec![Event::Replaced]
        } else {
            Vec::new()
        }
    }

    fn events_of(&mut self, arrived: &[Arrived]) -> Vec<Event> {
        let mut events = Vec::new();
        for &Arrived { signal, sender } in arrived {
            match signal {
                SIGCHLD => events.extend(self.reap()),
                _ => events.extend(self.received(signal, sender)),
            }
        }
        events
    }

    /// Logs that livelet has received `signal`, and returns the event for the lifecycle. Returns
    /// `None` if the option `--signal` drops the signal. `sender` is the pid of the sender, or 0 if
    /// it is not known.
    fn received(&mut self, signal: i32, sender: i32) -> Option<Event> {
        let forward = rewritten(self.config, signal);
        if signal::is_worth_a_line(signal) {
            let name = signal::name(signal);
            let then = match forward {
                0 => "dropped; see --signal".to_string(),
                to if to != signal => format!("received, forwarded as {}", signal::name(to)),
                _ => "received".to_string(),
            };
            log::notice(format_args!("signal: {name}: {then}"));
        }
        if forward == 0 {
            return None;
        }
        // A process of livelet's own container, PID 1 apart, may be a watcher that signals every
        // process of a tree.
        let settles = sender > 1
            && !self.lifecycle.is_stopping()
            && self.config.stop_signals.contains(&signal)
            && self.tree.expect_watcher(forward);
        Some(Event::Signal(Received {
            signal,
            forward,
            settles,
        }))
    }

    fn reap(&mut self) -> Vec<Event> {
        let reaped = self.tree.reap();
        self.must_reap = reaped.has_more;
        for &Ended { pid, ending } in &reaped.others {
            self.responder.observer().ended(pid, ending);
        }
        let mut events = Vec::new();
        if let Some(Ended { pid, ending }) = reaped.worker {
            let code = ending.code();
            let is_ok = self.config.ok_exits.contains(&code);
            let reported = if is_ok {
                "; reported as 0, see --ok-exit"
            } else {
                ""
            };
            log::notice(format_args!("worker: pid {pid}: {ending}{reported}"));
            events.push(Event::WorkerEnded {
                code: if is_ok { 0 } else { code },
                is_last: reaped.none_left,
            });
        } else if reaped.none_left {
            events.push(Event::NoneLeft);
        } else if !reaped.others.is_empty() {
            events.push(Event::LeftoverEnded);
        }
        if reaped.is_childless {
            events.push(Event::Childless);
        }
        events
    }
}

/// Returns the signal that the worker gets when livelet receives `signal`, according to the option
/// `--signal`. Returns 0 if the worker gets no signal.
fn rewritten(config: &Config, signal: i32) -> i32 {
    if config.command.is_empty() {
        return signal;
    }
    let rewrite = config.rewrites.iter().find(|(from, _)| *from == signal);
    rewrite.map_or(signal, |&(_, to)| to)
}

/// Closes livelet's standard output and error, so that their readers see the end of the file.
/// Replaces both descriptors by a pipe without a reader, so that no other file gets their numbers.
fn close_output() {
    let Ok((_, nowhere)) = pipe() else { return };
    let _ = dup2_stdout(&nowhere);
    let _ = dup2_stderr(&nowhere);
    log::close();
}
