//! Runs livelet: starts it, then passes events to the lifecycle until the lifecycle ends the
//! process.
//!
//! Only [`Process`] changes the state of the livelet process. [`lifecycle`] decides what to do, and
//! `Process` does it. The module `start` has the methods of `Process` that only the start needs.

pub mod lifecycle;
mod signals;
mod start;

use std::fmt;
use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libc::SIGCHLD;
use rustix::pipe::pipe;
use rustix::process::getpid;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use smol::LocalExecutor;
use smol::future::{or, yield_now};

use crate::config::Config;
use crate::exit_code;
use crate::handover::{Holder, Taken};
use crate::health::Snapshot;
use crate::http::server::Server;
use crate::listen::{self, Inherited, ListenError, PassedOn, Sharing};
use crate::log;
use crate::notify::{NotifySocket, Upstream};
use crate::responder::Responder;
use crate::runtime::{self, Timer};
use crate::signal;
use crate::worker::{Ended, SpawnError, Tree};

use lifecycle::{Action, Draining, Event, Lifecycle, Plan, Received};
use signals::{Arrived, Signals};

/// Maximum time for which an idle connection stays open in a drain, after another livelet has taken
/// over the listening socket. A client that does not know of this handover can send one more
/// request and gets a response.
const HANDOVER_GRACE: Duration = Duration::from_secs(2);

/// Reason why livelet could not start, or can't go on.
#[derive(Debug)]
pub enum RunError {
    /// livelet could not listen on an address.
    Listen(ListenError),
    /// livelet could not start the worker.
    Spawn(SpawnError),
    /// The system refused something else that the start needs, such as a signal handler. The fields
    /// are a name for it and the error.
    System(&'static str, io::Error),
    /// epoll(7) or eventfd(2), with which livelet waits, failed, at the start or later.
    Wait(io::Error),
}

impl RunError {
    /// Returns livelet's exit code for this error: 125, or that of [`SpawnError`] if the worker
    /// could not be started.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Spawn(error) => error.exit_code(),
            RunError::Listen(_) | RunError::System(..) | RunError::Wait(_) => exit_code::FAILURE,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Listen(error) => error.fmt(f),
            RunError::Spawn(error) => error.fmt(f),
            RunError::System(what, cause) => write!(f, "start: {what}: {}", log::Cause(cause)),
            RunError::Wait(cause) => write!(f, "runtime: cannot wait: {}", log::Cause(cause)),
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
    runtime::block_on(&executor, process.serve_until_exit(own)).map_err(RunError::Wait)?
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
    /// `true` while the worker has not executed its program although `start::LATE` has passed.
    is_worker_late: bool,
    /// Time at which livelet reads from /proc which signals the worker catches. `None` before the
    /// end of livelet's start, after the reading, and if livelet does not need the signals.
    catchers_at: Option<Instant>,
    /// Exit code of livelet. `None` until the lifecycle has ended.
    exit_code: Option<u8>,
}

impl<'c> Process<'c> {
    /// Catches signals and sets up the parts of livelet. Opens no listening socket and starts no
    /// worker.
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
                self.step(Event::StartFailed);
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

    fn has_worker(&self) -> bool {
        !self.config.command.is_empty()
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

    /// Performs an action that the lifecycle has returned.
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
        // A sender in livelet's own container, other than PID 1, may be a watcher that signals
        // every process of a tree.
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

    /// Reaps children that have ended, and logs the end of the worker. Returns the events for the
    /// lifecycle.
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
    let rewrite = config
        .rewrites
        .iter()
        .find(|rewrite| rewrite.from == signal);
    rewrite.map_or(signal, |rewrite| rewrite.to)
}

/// Closes livelet's standard output and error, so that their readers see the end of the file.
/// Replaces both descriptors by a pipe without a reader, so that no other file gets their numbers.
fn close_output() {
    let Ok((_, nowhere)) = pipe() else { return };
    let _ = dup2_stdout(&nowhere);
    let _ = dup2_stderr(&nowhere);
    log::close();
}
