//! Responses and their encoding to bytes.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

use super::Version;

/// Status codes of the responses that livelet sends (RFC 9110 §15, RFC 6585 §5).
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
    /// Returns the status for the verdict on an endpoint: 200 if the endpoint passes (`holds` is
    /// `true`), else 503.
    #[must_use]
    pub const fn of(holds: bool) -> Status {
        if holds {
            Status::Ok
        } else {
            Status::ServiceUnavailable
        }
    }

    /// Returns the status code and the reason phrase, such as `200 OK`.
    #[must_use]
    pub fn line(self) -> &'static str {
        let version = VERSION.len();
        self.start().get(version..).unwrap_or_default()
    }

    /// Returns the status line, without the CR LF at its end.
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

    /// Returns `true` if a response with this status has an Allow field (RFC 9110 §10.2.1).
    const fn has_allow(self) -> bool {
        matches!(self, Status::NoContent | Status::MethodNotAllowed)
    }
}

/// Format of a response's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Plain text, for people and probers.
    Text,
    /// JSON, of type application/health+json.
    Health,
    /// Metrics in Prometheus' text format.
    Metrics,
    /// HTML for a browser. The encoder appends the date of the response to the content.
    Page,
}

impl Content {
    /// Returns the header fields that describe content of this format. The text ends with
    /// `Content-Length: `, and the caller appends the length. A response with status 204 has no
    /// such fields (RFC 9110 §8.6). The Content-Security-Policy of a page allows only the page's
    /// own style and icon.
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

/// Status and content of a response. [`encode`] adds the header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code of the response.
    pub status: Status,
    /// Format of the content, which decides the Content-Type field.
    pub content: Content,
    /// Text of the content. [`encode`] appends a line end, or the date of the response if the
    /// content is a [`Content::Page`].
    pub body: Cow<'static, str>,
}

impl Response {
    /// Creates a response with this `status` and the constant plain text `body`.
    #[must_use]
    pub const fn fixed(status: Status, body: &'static str) -> Response {
        Response {
            status,
            content: Content::Text,
            body: Cow::Borrowed(body),
        }
    }
}

/// Decision whether the connection stays open after a response. The Connection field of the
/// response tells this to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// The connection closes after the response.
    Close,
    /// The connection stays open after the response. The field is the HTTP version of the request:
    /// only a client of HTTP/1.0 needs a Connection field in this case (RFC 9112 §9.3).
    KeepAlive(Version),
}

/// Header fields that every response has, as bytes. One of them is the Date field, so these bytes
/// are valid for one second.
#[derive(Debug, Clone, Copy)]
pub struct CommonFields {
    second: u64,
    fields: [u8; UNCHANGING.len() + DATE.len()],
}

const UNCHANGING: &[u8] =
    b"\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nDate: ";
/// Example of the value of a Date field. All such values have the same length (RFC 9110 §5.6.7).
const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";

impl CommonFields {
    /// Encodes the header fields that every response has, with a Date of `seconds` in Unix time. A
    /// Date can't be later than the year 9999, so the last second of that year replaces a later
    /// time.
    #[must_use]
    pub fn at(seconds: u64) -> CommonFields {
        /// Unix time of 9999-12-31 23:59:59, in seconds. httpdate panics for a later time.
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

    /// Returns the time of the Date field, in seconds of Unix time.
    #[must_use]
    pub fn second(&self) -> u64 {
        self.second
    }
}

/// Number of bytes that [`encode`] reserves in its buffer for the status line and the header fields
/// of a response. Only those of a status page are longer. The buffer then grows a second time.
const TYPICAL_FIELDS: usize = 256;
/// Line end that follows every content except that of a status page.
const LINE_END: &[u8] = b"\n";

/// Appends `response`, encoded as bytes, to `out`. `common` are the header fields that every
/// response has. `persistence` decides the Connection field. If `head_only` is `true`, for a
/// response to HEAD, leaves the content out but keeps its Content-Length.
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
    out.reserve(TYPICAL_FIELDS + body.len());
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
