//! sd_notify(3): the messages of the worker to livelet, and those of livelet to its own supervisor.

mod directory;
mod message;
mod receive;
mod send;
mod sender;
mod socket;
mod state;
mod upstream;

pub use message::Message;
pub use send::{NotifyError, notify};
pub(crate) use socket::NotifySocket;
pub use state::Notified;
pub(crate) use upstream::Upstream;
