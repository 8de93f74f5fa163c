//! sd_notify(3): what a worker says of itself, and what livelet says to its own supervisor.

mod send;
mod socket;
mod state;

pub use send::notify;
pub(crate) use socket::NotifySocket;
pub use state::{MAX, Notified};
