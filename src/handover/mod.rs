//! The handover of a listening socket from one livelet to the next. At every moment one of them
//! accepts connections.
//!
//! The livelet that listens on an address is the holder. It also listens on an abstract unix socket
//! named after the address: the rendezvous (unix(7)). A livelet that finds the address in use is
//! the successor, and connects to the rendezvous. Each message is one packet, see [`message`].
//!
//! ```text
//! successor                                holder
//!   | -- ask, with or without takeover -->   |   a stranger (of another uid or pid namespace) is closed before this
//!   |                                        |   a close refuses: no message, REPLY_LIMIT without one, a ninth peer
//!   |   <-- healthy -----------------------  |   the successor stays in line; it may also leave, or bind by itself
//!   |   <-- offer, with the socket --------  |   at once if the holder stops, or if takeover was asked for;
//!   |                                        |   to the first in line when the holder begins to stop
//!   | -- taken --------------------------->  |   the commit point, see below
//!   |                                        |   the holder accepts no more, closes the rendezvous, then the channel;
//!   |                                        |   if takeover was asked for, it stops as if it had got TERM
//!   | (the close) binds the rendezvous       |
//! ```
//!
//! Exactly one of the two owns the socket, whichever of them dies, at any time:
//!
//! - The successor dies, or leaves, before `taken` is sent: the holder sees the close and goes on
//!   as before.
//! - The successor hangs with an offer: after [`REPLY_LIMIT`] the holder sends `withdrawn` and
//!   shuts its receiving side down. From then on `taken` can't be sent (EPIPE, unix(7)), and one
//!   that was sent just before is still in the queue and counts. So sending `taken` succeeds if and
//!   only if the holder, alive, will act on it.
//! - The holder dies before the offer: the port is free, and the successor binds it.
//! - The holder dies after the offer: `taken` can't be sent and no `withdrawn` has come, so the
//!   successor's copy of the socket is the only one left, with its queue.
//! - The holder is stopped (SIGSTOP) before the offer: after [`REPLY_LIMIT`] it counts as another
//!   program, but its offer is taken if it comes later. After the offer: `taken` waits in its
//!   queue; until it runs again only the successor accepts.
//! - The successor dies after `taken`: it was the owner, as if it had bound the port itself.
//!
//! Any process of the network namespace can connect to the rendezvous, or bind its name first. Such
//! a stranger does not count among the peers. Descriptors that it sends are not closed on the main
//! thread (see [`crate::close`]).

mod channel;
mod holder;
pub mod message;
mod successor;

use std::time::Duration;

pub(crate) use holder::{Holder, Listener, Taken};
pub(crate) use successor::{
    Contact, Conversation, Livelet, Offer, Predecessor, Reply, TakenOver, ask,
};

/// Maximum time for which one livelet in a handover waits for a message that the other livelet must
/// send. Less than the second in which a prober expects an answer.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_millis(500);
