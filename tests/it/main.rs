//! Tests of the real binary, a module a feature: `cargo test --test it MODULE` runs one of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod checks;
mod cli;
mod commands;
mod handover;
mod http;
mod limit;
mod listen;
mod notify;
mod output;
mod page;
mod properties;
mod restart;
mod stop;
mod support;
mod worker;
