//! Responses, and their encoding to bytes.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

use super::Version;

/// Status codes in use (RFC 9110 §15, RFC 6585 §5).
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
    /// Returns the status for a verdict.
    #[must_use]
    pub const fn of(holds: bool) -> Status {
        if holds {
            Status::Ok
        } else {
            Status::ServiceUnavailable
        }
    }

    /// Returns the three digits and the reason phrase.
    #[must_use]
    pub fn line(self) -> &'static str {
        let version = VERSION.len();
        self.start().get(version..).unwrap_or_default()
    }

    /// Returns the status line, without its line end.
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

    /// Returns `true` if the answer has an Allow field (RFC 9110 §10.2.1).
    const fn has_allow(self) -> bool {
        matches!(self, Status::NoContent | Status::MethodNotAllowed)
    }
}

/// Format of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Plain text, for people and probes.
    Text,
    /// JSON, of type application/health+json.
    Health,
    /// Metrics in Prometheus' text format.
    Metrics,
    /// HTML for a browser. The date of the response is appended to it.
    Page,
}

impl Content {
    /// Returns the fields of the content, up to the name of Content-Length. A 204 has none of them
    /// (RFC 9110 §8.6). The policy of a page allows its own style and icon, and nothing else.
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

/// Response, apart from the fields that depend on its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: Status,
    /// Format of the content.
    pub content: Content,
    /// Content, in UTF-8, without the line end or the date after it.
    pub body: Cow<'static, str>,
}

impl Response {
    /// Returns a response of plain text that is a constant.
    #[must_use]
    pub const fn fixed(status: Status, body: &'static str) -> Response {
        Response {
            status,
            content: Content::Text,
            body: Cow::Borrowed(body),
        }
    }
}

/// Value of the Connection field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// The connection closes after this response.
    Close,
    /// The connection stays open. Only HTTP/1.0 needs a field for that (RFC 9112 §9.3).
    KeepAlive(Version),
}

/// Fields that every response has. They change once a second.
#[derive(Debug, Clone, Copy)]
pub struct CommonFields {
    second: u64,
    fields: [u8; UNCHANGING.len() + DATE.len()],
}

const UNCHANGING: &[u8] =
    b"\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nDate: ";
/// Example of a date. Every date has this length (RFC 9110 §5.6.7).
const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

impl CommonFields {
    /// Returns the fields of a time, in seconds of Unix time. A time after the year 9999, which
    /// HTTP can't write, counts as its last second.
    #[must_use]
    pub fn at(seconds: u64) -> CommonFields {
        /// 9999-12-31 23:59:59. After it httpdate panics.
        const LAST: u64 = 253_402_300_799;
        let mut fields = [b' '; UNCHANGING.len() + DATE.len()];
        let mut writer = fields.as_mut_slice();
        let second = seconds.min(LAST);
        let moment = UNIX_EPOCH + Duration::from_secs(second);
        // The array has exactly this length.
        let _ = writer.write_all(UNCHANGING);
        let _ = write!(writer, "{}", HttpDate::from(moment));
        CommonFields { second, fields }
    }

    /// Returns the time, in seconds of Unix time.
    #[must_use]
    pub fn second(&self) -> u64 {
        self.second
    }
}

/// Space, in bytes, for the status line and the fields of any response but the page's.
const MAX_FIELDS: usize = 256;
/// End of every content but a page's.
const LINE_END: &[u8] = b"\n";

/// Appends a response to `out`, and allocates only if `out` is too short. With `head_only` the
/// content is left out, but not its length: the answer to HEAD.
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
