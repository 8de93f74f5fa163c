//! Runs livelet: binds, starts the worker, serves, and takes all of it through its lifecycle.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Instant;

use libc::{SIGCHLD, SIGINT, SIGTERM};
use smol::future::or;
use smol::{LocalExecutor, Timer};

use crate::cli::Config;
use crate::health::Snapshot;
use crate::lifecycle::{Action, Event, Lifecycle, Plan};
use crate::listen::{self, ListenError};
use crate::log;
use crate::server::Server;
use crate::signals::{self, STOPPING, Signals};
use crate::worker::{self, Ending, SpawnError, Worker};

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
    if let Some(program) = config.command.first() {
        worker::find(program).map_err(RunError::Spawn)?;
    }
    // Before anything else is begun, so that no signal is lost: the kernel drops what PID 1 has no handler for.
    let signals = Signals::new(!config.command.is_empty())
        .map_err(|cause| RunError::System("signals", cause))?;
    let executor = Rc::new(LocalExecutor::new());
    let process = Process {
        config,
        signals,
        lifecycle: Lifecycle::new(Plan {
            has_worker: !config.command.is_empty(),
            drain: config.drain,
            grace: config.grace,
            lame_duck: config.lame_duck,
        }),
        server: Server::new(Rc::clone(&executor), config.max_connections),
        worker: None,
    };
    smol::block_on(executor.run(async {
        executor
            .spawn(Rc::clone(&process.server).keep_time())
            .detach();
        process.start_and_supervise().await
    }))
}

/// The process: the only one that changes state.
struct Process<'c> {
    config: &'c Config,
    signals: Signals,
    lifecycle: Lifecycle,
    server: Rc<Server>,
    /// While it runs.
    worker: Option<Worker>,
}

impl Process<'_> {
    async fn start_and_supervise(mut self) -> Result<u8, RunError> {
        let sockets = self
            .config
            .listen
            .iter()
            .map(|&address| listen::listen(address, self.config.reuse_port))
            .collect::<Result<Vec<_>, _>>()
            .map_err(RunError::Listen)?;
        self.start_worker()?;
        self.serve(sockets)
            .map_err(|cause| RunError::System("listening socket", cause))?;
        if let Some(worker) = &self.worker {
            log::notice(format_args!("worker: pid {}: started", worker.pid()));
        }
        let mut events = vec![Event::Started];
        loop {
            for event in events {
                for action in self.lifecycle.step(event, Instant::now()) {
                    if let Some(code) = self.act(action) {
                        return Ok(code);
                    }
                }
                self.server.publish(Snapshot {
                    stopping: self.lifecycle.is_stopping(),
                    worker_ended: self.has_worker() && self.lifecycle.is_draining(),
                });
            }
            events = self.next_events().await;
        }
    }

    fn has_worker(&self) -> bool {
        !self.config.command.is_empty()
    }

    fn start_worker(&mut self) -> Result<(), RunError> {
        if self.has_worker() {
            let Config {
                command, single, ..
            } = self.config;
            let worker = Worker::spawn(command, *single, self.signals.inherited());
            self.worker = Some(worker.map_err(RunError::Spawn)?);
        }
        Ok(())
    }

    fn serve(&self, sockets: Vec<TcpListener>) -> io::Result<()> {
        for socket in sockets {
            let address = socket.local_addr()?;
            self.server.accept_from(socket)?;
            log::notice(format_args!("listening on http://{address}"));
        }
        Ok(())
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
            (Action::TerminateLeftovers, _) => worker::signal_descendants(SIGTERM),
            (Action::Drain, _) => self.server.drain(),
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
        let Process {
            signals,
            lifecycle,
            server,
            ..
        } = self;
        let mut arrived = Vec::new();
        let signalled = async {
            arrived.extend(signals.next().await);
            Vec::new()
        };
        let drained = async {
            if !lifecycle.awaits_connections() {
                pending::<()>().await;
            }
            server.drained().await;
            vec![Event::Drained]
        };
        let due = async {
            lifecycle
                .deadline()
                .map_or_else(Timer::never, Timer::at)
                .await;
            vec![Event::Tick]
        };
        let mut events = or(signalled, or(drained, due)).await;
        for signal in arrived {
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
        let name = signals::name(signal);
        match rewritten {
            None => log::notice(format_args!("signal: {name}: received")),
            Some(0) => {
                log::notice(format_args!("signal: {name}: dropped; see --signal"));
                return None;
            }
            Some(to) => {
                let to = signals::name(to);
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
