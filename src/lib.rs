//! livelet gives any process a health endpoint.
//!
//! # Bird's eye
//!
//! One thread answers probes over HTTP, forwards signals to the worker and reaps its processes.
//! Every activity is a task of smol's executor, and every task waits in one edge-triggered epoll
//! ([`runtime`]). Only the sockets of network checks wait in async-net's. Data flows one way:
//! bytes, events and the time come in, pure cores return what to do, and thin I/O around them does
//! it.
//!
//! | pure core | gets | returns |
//! |---|---|---|
//! | [`supervisor::lifecycle`] | events: a signal, the worker's end, connections closed | actions: forward, kill, drain, exit |
//! | [`http::connection`] | bytes, answers | requests, and the next step: read, send, close |
//! | [`health`] | a request, outcomes of checks | a response, and changes to log |
//! | [`notify::Notified`] | messages of sd_notify(3) | the outcomes of `notify` and `watchdog` |
//! | [`handover::message`] | bytes of a peer | messages |
//!
//! # Code map
//!
//! | module | owns |
//! |---|---|
//! | [`config`], [`exit_code`], `duration`, [`log`], `signal`, `peer` | used by several other modules |
//! | [`cli`] | the table of options, the variables, `--help`, near misses |
//! | [`supervisor`] | the start, the event loop and its lifecycle, the order of the drain included |
//! | [`worker`] | spawn, signal, reap, descendants, the terminal |
//! | [`notify`] | the worker's NOTIFY_SOCKET, the relay to livelet's own supervisor, `livelet notify` |
//! | [`listen`] | listening sockets: bound, inherited or waited for; the process that holds a port |
//! | [`handover`] | the protocol by which a successor gets the listening socket |
//! | [`http`] | requests, responses, the connection, the server; the client's half for `http:` checks |
//! | [`health`] | endpoints and routes, verdicts, rendering |
//! | [`check`] | the kinds of checks (`spec` reads them), and the runner that shares one run among a burst of probes |
//! | `responder` | brings [`health`] and [`check`] together: the answer to a request |
//! | [`command`] | `livelet probe` and `livelet install` |
//! | `runtime` | the one wait, timers, tasks |
//! | `close` | threads that close descriptors which other processes sent |
//!
//! # Invariants
//!
//! - Only the supervisor changes the state of the process. Other tasks see a [`health::Snapshot`].
//! - No call that may block runs on the main thread: checks of paths and foreign descriptors have
//!   threads of their own.
//! - Every loop over input from other processes yields after a bounded number of items.
//! - At the connection limit every connection from which livelet has read can be evicted.
//! - Only [`worker`] waits for children.
//! - Exactly one livelet owns a listening socket during a handover ([`handover`] says why).
//!
//! # Journeys
//!
//! **A probe.** `Server::accept_loop` accepts, `Server::open` spawns a `ConnectionTask`. Its `poll`
//! calls `ConnectionTask::run`, which alternates two calls. `poll_step` does the I/O that
//! [`http::connection::Connection::step`] asks for: read, send, shut down. `answer_requests` gets a
//! request from `Connection::incoming`, which parses it ([`http::parse`]). `Responder::route` makes
//! a [`health::Question`] of it. `Responder::poll_answer` collects a [`health::Report`] for each
//! endpoint (`Responder::report`) and calls [`health::respond`]. Unless the request asks for single
//! checks, the report also goes to [`health::Verdicts`]. `Connection::answer` encodes
//! ([`http::encode`]). The drop of the task closes the socket.
//!
//! **TERM.** After the start, `Process::serve_until_exit` loops over `Process::next_events`, which
//! waits for everything. `Signals::next` returns the signal, `Process::received` makes an event of
//! it, and `Process::step` passes it to `Lifecycle::step`. `Process::step` also tells `Holder` and
//! `Server` that a stop has begun. `Process::act` performs the actions: `Tree::stop` sends TERM to
//! the worker, after the lame duck if there is one. SIGCHLD leads to `Process::reap`, which makes
//! an event of the worker's end. Leftovers get TERM too. The drain follows, and `next_events` waits
//! for each of its steps: `Server::older_finished`, `Holder::alone`, `Server::drained`. Then
//! livelet exits.
//!
//! **A handover.** The successor's `listen::find` finds the port held and asks at the rendezvous.
//! The holder's `Holder::accept_peers` starts `Holder::converse`, which offers the socket at once
//! if the successor has `--takeover` or the holder is stopping. Otherwise it replies `healthy`, and
//! offers the socket after `Holder::stop`. The successor's `Process::open_sockets` starts its
//! worker, then `Offer::accept` sends `taken`, the commit point. `converse` marks the socket as
//! taken (`Holder::is_taken_by`). The holder's `Process::handed_over` wakes the accept loops, and
//! the loop of this socket ends. With `--takeover` it also returns `Event::Replaced`, which stops
//! the holder. The successor's `Process::serve` accepts connections and writes the ready line. The
//! successor's `Holder::answer_for` binds the rendezvous once the holder has closed the old one.
//!
//! **A heartbeat check.** `Responder::poll_answer` calls `Observer::observe`. If no run has ended
//! since the request arrived, the observer starts one unless one is running (`Observer::run`), and
//! the connection waits. `path::is_fresh` reads the file's time on a thread, and compares its age
//! with the limit. The end of a run wakes all waiting connections, which call `poll_answer` again.
//!
//! # Crates
//!
//! | crate | for |
//! |---|---|
//! | smol | the executor that runs every task, and combinators of futures |
//! | async-net | sockets of network checks and of `livelet probe` |
//! | socket2 | the listening socket, and other sockets that need options before connect(2) |
//! | signal-hook | signal handlers of a livelet without a worker |
//! | httparse, httpdate | heads, the Date field |
//! | shlex | words of a variable and of `exec:` |
//! | rustix, libc | system calls; libc for calls that rustix does not have |
//! | slab | the tables of connections and of sources |
//!
//! # Glossary
//!
//! - *Worker*: the command that livelet runs. *Descendants*: the worker's processes. *Orphan*: a
//!   descendant whose parent has ended. livelet is the *subreaper*: the kernel makes it the parent
//!   of orphans (prctl(2)).
//! - *Probe*: a request for an endpoint. *Prober*: the program that sends it.
//! - *Endpoint*: liveness, readiness or startup. *Verdict*: whether it holds.
//! - *Check*: one condition of an endpoint. *Outcome*: the result of one run of a check.
//! - *Question*: the endpoint, view and checks that a request asks for. *Report*: the results of
//!   the checks for one endpoint. *Snapshot*: a copy of the process's state, on which responses
//!   depend.
//! - *Companion*: a livelet with a worker. *Responder*: a livelet without one. The type `Responder`
//!   answers requests in both.
//! - *Leftovers*: descendants that live when the worker has ended.
//! - *Holder*, *successor*: the livelet that has a listening socket, and the one that asks for it
//!   at the *rendezvous*, an abstract unix socket named after the address. *Predecessor*: the
//!   livelet that had the socket before.
//! - *Channel*: the unix socket by which a holder and a successor exchange messages. *Peer*: the
//!   process at the other end of a unix socket. *Stranger*: a peer that livelet does not trust.
//! - *Offer*: a listening socket that the holder has sent and the successor has not confirmed.
//! - *Stop signal*: a signal that begins a stop, TERM and INT unless `--stop-signal` says
//!   otherwise.
//! - *Lame duck*: the time after a stop signal in which readiness fails and the worker has not had
//!   the signal yet.
//! - *Event*, *action*: what goes into the lifecycle's state machine, and what comes out of it.
//! - *Drain*: the time after the worker's end in which open connections finish.
//! - *Supervisor*: the program that started livelet, such as systemd. The module [`supervisor`] is
//!   livelet's own event loop.
//! - *Notify socket*: the socket to which the worker sends sd_notify(3) messages.
//! - *Relay*: to pass a worker's sd_notify message on to livelet's own supervisor.
//! - *Evict*: to close a connection because a new one needs its place.
//! - *Idle*: of a connection: no request has begun.
//! - *Backlog*: connections that the kernel has accepted and livelet has not.
//! - *Batch*: the bounded number of items that a loop handles before it yields.
//! - *Edge-triggered*: epoll(7) reports a change once; the task tries until `EAGAIN`.
//! - *Register*: to give a descriptor to epoll.
//! - *Back off*: to wait before the next try, because descriptors or memory are short.

#[cfg(not(target_os = "linux"))]
compile_error!("livelet runs on Linux only: it needs epoll(7), signalfd(2), prctl(2) and /proc");

pub mod check;
pub mod cli;
mod close;
pub mod command;
pub mod config;
mod duration;
pub mod exit_code;
pub mod handover;
pub mod health;
pub mod http;
pub mod listen;
pub mod log;
pub mod notify;
mod peer;
mod responder;
mod runtime;
mod signal;
pub mod supervisor;
pub mod worker;
