//! One listening socket, from livelet to livelet: no connection is lost, and whatever dies, exactly one serves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod chain;
mod crashes;
mod peer;
#[path = "../support/mod.rs"]
mod support;

/// Not 127.0.0.1, where another test's outgoing connection could be given the port.
const ADDR: &str = "127.0.0.8:0";
