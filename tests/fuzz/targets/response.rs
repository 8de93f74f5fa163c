//! The answer of a checked server: the verdict does not depend on how the bytes arrive, and nothing
//! is made up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livelet::http::client::{Malformed, ResponseHead};

/// Returns the status and the number of bytes after the head, or `None` if the head is not whole.
fn parse(parts: &[&[u8]]) -> Result<Option<(u16, usize)>, Malformed> {
    let mut head = ResponseHead::default();
    for (index, part) in parts.iter().enumerate() {
        if let Some(rest) = head.push(part)? {
            let later: usize = parts[index + 1..].iter().map(|part| part.len()).sum();
            return Ok(Some((head.status, rest.len() + later)));
        }
    }
    Ok(None)
}

fuzz_target!(|data: &[u8]| {
    let [high, low, bytes @ ..] = data else {
        return;
    };
    let cut = usize::from(u16::from_be_bytes([*high, *low])) % (bytes.len() + 1);
    let whole = parse(&[bytes]);
    let kind = |outcome: &Result<_, Malformed>| match outcome {
        Ok(found) => Ok(*found),
        // The text in a reason may be shorter if less has arrived.
        Err(why) => Err(std::mem::discriminant(why)),
    };
    let in_parts = parse(&[&bytes[..cut], &bytes[cut..]]);
    assert_eq!(kind(&in_parts), kind(&whole), "{in_parts:?} {whole:?}");
    if let Ok(Some((status, rest))) = whole {
        assert!((100..1000).contains(&status) && (status == 101 || status >= 200));
        assert!(rest < bytes.len());
    }
});
