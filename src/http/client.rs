//! Client side of HTTP/1: builds the request of a check, and parses the head of the response. Pure.
//!
//! A check needs only the status, the end of the head and Content-Length. So this module parses the
//! lines itself, and accepts what curl and the kubelet accept. httparse limits the number of
//! fields, refuses obs-fold (RFC 9112 section 5.2), and would parse the whole head again for each
//! part that arrives.

use std::fmt;

/// Maximum length, in bytes, of the head of a response, together with the interim responses before
/// the head.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// Maximum number of bytes of a malformed line that an error message quotes.
const MAX_QUOTED: usize = 32;

/// Returns the text of a GET request for `target`, a path with or without a query. `host` is the
/// value of the Host field.
#[must_use]
pub fn get(target: &str, host: &str) -> String {
    [
        "GET ",
        target,
        " HTTP/1.1\r\nHost: ",
        host,
        concat!("\r\nUser-Agent: livelet/", env!("CARGO_PKG_VERSION")),
        "\r\nAccept: */*\r\nConnection: close\r\n\r\n",
    ]
    .concat()
}

/// Reason why bytes from a peer are not an HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// The first line of the response is not a status line. The field is the beginning of that
    /// line.
    NotHttp(Vec<u8>),
    /// A line of the response's head is not a header field, because it has no colon. The `Vec` is
    /// the beginning of that line.
    NoField(Vec<u8>),
    /// The head of the response is longer than [`MAX_RESPONSE_HEAD`] bytes.
    TooLong,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (problem, line) = match self {
            Malformed::NotHttp(line) => ("no HTTP answer: begins with", line),
            Malformed::NoField(line) => ("no field in the head of its answer:", line),
            Malformed::TooLong => return f.write_str("the head of its answer is over 64 KiB"),
        };
        write!(f, "{problem} \"{}\"", line.escape_ascii())
    }
}

impl std::error::Error for Malformed {}

/// Parser of the head of a response, which takes bytes as they arrive. The parser skips interim
/// responses, which may come before the final one (RFC 9110 section 15.2).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code of the response. 0 until the status line has arrived, and again after an interim
    /// response.
    pub status: u16,
    /// Length of the content in bytes, from Content-Length. `None` if the head gives no length.
    pub content_length: Option<usize>,
    /// Bytes that have arrived after the last complete line of the head: the beginning of the next
    /// line.
    line: Vec<u8>,
    /// Number of bytes that have been parsed, those of interim responses included.
    length: usize,
}

impl ResponseHead {
    /// Parses `bytes`, the next bytes of the response. Once the head is complete, returns the rest
    /// of `bytes`: the beginning of the content. Returns `None` if the end of the head has not
    /// arrived.
    ///
    /// # Errors
    /// Returns an error if the bytes can't be the head of a response.
    pub fn push<'b>(&mut self, bytes: &'b [u8]) -> Result<Option<&'b [u8]>, Malformed> {
        const START: &[u8] = b"HTTP/1.";
        for (index, &byte) in bytes.iter().enumerate() {
            self.length += 1;
            if self.length > MAX_RESPONSE_HEAD {
                return Err(Malformed::TooLong);
            }
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            // A line may end in CR LF or in LF alone.
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            if self.status == 0 {
                self.status = status(line).ok_or_else(|| Malformed::NotHttp(quoted(line)))?;
            } else if !line.is_empty() {
                if !line.contains(&b':') && !line.starts_with(b" ") && !line.starts_with(b"\t") {
                    return Err(Malformed::NoField(quoted(line)));
                }
                self.content_length = content_length(line).or(self.content_length);
            } else if (100..200).contains(&self.status) && self.status != 101 {
                // After 101 comes another protocol, after the others another head.
                self.status = 0;
                self.content_length = None;
            } else {
                return Ok(bytes.get(index + 1..));
            }
            self.line.clear();
        }
        // Another protocol may never end its line.
        let begins = START.starts_with(&self.line) || self.line.starts_with(START);
        if self.status == 0 && !begins {
            return Err(Malformed::NotHttp(quoted(&self.line)));
        }
        Ok(None)
    }
}

fn quoted(line: &[u8]) -> Vec<u8> {
    line.iter().copied().take(MAX_QUOTED).collect()
}

/// Returns the status code in `line`, a status line. The reason phrase after the code may be
/// missing (RFC 9112 section 4). Returns `None` if the line is malformed.
fn status(line: &[u8]) -> Option<u16> {
    let [b'0' | b'1', b' ', after @ ..] = line.strip_prefix(b"HTTP/1.")? else {
        return None;
    };
    let mut words = after.split(|&b| b == b' ');
    let code = words.find(|word| !word.is_empty())?;
    let is_code = code.len() == 3 && code.iter().all(u8::is_ascii_digit);
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    (is_code && code > 99).then_some(code)
}

/// Returns the length in `line` if it is a Content-Length field. Returns `None` if the line is
/// another field or has no valid length.
fn content_length(line: &[u8]) -> Option<usize> {
    let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
    let is_length = name.trim_ascii_end().eq_ignore_ascii_case("content-length");
    value.trim_ascii().parse().ok().filter(|_| is_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a response in parts of `size` bytes. Returns its status, or `None` if the head is
    /// incomplete.
    fn parse(text: &[u8], size: usize) -> Result<Option<u16>, Malformed> {
        let mut head = ResponseHead::default();
        for part in text.chunks(size) {
            if head.push(part)?.is_some() {
                return Ok(Some(head.status));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_reason_phrase_may_have_any_bytes() {
        let long = format!("HTTP/1.1 200 {}\r\n\r\n", "é".repeat(20));
        for text in [&b"HTTP/1.1 200 Tr\xe8s bien\r\n\r\n"[..], long.as_bytes()] {
            assert_eq!(parse(text, 100), Ok(Some(200)));
        }
    }

    #[test]
    fn the_status_is_read_however_the_bytes_arrive() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let not_http = |line: &str| Err(Malformed::NotHttp(line.into()));
        let many = "X-Y: z\r\n".repeat(65);
        let long = format!("X: {}\r\n", "y".repeat(12 * 1024));
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nbody".to_string(), Ok(Some(200))),
            ("HTTP/1.0 204\r\n\r\n".to_string(), Ok(Some(204))),
            ("HTTP/1.1 404 \n\n".to_string(), Ok(Some(404))),
            ("HTTP/1.1  301 x\r\n\r\n".to_string(), Ok(Some(301))),
            (format!("HTTP/1.1 200 OK\r\n{many}\r\n"), Ok(Some(200))),
            (format!("HTTP/1.1 200 OK\r\n{long}\r\n"), Ok(Some(200))),
            (
                "HTTP/1.1 200 OK\r\nX : y\r\n z\r\n\t:\r\n\r\n".to_string(),
                Ok(Some(200)),
            ),
            ("HTTP/1.1 200 OK\r\nX: y\r\n".to_string(), Ok(None)),
            (hints.to_string(), Ok(None)),
            (format!("{hints}HTTP/1.1 503 No\r\n\r\n"), Ok(Some(503))),
            (hints.repeat(100) + "HTTP/1.0 204 x\r\n\r\n", Ok(Some(204))),
            ("HTTP/1.1 101 x\r\n\r\n\0\0".to_string(), Ok(Some(101))),
            (
                "HTTP/1.1 200OK\r\n\r\n".to_string(),
                not_http("HTTP/1.1 200OK"),
            ),
            (
                "HTTP/1.1 2000\r\n\r\n".to_string(),
                not_http("HTTP/1.1 2000"),
            ),
            (
                "HTTP/1.1 +20 x\r\n\r\n".to_string(),
                not_http("HTTP/1.1 +20 x"),
            ),
            (
                "HTTP/1.1 099 x\r\n\r\n".to_string(),
                not_http("HTTP/1.1 099 x"),
            ),
            (
                "HTTP/1.2 200 OK\r\n\r\n".to_string(),
                not_http("HTTP/1.2 200 OK"),
            ),
            ("HTTP/1.1\r\n\r\n".to_string(), not_http("HTTP/1.1")),
            (
                "HTTP/1.1 200 OK\r\nnothing\r\n\r\n".to_string(),
                Err(Malformed::NoField("nothing".into())),
            ),
            (
                format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(11_000)),
                Err(Malformed::TooLong),
            ),
        ] {
            for size in [1, 2, 3, 7, 100, 100_000] {
                let begin = text.get(..40).unwrap_or(&text);
                assert_eq!(parse(text.as_bytes(), size), expected, "{begin} {size}");
            }
        }
        for text in ["SSH-2.0", "\r\nHTTP/1.1 200 OK", "\0", "HTTP/2"] {
            assert!(
                matches!(parse(text.as_bytes(), 100), Err(Malformed::NotHttp(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn the_content_begins_after_the_head() {
        let mut head = ResponseHead::default();
        let text = b"HTTP/1.1 100 x\r\nContent-Length: 9\r\n\r\nHTTP/1.1 200 OK\ncontent-length : 4\n\nbody";
        assert_eq!(head.push(text), Ok(Some(&b"body"[..])));
        assert_eq!((head.status, head.content_length), (200, Some(4)));
    }

    #[test]
    fn a_malformed_answer_is_quoted_in_the_reason() {
        let not_http = Malformed::NotHttp(b"SSH-2.0\x01".to_vec());
        assert_eq!(
            not_http.to_string(),
            r#"no HTTP answer: begins with "SSH-2.0\x01""#
        );
    }
}
