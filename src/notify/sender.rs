//! Decides which senders of sd_notify messages are trusted. Pure.
//!
//! The worker and its descendants are trusted whatever their uid: gosu, su-exec and daemons drop
//! it. Other processes of livelet's pid namespace are trusted if they have root's or livelet's own
//! uid.

use std::fmt;

use crate::peer::Peer;

/// Facts about the process that sent an sd_notify message. A method may read /proc, and is called
/// only if its fact is needed.
pub(super) trait SenderFacts {
    fn is_of_own_user(&self) -> bool;
    fn shares_pid_namespace(&self) -> bool;
    fn is_descendant(&self) -> bool;
}

/// Reason why livelet ignores an sd_notify message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    TooLong,
    Malformed,
    NoCredentials,
    OtherNamespace,
    OtherUser,
}

impl Refusal {
    /// Returns the index, from 0 to 31, of the bit that stands for this reason in a set of reasons.
    pub(super) fn bit(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TooLong => "longer than 4096 bytes",
            Refusal::Malformed => "malformed, it has a zero byte in it",
            Refusal::NoCredentials => "the kernel gives no credentials",
            Refusal::OtherNamespace => "the process is in another pid namespace",
            Refusal::OtherUser => {
                "the process is of another user, and /proc shows no descendant of livelet"
            }
        })
    }
}

impl std::error::Error for Refusal {}

/// Decides if livelet trusts `peer`, the process that sent an sd_notify message. `facts` are about
/// the same process.
///
/// # Errors
/// Returns the reason why the message is ignored if `peer` is not trusted.
pub(super) fn judge(peer: Peer, facts: &impl SenderFacts) -> Result<(), Refusal> {
    if peer.pid == 0 {
        return Err(Refusal::OtherNamespace);
    }
    let is_trusted = peer.uid == 0 || facts.is_of_own_user();
    if is_trusted && facts.shares_pid_namespace() || facts.is_descendant() {
        return Ok(());
    }
    Err(if is_trusted {
        Refusal::OtherNamespace
    } else {
        Refusal::OtherUser
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known {
        own_user: bool,
        same_namespace: bool,
        descendant: bool,
    }

    impl SenderFacts for Known {
        fn is_of_own_user(&self) -> bool {
            self.own_user
        }
        fn shares_pid_namespace(&self) -> bool {
            self.same_namespace
        }
        fn is_descendant(&self) -> bool {
            self.descendant
        }
    }

    #[test]
    fn trusts_descendants_and_processes_of_the_same_user_and_namespace() {
        let (outside, other) = (Err(Refusal::OtherNamespace), Err(Refusal::OtherUser));
        for (pid, uid, [own_user, same_namespace, descendant], expected) in [
            (7, 1000, [true, true, true], Ok(())),
            (7, 1000, [true, true, false], Ok(())),
            (7, 0, [false, true, false], Ok(())),
            (7, 33, [false, true, true], Ok(())),
            // A worker below `unshare --pid`.
            (7, 33, [false, false, true], Ok(())),
            (7, 33, [false, true, false], other),
            (7, 33, [false, false, false], other),
            (7, 1000, [true, false, false], outside),
            (7, 0, [false, false, false], outside),
            // A second container: no pid of its own here, and so no descendant.
            (0, 0, [true, true, true], outside),
        ] {
            let known = Known {
                own_user,
                same_namespace,
                descendant,
            };
            assert_eq!(judge(Peer { pid, uid }, &known), expected, "{pid} {uid}");
        }
    }
}
