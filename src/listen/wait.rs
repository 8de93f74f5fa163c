//! Gets a listening socket for every address, if need be from the process that has it now.
//!
//! While livelet waits for one address, it releases those that it has bound already. Otherwise
//! connections would queue at a livelet that may still give up.

use std::iter::once;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use smol::future::{or, yield_now};

use super::{HeldBy, Listen, ListenError, listen, port_owner};
use crate::close::Closer;
use crate::duration::Human;
use crate::handover::{self, Contact, Conversation, Livelet, Offer, REPLY_LIMIT, Reply};
use crate::log;
use crate::runtime::Timer;

/// Time between two tries to bind a port that another process holds. livelet binds the port within
/// twice this time after the port has become free.
const RETRY: Duration = Duration::from_millis(10);
/// Time after which livelet asks for a listening socket again if another livelet has refused to
/// hand it over. The other livelet may just have handed the socket to a third one, which will soon
/// reply.
const ASK_SOON: Duration = Duration::from_millis(20);
/// Number of refusals after which livelet asks again for a listening socket at intervals of
/// [`ASK_LATER`] instead of [`ASK_SOON`].
const SOON_REFUSALS: u32 = 10;
/// Time after which livelet asks again for a listening socket, after many refusals or if the
/// process that it would ask is not trusted.
const ASK_LATER: Duration = Duration::from_secs(1);

/// Settings for the wait for an address that another process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// Maximum time for which livelet waits.
    pub(crate) limit: Duration,
    /// `true` if livelet asks the livelet that holds the address to hand over its socket at once
    /// and to stop (`--takeover`). If `false`, the holder hands the socket over only when it stops
    /// for another reason.
    pub(crate) takeover: bool,
    /// `true` if livelet shares the port on purpose (SO_REUSEPORT). It then asks no other process
    /// to release the port.
    pub(crate) reuse_port: bool,
}

/// A listening socket for an address, or the offer of one.
#[derive(Debug)]
pub(crate) enum Found {
    /// livelet has bound the address itself.
    Bound(TcpListener),
    /// Another livelet offers its own socket, and withdraws the offer unless it is accepted within
    /// [`REPLY_LIMIT`].
    Offered(Offer),
}

/// Kind of program that holds the address, as livelet has last logged it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    Livelet,
    OtherProgram,
}

/// Returns a listening socket, or another livelet's offer of one, for each address, in the order of
/// `addresses`. Waits for an address that another process holds, as `wait` says. `closer` closes
/// connections to processes that are not trusted.
///
/// # Errors
/// Returns an error if livelet can't listen on an address, or if an address is still held when the
/// wait is over.
pub(crate) async fn find(
    addresses: &[Listen],
    wait: Wait,
    closer: &Rc<Closer>,
) -> Result<Vec<Found>, ListenError> {
    let mut search = Search {
        wait,
        closer: Rc::clone(closer),
        deadline: Instant::now() + wait.limit,
        announced: None,
    };
    // A held address is waited for before sockets are opened for the others.
    let mut held = 0;
    'again: loop {
        let mut found: Vec<Option<Found>> = addresses.iter().map(|_| None).collect();
        let others = (0..addresses.len()).filter(|&index| index != held);
        for index in once(held).chain(others) {
            let (Some(&address), Some(place)) = (addresses.get(index), found.get_mut(index)) else {
                continue;
            };
            match search.find_one(address, index == held).await {
                Ok(socket) => *place = Some(socket),
                Err(error) if index != held && error.is_held() => {
                    held = index;
                    continue 'again;
                }
                Err(error) => return Err(error),
            }
        }
        return Ok(found.into_iter().flatten().collect());
    }
}

/// Conversation with another livelet that holds an address, in which livelet waits for an offer of
/// the listening socket.
struct InLine {
    conversation: Conversation,
    since: Instant,
    /// Description of the livelet that holds the address. `None` until it has replied.
    livelet: Option<Livelet>,
}

/// State of the search for listening sockets.
struct Search {
    wait: Wait,
    closer: Rc<Closer>,
    deadline: Instant,
    announced: Option<Announced>,
}

impl Search {
    /// Returns a listening socket for `address`, or another livelet's offer of one. If another
    /// process holds the address and `waits` is `true`, waits until the deadline for it to be
    /// released. If `waits` is `false`, waits only for the reply of the holder.
    async fn find_one(&mut self, address: Listen, waits: bool) -> Result<Found, ListenError> {
        let mut line: Option<InLine> = None;
        let mut ask_at = Instant::now();
        let mut refusals = 0;
        loop {
            let error = match listen(address, self.wait.reuse_port) {
                Err(error) if error.is_held() => error,
                outcome => return outcome.map(Found::Bound),
            };
            let now = Instant::now();
            if line.is_none() && now >= ask_at && !self.wait.reuse_port {
                match handover::ask(error.address, self.wait.takeover, &self.closer) {
                    Contact::Asked(conversation) => line = Some(InLine::new(conversation, now)),
                    Contact::Stranger => ask_at = now + ASK_LATER,
                    Contact::Absent => {}
                }
            }
            let is_late = !waits || now >= self.deadline;
            self.announce(error, line.as_ref(), now, is_late)?;
            let Some(mut asked) = line.take() else {
                Timer::after(RETRY).await;
                continue;
            };
            match asked.reply().await {
                None => line = Some(asked),
                Some(Reply::Healthy(livelet)) => {
                    asked.livelet = Some(livelet);
                    line = Some(asked);
                    // Signals are handled between two messages of the holder.
                    yield_now().await;
                }
                Some(Reply::Offered(socket)) => {
                    return Ok(Found::Offered(asked.conversation.into_offer(socket)));
                }
                Some(Reply::Refused) => {
                    refusals += 1;
                    let pause = if refusals > SOON_REFUSALS {
                        ASK_LATER
                    } else {
                        ASK_SOON
                    };
                    ask_at = now + pause;
                }
            }
        }
    }

    /// Logs that livelet waits for an address, and what holds the address. Logs this again only if
    /// the kind of the holder has changed ([`Announced`]). `error` is the error of the last try to
    /// bind the address. Returns `Ok` at once while the livelet asked in `line` may still reply,
    /// because the kind of the holder is not known yet.
    ///
    /// # Errors
    /// Returns `error`, with the holder of the address in it, if `is_late` is `true`: the wait is
    /// over.
    fn announce(
        &mut self,
        mut error: ListenError,
        line: Option<&InLine>,
        now: Instant,
        is_late: bool,
    ) -> Result<(), ListenError> {
        if line.is_some_and(|line| line.may_still_reply(now)) {
            return Ok(());
        }
        let livelet = line.and_then(|line| line.livelet);
        let announced = match livelet {
            Some(_) => Announced::Livelet,
            None => Announced::OtherProgram,
        };
        if is_late || self.announced != Some(announced) {
            error.held_by = held_by(error.address, livelet);
            if is_late {
                return Err(error);
            }
            self.announced = Some(announced);
            let limit = Human(self.wait.limit);
            log::notice(format_args!("{error}; waiting up to {limit}"));
        }
        Ok(())
    }
}

impl InLine {
    fn new(conversation: Conversation, since: Instant) -> InLine {
        InLine {
            conversation,
            since,
            livelet: None,
        }
    }

    /// Returns `true` while the process that holds the address has not replied and still has time
    /// to reply. After [`REPLY_LIMIT`] without a reply it does not count as a livelet.
    fn may_still_reply(&self, now: Instant) -> bool {
        self.livelet.is_none() && now < self.since + REPLY_LIMIT
    }

    /// Waits for the next reply of the livelet that holds the address. Returns `None` if no reply
    /// has come when it is time to bind the address again.
    async fn reply(&self) -> Option<Reply> {
        let reply = async { Some(self.conversation.reply().await) };
        let retry = async {
            Timer::after(RETRY).await;
            None
        };
        or(reply, retry).await
    }
}

/// Returns the holder of `address`. This is `livelet` if a livelet has replied, or else the socket
/// and process that /proc shows.
fn held_by(address: SocketAddr, livelet: Option<Livelet>) -> HeldBy {
    if let Some(livelet) = livelet {
        return HeldBy::Livelet {
            livelet,
            command: port_owner::command(livelet.pid),
        };
    }
    let Some(socket) = port_owner::holding_socket(address) else {
        return HeldBy::Unknown;
    };
    HeldBy::Socket {
        owner: port_owner::owner(socket),
        socket: Box::new(socket),
    }
}
