//! The messages of a handover: parses them from bytes and formats them as text. Pure.
//!
//! A message is the text `livelet VERSION WORD KEY=VALUE...`. Later versions may add words and
//! keys. A receiver closes the channel at an unknown word, and ignores unknown keys. A holder
//! replies in the lesser of its own version and the successor's.

use std::fmt;

/// Version of the protocol that this livelet sends in its messages.
pub const VERSION: u32 = 1;
/// Maximum length, in bytes, of a message between two livelets.
pub const MAX: usize = 512;

/// A message between the livelet that has a listening socket (the holder) and the livelet that
/// wants it (the successor). `pid` is the sender's pid in its own pid namespace. If the kernel
/// reports another pid, the sender is in another pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Request: the sender asks another livelet for its listening socket.
    Ask {
        /// Pid of the sender.
        pid: i32,
        /// `true` if the receiver must hand its socket over and stop even if it is healthy.
        takeover: bool,
    },
    /// Reply to a request: the sender is healthy and keeps its listening socket for now.
    Healthy {
        /// Pid of the sender.
        pid: i32,
        /// Seconds since the sender began to serve.
        seconds: u64,
    },
    /// Reply to a request: the sender offers its listening socket, whose descriptor comes with this
    /// message.
    Offer {
        /// Pid of the sender.
        pid: i32,
    },
    /// Reply to an offer: the sender accepts the offer and owns the listening socket from now on.
    Taken,
    /// End of an offer: the sender withdraws its offer, which has not been accepted in time.
    Withdrawn,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "livelet {VERSION} ")?;
        match self {
            Message::Ask { pid, takeover } => {
                write!(f, "ask pid={pid} takeover={}", u8::from(*takeover))
            }
            Message::Healthy { pid, seconds } => write!(f, "healthy pid={pid} seconds={seconds}"),
            Message::Offer { pid } => write!(f, "offer pid={pid}"),
            Message::Taken => f.write_str("taken"),
            Message::Withdrawn => f.write_str("withdrawn"),
        }
    }
}

/// Parses a message of the form `livelet VERSION WORD KEY=VALUE...`. VERSION may be any number from
/// 1 on, and unknown keys are ignored. Returns `None` if the message is malformed or WORD is
/// unknown.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<Message> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.split(' ');
    let (magic, version, word) = (parts.next()?, parts.next()?, parts.next()?);
    let is_ours = magic == "livelet" && version.parse::<u32>().is_ok_and(|version| version >= 1);
    if !is_ours {
        return None;
    }
    let value = |key: &str| {
        let mut pairs = parts.clone().filter_map(|part| part.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    let pid = || value("pid")?.parse::<i32>().ok().filter(|&pid| pid > 0);
    Some(match word {
        "ask" => Message::Ask {
            pid: pid()?,
            takeover: value("takeover") == Some("1"),
        },
        "healthy" => Message::Healthy {
            pid: pid()?,
            seconds: value("seconds")?.parse().ok()?,
        },
        "offer" => Message::Offer { pid: pid()? },
        "taken" => Message::Taken,
        "withdrawn" => Message::Withdrawn,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: [Message; 6] = [
        Message::Ask {
            pid: 1,
            takeover: false,
        },
        Message::Ask {
            pid: i32::MAX,
            takeover: true,
        },
        Message::Healthy {
            pid: 7,
            seconds: u64::MAX,
        },
        Message::Offer { pid: 7 },
        Message::Taken,
        Message::Withdrawn,
    ];

    #[test]
    fn each_message_is_parsed_as_it_was_sent() {
        for message in MESSAGES {
            let text = message.to_string();
            assert!(text.len() <= MAX);
            assert_eq!(parse(text.as_bytes()), Some(message), "{text}");
        }
    }

    #[test]
    fn accepts_later_versions_and_rejects_garbage() {
        for (text, expected) in [
            ("livelet 2 taken", Some(Message::Taken)),
            (
                "livelet 9 offer colour=red pid=7",
                Some(Message::Offer { pid: 7 }),
            ),
            ("livelet 0 taken", None),
            ("livelet -1 taken", None),
            ("livelet 1 sing", None),
            ("livelet 1", None),
            ("livelet 1 ask", None),
            ("livelet 1 ask pid=0 takeover=1", None),
            ("livelet 1 ask pid=-7 takeover=1", None),
            ("livelet 1 ask pid=99999999999 takeover=1", None),
            ("livelet 1 healthy pid=1", None),
            ("other 1 taken", None),
            ("", None),
            ("\0\0\0", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(parse(b"livelet 1 taken\xff"), None);
    }
}
