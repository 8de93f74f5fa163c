//! Responses to bytes.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

use super::Version;

/// The status codes in use (RFC 9110 §15, RFC 6585 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 9110's")]
pub enum Status {
    Ok,
    NoContent,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    UriTooLong,
    HeaderFieldsTooLarge,
    NotImplemented,
    ServiceUnavailable,
    VersionNotSupported,
}

const VERSION: &str = "HTTP/1.1 ";

impl Status {
    /// A verdict's.
    #[must_use]
    pub const fn of(holds: bool) -> Status {
        if holds {
            Status::Ok
        } else {
            Status::ServiceUnavailable
        }
    }

    /// The three digits and the reason phrase.
    #[must_use]
    pub fn line(self) -> &'static str {
        let version = VERSION.len();
        self.start().get(version..).unwrap_or_default()
    }

    /// The status line, without its end.
    const fn start(self) -> &'static str {
        match self {
            Status::Ok => "HTTP/1.1 200 OK",
            Status::NoContent => "HTTP/1.1 204 No Content",
            Status::BadRequest => "HTTP/1.1 400 Bad Request",
            Status::NotFound => "HTTP/1.1 404 Not Found",
            Status::MethodNotAllowed => "HTTP/1.1 405 Method Not Allowed",
            Status::RequestTimeout => "HTTP/1.1 408 Request Timeout",
            Status::UriTooLong => "HTTP/1.1 414 URI Too Long",
            Status::HeaderFieldsTooLarge => "HTTP/1.1 431 Request Header Fields Too Large",
            Status::NotImplemented => "HTTP/1.1 501 Not Implemented",
            Status::ServiceUnavailable => "HTTP/1.1 503 Service Unavailable",
            Status::VersionNotSupported => "HTTP/1.1 505 HTTP Version Not Supported",
        }
    }

    /// Whether the answer says which methods are served (RFC 9110 §10.2.1).
    const fn has_allow(self) -> bool {
        matches!(self, Status::NoContent | Status::MethodNotAllowed)
    }
}

/// What content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// For people and probes.
    Text,
    /// application/health+json
    Health,
    /// Prometheus' text format.
    Metrics,
    /// HTML for a browser. The date of the response is appended to it.
    Page,
}

impl Content {
    /// The fields that go with it, up to its length; a 204 has none of them (RFC 9110 §8.6). A page has nothing but its
    /// own style, runs nothing, sends nothing anywhere and stands in no other page.
    const fn fields(self) -> &'static str {
        match self {
            Content::Text => "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ",
            Content::Health => "\r\nContent-Type: application/health+json\r\nContent-Length: ",
            Content::Metrics => {
                "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: "
            }
            Content::Page => {
                "\r\nContent-Type: text/html; charset=utf-8\r\nContent-Security-Policy: default-src 'none'; \
                 style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\nContent-Length: "
            }
        }
    }
}

/// What to answer, apart from the connection it goes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// What the content is.
    pub content: Content,
    /// The content, in UTF-8, without the line end or the date after it.
    pub body: Cow<'static, str>,
}

impl Response {
    /// A response that is known beforehand.
    #[must_use]
    pub const fn fixed(status: Status, body: &'static str) -> Response {
        Response {
            status,
            content: Content::Text,
            body: Cow::Borrowed(body),
        }
    }
}

/// What the Connection field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// The connection closes after this response.
    Close,
    /// It stays open; HTTP/1.0 has to be told (RFC 9112 §9.3), in HTTP/1.1 it goes without saying.
    KeepAlive(Version),
}

/// The fields that every response has, the same for a second.
#[derive(Debug, Clone, Copy)]
pub struct CommonFields {
    second: u64,
    fields: [u8; UNCHANGING.len() + DATE.len()],
}

const UNCHANGING: &[u8] =
    b"\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nDate: ";
/// A date has always the same length (RFC 9110 §5.6.7).
const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

impl CommonFields {
    /// Those of a moment, in seconds of Unix time; of the last that HTTP has a notation for, where the clock is beyond it.
    #[must_use]
    pub fn at(seconds: u64) -> CommonFields {
        /// 9999-12-31 23:59:59; beyond it httpdate panics.
        const LAST: u64 = 253_402_300_799;
        let mut fields = [b' '; UNCHANGING.len() + DATE.len()];
        let mut room = fields.as_mut_slice();
        let second = seconds.min(LAST);
        let moment = UNIX_EPOCH + Duration::from_secs(second);
        // It has just the room.
        let _ = room.write_all(UNCHANGING);
        let _ = write!(room, "{}", HttpDate::from(moment));
        CommonFields { second, fields }
    }

    /// The moment, in seconds of Unix time.
    #[must_use]
    pub fn second(&self) -> u64 {
        self.second
    }
}

/// Space, in bytes, for the status line and the fields of any response but the page's.
const MAX_FIELDS: usize = 256;
/// End of every content but a page's.
const LINE_END: &[u8] = b"\n";

/// Appends a response to `out`; it allocates only where `out` has no room. `head_only` leaves the content out, but not
/// its length: the answer to HEAD.
pub fn encode(
    out: &mut Vec<u8>,
    response: &Response,
    common: &CommonFields,
    persistence: Persistence,
    head_only: bool,
) {
    let Response {
        status,
        content,
        ref body,
    } = *response;
    let has_content = status != Status::NoContent;
    let end = match content {
        Content::Page => common.fields.get(UNCHANGING.len()..).unwrap_or_default(),
        Content::Text | Content::Health | Content::Metrics => LINE_END,
    };
    out.reserve(MAX_FIELDS + body.len());
    out.extend_from_slice(status.start().as_bytes());
    if status.has_allow() {
        out.extend_from_slice(b"\r\nAllow: GET, HEAD, OPTIONS");
    }
    out.extend_from_slice(&common.fields);
    if has_content {
        out.extend_from_slice(content.fields().as_bytes());
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{}", body.len() + end.len());
    }
    out.extend_from_slice(match persistence {
        Persistence::Close => b"\r\nConnection: close\r\n\r\n",
        Persistence::KeepAlive(Version::Http10) => b"\r\nConnection: keep-alive\r\n\r\n",
        Persistence::KeepAlive(Version::Http11) => b"\r\n\r\n",
    });
    if has_content && !head_only {
        out.extend_from_slice(body.as_bytes());
        out.extend_from_slice(end);
    }
}
