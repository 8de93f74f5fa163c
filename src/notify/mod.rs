//! sd_notify(3): messages from the worker to livelet, and from livelet to its own supervisor.

mod directory;
mod message;
mod receive;
mod send;
mod sender;
mod socket;
mod state;
mod upstream;

pub use message::Notification;
pub use send::{NotifyError, notify};
pub(crate) use socket::NotifySocket;
pub use state::Notified;
pub(crate) use upstream::Upstream;
