//! Runs the responder: binds, serves, and takes it through its lifecycle.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Instant;

use signal_hook::consts::{SIGINT, SIGTERM};
use smol::future::or;
use smol::{LocalExecutor, Timer};

use crate::cli::Config;
use crate::health::Snapshot;
use crate::lifecycle::{Action, Event, Lifecycle};
use crate::listen::{self, ListenError};
use crate::log;
use crate::server::Server;
use crate::signals::{self, Signals};

/// Why it could not start.
#[derive(Debug)]
pub enum RunError {
    /// An address could not be listened on.
    Listen(ListenError),
    /// The system refused something else that serving needs.
    System(&'static str, io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Listen(error) => error.fmt(f),
            RunError::System(what, cause) => write!(f, "start: {what}: {cause}"),
        }
    }
}

/// Serves until a signal has ended it.
///
/// # Errors
/// It could not start; nothing was served then.
pub fn run(config: &Config) -> Result<(), RunError> {
    // First, so that no signal is lost: the kernel drops what PID 1 has no handler for.
    let signals = Signals::new().map_err(|cause| RunError::System("signals", cause))?;
    let sockets = config
        .listen
        .iter()
        .map(|&address| listen::listen(address, config.reuse_port))
        .collect::<Result<Vec<_>, _>>()
        .map_err(RunError::Listen)?;
    let executor = Rc::new(LocalExecutor::new());
    let server = Server::new(Rc::clone(&executor), config.max_connections);
    smol::block_on(executor.run(async {
        serve(&server, sockets).map_err(|cause| RunError::System("listening socket", cause))?;
        executor.spawn(Rc::clone(&server).keep_time()).detach();
        supervise(&server, signals, Lifecycle::new(config.drain)).await;
        Ok(())
    }))
}

fn serve(server: &Rc<Server>, sockets: Vec<TcpListener>) -> io::Result<()> {
    for socket in sockets {
        let address = socket.local_addr()?;
        server.accept_from(socket)?;
        log::notice(format_args!("listening on http://{address}"));
    }
    Ok(())
}

/// Steps the lifecycle with what happens until it has ended.
async fn supervise(server: &Server, mut signals: Signals, mut lifecycle: Lifecycle) {
    loop {
        for event in next_events(server, &mut signals, &lifecycle).await {
            match lifecycle.step(event, Instant::now()) {
                Action::None => {}
                Action::Drain => {
                    server.publish(Snapshot { stopping: true });
                    server.drain();
                }
                Action::Exit => return,
                Action::Cut => {
                    let open = server.open_connections();
                    log::notice(format_args!("drain: {open} connections: cut; see --drain"));
                    return;
                }
            }
        }
    }
}

async fn next_events(server: &Server, signals: &mut Signals, lifecycle: &Lifecycle) -> Vec<Event> {
    let signalled = async {
        let arrived = signals.next().await;
        arrived
            .map(|signal| {
                log::notice(format_args!("signal: {}: received", signals::name(signal)));
                match signal {
                    SIGTERM | SIGINT => Event::Terminate,
                    _ => Event::Stop,
                }
            })
            .collect()
    };
    let drained = async {
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
    or(signalled, or(drained, due)).await
}
