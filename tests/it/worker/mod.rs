//! The companion: a worker's init that answers for it.

mod jobs;
mod leftovers;
mod shutdown;
mod signals;
mod start;
