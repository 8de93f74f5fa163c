//! Parser of requests: the framing policy, which decides the bytes that are a request (RFC 9112).
//! httparse splits the bytes into tokens.
//!
//! httparse accepts bytes that two parsers of one stream could read differently, such as a bare LF
//! or any number of empty lines. It does not check Host, Content-Length or Transfer-Encoding. This
//! parser rejects every ambiguous request.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::str;

use super::Status;

/// Maximum length, in bytes, of a request's head: the request line, the fields and the empty line
/// after them.
pub const MAX_HEAD: usize = 8 * 1024;
/// Maximum length of a request target, in bytes.
pub const MAX_TARGET: usize = 2 * 1024;
/// Maximum number of field lines in a request's head.
pub const MAX_FIELDS: usize = 64;

/// Result of parsing the bytes that a client has sent so far.
#[derive(Debug, PartialEq)]
pub enum Parsed<'b> {
    /// The head of the request is incomplete. Its bytes so far are valid.
    Incomplete,
    /// A complete request, and the length of its head in bytes. An empty line before the request
    /// line is part of that length.
    Request(Request<'b>, usize),
    /// Bytes that can't become a valid request, whatever bytes follow. livelet answers them with an
    /// error, and closes the connection.
    Rejected(Rejection),
}

/// Valid request, with those parts of its head that livelet uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request<'b> {
    /// Method of the request.
    pub method: Method,
    /// Path of the request target. `*` stands for the whole server, and is valid only with OPTIONS
    /// (RFC 9112 §3.2.4).
    pub path: &'b str,
    /// Part of the request target after `?`. Empty if the target has no `?`.
    pub query: &'b str,
    /// HTTP version of the request.
    pub version: Version,
    /// `true` if the client allows another request after this one (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// `true` if content follows the head of the request.
    pub has_body: bool,
    /// Value of the first Accept field. Empty if the request has no such field.
    pub accept: &'b str,
}

/// Request method. Methods with the same kind of answer share a variant. Names of methods are
/// case-sensitive (RFC 9110 §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// OPTIONS
    Options,
    /// Method that livelet knows but does not serve: one of RFC 9110, RFC 5789 (PATCH) or WebDAV
    /// (RFC 4918, 3253, 5323).
    Other,
    /// Name that is not a known method.
    Unknown,
}

/// HTTP version that livelet serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// Reason why bytes are not accepted as a request, and the status of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejection {
    /// Status of the error response, such as 400.
    pub status: Status,
    /// Text that names the rule that the bytes break, for the content of the error response.
    pub reason: &'static str,
    /// `true` if the response must have no content, because the method is HEAD.
    pub head_only: bool,
}

/// Rule that a request breaks.
#[derive(Debug, Clone, Copy)]
struct Broken {
    /// Status of the response.
    status: Status,
    /// Text that names the rule.
    reason: &'static str,
}

impl Broken {
    const fn new(status: Status, reason: &'static str) -> Broken {
        Broken { status, reason }
    }
}

const fn bad(reason: &'static str) -> Broken {
    Broken::new(Status::BadRequest, reason)
}

const BARE_LF: Broken = bad("a line ends in LF without CR");

/// Parses the head of the request that begins `bytes`, and ignores the bytes after that head. After
/// [`Parsed::Incomplete`] the caller calls the function again, with the same bytes and those that
/// have arrived since. The result for [`MAX_HEAD`] + 2 bytes is never [`Parsed::Incomplete`].
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    // One empty line before the request line is ignored (RFC 9112 §2.2).
    let head = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let skipped = bytes.len() - head.len();
    if bytes == b"\r" {
        return Parsed::Incomplete;
    }
    match parse_head(head) {
        Ok(Parsed::Request(request, length)) => Parsed::Request(request, skipped + length),
        Ok(parsed) => parsed,
        Err(Broken { status, reason }) => Parsed::Rejected(Rejection {
            status,
            reason,
            head_only: head.starts_with(b"HEAD "),
        }),
    }
}

fn parse_head(bytes: &[u8]) -> Result<Parsed<'_>, Broken> {
    if let [b'\r' | b'\n', ..] = bytes {
        return Err(bad("an empty line where a request line was expected"));
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Request::new(&mut []);
    let outcome = head.parse_with_uninit_headers(bytes, &mut fields);
    let length = match outcome {
        Ok(httparse::Status::Complete(length)) => Some(length),
        _ => None,
    };

    let seen = bytes.get(..length.unwrap_or(bytes.len())).unwrap_or(bytes);
    let target_length = head.path.map_or_else(|| length_of_target(seen), str::len);
    if target_length > MAX_TARGET {
        return Err(Broken::new(
            Status::UriTooLong,
            "the request target is longer than 2048 bytes",
        ));
    }
    // An unfinished head of exactly MAX_HEAD bytes can only become longer.
    if seen.len() > MAX_HEAD || (length.is_none() && seen.len() == MAX_HEAD) {
        return Err(Broken::new(
            Status::HeaderFieldsTooLarge,
            "the head is longer than 8192 bytes",
        ));
    }
    // After the line of another version there may be no lines: HTTP/2 goes on with frames.
    if let Err(httparse::Error::Version) = outcome {
        return version_error(bytes).map_or(Ok(Parsed::Incomplete), Err);
    }
    if has_bare_lf(seen) {
        return Err(BARE_LF);
    }
    match outcome {
        Ok(httparse::Status::Partial) => return Ok(Parsed::Incomplete),
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Broken::new(
                Status::HeaderFieldsTooLarge,
                "more than 64 header fields",
            ));
        }
        Err(httparse::Error::Token) => return Err(bad("malformed request line")),
        Err(_) => return Err(bad("malformed header field")),
    }

    let (Some(length), Some(method), Some(target)) = (length, head.method, head.path) else {
        return Err(bad("malformed request line"));
    };
    let version = match head.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    // The target of CONNECT is a host and a port (RFC 9112 section 3.2.3).
    let is_authority = method == "CONNECT" && is_host(target.as_bytes());
    let method = Method::named(method);
    let (path, query) = if is_authority {
        (target, "")
    } else {
        split_target(method, target)?
    };
    let framing = Framing::of(head.headers, version)?;
    let request = Request {
        method,
        path,
        query,
        version,
        keep_alive: framing.keep_alive(version),
        has_body: framing.has_body,
        accept: framing.accept.unwrap_or_default(),
    };
    Ok(Parsed::Request(request, length))
}

impl Method {
    fn named(name: &str) -> Method {
        match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            "POST" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "CONNECT" | "PROPFIND"
            | "PROPPATCH" | "MKCOL" | "COPY" | "MOVE" | "LOCK" | "UNLOCK" | "REPORT" | "SEARCH" => {
                Method::Other
            }
            _ => Method::Unknown,
        }
    }
}

/// Returns the length, in bytes, of the request target in `head`, which may be incomplete. Only the
/// part of the target that has arrived counts. Returns 0 if no part has arrived.
fn length_of_target(head: &[u8]) -> usize {
    let line = head.split(|&b| b == b'\r' || b == b'\n').next();
    let target = line.and_then(|line| line.split(|&b| b == b' ').nth(1));
    target.map_or(0, <[u8]>::len)
}

fn has_bare_lf(head: &[u8]) -> bool {
    let mut lines = head;
    while let Some(end) = lines.iter().position(|&byte| byte == b'\n') {
        let (line, rest) = lines.split_at(end);
        if line.last() != Some(&b'\r') {
            return true;
        }
        lines = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Returns the error for a request whose HTTP version httparse does not accept. A well-formed
/// version gets status 505, and a malformed one gets 400. httparse stops at the first wrong byte,
/// so this function reads the whole request line in `head`. Returns `None` if the end of that line
/// has not arrived.
fn version_error(head: &[u8]) -> Option<Broken> {
    let mut lines = head.split(|&b| b == b'\n');
    let (Some(line), Some(_)) = (lines.next(), lines.next()) else {
        return None;
    };
    let Some(line) = line.strip_suffix(b"\r") else {
        return Some(BARE_LF);
    };
    let mut words = line.split(|&b| b == b' ').skip(2);
    Some(match (words.next(), words.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Broken::new(
                Status::VersionNotSupported,
                "only HTTP/1.0 and HTTP/1.1 are supported",
            )
        }
        _ => bad("malformed request line"),
    })
}

/// Splits `target`, a request target, into its path and its query. `method` decides whether the
/// target `*` is valid. The target is in origin-form, absolute-form or asterisk-form (RFC 9112
/// §3.2).
///
/// # Errors
/// Returns an error if the target is in none of these forms, or if it has a fragment or a byte
/// outside ASCII.
fn split_target(method: Method, target: &str) -> Result<(&str, &str), Broken> {
    if !target.is_ascii() {
        return Err(bad("bytes outside ASCII in the request target"));
    }
    if target.as_bytes().contains(&b'#') {
        return Err(bad("a fragment in the request target"));
    }
    if target == "*" {
        return match method {
            Method::Options => Ok((target, "")),
            _ => Err(bad("the target * is valid only with OPTIONS")),
        };
    }
    let relative = if target.as_bytes().first() == Some(&b'/') {
        target
    } else {
        let Some(rest) = after_scheme(target) else {
            return Err(bad("the request target is neither a path nor an http URI"));
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, relative) = rest.split_at(end);
        if !is_host(authority.as_bytes()) {
            return Err(bad("malformed authority in the request target"));
        }
        relative
    };
    let path_end = relative.bytes().position(|byte| byte == b'?');
    let (path, query) = relative.split_at(path_end.unwrap_or(relative.len()));
    let query = query.get(1..).unwrap_or_default();
    Ok(match path {
        // An absolute-form OPTIONS without path and query means the server as a whole (RFC 9112
        // §3.2.4).
        "" if method == Method::Options && relative.is_empty() => ("*", ""),
        "" => ("/", query),
        path => (path, query),
    })
}

fn after_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once(':')?;
    let rest = rest.strip_prefix("//")?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    known.then_some(rest)
}

/// Returns `true` if livelet serves a request whose Host field has this `value`. The value may be
/// empty, as F5 load balancers send it. It may have several parts with bars between them, as Istio
/// sends it: `outbound|80||name`.
fn is_host_field(value: &[u8]) -> bool {
    let mut parts = value
        .split(|&byte| byte == b'|')
        .filter(|part| !part.is_empty());
    parts.all(is_host)
}

/// Returns `true` if `value` is `uri-host [ ":" port ]` and not empty (RFC 9110 section 7.2, RFC
/// 3986 section 3.2.2).
fn is_host(value: &[u8]) -> bool {
    let (host_is_valid, port) = match value {
        [b'[', rest @ ..] => {
            let (address, port) = split_before(rest, b']');
            let address = str::from_utf8(address).ok();
            let is_address = address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
            (is_address, port.get(1..))
        }
        _ => {
            let (host, port) = split_before(value, b':');
            (is_reg_name(host), Some(port))
        }
    };
    let port_is_valid = match port {
        Some([]) => true,
        Some([b':', digits @ ..]) => {
            digits.is_empty() || decimal(digits).is_some_and(|port| port <= u16::MAX.into())
        }
        _ => false,
    };
    host_is_valid && port_is_valid
}

/// Splits `value` before the first occurrence of `byte`. The second part is empty if `byte` does
/// not occur.
fn split_before(value: &[u8], byte: u8) -> (&[u8], &[u8]) {
    let end = value.iter().position(|&b| b == byte);
    value.split_at(end.unwrap_or(value.len()))
}

/// Returns `true` if `host` is a `reg-name` and not empty: unreserved, sub-delims and pct-encoded
/// (RFC 3986 section 3.2.2). A comma is refused, because it would join two hosts into a list.
fn is_reg_name(host: &[u8]) -> bool {
    let mut rest = host;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                after
            }
            (first, after)
                if first.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(first) =>
            {
                after
            }
            _ => return false,
        };
    }
    !host.is_empty()
}

/// Header fields of a request that livelet uses: those that say if content follows the head, and if
/// the connection stays open (RFC 9112 §6, §9), and the Accept field.
#[derive(Default)]
struct Framing<'b> {
    has_body: bool,
    close: bool,
    persist: bool,
    /// Value of the first Accept field. `None` if the request has no such field.
    accept: Option<&'b str>,
}

impl<'b> Framing<'b> {
    fn of(fields: &[httparse::Header<'b>], version: Version) -> Result<Framing<'b>, Broken> {
        let mut framing = Framing::default();
        let mut hosts = 0;
        let mut content_length = None;
        let mut codings: Option<Codings> = None;
        for field in fields {
            let (name, value) = (field.name, field.value);
            let is = |known: &str| name.eq_ignore_ascii_case(known);
            if is("host") {
                hosts += 1;
                if !is_host_field(value) {
                    return Err(bad("malformed Host"));
                }
            } else if is("accept") {
                let accept = str::from_utf8(value).unwrap_or_default();
                framing.accept.get_or_insert(accept);
            } else if is("connection") {
                framing.close |= has_token(value, b"close");
                framing.persist |= has_token(value, b"keep-alive");
            } else if is("content-length") {
                let length = decimal(value).ok_or(bad("malformed Content-Length"))?;
                if content_length.is_some_and(|other| other != length) {
                    return Err(bad("two different Content-Length"));
                }
                content_length = Some(length);
            } else if is("transfer-encoding") {
                codings.get_or_insert_default().add(value);
            }
        }
        match hosts {
            1 => {}
            0 if version == Version::Http10 => {}
            0 => return Err(bad("no Host")),
            _ => return Err(bad("more than one Host")),
        }
        if let Some(codings) = codings {
            if version == Version::Http10 {
                return Err(bad("Transfer-Encoding with HTTP/1.0"));
            }
            if content_length.is_some() {
                return Err(bad("Content-Length with Transfer-Encoding"));
            }
            codings.verdict()?;
            framing.has_body = true;
        }
        framing.has_body |= content_length.is_some_and(|length| length > 0);
        Ok(framing)
    }

    fn keep_alive(&self, version: Version) -> bool {
        !self.close && (self.persist || version == Version::Http11)
    }
}

/// Parses a field value or a port that has only decimal digits (1*DIGIT). Returns `None` for any
/// other value, such as one with a sign, and for a number over 64 bits.
fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// Returns the members of `value`, a comma-separated list in a header field, without the empty
/// members (RFC 9110 §5.6.1).
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    members(value).any(|member| member.eq_ignore_ascii_case(token))
}

/// Properties of the transfer codings that a request's Transfer-Encoding fields name (RFC 9112
/// §6.1, §7). They decide whether livelet accepts the request.
#[derive(Default)]
struct Codings {
    ends_in_chunked: bool,
    chunked_before: bool,
    unknown: bool,
    not_chunked: bool,
}

impl Codings {
    fn add(&mut self, value: &[u8]) {
        const REGISTERED: [&[u8]; 6] = [
            b"gzip",
            b"x-gzip",
            b"compress",
            b"x-compress",
            b"deflate",
            b"identity",
        ];
        for coding in members(value) {
            self.chunked_before |= self.ends_in_chunked;
            self.ends_in_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.not_chunked |= !self.ends_in_chunked;
            self.unknown |= !self.ends_in_chunked
                && !REGISTERED
                    .iter()
                    .any(|known| coding.eq_ignore_ascii_case(known));
        }
    }

    fn verdict(&self) -> Result<(), Broken> {
        if self.unknown {
            return Err(Broken::new(
                Status::NotImplemented,
                "unknown transfer coding",
            ));
        }
        if !self.ends_in_chunked || self.chunked_before {
            return Err(bad("Transfer-Encoding does not end in one chunked"));
        }
        if self.not_chunked {
            return Err(Broken::new(
                Status::NotImplemented,
                "only the transfer coding chunked is supported",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the status with which livelet answers a request with this `head`: 200 for a valid
    /// request, 0 for an incomplete one.
    fn outcome(head: &[u8]) -> u16 {
        match parse(head) {
            Parsed::Incomplete => 0,
            Parsed::Request(..) => 200,
            Parsed::Rejected(rejection) => rejection.status.line()[..3].parse().unwrap(),
        }
    }

    #[track_caller]
    fn table(rows: &[(&[u8], u16)]) {
        let wrong: Vec<_> = rows
            .iter()
            .filter(|(head, expected)| outcome(head) != *expected)
            .map(|(head, expected)| (String::from_utf8_lossy(head), expected, outcome(head)))
            .collect();
        assert!(wrong.is_empty(), "head, expected, got: {wrong:#?}");
    }

    #[test]
    fn a_head_is_accepted_or_rejected_as_early_as_possible() {
        table(&[
            (b"", 0),
            (b"\r", 0),
            (b"\r\n", 0),
            (b"\r\n\r", 400),
            (b"\n", 400),
            (b"G", 0),
            (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r", 0),
            (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"\r\nGET /livez HTTP/1.1\r\nHost: a\r\n\r\n", 200),
            (b"GET /livez HTTP/1.1\n", 400),
            (b"GET / HTTP/2", 0),
            (b"GET / HTTP/2.0\r", 0),
            (b"GET / HTTP/2.0\r\n", 505),
            (b"GET / HTTP/x.0\r\n", 400),
            (b"GET /  HTTP/2.0\r\n", 400),
            (b"GET / a HTTP/2.0\r\n", 400),
            (b"\x16\x03\x01\x02\x00", 400),
        ]);
    }

    #[test]
    fn every_prefix_of_a_good_head_is_incomplete() {
        let head =
            b"\r\nOPTIONS http://a:1/livez?b HTTP/1.1\r\nHost: [::1]:80\r\nAccept: */*\r\n\r\n";
        for length in 0..head.len() {
            assert_eq!(parse(&head[..length]), Parsed::Incomplete, "{length} bytes");
        }
        assert!(matches!(parse(head), Parsed::Request(_, length) if length == head.len()));
    }

    #[test]
    fn limits_are_exact_and_apply_to_unfinished_heads() {
        let target = |length: usize| {
            let path = "a".repeat(length - 1);
            format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
        };
        let sized = |length: usize| {
            let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
            let value = "a".repeat(length - start.len() - 4);
            format!("{start}{value}\r\n\r\n").into_bytes()
        };
        let fields = |count: usize| {
            let others = "X: 1\r\n".repeat(count - 1);
            format!("GET / HTTP/1.1\r\nHost: a\r\n{others}\r\n").into_bytes()
        };
        table(&[
            (&target(MAX_TARGET), 200),
            (&target(MAX_TARGET + 1), 414),
            (&target(MAX_TARGET + 1)[..MAX_TARGET + 5], 414),
            (&sized(MAX_HEAD), 200),
            (&sized(MAX_HEAD)[..MAX_HEAD - 1], 0),
            (&sized(MAX_HEAD + 1), 431),
            (&sized(MAX_HEAD + 1)[..MAX_HEAD], 431),
            (&fields(MAX_FIELDS), 200),
            (&fields(MAX_FIELDS + 1), 431),
        ]);
    }

    #[test]
    fn accepts_valid_hosts_and_rejects_others() {
        let accepted = [
            "a",
            "a:",
            "a:80",
            "1.2.3.4:80",
            "[::1]",
            "[::1]:80",
            "a-b.c_d",
            "%41",
        ];
        let refused = [
            "", ":80", "a b", "a:b", "a:65536", "a:+1", "a/b", "u@a", "a,b", "[::1", "[::g]",
            "[::1]a", "::1", "[]", "a\u{e9}", "a:80:80", "a\"", "%", "a%4", "%zz",
        ];
        for value in accepted {
            assert!(
                is_host(value.as_bytes()) && is_host_field(value.as_bytes()),
                "{value}"
            );
        }
        for value in refused {
            assert!(!is_host(value.as_bytes()), "{value}");
            assert!(
                !is_host_field(value.as_bytes()) || value.is_empty(),
                "{value}"
            );
        }
    }

    #[test]
    fn each_target_has_its_status() {
        let get = |target| split_target(Method::Get, target).ok();
        assert_eq!(get("/a?b?c"), Some(("/a", "b?c")));
        assert_eq!(get("http://a"), Some(("/", "")));
        assert_eq!(get("HTTPS://a:1?b"), Some(("/", "b")));
        assert_eq!(get("/http://a"), Some(("/http://a", "")));
        for target in [
            "*",
            "a",
            "a:80",
            "http:/a",
            "http://",
            "http:///a",
            "ftp://a/",
            "/a#b",
            "/\u{e9}",
        ] {
            assert_eq!(get(target), None, "{target}");
        }
        let options = |target| split_target(Method::Options, target).ok();
        assert_eq!(options("*"), Some(("*", "")));
        assert_eq!(options("http://a"), Some(("*", "")));
        assert_eq!(options("http://a/"), Some(("/", "")));
    }

    #[test]
    fn framing_decides_on_bodies_and_keep_alive() {
        let rows = [
            ("1.1", "", true, false),
            ("1.1", "Connection: x, CLOSE\r\n", false, false),
            ("1.1", "Content-Length: 0\r\n", true, false),
            ("1.1", "Content-Length: 007\r\n", true, true),
            (
                "1.1",
                "Content-Length: 1\r\nContent-Length: 1\r\n",
                true,
                true,
            ),
            ("1.1", "Transfer-Encoding: , Chunked ,\r\n", true, true),
            ("1.0", "", false, false),
            ("1.0", "Connection: Keep-Alive\r\n", true, false),
            ("1.0", "Connection: keep-alive, close\r\n", false, false),
        ];
        for (version, fields, keep_alive, has_body) in rows {
            let head = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
            let Parsed::Request(request, _) = parse(head.as_bytes()) else {
                panic!("rejected: {head}");
            };
            let got = (request.keep_alive, request.has_body);
            assert_eq!(got, (keep_alive, has_body), "{head}");
        }
    }
}
