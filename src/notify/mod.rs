//! sd_notify(3): what a worker tells livelet, and what livelet tells its own supervisor.

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
