//! Runs livelet: binds, starts the worker, serves, and takes all of it through its lifecycle.

pub mod lifecycle;
mod signals;

use std::ffi::OsString;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libc::{SIGCHLD, SIGINT, SIGTERM};
use smol::LocalExecutor;
use smol::future::or;

use crate::check::Kind;
use crate::config::Config;
use crate::handover::{Holder, Listener, Predecessor, Taken};
use crate::health::Snapshot;
use crate::http::server::Server;
use crate::listen::{self, Found, Listen, ListenError, Wait};
use crate::log;
use crate::notify::{self, NotifySocket};
use crate::responder::Responder;
use crate::runtime::{self, Timer, task};
use crate::signal::{self, STOPPING};
use crate::worker::{self, Ending, SpawnError, Worker};

use lifecycle::{Action, Event, Lifecycle, Plan};
use signals::Signals;

/// How long an idle connection is waited for in a drain after the socket went to a successor: its client need not know
/// of the change, and what it asks meanwhile is answered.
const HANDOVER_GRACE: Duration = Duration::from_secs(2);

/// Where supervisors and workers meet (sd_notify(3)).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// Why it could not start.
#[derive(Debug)]
pub enum RunError {
    /// An address could not be listened on.
    Listen(ListenError),
    /// The worker could not be started.
    Spawn(SpawnError),
    /// The system refused something else that serving needs.
    System(&'static str, io::Error),
}

impl RunError {
    /// What to report: 125, unless it is the worker that can't be started.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Spawn(error) => error.exit_code(),
            RunError::Listen(_) | RunError::System(..) => 125,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Listen(error) => error.fmt(f),
            RunError::Spawn(error) => error.fmt(f),
            RunError::System(what, cause) => write!(f, "start: {what}: {cause}"),
        }
    }
}

/// Serves until a signal or the worker's end has ended it, and returns the exit code.
///
/// # Errors
/// It could not start; nothing was served then.
pub fn run(config: &Config) -> Result<u8, RunError> {
    // Before anything is opened: their numbers are all that is known of them.
    let inherited =
        listen::take_inherited().map_err(|cause| RunError::System("LISTEN_FDS", cause))?;
    if let Some(program) = config.command.first() {
        worker::find(program).map_err(RunError::Spawn)?;
    }
    // Before anything is begun, so that no signal is lost: the kernel drops what PID 1 has no handler for.
    let signals = Signals::new(!config.command.is_empty())
        .map_err(|cause| RunError::System("signals", cause))?;
    let executor = Rc::new(LocalExecutor::new());
    let responder = Responder::new(Rc::clone(&executor), config);
    let process = Process {
        config,
        signals,
        lifecycle: Lifecycle::new(Plan {
            has_worker: !config.command.is_empty(),
            drain: config.drain,
            grace: config.grace,
            lame_duck: config.lame_duck,
        }),
        server: Server::new(
            Rc::clone(&executor),
            config.max_connections,
            Rc::clone(&responder),
        ),
        responder,
        holder: Holder::new(Rc::clone(&executor)),
        worker: None,
        is_childless: false,
        executor: Rc::clone(&executor),
    };
    runtime::block_on(&executor, process.start_and_supervise(inherited))
        .map_err(|cause| RunError::System("epoll", cause))?
}

/// The NOTIFY_SOCKET of livelet's own supervisor; an empty one is none.
fn supervisor() -> Option<OsString> {
    std::env::var_os(NOTIFY_SOCKET).filter(|name| !name.is_empty())
}

/// Where a listening socket comes from.
enum Origin {
    Bound,
    Inherited,
    TakenOver(i32, Predecessor),
}

/// The process: the only one that changes state.
struct Process<'c> {
    config: &'c Config,
    executor: Rc<LocalExecutor<'static>>,
    signals: Signals,
    lifecycle: Lifecycle,
    responder: Rc<Responder>,
    server: Rc<Server>,
    holder: Rc<Holder>,
    /// While it runs.
    worker: Option<Worker>,
    /// The last that was reaped was the last child.
    is_childless: bool,
}

impl Process<'_> {
    async fn start_and_supervise(mut self, inherited: Vec<TcpListener>) -> Result<u8, RunError> {
        let sockets = if inherited.is_empty() {
            match self.listen().await? {
                Ok(sockets) => sockets,
                Err(code) => return Ok(code),
            }
        } else {
            self.start_worker()?;
            let sockets = inherited.into_iter();
            sockets.map(|socket| (socket, Origin::Inherited)).collect()
        };
        self.serve(sockets)
            .map_err(|cause| RunError::System("listening socket", cause))?;
        if let Some(worker) = &self.worker {
            log::notice(format_args!("worker: pid {}: started", worker.pid()));
        }
        self.say_ready();
        let mut events = vec![Event::Started];
        loop {
            for event in events {
                let actions = self.lifecycle.step(event, Instant::now());
                if self.lifecycle.is_stopping() {
                    self.holder.stop();
                    self.server.stop();
                }
                self.responder.publish(Snapshot {
                    has_worker: self.has_worker(),
                    is_stopping: self.lifecycle.is_stopping(),
                    has_worker_ended: self.has_worker() && self.lifecycle.is_draining(),
                    pid: self
                        .worker
                        .as_ref()
                        .map_or_else(std::process::id, |worker| worker.pid().unsigned_abs()),
                });
                for action in actions {
                    if let Some(code) = self.act(action) {
                        return Ok(code);
                    }
                }
            }
            events = self.next_events().await;
        }
    }

    /// Gets a listening socket for every address, and starts the worker as soon as they are at hand: a socket that
    /// another livelet offers is taken once the worker runs. The exit code, where a signal ends the wait.
    async fn listen(&mut self) -> Result<Result<Vec<(TcpListener, Origin)>, u8>, RunError> {
        let wait = Wait {
            limit: self.config.bind_wait,
            takeover: self.config.takeover,
            reuse_port: self.config.reuse_port,
        };
        let mut missing: Vec<Listen> = self.config.listen.clone();
        let mut sockets = Vec::new();
        while !missing.is_empty() {
            let found = async { Ok(listen::find(&missing, wait).await) };
            let signalled = async { Err(self.signalled_at_start().await) };
            let found = match or(signalled, found).await {
                Ok(found) => found.map_err(RunError::Listen)?,
                Err(code) => return Ok(Err(code)),
            };
            self.start_worker()?;
            let mut lapsed = Vec::new();
            for (address, found) in missing.into_iter().zip(found) {
                match found {
                    Found::Bound(socket) => sockets.push((socket, Origin::Bound)),
                    Found::Offered(offer) => {
                        let pid = offer.pid();
                        match offer.take() {
                            Some((socket, before)) => {
                                sockets.push((socket, Origin::TakenOver(pid, before)));
                            }
                            None => lapsed.push(address),
                        }
                    }
                }
            }
            missing = lapsed;
        }
        Ok(Ok(sockets))
    }

    /// Waits for what ends livelet before it serves, and returns the exit code.
    async fn signalled_at_start(&mut self) -> u8 {
        loop {
            let arrived = self.signals.next().await;
            for event in self.events_of(&arrived) {
                for action in self.lifecycle.step(event, Instant::now()) {
                    if let Action::Exit(code) = action {
                        return code;
                    }
                }
            }
        }
    }

    fn has_worker(&self) -> bool {
        !self.config.command.is_empty()
    }

    fn start_worker(&mut self) -> Result<(), RunError> {
        if self.has_worker() && self.worker.is_none() {
            let failed = |cause| RunError::System(NOTIFY_SOCKET, cause);
            let socket = NotifySocket::new().map_err(failed)?;
            let mut variables = vec![(NOTIFY_SOCKET, socket.name().map_err(failed)?)];
            variables.extend(self.watchdog().map(|limit| {
                // A check's duration has milliseconds, and fits.
                let usec = limit.as_millis() as u64 * 1000;
                ("WATCHDOG_USEC", usec.to_string().into())
            }));
            let Config {
                command, single, ..
            } = self.config;
            let worker = Worker::spawn(command, *single, self.signals.inherited(), &variables);
            self.worker = Some(worker.map_err(RunError::Spawn)?);
            let listening = socket.listen(self.responder.notified(), supervisor());
            task::spawn(&self.executor, listening);
        }
        Ok(())
    }

    /// The limit of the first watchdog check.
    fn watchdog(&self) -> Option<Duration> {
        let mut checks = self.config.live.iter().chain(&self.config.ready);
        checks.find_map(|check| match check.kind {
            Kind::Watchdog(limit) => Some(limit),
            _ => None,
        })
    }

    /// Tells whoever supervises livelet that it is ready, where no worker does that itself.
    fn say_ready(&self) {
        let mut checks = self.config.live.iter().chain(&self.config.ready);
        let says_itself = self.has_worker() && checks.any(|check| check.kind == Kind::Notify);
        let above = supervisor();
        if above.is_some() && !says_itself {
            if let Err(error) = notify::notify(above, &["READY=1".into()], false) {
                log::notice(format_args!("{error}"));
            }
        }
    }

    fn serve(&self, sockets: Vec<(TcpListener, Origin)>) -> io::Result<()> {
        for (socket, origin) in sockets {
            let listener = Listener::new(socket)?;
            self.server.accept_from(Rc::clone(&listener));
            let address = listener.address();
            let from = match origin {
                Origin::Inherited => " (inherited)".to_string(),
                Origin::Bound => {
                    if !self.config.reuse_port {
                        self.holder.answer_for(&listener, None);
                    }
                    String::new()
                }
                Origin::TakenOver(pid, before) => {
                    self.holder.answer_for(&listener, Some(before));
                    format!(" (taken over from pid {pid})")
                }
            };
            log::notice(format_args!("listening on http://{address}{from}"));
        }
        if let Some(limit) = self.config.exit_on_unhealthy {
            let watch = Rc::clone(&self.responder).watch(limit);
            task::spawn(&self.executor, watch);
        }
        self.responder.observer().begin(self.signals.inherited());
        Ok(())
    }

    /// Lets open connections finish; listening ends once no older one is left, nor a successor that may take the socket.
    fn drain(&self) {
        let idle_until = if self.holder.has_successor() {
            Instant::now() + HANDOVER_GRACE.min(self.config.drain)
        } else {
            Instant::now()
        };
        self.server.drain(idle_until);
        let (server, holder) = (Rc::clone(&self.server), Rc::clone(&self.holder));
        let end = async move {
            server.older_finished().await;
            holder.alone().await;
            server.end_listening();
        };
        task::spawn(&self.executor, end);
    }

    /// Does what the lifecycle wants done; the exit code is the last it wants.
    fn act(&mut self, action: Action) -> Option<u8> {
        match (action, &self.worker) {
            (Action::Forward(signal), Some(worker)) => worker.signal(signal),
            (Action::Forward(_), None) => {}
            (Action::Kill, Some(worker)) => {
                log::notice(format_args!(
                    "worker: pid {}: killed; see --grace",
                    worker.pid()
                ));
                worker.kill();
            }
            (Action::Kill, None) => worker::signal_descendants(libc::SIGKILL),
            // Most workers leave nothing, and looking for it takes longer than the rest of the end.
            (Action::TerminateLeftovers, _) if self.is_childless => {}
            (Action::TerminateLeftovers, _) => worker::signal_descendants(SIGTERM),
            (Action::Drain, _) => self.drain(),
            (Action::Cut, _) => {
                let open = self.server.open_connections();
                log::notice(format_args!("drain: {open} connections: cut; see --drain"));
                self.server.cut();
            }
            (Action::Exit(code), _) => return Some(code),
        }
        None
    }

    async fn next_events(&mut self) -> Vec<Event> {
        enum Happened {
            Signals(Vec<i32>),
            Taken(Vec<Taken>),
            Other(Event),
        }
        let Process {
            signals,
            lifecycle,
            responder,
            server,
            holder,
            ..
        } = self;
        let signalled = async { Happened::Signals(signals.next().await) };
        let taken = async { Happened::Taken(holder.taken().await) };
        let drained = async {
            if !lifecycle.awaits_connections() {
                pending::<()>().await;
            }
            server.drained().await;
            Happened::Other(Event::Drained)
        };
        let unhealthy = async {
            // What stops already may well fail.
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
        match or(signalled, or(taken, or(drained, or(unhealthy, due)))).await {
            Happened::Signals(arrived) => self.events_of(&arrived),
            Happened::Taken(taken) => self.handed_over(&taken),
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

    /// A successor has sockets: it accepts, livelet does not any more.
    fn handed_over(&self, taken: &[Taken]) -> Vec<Event> {
        self.server.released();
        for Taken { address, pid, .. } in taken {
            log::notice(format_args!("handover: {address}: taken over by pid {pid}"));
        }
        let replaced = taken.iter().any(|taken| taken.by_takeover);
        if replaced && !self.lifecycle.is_stopping() {
            vec![Event::Terminate(SIGTERM)]
        } else {
            Vec::new()
        }
    }

    fn events_of(&mut self, signals: &[i32]) -> Vec<Event> {
        let mut events = Vec::new();
        for &signal in signals {
            match signal {
                SIGCHLD => events.extend(self.reap()),
                _ => events.extend(self.signalled(signal)),
            }
        }
        events
    }

    fn signalled(&self, signal: i32) -> Option<Event> {
        let rewrites = self.config.rewrites.iter().filter(|_| self.has_worker());
        let rewritten = rewrites
            .filter(|(from, _)| *from == signal)
            .map(|(_, to)| *to)
            .next();
        let name = signal::name(signal);
        match rewritten {
            None => log::notice(format_args!("signal: {name}: received")),
            Some(0) => {
                log::notice(format_args!("signal: {name}: dropped; see --signal"));
                return None;
            }
            Some(to) => {
                let to = signal::name(to);
                log::notice(format_args!("signal: {name}: received, goes on as {to}"));
            }
        }
        let forwarded = rewritten.unwrap_or(signal);
        let terminates = |signal| [SIGTERM, SIGINT].contains(&signal);
        Some(if terminates(signal) || terminates(forwarded) {
            Event::Terminate(forwarded)
        } else if STOPPING.contains(&signal) {
            Event::Stop(forwarded)
        } else {
            Event::Forward(forwarded)
        })
    }

    fn reap(&mut self) -> Vec<Event> {
        let reaped = worker::reap(self.worker.as_ref());
        for (pid, ending) in reaped.others {
            self.responder.observer().ended(pid, ending);
        }
        self.is_childless = reaped.is_childless;
        let mut events = Vec::new();
        if reaped.has_stopped {
            self.worker.iter().for_each(Worker::follow_stop);
        }
        if let Some(ending) = reaped.ending {
            events.extend(self.worker_ended(ending));
        }
        if reaped.is_childless {
            events.push(Event::Childless);
        }
        events
    }

    fn worker_ended(&mut self, ending: Ending) -> Option<Event> {
        let worker = self.worker.take()?;
        worker.take_terminal();
        let code = ending.code();
        let pid = worker.pid();
        if self.config.ok_exits.contains(&code) {
            log::notice(format_args!(
                "worker: pid {pid}: {ending}; reported as 0, see --ok-exit"
            ));
            return Some(Event::WorkerEnded(0));
        }
        log::notice(format_args!("worker: pid {pid}: {ending}"));
        Some(Event::WorkerEnded(code))
    }
}
