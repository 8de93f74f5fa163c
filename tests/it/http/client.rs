//! A client that takes nothing for granted: each answer is parsed to the byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

pub(crate) use crate::support::AT_ONCE;
use crate::support::{connect, uninterrupted};

/// Lets the server see what was written so far as a piece of its own.
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

pub(crate) type Outcome<T = ()> = Result<T, String>;

/// A connection that takes nothing for granted: each answer is parsed to the byte.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) unread: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn expect_field(&self, name: &str, value: Option<&str>) -> Outcome {
        let got = self.field(name);
        ensure(got == value, || {
            format!("{name}: expected {value:?}, got {got:?} in {:?}", self.head)
        })
    }

    /// Returns the head without the Date line, in which two answers may differ.
    pub(crate) fn head_but_date(&self) -> String {
        let lines = self.head.split_inclusive("\r\n");
        lines
            .filter(|line| !line.starts_with("Date:") && !line.starts_with("date:"))
            .collect()
    }

    /// Checks that hold for each response.
    pub(crate) fn check(&self) -> Outcome {
        let names: Vec<_> = self.fields.iter().map(|(name, _)| name).collect();
        for (i, name) in names.iter().enumerate() {
            ensure(!names[..i].contains(name), || {
                format!("{name} twice in {:?}", self.head)
            })?;
        }
        ensure(!(300..400).contains(&self.status), || {
            format!("a redirect: {:?}", self.head)
        })?;
        self.expect_field("location", None)?;
        self.expect_field("transfer-encoding", None)?;
        let date = self
            .field("date")
            .ok_or_else(|| format!("no Date in {:?}", self.head))?;
        imf_fixdate(date)?;
        if self.status == 204 {
            self.expect_field("content-length", None)?;
        } else {
            self.expect_field("content-type", Some("text/plain; charset=utf-8"))?;
            self.expect_field("cache-control", Some("no-store"))?;
            self.expect_field("x-content-type-options", Some("nosniff"))?;
        }
        let allow = matches!(self.status, 204 | 405).then_some("GET, HEAD, OPTIONS");
        self.expect_field("allow", allow)?;
        if rejected(self.status) {
            self.expect_field("connection", Some("close"))?;
        }
        Ok(())
    }
}

/// Statuses after which the connection is never used again.
pub(crate) fn rejected(status: u16) -> bool {
    matches!(status, 400 | 405 | 408 | 414 | 431 | 501 | 505)
}

pub(crate) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Checks the form of a date (RFC 9110 §5.6.7), and that it is near to now.
pub(crate) fn imf_fixdate(date: &str) -> Outcome {
    let parsed = httpdate::parse_http_date(date).map_err(|e| format!("Date {date:?}: {e}"))?;
    let canonical = httpdate::fmt_http_date(parsed);
    ensure(date.len() == 29 && canonical == date, || {
        format!("Date {date:?} is not IMF-fixdate")
    })?;
    let now = SystemTime::now();
    let off = now.duration_since(parsed).unwrap_or_else(|e| e.duration());
    ensure(off < Duration::from_secs(10), || {
        format!("Date {date:?} is {off:?} off")
    })
}

impl Client {
    pub(crate) fn open(addr: SocketAddr) -> Client {
        let stream = connect(addr);
        stream.set_read_timeout(Some(AT_ONCE)).unwrap();
        stream.set_write_timeout(Some(AT_ONCE)).unwrap();
        Client {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.stream
            .write_all(bytes)
            .map_err(|e| format!("write of {} bytes: {e}", bytes.len()))
    }

    pub(crate) fn half_close(&mut self) -> Outcome {
        self.stream
            .shutdown(Shutdown::Write)
            .map_err(|e| format!("half-close: {e}"))
    }

    pub(crate) fn read(&mut self) -> Outcome<usize> {
        let mut buffer = [0; 4096];
        let n = uninterrupted(|| self.stream.read(&mut buffer)).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => format!(
                "nothing came, not even an end; unread: {:?}",
                show(&self.unread)
            ),
            _ => format!("read: {e}; unread: {:?}", show(&self.unread)),
        })?;
        self.unread.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    /// Returns the next response. With `to_head` the response has no body, whatever its
    /// Content-Length is.
    pub(crate) fn reply(&mut self, to_head: bool) -> Outcome<Reply> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            ensure(self.read()? > 0, || {
                format!(
                    "the stream ended before an answer: {:?}",
                    show(&self.unread)
                )
            })?;
        };
        let head =
            String::from_utf8(self.unread.drain(..end).collect()).map_err(|e| e.to_string())?;
        let bad = |what: &str| format!("{what} in {head:?}");
        let mut lines = head[..end - 4].split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let rest = status_line
            .strip_prefix("HTTP/1.1 ")
            .ok_or_else(|| bad("no HTTP/1.1 status line"))?;
        let (code, _reason) = rest
            .split_once(' ')
            .ok_or_else(|| bad("no space after the status"))?;
        ensure(
            code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()),
            || bad("no status"),
        )?;
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(": ").ok_or_else(|| bad("not a field"))?;
            let token =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let text = value.trim() == value && value.bytes().all(|b| (b' '..=b'~').contains(&b));
            ensure(token && text, || bad("a malformed field"))?;
            fields.push((name.to_ascii_lowercase(), value.to_string()));
        }
        let mut reply = Reply {
            status: code.parse().unwrap(),
            head,
            fields,
            body: Vec::new(),
        };
        let length = match (reply.status, reply.field("content-length")) {
            (204, _) => 0,
            (_, Some(digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().unwrap()
            }
            _ => return Err(format!("no Content-Length in {:?}", reply.head)),
        };
        ensure(length < 4096, || format!("a body of {length} bytes"))?;
        if !to_head {
            while self.unread.len() < length {
                ensure(self.read()? > 0, || {
                    format!("the stream ended in a body after {:?}", reply.head)
                })?;
            }
            reply.body = self.unread.drain(..length).collect();
        }
        reply.check()?;
        Ok(reply)
    }

    /// Checks that the stream ends, without a byte or a reset before.
    pub(crate) fn end(&mut self) -> Outcome {
        while self.read()? > 0 {}
        ensure(self.unread.is_empty(), || {
            format!("bytes after the last answer: {:?}", show(&self.unread))
        })?;
        // A reset after the FIN is not reported by read(2), but stays as the socket's error.
        let error = self.stream.take_error().map_err(|e| e.to_string())?;
        ensure(error.is_none(), || {
            format!("reset after the end: {error:?}")
        })
    }
}

/// Bytes as a test's message shows them.
pub(crate) fn show(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.get(..400) {
        Some(start) if text.len() > 500 => format!("{start}... ({} bytes)", bytes.len()),
        _ => text,
    }
}

/// Runs each row, sixteen at a time, and names all that fail.
pub(crate) fn each<R: Sync>(
    rows: &[R],
    name: impl Fn(&R) -> String,
    run: impl Fn(&R) -> Outcome + Sync,
) {
    let mut failures = Vec::new();
    for rows in rows.chunks(16) {
        std::thread::scope(|scope| {
            let run = &run;
            let threads: Vec<_> = rows
                .iter()
                .map(|row| (row, scope.spawn(move || run(row))))
                .collect();
            for (row, thread) in threads {
                let outcome = thread
                    .join()
                    .unwrap_or_else(|_| Err("panicked".to_string()));
                failures.extend(
                    outcome
                        .err()
                        .map(|why| format!("  {}\n      {why}", name(row))),
                );
            }
        });
    }
    assert!(
        failures.is_empty(),
        "{} of {} rows failed:\n{}",
        failures.len(),
        rows.len(),
        failures.join("\n")
    );
}
