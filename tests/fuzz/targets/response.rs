//! What a checked server answers: the verdict does not depend on how the bytes arrive, and nothing is made up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livelet::check::{Head, parse_response};

fuzz_target!(|data: &[u8]| {
    let [high, low, bytes @ ..] = data else {
        return;
    };
    let cut = usize::from(u16::from_be_bytes([*high, *low])) % (bytes.len() + 1);
    let whole = parse_response(bytes);
    match parse_response(&bytes[..cut]) {
        Err(why) => assert_eq!(whole, Err(why), "more bytes redeem what was no answer"),
        Ok(None) => {}
        Ok(Some(Head {
            status,
            body,
            is_whole,
        })) => {
            let Ok(Some(later)) = whole else {
                panic!("more bytes take an answer back")
            };
            assert_eq!(status, later.status);
            assert!(later.body.starts_with(body));
            assert!(!is_whole || later.is_whole && later.body == body);
            assert!(status < 1000 && (status == 101 || !(100..200).contains(&status)));
        }
    }
    if let Ok(Some(head)) = whole {
        assert!(head.is_whole || bytes.ends_with(head.body));
        assert!(
            bytes
                .windows(head.body.len().max(1))
                .any(|part| part == head.body)
                || head.body.is_empty()
        );
    }
});
