//! What the responder says on the wire, request by request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod bodies;
mod client;
mod connections;
mod health_log;
mod messages;
mod probers;
#[path = "../support/mod.rs"]
mod support;
mod time;
