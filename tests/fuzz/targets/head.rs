//! The head of a request and the framing policy: what is accepted is beyond doubt, and more bytes
//! change no verdict.
#![no_main]

use libfuzzer_sys::fuzz_target;
use livelet::http::{MAX_FIELDS, MAX_HEAD, MAX_TARGET, Method, Parsed, Request, Version, parse};

fuzz_target!(|data: &[u8]| {
    // The first two bytes say where the input is cut.
    let [high, low, bytes @ ..] = data else {
        return;
    };
    let cut = usize::from(u16::from_be_bytes([*high, *low])) % (bytes.len() + 1);
    let whole = parse(bytes);
    match parse(&bytes[..cut]) {
        Parsed::Incomplete => assert!(cut < MAX_HEAD + 2, "{cut} bytes and still undecided"),
        part @ Parsed::Request(..) => assert_eq!(part, whole, "more bytes change a request"),
        Parsed::Rejected(_) => {
            assert!(
                matches!(whole, Parsed::Rejected(_)),
                "more bytes redeem what was rejected"
            );
        }
    }
    if let Parsed::Request(request, length) = whole {
        assert_eq!(
            parse(&bytes[..length - 1]),
            Parsed::Incomplete,
            "accepted too early or too late"
        );
        is_beyond_doubt(&bytes[..length], &request);
    }
});

/// Checks an accepted head again, line by line, with other code.
fn is_beyond_doubt(head: &[u8], request: &Request<'_>) {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    assert!(head.len() <= MAX_HEAD && head.ends_with(b"\r\n\r\n"));
    let lines: Vec<&[u8]> = split(&head[..head.len() - 4]);
    assert!(
        lines
            .iter()
            .all(|line| !line.contains(&b'\n') && !line.is_empty()),
        "a bare LF"
    );
    let words: Vec<&[u8]> = lines[0].split(|&b| b == b' ').collect();
    let [method, target, version] = words[..] else {
        panic!("not three words")
    };
    let is = |name: &str| method == name.as_bytes();
    assert_eq!(request.method == Method::Get, is("GET"));
    assert_eq!(request.method == Method::Head, is("HEAD"));
    assert_eq!(request.method == Method::Options, is("OPTIONS"));
    assert!(target.len() <= MAX_TARGET && target.is_ascii() && !target.contains(&b'#'));
    assert!(
        request.path.starts_with('/')
            || request.path == "*" && request.method == Method::Options
            || is("CONNECT") && request.path.as_bytes() == target
    );
    let is_refused = matches!(request.method, Method::Other | Method::Unknown);
    assert_eq!(is_refused, !is("GET") && !is("HEAD") && !is("OPTIONS"));
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        other => panic!("{other:?}"),
    };
    assert_eq!(request.version == Version::Http11, is_1_1);

    let fields: Vec<(String, &[u8])> = lines[1..].iter().map(|line| field(line)).collect();
    assert!(fields.len() <= MAX_FIELDS);
    let values = |name: &str| -> Vec<&[u8]> {
        let named = fields.iter().filter(|(key, _)| key == name);
        named.map(|(_, value)| *value).collect()
    };
    let hosts = values("host");
    assert!(
        hosts.len() <= 1 && (hosts.len() == 1 || !is_1_1),
        "{hosts:?}"
    );
    // Empty, or what no other server reads as two hosts or as a target.
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]|".contains(byte);
    assert!(hosts.concat().iter().all(is_host), "{hosts:?}");
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    assert!(lengths.is_empty() || codings.is_empty(), "both lengths");
    assert!(codings.is_empty() || is_1_1);
    let mut has_body = !codings.is_empty();
    for length in &lengths {
        assert!(!length.is_empty() && length.iter().all(u8::is_ascii_digit));
        let trimmed = |digits: &[u8]| {
            digits
                .iter()
                .position(|&b| b != b'0')
                .map(|at| digits[at..].to_vec())
        };
        assert_eq!(trimmed(length), trimmed(lengths[0]), "two lengths");
        has_body |= trimmed(length).is_some();
    }
    if !codings.is_empty() {
        let all = codings.join(&b',').to_ascii_lowercase();
        let names = all
            .split(|&b| b == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty());
        assert_eq!(names.collect::<Vec<_>>(), [b"chunked"]);
    }
    assert_eq!(request.has_body, has_body);
    let closes = values("connection").join(&b',').to_ascii_lowercase();
    let closes = closes
        .split(|&b| b == b',')
        .any(|token| token.trim_ascii() == b"close");
    assert!(!closes || !request.keep_alive);
}

fn split(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines
}

fn field(line: &[u8]) -> (String, &[u8]) {
    let colon = line.iter().position(|&b| b == b':').expect("a colon");
    let name = String::from_utf8(line[..colon].to_ascii_lowercase()).expect("a token");
    assert!(
        !name.is_empty() && !name.contains([' ', '\t', '\r']),
        "{name:?}"
    );
    (name, line[colon + 1..].trim_ascii())
}
