//! Getting every address, from whoever has it now.
//!
//! All or nothing: an address that is free is not kept while another one is waited for, so that no connection queues at a
//! livelet that may still give up.

use std::iter::once;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use smol::future::or;

use super::{HeldBy, Listen, ListenError, listen, port_owner};
use crate::duration::Human;
use crate::handover::{Answer, Asking, Offer, SILENCE};
use crate::log;
use crate::runtime::Timer;

/// How often a held port is tried: it is taken within twice this after it has become free.
const RETRY: Duration = Duration::from_millis(10);
/// How long a holder that does not answer is not asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long one that closes is not: it may have handed the socket over, and its successor is there in a moment.
const ASK_SOON: Duration = Duration::from_millis(20);
/// How often it is asked again that soon.
const REFUSALS: u32 = 10;

/// How to get what somebody else holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// How long to wait for it.
    pub(crate) limit: Duration,
    /// Replace a healthy livelet.
    pub(crate) takeover: bool,
    /// Share ports: then nobody has to go, and nobody is asked to.
    pub(crate) reuse_port: bool,
}

/// A listening socket that is to be had.
#[derive(Debug)]
pub(crate) enum Found {
    /// The port was free.
    Bound(TcpListener),
    /// Another livelet offers its own: it has to be taken at once, or the offer lapses.
    Offered(Offer),
}

/// Gets a listening socket for each address, in their order.
///
/// # Errors
/// An address can't be listened on, or was held for longer than the wait.
pub(crate) async fn find(addresses: &[Listen], wait: Wait) -> Result<Vec<Found>, ListenError> {
    let since = Instant::now();
    let mut announced = None;
    // The one that is held is waited for before anything is opened for the others.
    let mut held = 0;
    'again: loop {
        let mut found: Vec<(usize, Found)> = Vec::new();
        let others = (0..addresses.len()).filter(|&index| index != held);
        for index in once(held).chain(others) {
            let Some(&address) = addresses.get(index) else {
                continue;
            };
            let patience = Patience {
                until: (index == held).then(|| since + wait.limit),
                announced: &mut announced,
            };
            match find_one(address, wait, patience).await {
                Ok(socket) => found.push((index, socket)),
                Err(error) if index != held && error.is_held() => {
                    held = index;
                    continue 'again;
                }
                Err(error) => return Err(error),
            }
        }
        found.sort_unstable_by_key(|&(index, _)| index);
        return Ok(found.into_iter().map(|(_, socket)| socket).collect());
    }
}

/// How long one address is waited for.
struct Patience<'a> {
    /// None: no longer than a holder takes to answer.
    until: Option<Instant>,
    /// What was said to be waited for last: a healthy livelet, or something else.
    announced: &'a mut Option<bool>,
}

/// What is known of a livelet that may hold the address.
enum Holder {
    /// There is none.
    Absent,
    /// It was asked then, and has not answered.
    Asked(Asking, Instant),
    /// It serves, for so many seconds, and livelet is in line for its socket.
    Healthy(Asking, i32, u64),
    /// It is there and did not answer in time, or did not want to; when to ask again.
    Silent(Instant),
}

async fn find_one(
    address: Listen,
    wait: Wait,
    patience: Patience<'_>,
) -> Result<Found, ListenError> {
    let mut holder = Holder::Absent;
    let mut refusals = 0;
    loop {
        let mut error = match listen(address, wait.reuse_port) {
            Ok(socket) => return Ok(Found::Bound(socket)),
            Err(error) if !error.is_held() => return Err(error),
            Err(error) => error,
        };
        let now = Instant::now();
        match holder {
            Holder::Absent => holder = ask(error.address, wait, now),
            Holder::Asked(_, since) if now >= since + SILENCE => {
                holder = Holder::Silent(now + ASK_AGAIN);
            }
            Holder::Silent(until) if now >= until => {
                holder = ask(error.address, wait, now);
            }
            _ => {}
        }
        let is_late = patience.until.is_none_or(|until| now >= until);
        let is_known = !matches!(holder, Holder::Asked(..));
        let is_healthy = Some(matches!(holder, Holder::Healthy(..)));
        if is_known && (is_late || *patience.announced != is_healthy) {
            error.held_by = holder.description(error.address);
            if is_late {
                return Err(error);
            }
            *patience.announced = is_healthy;
            log::notice(format_args!("{error}; waiting up to {}", Human(wait.limit)));
        }
        holder = match holder {
            Holder::Asked(asking, since) => match answer(&asking).await {
                None => Holder::Asked(asking, since),
                Some(Answer::Healthy { pid, seconds }) => Holder::Healthy(asking, pid, seconds),
                Some(Answer::Offered { socket, pid }) => {
                    return Ok(Found::Offered(asking.accept(socket, pid)));
                }
                Some(Answer::Refused) => {
                    refusals += 1;
                    let pause = if refusals > REFUSALS {
                        ASK_AGAIN
                    } else {
                        ASK_SOON
                    };
                    Holder::Silent(now + pause)
                }
            },
            Holder::Healthy(asking, pid, seconds) => match answer(&asking).await {
                None => Holder::Healthy(asking, pid, seconds),
                Some(Answer::Offered { socket, pid }) => {
                    return Ok(Found::Offered(asking.accept(socket, pid)));
                }
                // It is gone, or another asker was before this one.
                Some(_) => Holder::Absent,
            },
            Holder::Absent | Holder::Silent(_) => {
                Timer::after(RETRY).await;
                holder
            }
        };
    }
}

fn ask(address: SocketAddr, wait: Wait, now: Instant) -> Holder {
    let asking = (!wait.reuse_port)
        .then(|| Asking::begin(address, wait.takeover))
        .flatten();
    asking.map_or(Holder::Absent, |asking| Holder::Asked(asking, now))
}

/// What the holder says before it is time to try the port again.
async fn answer(asking: &Asking) -> Option<Answer> {
    let said = async { Some(asking.answer().await) };
    let retry = async {
        Timer::after(RETRY).await;
        None
    };
    or(said, retry).await
}

impl Holder {
    /// For the message that names it.
    fn description(&self, address: SocketAddr) -> HeldBy {
        if let Holder::Healthy(_, pid, seconds) = *self {
            let command = port_owner::command(pid);
            return HeldBy::Livelet {
                pid,
                command,
                seconds,
            };
        }
        let Some(socket) = port_owner::listening_socket(address) else {
            return HeldBy::Unknown;
        };
        match port_owner::owner(socket.inode) {
            Some(pid) => HeldBy::Process {
                pid,
                command: port_owner::command(pid),
                address: socket.address,
            },
            None => HeldBy::User(socket.uid),
        }
    }
}
