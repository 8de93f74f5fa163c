//! What was asked and answered last, for who asks the same: probers do not change their words, and neither do answers
//! for a second.
//!
//! It only spares work: what comes out is what [`parse`] and [`encode`] return.

use std::borrow::Cow;
use std::ops::Range;
use std::str;

use super::request::{Parsed, Request, parse};
use super::response::{Common, Connection, Content, Response, Status, encode};

/// The longest head that is remembered, in bytes.
const MAX_KNOWN: usize = 512;

/// The last request, and the last answer that was known beforehand.
#[derive(Debug, Default)]
pub struct Known {
    /// The head, and what it says, in parts of the head.
    head: String,
    request: Option<Request<'static>>,
    path: Range<usize>,
    query: Range<usize>,
    accept: Range<usize>,
    /// The bytes, and what they answer.
    bytes: Vec<u8>,
    answer: Option<Answer>,
}

/// All that the bytes of an answer depend on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Answer {
    status: Status,
    content: Content,
    body: &'static str,
    second: u64,
    connection: Connection,
    head_only: bool,
}

impl Known {
    /// As [`parse`].
    pub fn parse<'b>(&'b mut self, bytes: &'b [u8]) -> Parsed<'b> {
        match self.request {
            Some(request) if starts_with(bytes, self.head.as_bytes()) => {
                let part = |range: &Range<usize>| self.head.get(range.clone()).unwrap_or_default();
                let request = Request {
                    path: part(&self.path),
                    query: part(&self.query),
                    accept: part(&self.accept),
                    ..request
                };
                Parsed::Request(request, self.head.len())
            }
            _ => {
                let parsed = parse(bytes);
                if let Parsed::Request(request, length) = &parsed {
                    self.remember(bytes.get(..*length).unwrap_or_default(), request);
                }
                parsed
            }
        }
    }

    fn remember(&mut self, head: &[u8], request: &Request<'_>) {
        self.request = None;
        let text = str::from_utf8(head).ok();
        let Some(text) = text.filter(|text| text.len() <= MAX_KNOWN) else {
            return;
        };
        // Not every part has to be one of the head: a path may be left out there.
        let range = |part: &str| {
            let start = (part.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
            let range = start..start.wrapping_add(part.len());
            text.get(range.clone()).map(|_| range)
        };
        let parts = [request.path, request.query, request.accept].map(|part| match part {
            "" => Some(0..0),
            part => range(part),
        });
        if let [Some(path), Some(query), Some(accept)] = parts {
            (self.path, self.query, self.accept) = (path, query, accept);
            self.head.clear();
            // Once, for any head; and twice as much, to be of another size than what comes and goes (see `block_on`).
            self.head.reserve_exact(2 * MAX_KNOWN);
            self.head.push_str(text);
            self.request = Some(Request {
                path: "",
                query: "",
                accept: "",
                ..*request
            });
        }
    }

    /// As [`encode`].
    pub fn encode(
        &mut self,
        out: &mut Vec<u8>,
        response: &Response,
        common: &Common,
        connection: Connection,
        head_only: bool,
    ) {
        let Cow::Borrowed(body) = response.body else {
            return encode(out, response, common, connection, head_only);
        };
        let answer = Some(Answer {
            status: response.status,
            content: response.content,
            body,
            second: common.second(),
            connection,
            head_only,
        });
        if self.answer != answer {
            self.answer = answer;
            self.bytes.clear();
            encode(&mut self.bytes, response, common, connection, head_only);
        }
        out.extend_from_slice(&self.bytes);
    }
}

/// As that of slices, but eight bytes at a time; no head is shorter than that.
fn starts_with(bytes: &[u8], head: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..head.len()) else {
        return false;
    };
    let mut words = bytes.chunks_exact(8).zip(head.chunks_exact(8));
    words.all(|(a, b)| a.first_chunk::<8>() == b.first_chunk())
        && bytes.last_chunk::<8>() == head.last_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Version;

    #[test]
    fn who_asks_the_same_again_is_understood_the_same() {
        let heads: [&[u8]; 9] = [
            b"GET /livez?verbose HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
            b"GET /livez?verbose HTTP/1.1\r\nHost: a\r\nAccept: *//\r\n\r\n",
            b"HEAD / HTTP/1.0\r\n\r\n",
            b"GET http://a/readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            b"GET http://a?verbose HTTP/1.1\r\nHost: a\r\n\r\n",
            b"OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        ];
        let mut known = Known::default();
        for head in heads {
            for other in heads {
                // Itself after another, itself again, with more after it, and only a part of it.
                for bytes in [
                    other,
                    head,
                    head,
                    &[head, other].concat(),
                    &head[..head.len() - 1],
                ] {
                    assert_eq!(known.parse(bytes), parse(bytes));
                }
            }
        }
        let long = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(600)
        );
        for _ in 0..2 {
            assert_eq!(known.parse(long.as_bytes()), parse(long.as_bytes()));
            assert!(known.head.len() <= MAX_KNOWN);
        }
    }

    #[test]
    fn what_is_answered_again_is_the_same() {
        let mut known = Known::default();
        let owned = Response {
            body: Cow::Owned("x".into()),
            ..Response::fixed(Status::Ok, "x")
        };
        let fixed = [
            (Status::Ok, "x"),
            (Status::Ok, "y"),
            (Status::NotFound, "x"),
        ];
        let mut responses = fixed
            .map(|(status, body)| Response::fixed(status, body))
            .to_vec();
        responses.push(owned);
        for _ in 0..2 {
            for response in &responses {
                for second in [0, 0, 1] {
                    for connection in [Connection::Close, Connection::KeepAlive(Version::Http11)] {
                        for head_only in [false, true] {
                            let common = Common::at(second);
                            let [mut got, mut expected] = [b"before".to_vec(), b"before".to_vec()];
                            known.encode(&mut got, response, &common, connection, head_only);
                            encode(&mut expected, response, &common, connection, head_only);
                            assert_eq!(got, expected);
                        }
                    }
                }
            }
        }
    }
}
