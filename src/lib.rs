//! livelet gives any process a health endpoint.
//!
//! Data flows one way: [`cli`] makes a configuration for [`run`]; signals send events to [`run`], which steps the pure
//! [`lifecycle`] and publishes a [`health::Snapshot`]; connections only read snapshots.

mod answers;
pub mod check;
pub mod cli;
mod condition;
pub mod conn;
mod duration;
mod environment;
pub mod handover;
pub mod health;
pub mod http;
pub mod install;
pub mod lifecycle;
pub mod listen;
pub mod log;
pub mod notify;
mod notify_socket;
pub mod probe;
mod procfs;
mod reactor;
pub mod run;
pub mod sd_notify;
mod server;
mod signals;
mod spawn;
mod stream;
mod task;
pub mod worker;
