//! livelet gives any process a health endpoint.
//!
//! Data flows one way: [`cli`] makes a configuration for [`supervisor`]; signals send events to it, and it steps the pure
//! [`supervisor::lifecycle`] and publishes a [`health::Snapshot`]; connections only read snapshots.

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
