//! The messages between two livelets: what is understood is what would be said.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livelet::handover::message::{MAX, Message, parse};

fuzz_target!(|data: &[u8]| {
    let Some(message) = parse(data) else { return };
    let said = message.to_string();
    assert!(said.len() <= MAX);
    assert_eq!(parse(said.as_bytes()), Some(message));
    assert!(data.starts_with(b"livelet "));
    match message {
        Message::Ask { pid, .. } | Message::Healthy { pid, .. } | Message::Offer { pid } => {
            assert!(pid > 0)
        }
        Message::Taken | Message::Withdrawn => {}
    }
});
