//! The companion: a worker's init that answers for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod jobs;
mod leftovers;
mod shutdown;
mod signals;
mod start;
#[path = "../support/mod.rs"]
mod support;
