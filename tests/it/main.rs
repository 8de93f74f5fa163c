//! The real binary among real sockets, signals and children: a module a feature.
//!
//! `cargo test --test it notify` runs one module. `LIVELET_BIN` names another build of the program,
//! such as the static one.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

mod checks;
mod cli;
mod commands;
mod handover;
mod http;
mod limit;
mod listen;
mod mistakes;
mod notify;
mod output;
mod page;
mod properties;
mod restart;
mod stop;
mod support;
mod worker;
