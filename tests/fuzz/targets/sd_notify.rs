//! Messages of a worker over sd_notify: datagrams separated by 0xFF, and the state that they add up
//! to.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use livelet::notify::{Notification, Notified};

fuzz_target!(|data: &[u8]| {
    let start = Instant::now();
    let (mut now, mut notified) = (start, Notified::default());
    let (mut is_ready, mut is_stopping, mut is_reloading) = (false, false, false);
    for message in data.split(|&b| b == 0xFF) {
        now += Duration::from_millis(message.len() as u64);
        let Some(parsed) = Notification::parse(message) else {
            assert!(without_end(message).contains(&0));
            continue;
        };
        notified.receive(parsed, now);
        let relayed = parsed.relayed();
        let message = without_end(message);
        assert!(!message.contains(&0));
        let text = String::from_utf8_lossy(message);
        // Lines of it are relayed, in their order.
        let mut lines = message.split(|b| b"\n\r".contains(b));
        for line in relayed.split(|&b| b == b'\n') {
            assert!(
                relayed.is_empty() || lines.any(|said| said == line),
                "{line:?} was not said"
            );
        }
        for line in text.split(['\n', '\r']) {
            match line {
                "READY=1" => (is_ready, is_stopping, is_reloading) = (true, false, false),
                "STOPPING=1" => is_stopping = true,
                "RELOADING=1" => is_reloading = true,
                _ => {}
            }
        }
        assert_eq!(
            notified.readiness().is_ok(),
            is_ready && !is_stopping && !is_reloading
        );
        assert!(
            notified
                .status()
                .is_none_or(|status| !status.is_empty() && status.len() <= 512)
        );
        for limit in [
            Duration::ZERO,
            Duration::from_secs(30),
            Duration::from_secs(8760 * 3600),
        ] {
            if let Err(why) = notified.liveness(limit, start, now) {
                assert!(!why.contains('\n'));
            }
        }
    }
});

/// Senders in C may send the zero byte that ends a string.
fn without_end(message: &[u8]) -> &[u8] {
    message.strip_suffix(b"\0").unwrap_or(message)
}
