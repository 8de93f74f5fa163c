//! How a listening socket goes from one livelet to the next without a moment in which nobody accepts.
//!
//! Whoever listens on an address (the holder) also listens on an abstract unix socket named after it, the rendezvous
//! (unix(7)). Whoever finds the address taken (the asker) connects there. Each message is one packet, see [`message`].
//!
//! ```text
//! asker                                    holder
//!   | -- ask, with or without takeover -->   |   refused by a close: another uid, another pid namespace, garbage,
//!   |                                        |   silence for SILENCE, a ninth peer
//!   |   <-- healthy -----------------------  |   the asker stays in line; it may also give up, or bind by itself
//!   |   <-- offer, with the socket --------  |   at once where the holder stops, or takeover was asked for;
//!   |                                        |   to the first in line when the holder begins to stop
//!   | -- taken --------------------------->  |   the commit point, see below
//!   |                                        |   the holder accepts no more, gives the rendezvous up, and closes;
//!   |                                        |   where takeover was asked for, it stops as if it had got TERM
//!   | (the close) binds the rendezvous       |
//! ```
//!
//! Exactly one of them owns the socket, whatever dies when:
//!
//! - The asker dies, or gives up, before `taken` is sent: the holder sees the close and goes on as it was.
//! - The asker hangs with an offer: after [`SILENCE`] the holder sends `withdrawn` and shuts its receiving side down.
//!   From then on `taken` can't be sent (EPIPE, unix(7)), and one that was sent just before is still in the queue and
//!   counts. So sending `taken` succeeds if and only if the holder, alive, will act on it.
//! - The holder dies before the offer: the port is free, the asker binds it.
//! - The holder dies after the offer: `taken` can't be sent and no `withdrawn` has come, so the asker's copy of the
//!   socket is the only one left, with its queue.
//! - The holder is stopped (SIGSTOP) before the offer: the asker waits for [`SILENCE`], then treats it as another
//!   program. After the offer: `taken` waits in its queue; until it runs again only the asker accepts.
//! - The asker dies after `taken`: it was the owner, as if it had bound the port itself.

mod channel;
mod holder;
pub mod message;
mod successor;

use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use holder::{Holder, Listener, Taken};
pub(crate) use successor::{Answer, Asking, Offer, Predecessor};

/// How long either side waits for a message that the other one owes it.
pub(crate) const SILENCE: Duration = Duration::from_millis(500);

/// The rendezvous of an address.
fn name(address: SocketAddr) -> String {
    format!("livelet/{address}")
}
