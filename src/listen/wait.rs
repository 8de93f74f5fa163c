//! Gets a listening socket for every address, also from the process that has it now.
//!
//! A free address is released while another one is waited for. Otherwise connections would queue at
//! a livelet that may still give up.

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

/// Time between two tries to bind a held port. The port is bound within twice this time after it
/// has become free.
const RETRY: Duration = Duration::from_millis(10);
/// Time until a livelet that has refused is asked again. It may have handed the socket over, and
/// its successor is there soon.
const ASK_SOON: Duration = Duration::from_millis(20);
/// Number of refusals after which the time is [`ASK_LATER`].
const SOON_REFUSALS: u32 = 10;
/// Time until the livelet is asked again after many refusals.
const ASK_LATER: Duration = Duration::from_secs(1);

/// Settings of the wait for an address that another process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// Time limit of the wait.
    pub(crate) limit: Duration,
    /// `true` if a healthy livelet is to be replaced.
    pub(crate) takeover: bool,
    /// `true` if the port is shared on purpose. No other process is asked to release it then.
    pub(crate) reuse_port: bool,
}

/// A listening socket that was found.
#[derive(Debug)]
pub(crate) enum Found {
    /// The port was free.
    Bound(TcpListener),
    /// Another livelet offers its own socket. It withdraws the offer unless that is accepted at
    /// once.
    Offered(Offer),
}

/// Holder of the address, as the log has named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    Livelet,
    OtherProgram,
}

/// Gets a listening socket for each address, in the order of `addresses`.
///
/// # Errors
/// Returns an error if an address can't be listened on, or was held until the wait was over.
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

/// State of being in line: the conversation with the livelet that holds an address.
struct InLine {
    conversation: Conversation,
    since: Instant,
    /// Description of that livelet. `None` until it has replied.
    livelet: Option<Livelet>,
}

/// State of the search for sockets.
struct Search {
    wait: Wait,
    closer: Rc<Closer>,
    deadline: Instant,
    announced: Option<Announced>,
}

impl Search {
    /// Gets a socket for one address. With `waits`, waits for a held address until the deadline.
    /// Otherwise gives its holder only the time to reply.
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

    /// Logs the wait and its reason, unless they are logged already.
    ///
    /// # Errors
    /// Returns an error if the wait is over. The error has the holder of the address.
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

    /// Returns `true` while the holder has not replied and may still do so. After [`REPLY_LIMIT`]
    /// it counts as another program.
    fn may_still_reply(&self, now: Instant) -> bool {
        self.livelet.is_none() && now < self.since + REPLY_LIMIT
    }

    /// Waits for the next reply. Returns `None` when it is time to try the port again.
    async fn reply(&self) -> Option<Reply> {
        let reply = async { Some(self.conversation.reply().await) };
        let retry = async {
            Timer::after(RETRY).await;
            None
        };
        or(reply, retry).await
    }
}

/// Returns the holder of an address: the livelet that has replied, or a process that /proc shows.
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
