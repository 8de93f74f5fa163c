//! What the responder says on the wire, request by request: contract section 3 without check names, formats and metrics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};
use support::Livelet;

/// How long an answer or an end of stream may take; under the 5 s of the head deadline, so that a 408 is no answer.
const AT_ONCE: Duration = Duration::from_secs(4);
/// Lets the server see what was written so far as a piece of its own.
const PAUSE: Duration = Duration::from_millis(2);

// ---------------------------------------------------------------- the client

type Outcome<T = ()> = Result<T, String>;

/// A connection that takes nothing for granted: each answer is parsed to the byte.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn expect_field(&self, name: &str, value: Option<&str>) -> Outcome {
        let got = self.field(name);
        ensure(got == value, || {
            format!("{name}: expected {value:?}, got {got:?} in {:?}", self.head)
        })
    }

    /// The head without the one line that two answers may differ in.
    fn head_but_date(&self) -> String {
        let lines = self.head.split_inclusive("\r\n");
        lines
            .filter(|line| !line.starts_with("Date:") && !line.starts_with("date:"))
            .collect()
    }

    /// What holds for each response.
    fn check(&self) -> Outcome {
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
fn rejected(status: u16) -> bool {
    matches!(status, 400 | 405 | 408 | 414 | 431 | 501 | 505)
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// RFC 9110 §5.6.7: one form of date, and here one near to now.
fn imf_fixdate(date: &str) -> Outcome {
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
    fn open(addr: SocketAddr) -> Client {
        let stream = support::connect(addr);
        stream.set_read_timeout(Some(AT_ONCE)).unwrap();
        stream.set_write_timeout(Some(AT_ONCE)).unwrap();
        Client {
            stream,
            unread: Vec::new(),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Outcome {
        self.stream
            .write_all(bytes)
            .map_err(|e| format!("write of {} bytes: {e}", bytes.len()))
    }

    fn half_close(&mut self) -> Outcome {
        self.stream
            .shutdown(Shutdown::Write)
            .map_err(|e| format!("half-close: {e}"))
    }

    fn read(&mut self) -> Outcome<usize> {
        let mut buffer = [0; 4096];
        let n = self.stream.read(&mut buffer).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => format!(
                "nothing came, not even an end; unread: {:?}",
                show(&self.unread)
            ),
            _ => format!("read: {e}; unread: {:?}", show(&self.unread)),
        })?;
        self.unread.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    /// The next response; `to_head`: it answers HEAD and has no body whatever its Content-Length is.
    fn reply(&mut self, to_head: bool) -> Outcome<Reply> {
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

    /// The end of the stream, and nothing before it: no byte, no reset.
    fn end(&mut self) -> Outcome {
        while self.read()? > 0 {}
        ensure(self.unread.is_empty(), || {
            format!("bytes after the last answer: {:?}", show(&self.unread))
        })?;
        // A reset that follows the FIN is not seen by read(2), but it is kept as the socket's error.
        let error = self.stream.take_error().map_err(|e| e.to_string())?;
        ensure(error.is_none(), || {
            format!("reset after the end: {error:?}")
        })
    }
}

/// Bytes as a test's message shows them.
fn show(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match text.get(..400) {
        Some(start) if text.len() > 500 => format!("{start}... ({} bytes)", bytes.len()),
        _ => text,
    }
}

/// Runs each row, sixteen at a time, and names all that fail.
fn each<R: Sync>(rows: &[R], name: impl Fn(&R) -> String, run: impl Fn(&R) -> Outcome + Sync) {
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

// ---------------------------------------------------------------- one request, one answer

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Open,
    Closed,
}
use After::{Closed, Open};

struct Case {
    request: Vec<u8>,
    status: u16,
    after: After,
}

/// A case; where the status is a rejection the connection is closed whatever `after` says.
fn case(parts: &[&[u8]], status: u16, after: After) -> Case {
    let after = if rejected(status) { Closed } else { after };
    Case {
        request: parts.concat(),
        status,
        after,
    }
}

/// One request on a new connection: its answer, and what becomes of the connection without our closing it.
fn run_case(addr: SocketAddr, case: &Case) -> Outcome<Reply> {
    let mut client = Client::open(addr);
    client.send(&case.request)?;
    let reply = client.reply(case.request.starts_with(b"HEAD "))?;
    ensure(reply.status == case.status, || {
        format!("expected {}, got {:?}", case.status, reply.head)
    })?;
    let http_1_0 = case.request.windows(11).any(|w| w == b" HTTP/1.0\r\n");
    let connection = reply.field("connection").map(str::to_ascii_lowercase);
    match case.after {
        Closed => {
            ensure(http_1_0 || connection.as_deref() == Some("close"), || {
                format!("no close in {:?}", reply.head)
            })?;
            ensure(connection.as_deref() != Some("keep-alive"), || {
                format!("keep-alive in {:?}", reply.head)
            })?;
        }
        Open => {
            ensure(connection.as_deref() != Some("close"), || {
                format!("close in {:?}", reply.head)
            })?;
            let said = connection.as_deref() == Some("keep-alive");
            ensure(said || !http_1_0, || {
                format!("no keep-alive in {:?}", reply.head)
            })?;
            client.send(b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")?;
            let second = client
                .reply(false)
                .map_err(|e| format!("a second request: {e}"))?;
            ensure(second.status == 200, || {
                format!("a second request: {:?}", second.head)
            })?;
        }
    }
    client.end()?;
    Ok(reply)
}

fn run_cases(args: &[&str], cases: &[Case]) {
    let livelet = Livelet::start(args);
    each(
        cases,
        |case| {
            format!(
                "{} -> {} {:?}",
                show(&case.request),
                case.status,
                case.after
            )
        },
        |case| run_case(livelet.addr(), case).map(drop),
    );
}

const GOOD: &[u8] = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn paths() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        (b"/livez", 200),
        (b"/live", 200),
        (b"/healthz", 200),
        (b"/health", 200),
        (b"/", 200),
        (b"/readyz", 200),
        (b"/ready", 200),
        (b"/startupz", 200),
        (b"/startup", 200),
        (b"/livez?x=1", 200),
        (b"/livez?", 200),
        (b"/livez?/nope", 200),
        (b"/?x=1", 200),
        (b"/readyz?x=1&y=2", 200),
        (b"/startupz?x", 200),
        (b"/nope", 404),
        (b"/nope?x=1", 404),
        (b"/livez/", 404),
        (b"/readyz/", 404),
        (b"//livez", 404),
        (b"//", 404),
        (b"/LIVEZ", 404),
        (b"/Livez", 404),
        (b"/livezz", 404),
        (b"/live/", 404),
        (b"/liv", 404),
        (b"/livez&x=1", 404),
        (b"/livez;x", 404),
        (b"/livez%20", 404),
        (b"/livez%00", 404),
        (b"/./livez", 404),
        (b"/nope/../livez", 404),
        (b"/startupz/", 404),
        (b"/index.html", 404),
        (b"/favicon.ico", 404),
    ];
    let livelet = Livelet::start(&[]);
    each(
        ROWS,
        |(target, status)| format!("{} -> {status}", show(target)),
        |(target, status)| {
            let get = case(
                &[b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"],
                *status,
                Open,
            );
            let reply = run_case(livelet.addr(), &get)?;
            let ok = *status != 200 || reply.body == b"ok\n";
            ensure(ok, || format!("body {:?}", show(&reply.body)))?;
            let head = case(
                &[b"HEAD ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"],
                *status,
                Open,
            );
            let to_head = run_case(livelet.addr(), &head)?;
            let (get, head) = (reply.head_but_date(), to_head.head_but_date());
            ensure(get == head, || {
                format!("GET and HEAD differ:\n      {get:?}\n      {head:?}")
            })
        },
    );
}

#[test]
fn fields_of_a_200() {
    #[rustfmt::skip]
    const ROWS: &[(&str, Option<&str>)] = &[
        ("content-type", Some("text/plain; charset=utf-8")),
        ("content-length", Some("3")),
        ("cache-control", Some("no-store")),
        ("x-content-type-options", Some("nosniff")),
        ("location", None),
        ("allow", None),
        ("transfer-encoding", None),
        ("content-encoding", None),
        ("set-cookie", None),
    ];
    let livelet = Livelet::start(&[]);
    let reply = run_case(livelet.addr(), &case(&[GOOD], 200, Open)).unwrap();
    imf_fixdate(reply.field("date").unwrap()).unwrap();
    each(
        ROWS,
        |row| format!("{row:?}"),
        |(name, value)| reply.expect_field(name, *value),
    );
}

#[test]
fn methods() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], &[u8], u16, After)] = &[
        (b"GET /livez HTTP/1.1", b"Host: h\r\n", 200, Open),
        (b"HEAD /livez HTTP/1.1", b"Host: h\r\n", 200, Open),
        (b"OPTIONS /livez HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"OPTIONS /readyz?x=1 HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"OPTIONS / HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"OPTIONS * HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"OPTIONS * HTTP/1.1", b"Host: h\r\nConnection: close\r\n", 204, Closed),
        (b"OPTIONS * HTTP/1.0", b"", 204, Closed),
        (b"OPTIONS / HTTP/1.0", b"", 204, Closed),
        (b"OPTIONS /livez HTTP/1.0", b"", 204, Closed),
        (b"OPTIONS / HTTP/1.0", b"Host: h\r\n", 204, Closed),
        (b"OPTIONS / HTTP/1.0", b"Connection: keep-alive\r\n", 204, Open),
        (b"OPTIONS http://example.com/livez HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"POST /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"POST /livez HTTP/1.1", b"Host: h\r\nContent-Length: 0\r\n", 405, Closed),
        (b"POST /livez HTTP/1.1", b"Host: h\r\nConnection: keep-alive\r\n", 405, Closed),
        (b"POST /livez HTTP/1.0", b"", 405, Closed),
        (b"POST /livez HTTP/1.0", b"Connection: keep-alive\r\n", 405, Closed),
        (b"PUT /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"DELETE /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"PATCH /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"TRACE /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"CONNECT /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"FOO /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"FOO /livez HTTP/1.0", b"", 501, Closed),
        (b"get /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"Get /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"GETT /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"GE /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"X-Y_Z.1!#$%&'*+^`|~ /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"G(T /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
        (b"G\xe9T /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
        (b"G\x00T /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
        (b" /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
        (b" GET /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
    ];
    let cases: Vec<_> = ROWS
        .iter()
        .map(|(line, fields, status, after)| {
            case(&[line, b"\r\n", fields, b"\r\n"], *status, *after)
        })
        .collect();
    run_cases(&[], &cases);
}

#[test]
fn hosts() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        (b"Host: h\r\n", 200),
        (b"host: h\r\n", 200),
        (b"HOST: h\r\n", 200),
        (b"Host:h\r\n", 200),
        (b"Host: \t h \t \r\n", 200),
        (b"Host: example.com\r\n", 200),
        (b"Host: EXAMPLE.com.\r\n", 200),
        (b"Host: example.com:80\r\n", 200),
        (b"Host: a-b_c~d\r\n", 200),
        (b"Host: %41.example\r\n", 200),
        (b"Host: 127.0.0.1\r\n", 200),
        (b"Host: 127.0.0.1:9090\r\n", 200),
        (b"Host: h:65535\r\n", 200),
        (b"Host: [::1]\r\n", 200),
        (b"Host: [::1]:9090\r\n", 200),
        (b"Host: [::ffff:127.0.0.1]:9090\r\n", 200),
        (b"X: y\r\nHost: h\r\nY: z\r\n", 200),
        (b"", 400),
        (b"X: y\r\n", 400),
        (b"Hos: h\r\n", 400),
        (b"Hostt: h\r\n", 400),
        (b"X-Host: h\r\n", 400),
        (b"Host:\r\n", 400),
        (b"Host: \r\n", 400),
        (b"Host: \t\r\n", 400),
        (b"Host: h\r\nHost: h\r\n", 400),
        (b"Host: h\r\nhost: h\r\n", 400),
        (b"Host: h\r\nHost: g\r\n", 400),
        (b"Host: h\r\nHost:\r\n", 400),
        (b"Host:\r\nHost: h\r\n", 400),
        (b"Host: h\r\nX: y\r\nHOST: h\r\n", 400),
        (b"Host: a b\r\n", 400),
        (b"Host: a\tb\r\n", 400),
        (b"Host: a, b\r\n", 400),
        (b"Host: a,b\r\n", 400),
        (b"Host: user@host\r\n", 400),
        (b"Host: user:pw@host\r\n", 400),
        (b"Host: @host\r\n", 400),
        (b"Host: host/path\r\n", 400),
        (b"Host: host/\r\n", 400),
        (b"Host: /\r\n", 400),
        (b"Host: http://host\r\n", 400),
        (b"Host: host?x\r\n", 400),
        (b"Host: host#x\r\n", 400),
        (b"Host: host\\x\r\n", 400),
        (b"Host: <host>\r\n", 400),
        (b"Host: \"host\"\r\n", 400),
        (b"Host: ho^st\r\n", 400),
        (b"Host: {host}\r\n", 400),
        (b"Host: h\xc3\xb6st\r\n", 400),
        (b"Host: h\x80\r\n", 400),
        (b"Host: h\x00\r\n", 400),
        (b"Host: h\x7f\r\n", 400),
        (b"Host: h%\r\n", 400),
        (b"Host: h%4\r\n", 400),
        (b"Host: h%zz\r\n", 400),
        (b"Host: host:port\r\n", 400),
        (b"Host: host:99999\r\n", 400),
        (b"Host: host:65536\r\n", 400),
        (b"Host: host:-1\r\n", 400),
        (b"Host: host:+1\r\n", 400),
        (b"Host: host:80x\r\n", 400),
        (b"Host: host: 80\r\n", 400),
        (b"Host: host :80\r\n", 400),
        (b"Host: host:80:80\r\n", 400),
        (b"Host: host:0x50\r\n", 400),
        (b"Host: :80\r\n", 400),
        (b"Host: :\r\n", 400),
        (b"Host: ::1\r\n", 400),
        (b"Host: [::1\r\n", 400),
        (b"Host: ::1]\r\n", 400),
        (b"Host: [\r\n", 400),
        (b"Host: []\r\n", 400),
        (b"Host: [::1]x\r\n", 400),
        (b"Host: [::1]80\r\n", 400),
        (b"Host: x[::1]\r\n", 400),
        (b"Host: [::1]:x\r\n", 400),
        (b"Host: [::1]:99999\r\n", 400),
        (b"Host: [host]\r\n", 400),
        (b"Host: [:::1]\r\n", 400),
        (b"Host: [1:2:3:4:5:6:7:8:9]\r\n", 400),
        (b"Host: [12345::]\r\n", 400),
        (b"Host: [127.0.0.1]\r\n", 400),
    ];
    let mut cases = Vec::new();
    for (fields, status) in ROWS {
        cases.push(case(
            &[b"GET /livez HTTP/1.1\r\n", fields, b"\r\n"],
            *status,
            Open,
        ));
        // On HTTP/1.0 the field may be missing, and that alone is different.
        let missing = !fields
            .to_ascii_lowercase()
            .windows(5)
            .any(|w| w == b"host:")
            || fields.starts_with(b"X-Host");
        let status = if missing { 200 } else { *status };
        cases.push(case(
            &[b"GET /livez HTTP/1.0\r\n", fields, b"\r\n"],
            status,
            Closed,
        ));
    }
    run_cases(&[], &cases);
}

#[test]
fn targets() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        // Absolute form (RFC 9112 §3.2.2).
        (b"GET http://example.com/livez", 200),
        (b"HEAD http://example.com/livez", 200),
        (b"GET https://example.com/livez", 200),
        (b"GET HTTP://example.com/livez", 200),
        (b"GET hTTpS://EXAMPLE.com/livez", 200),
        (b"GET http://example.com:80/livez", 200),
        (b"GET http://127.0.0.1:9090/readyz", 200),
        (b"GET http://[::1]/livez", 200),
        (b"GET http://[::1]:9090/livez", 200),
        (b"GET http://example.com", 200),
        (b"GET http://example.com:80", 200),
        (b"GET http://example.com/", 200),
        (b"GET http://example.com?x=1", 200),
        (b"GET http://example.com/?x=1", 200),
        (b"GET http://example.com/livez?x=1", 200),
        (b"GET http://example.com/livez?x=http://a@b/", 200),
        (b"GET http://example.com/nope", 404),
        (b"GET http://example.com//livez", 404),
        (b"GET http://example.com/livez/", 404),
        (b"GET http://user@example.com/livez", 400),
        (b"GET http://user:pw@example.com/livez", 400),
        (b"GET http://@example.com/livez", 400),
        (b"GET http:///livez", 400),
        (b"GET http://", 400),
        (b"GET http://:80/livez", 400),
        (b"GET http://?x", 400),
        (b"GET http://example.com:x/livez", 400),
        (b"GET http://example.com:99999/livez", 400),
        (b"GET http://[::1/livez", 400),
        (b"GET http://[host]/livez", 400),
        (b"GET http://a,b/livez", 400),
        (b"GET http://example.com/livez#f", 400),
        (b"GET http://example.com#f", 400),
        (b"GET http:/livez", 400),
        (b"GET http:livez", 400),
        (b"GET http:", 400),
        (b"GET http", 400),
        (b"GET ://example.com/livez", 400),
        (b"GET ftp://x/livez", 400),
        (b"GET httpx://x/livez", 400),
        // Neither of the forms.
        (b"GET livez", 400),
        (b"GET livez/", 400),
        (b"GET ./livez", 400),
        (b"GET example.com:80", 400),
        (b"GET example.com", 400),
        (b"GET ?x=1", 400),
        (b"GET \\livez", 400),
        (b"GET %2flivez", 400),
        (b"GET *", 400),
        (b"HEAD *", 400),
        (b"GET */livez", 400),
        (b"GET *?x", 400),
        (b"OPTIONS **", 400),
        (b"OPTIONS *x", 400),
        (b"OPTIONS livez", 400),
        (b"OPTIONS example.com:80", 400),
        (b"GET ", 400),
        (b"GET", 400),
        (b"GET  /livez", 400),
        (b"GET\t/livez", 400),
        (b"GET /livez ", 400),
        (b"GET /livez x", 400),
        (b"GET /li vez", 400),
        // Bytes.
        (b"GET /livez#", 400),
        (b"GET /livez#f", 400),
        (b"GET /livez?x#f", 400),
        (b"GET /#", 400),
        (b"GET #", 400),
        (b"GET /nope#f", 400),
        (b"OPTIONS /livez#f", 400),
        (b"GET /liv\xc3\xa9z", 400),
        (b"GET /livez?\xc3\xa9", 400),
        (b"GET /livez\x80", 400),
        (b"GET /livez\xff", 400),
        (b"GET /livez?\xff", 400),
        (b"GET http://ex\xc3\xa4mple.com/livez", 400),
        (b"GET /livez\x00", 400),
        (b"GET /livez?\x00", 400),
        (b"GET /livez\x01", 400),
        (b"GET /livez\x7f", 400),
        (b"GET /livez\t", 400),
        (b"GET /li\x0bvez", 400),
        (b"GET /li\rvez", 400),
        (b"GET /li\nvez", 400),
    ];
    let mut cases: Vec<_> = ROWS
        .iter()
        .map(|(line, status)| case(&[line, b" HTTP/1.1\r\nHost: h\r\n\r\n"], *status, Open))
        .collect();
    // The authority of the target does not stand in for the field, nor must it be the same.
    cases.push(case(
        &[b"GET http://example.com/livez HTTP/1.1\r\n\r\n"],
        400,
        Closed,
    ));
    cases.push(case(
        &[b"GET http://example.com/livez HTTP/1.1\r\nHost:\r\n\r\n"],
        400,
        Closed,
    ));
    cases.push(case(
        &[b"GET http://a/livez HTTP/1.1\r\nHost: b:1\r\n\r\n"],
        200,
        Open,
    ));
    cases.push(case(
        &[b"GET http://example.com/livez HTTP/1.0\r\n\r\n"],
        200,
        Closed,
    ));
    run_cases(&[], &cases);
}

#[test]
fn versions() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        (b"GET /livez HTTP/1.1", 200),
        (b"GET /livez HTTP/2.0", 505),
        (b"GET /livez HTTP/1.2", 505),
        (b"GET /livez HTTP/1.9", 505),
        (b"GET /livez HTTP/0.9", 505),
        (b"GET /livez HTTP/0.0", 505),
        (b"GET /livez HTTP/3.0", 505),
        (b"GET /livez HTTP/9.9", 505),
        (b"GET /livez HTTP/1.1x", 400),
        (b"GET /livez HTTP/1.1 ", 400),
        (b"GET /livez HTTP/1.11", 400),
        (b"GET /livez HTTP/1.10", 400),
        (b"GET /livez HTTP/11.1", 400),
        (b"GET /livez HTTP/01.1", 400),
        (b"GET /livez HTTP/1.", 400),
        (b"GET /livez HTTP/.1", 400),
        (b"GET /livez HTTP/1", 400),
        (b"GET /livez HTTP/2", 400),
        (b"GET /livez HTTP/", 400),
        (b"GET /livez HTTP", 400),
        (b"GET /livez H", 400),
        (b"GET /livez HTTP/11", 400),
        (b"GET /livez HTTP/1,1", 400),
        (b"GET /livez HTTP/1.x", 400),
        (b"GET /livez HTTP/x.1", 400),
        (b"GET /livez HTTP/ 1.1", 400),
        (b"GET /livez HTTP /1.1", 400),
        (b"GET /livez HTTP-1.1", 400),
        (b"GET /livez http/1.1", 400),
        (b"GET /livez Http/1.1", 400),
        (b"GET /livez HTTQ/1.1", 400),
        (b"GET /livez HTTPS/1.1", 400),
        (b"GET /livez\tHTTP/1.1", 400),
        (b"GET /livez ", 400),
        (b"GET /livez", 400),
        (b"GET", 400),
    ];
    let mut cases: Vec<_> = ROWS
        .iter()
        .map(|(line, status)| case(&[line, b"\r\nHost: h\r\n\r\n"], *status, Open))
        .collect();
    cases.push(case(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 505, Closed));
    cases.push(case(
        &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"],
        505,
        Closed,
    ));
    run_cases(&[], &cases);
}

#[test]
fn lines_and_fields() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        // Bare LF, in each place where a line ends.
        (b"GET /livez HTTP/1.1\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\n", 400),
        (b"GET /livez HTTP/1.1\nHost: h\n\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\n\n", 400),
        (b"GET /livez HTTP/1.1\nHost: h\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nX: y\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: y\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX:\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost:\nh\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHo\nst: h\r\n\r\n", 400),
        (b"GET /livez\nHTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET\n/livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\n\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n\n", 400),
        (b"GET /livez HTTP/1.0\n\n", 400),
        (b"GET /livez\n\n", 400),
        (b"\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\r\n\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        // Empty lines before the request line.
        (b"\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        (b"\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 204),
        (b"\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\r\n\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        // Bare CR.
        (b"\rGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\rHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez\r HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET\r /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: \ry\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\r: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\rX: y\r\n\r\n", 400),
        // Field names.
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\t: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\nHost : h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n:\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n: y\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX y: z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX(y): z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX@y: z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\"X\": z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\xc3\xa9: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\x00: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\x01: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\x7f: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\x00: y\r\n\r\n", 400),
        // obs-fold, and whitespace before the first field.
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\tX: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: y\r\n\tz\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX:\r\n y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost:\r\n h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n \r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\tHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n \r\nHost: h\r\n\r\n", 400),
        // Field values.
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX:\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX:y\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: \t \r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\tb c\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: : y:z\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: y\r\nX: y\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n!#$%&'*+-.^_`|~09aZ: y\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: \x00\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x08b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x0bb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x0cb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x1bb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x1fb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", 400),
        // A rejected HEAD has no body.
        (b"HEAD /livez HTTP/1.1\r\n\r\n", 400),
        (b"HEAD /livez HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"HEAD /livez HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
        (b"HEAD /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: foo\r\n\r\n", 501),
        // Other protocols.
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", 400),
        (b"\x00\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
        (b"EHLO example.com\r\n\r\n", 400),
    ];
    let cases: Vec<_> = ROWS
        .iter()
        .map(|(request, status)| case(&[request], *status, Open))
        .collect();
    run_cases(&[], &cases);
}

#[test]
fn message_lengths() {
    // The fields that follow Host, what follows the head, and the answer.
    #[rustfmt::skip]
    const ROWS: &[(&[u8], &[u8], u16, After)] = &[
        (b"Content-Length: 0\r\n", b"", 200, Open),
        (b"Content-Length: 00\r\n", b"", 200, Open),
        (b"Content-Length: 0\r\nContent-Length: 0\r\n", b"", 200, Open),
        (b"Content-Length: 5\r\n", b"hello", 200, Closed),
        (b"content-length:5\r\n", b"hello", 200, Closed),
        (b"Content-Length: \t5 \t\r\n", b"hello", 200, Closed),
        (b"Content-Length: 05\r\n", b"hello", 200, Closed),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello", 200, Closed),
        (b"Content-Length: 5\r\nConnection: keep-alive\r\n", b"hello", 200, Closed),
        (b"Content-Length: +5\r\n", b"hello", 400, Closed),
        (b"Content-Length: -1\r\n", b"hello", 400, Closed),
        (b"Content-Length: -0\r\n", b"", 400, Closed),
        (b"Content-Length: +0\r\n", b"", 400, Closed),
        (b"Content-Length: 5,5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5, 5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 0,0\r\n", b"", 400, Closed),
        (b"Content-Length: 5,\r\n", b"hello", 400, Closed),
        (b"Content-Length: ,5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5x\r\n", b"hello", 400, Closed),
        (b"Content-Length: x5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 0x5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5;q=1\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5.0\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5e0\r\n", b"hello", 400, Closed),
        (b"Content-Length: 1 2\r\n", b"hello", 400, Closed),
        (b"Content-Length: 1_0\r\n", b"hello", 400, Closed),
        (b"Content-Length: \"5\"\r\n", b"hello", 400, Closed),
        (b"Content-Length: \xef\xbc\x95\r\n", b"hello", 400, Closed),
        (b"Content-Length: \r\n", b"", 400, Closed),
        (b"Content-Length:\r\n", b"", 400, Closed),
        (b"Content-Length: 18446744073709551616\r\n", b"", 400, Closed),
        (b"Content-Length: 99999999999999999999999\r\n", b"", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello", 400, Closed),
        (b"Content-Length: 0\r\nContent-Length: 5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: 0\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: \r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: x\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6\r\n", b"hello", 400, Closed),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", 200, Closed),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", 200, Closed),
        (b"transfer-encoding:CHUNKED\r\n", b"0\r\n\r\n", 200, Closed),
        (b"Transfer-Encoding: \tChunked \r\n", b"0\r\n\r\n", 200, Closed),
        (b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n", b"0\r\n\r\n", 200, Closed),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Content-Length: 5\r\nX: y\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: gzip\r\n", b"", 400, Closed),
        (b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: identity\r\n", b"", 400, Closed),
        (b"Transfer-Encoding: \r\n", b"", 400, Closed),
        (b"Transfer-Encoding:\r\n", b"", 400, Closed),
        (b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: chunked,chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: foo\r\n", b"", 501, Closed),
        (b"Transfer-Encoding: xchunked\r\n", b"", 501, Closed),
        (b"Transfer-Encoding: chunkedx\r\n", b"", 501, Closed),
        (b"Transfer-Encoding: foo, chunked\r\n", b"0\r\n\r\n", 501, Closed),
        (b"Transfer-Encoding: foo,Chunked\r\n", b"0\r\n\r\n", 501, Closed),
        (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n", 501, Closed),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 501, Closed),
        (b"Transfer-Encoding: foo\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 501, Closed),
    ];
    let mut cases = Vec::new();
    for (fields, tail, status, after) in ROWS {
        cases.push(case(
            &[b"GET /livez HTTP/1.1\r\nHost: h\r\n", fields, b"\r\n", tail],
            *status,
            *after,
        ));
        // Another method does not change what is rejected.
        let status = if *status == 200 { 405 } else { *status };
        cases.push(case(
            &[
                b"POST /livez HTTP/1.1\r\nHost: h\r\n",
                fields,
                b"\r\n",
                tail,
            ],
            status,
            *after,
        ));
    }
    #[rustfmt::skip]
    const HTTP_1_0: &[(&[u8], &[u8], u16)] = &[
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n", b"0\r\n\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", b"", 400),
        (b"Transfer-Encoding: identity\r\n", b"", 400),
        (b"Content-Length: 5\r\n", b"hello", 200),
        (b"Content-Length: 5\r\nConnection: keep-alive\r\n", b"hello", 200),
        (b"Content-Length: +5\r\n", b"hello", 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello", 400),
    ];
    for (fields, tail, status) in HTTP_1_0 {
        cases.push(case(
            &[b"GET /livez HTTP/1.0\r\n", fields, b"\r\n", tail],
            *status,
            Closed,
        ));
    }
    run_cases(&[], &cases);
}

/// A request whose target has so many bytes.
fn long_target(length: usize) -> Vec<u8> {
    [
        b"GET /".as_slice(),
        &vec![b'a'; length - 1],
        b" HTTP/1.1\r\nHost: h\r\n\r\n",
    ]
    .concat()
}

/// A request whose whole head has so many bytes.
fn long_head(length: usize) -> Vec<u8> {
    let start = b"GET /livez HTTP/1.1\r\nHost: h\r\nX: ".as_slice();
    [start, &vec![b'a'; length - start.len() - 4], b"\r\n\r\n"].concat()
}

/// A request with so many fields.
fn many_fields(count: usize) -> Vec<u8> {
    [
        b"GET /livez HTTP/1.1\r\nHost: h\r\n".as_slice(),
        &b"X: y\r\n".repeat(count - 1),
        b"\r\n",
    ]
    .concat()
}

#[test]
fn limits() {
    #[rustfmt::skip]
    let rows = [
        (long_target(2047), 404),
        (long_target(2048), 404),
        (long_target(2049), 414),
        (long_target(3000), 414),
        (long_target(8000), 414),
        (long_head(8191), 200),
        (long_head(8192), 200),
        (long_head(8193), 431),
        (long_head(9000), 431),
        (long_head(16384), 431),
        (long_head(100_000), 431),
        (many_fields(63), 200),
        (many_fields(64), 200),
        (many_fields(65), 431),
        (many_fields(66), 431),
        (many_fields(128), 431),
        // Heads that never end: nobody waits for the rest.
        (long_target(2049)[..2054].to_vec(), 414),
        (long_target(4000)[..3000].to_vec(), 414),
        (long_target(30_000)[..20_000].to_vec(), 414),
        (long_target(200_000)[..100_000].to_vec(), 414),
        (long_head(20_000)[..8193].to_vec(), 431),
        (long_head(20_000)[..9000].to_vec(), 431),
        (long_head(200_000)[..100_000].to_vec(), 431),
        (many_fields(80)[..460].to_vec(), 431),
    ];
    let cases: Vec<_> = rows
        .iter()
        .map(|(request, status)| case(&[request], *status, Open))
        .collect();
    run_cases(&[], &cases);
}

#[test]
fn keep_alive() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], &[u8], After)] = &[
        (b"HTTP/1.1", b"Host: h\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nConnection: keep-alive\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nConnection: closed\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nX-Connection: close\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nConnection: close\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nconnection:CLOSE\r\n", Closed),
        (b"HTTP/1.1", b"Connection: close\r\nHost: h\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo, Close\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo,close,bar\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo \t, \tclose\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: keep-alive, close\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: close, keep-alive\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo\r\nConnection: close\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: close\r\nConnection: foo\r\n", Closed),
        (b"HTTP/1.0", b"", Closed),
        (b"HTTP/1.0", b"Host: h\r\n", Closed),
        (b"HTTP/1.0", b"Connection: foo\r\n", Closed),
        (b"HTTP/1.0", b"Connection: close\r\n", Closed),
        (b"HTTP/1.0", b"Connection: keep-alive, close\r\n", Closed),
        (b"HTTP/1.0", b"Host: h\r\nConnection: close\r\n", Closed),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", Open),
        (b"HTTP/1.0", b"Connection: Keep-Alive\r\n", Open),
        (b"HTTP/1.0", b"Connection: foo, keep-alive\r\n", Open),
        (b"HTTP/1.0", b"Host: h\r\nConnection: keep-alive\r\n", Open),
        (b"HTTP/1.0", b"Connection: foo\r\nConnection: keep-alive\r\n", Open),
    ];
    let mut cases = Vec::new();
    for (version, fields, after) in ROWS {
        for (line, status) in [
            ("GET /livez", 200),
            ("HEAD /livez", 200),
            ("GET /nope", 404),
            ("OPTIONS /livez", 204),
        ] {
            cases.push(case(
                &[line.as_bytes(), b" ", version, b"\r\n", fields, b"\r\n"],
                status,
                *after,
            ));
        }
    }
    run_cases(&[], &cases);
}

// ---------------------------------------------------------------- several requests on a connection

/// A letter's request and the status of its answer.
#[rustfmt::skip]
const LETTERS: &[(char, &str, Option<u16>)] = &[
    ('g', "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n", Some(200)),
    ('n', "GET /nope HTTP/1.1\r\nHost: h\r\n\r\n", Some(404)),
    ('h', "HEAD /readyz HTTP/1.1\r\nHost: h\r\n\r\n", Some(200)),
    ('m', "HEAD /nope HTTP/1.1\r\nHost: h\r\n\r\n", Some(404)),
    ('o', "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", Some(204)),
    ('a', "GET http://h/livez?x HTTP/1.1\r\nHost: h\r\n\r\n", Some(200)),
    ('0', "GET /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", Some(200)),
    ('k', "GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some(200)),
    ('e', "\r\n", None),
    // After these the connection is done.
    ('c', "GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", Some(200)),
    ('d', "HEAD /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", Some(200)),
    ('q', "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", Some(204)),
    ('z', "GET /livez HTTP/1.0\r\n\r\n", Some(200)),
    ('b', "GET /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", Some(200)),
    ('t', "GET /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Some(200)),
    ('p', "POST /livez HTTP/1.1\r\nHost: h\r\n\r\n", Some(405)),
    ('f', "FOO /livez HTTP/1.1\r\nHost: h\r\n\r\n", Some(501)),
    ('v', "GET /livez HTTP/1.1\r\n\r\n", Some(400)),
    ('w', "HEAD /livez HTTP/1.1\r\n\r\n", Some(400)),
    ('2', "GET /livez HTTP/2.0\r\nHost: h\r\n\r\n", Some(505)),
];

fn letter(wanted: char) -> (&'static str, Option<u16>) {
    let found = LETTERS.iter().find(|(letter, ..)| *letter == wanted);
    found
        .map(|(_, request, status)| (*request, *status))
        .unwrap()
}

fn spell(script: &str) -> Vec<u8> {
    script.chars().flat_map(|c| letter(c).0.bytes()).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// The connection can still be used.
    StaysOpen,
    /// The server ends it, before we do.
    Ended,
    /// We end our side before we read the first answer.
    HalfClosed,
}
use Ending::{Ended, HalfClosed, StaysOpen};

/// Writes the script in pieces that end at `cuts`; `answers` letters that have an answer are answered, in order.
fn run_script(
    addr: SocketAddr,
    script: &str,
    cuts: &[usize],
    answers: usize,
    ending: Ending,
) -> Outcome {
    let mut client = Client::open(addr);
    let bytes = spell(script);
    let mut from = 0;
    for &cut in cuts {
        client.send(&bytes[from..cut])?;
        std::thread::sleep(PAUSE);
        from = cut;
    }
    client.send(&bytes[from..])?;
    if ending == HalfClosed {
        client.half_close()?;
    }
    let answered = script
        .chars()
        .map(letter)
        .filter_map(|(request, status)| Some((request, status?)));
    for (i, (request, status)) in answered.take(answers).enumerate() {
        let reply = client
            .reply(request.starts_with("HEAD"))
            .map_err(|e| format!("answer {i}: {e}"))?;
        ensure(reply.status == status, || {
            format!("answer {i}: expected {status}, got {:?}", reply.head)
        })?;
        let ok = request.starts_with("HEAD") || status != 200 || reply.body == b"ok\n";
        ensure(ok, || format!("answer {i}: body {:?}", show(&reply.body)))?;
        let closes = reply
            .field("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let last = i + 1 == answers && ending != StaysOpen;
        ensure(last || !closes, || {
            format!("answer {i} closes: {:?}", reply.head)
        })?;
    }
    if ending == StaysOpen {
        client.send(&spell("c"))?;
        let reply = client.reply(false).map_err(|e| format!("one more: {e}"))?;
        ensure(reply.status == 200, || {
            format!("one more: {:?}", reply.head)
        })?;
    }
    client.end()
}

#[test]
fn pipelining() {
    const TWENTY: &str = "gnohmaknogghnomohgn0";
    #[rustfmt::skip]
    const ROWS: &[(&str, &[usize], usize, Ending)] = &[
        ("gg", &[], 2, StaysOpen),
        ("gnohm", &[], 5, StaysOpen),
        (TWENTY, &[], 20, StaysOpen),
        (TWENTY, &[], 20, HalfClosed),
        (TWENTY, &[1], 20, StaysOpen),
        (TWENTY, &[331], 20, StaysOpen),
        (TWENTY, &[331], 20, HalfClosed),
        (TWENTY, &[501], 20, StaysOpen),
        (TWENTY, &[7, 77, 177, 277, 377, 477, 577], 20, StaysOpen),
        ("gegege", &[], 3, StaysOpen),
        ("egehe", &[], 2, HalfClosed),
        // What follows a request that ends the connection is not answered.
        ("cg", &[], 1, Ended),
        ("gcg", &[], 2, Ended),
        ("gncgnoh", &[], 3, Ended),
        ("dg", &[], 1, Ended),
        ("qg", &[], 1, Ended),
        ("zg", &[], 1, Ended),
        ("gzg", &[], 2, Ended),
        ("kkzg", &[], 3, Ended),
        ("bg", &[], 1, Ended),
        ("gbg", &[], 2, Ended),
        ("tg", &[], 1, Ended),
        ("ptg", &[], 1, Ended),
        ("gpg", &[], 2, Ended),
        ("gfg", &[], 2, Ended),
        ("gvg", &[], 2, Ended),
        ("gwg", &[], 2, Ended),
        ("g2g", &[], 2, Ended),
        ("cg", &[], 1, HalfClosed),
        ("gbg", &[], 2, HalfClosed),
        ("gvg", &[], 2, HalfClosed),
    ];
    let livelet = Livelet::start(&[]);
    each(
        ROWS,
        |row| format!("{row:?}"),
        |(script, cuts, answers, ending)| {
            run_script(livelet.addr(), script, cuts, *answers, *ending)
        },
    );
}

#[test]
fn two_empty_lines_between_requests() {
    let livelet = Livelet::start(&[]);
    let mut client = Client::open(livelet.addr());
    client.send(&spell("geeg")).unwrap();
    assert_eq!(client.reply(false).unwrap().status, 200);
    assert_eq!(client.reply(false).unwrap().status, 400);
    client.end().unwrap();
}

#[test]
fn split_at_every_byte() {
    #[rustfmt::skip]
    const ROWS: &[(&str, usize, Ending)] = &[
        ("g", 1, StaysOpen),
        ("h", 1, StaysOpen),
        ("n", 1, StaysOpen),
        ("o", 1, StaysOpen),
        ("a", 1, StaysOpen),
        ("0", 1, StaysOpen),
        ("k", 1, StaysOpen),
        ("eg", 1, StaysOpen),
        ("geh", 2, StaysOpen),
        ("g", 1, HalfClosed),
        ("c", 1, Ended),
        ("z", 1, Ended),
        ("b", 1, Ended),
        ("t", 1, Ended),
        ("p", 1, Ended),
        ("f", 1, Ended),
        ("v", 1, Ended),
        ("w", 1, Ended),
        ("2", 1, Ended),
    ];
    let livelet = Livelet::start(&[]);
    let mut rows = Vec::new();
    for row in ROWS {
        let length = spell(row.0).len();
        rows.extend((1..length).map(|cut| (row, vec![cut])));
        rows.push((row, (1..length).collect()));
    }
    each(
        &rows,
        |row| format!("{row:?}"),
        |((script, answers, ending), cuts)| {
            run_script(livelet.addr(), script, cuts, *answers, *ending)
        },
    );
}

#[test]
fn half_close() {
    // Each often, for what is buffered when the end of the stream is seen depends on the moment.
    #[rustfmt::skip]
    const ROWS: &[(&str, usize)] = &[
        ("g", 1),
        ("h", 1),
        ("n", 1),
        ("o", 1),
        ("c", 1),
        ("z", 1),
        ("k", 1),
        ("ggg", 3),
        ("v", 1),
        ("b", 1),
        ("t", 1),
        ("p", 1),
    ];
    let livelet = Livelet::start(&[]);
    let rows: Vec<_> = ROWS
        .iter()
        .flat_map(|row| std::iter::repeat_n(row, 30))
        .collect();
    each(
        &rows,
        |row| format!("{row:?}"),
        |(script, answers)| run_script(livelet.addr(), script, &[], *answers, HalfClosed),
    );
}

#[test]
fn half_close_without_a_whole_request() {
    // What is sent before, how many of it are answered 200; then the connection ends with a 4xx at most.
    #[rustfmt::skip]
    const ROWS: &[(&[u8], usize)] = &[
        (b"", 0),
        (b"\r\n", 0),
        (b"G", 0),
        (b"GET /livez HTT", 0),
        (b"GET /livez HTTP/1.1\r\n", 0),
        (b"GET /livez HTTP/1.1\r\nHost: h", 0),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n", 0),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\r", 0),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\nGET /li", 1),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n\r\n", 1),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe", 1),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", 1),
    ];
    let livelet = Livelet::start(&[]);
    each(
        ROWS,
        |row| format!("{} ({} answered)", show(row.0), row.1),
        |(bytes, answered)| {
            let mut client = Client::open(livelet.addr());
            client.send(bytes)?;
            client.half_close()?;
            for _ in 0..*answered {
                let reply = client.reply(false)?;
                ensure(reply.status == 200, || format!("got {:?}", reply.head))?;
            }
            if client.read()? > 0 {
                let reply = client.reply(false)?;
                ensure((400..500).contains(&reply.status), || {
                    format!("got {:?}", reply.head)
                })?;
            }
            client.end()
        },
    );
}

#[test]
fn half_close_after_the_answer() {
    #[rustfmt::skip]
    const ROWS: &[(&str, usize)] = &[
        ("g", 1),
        ("h", 1),
        ("o", 1),
        ("k", 1),
        ("c", 1),
        ("b", 1),
        ("p", 1),
        ("v", 1),
        ("gng", 3),
    ];
    let livelet = Livelet::start(&[]);
    each(
        ROWS,
        |row| format!("{row:?}"),
        |(script, answers)| {
            let mut client = Client::open(livelet.addr());
            client.send(&spell(script))?;
            for c in script.chars().take(*answers) {
                let (request, status) = letter(c);
                let reply = client.reply(request.starts_with("HEAD"))?;
                ensure(Some(reply.status) == status, || {
                    format!("got {:?}", reply.head)
                })?;
            }
            client.half_close()?;
            client.end()
        },
    );
}

// ---------------------------------------------------------------- bodies

#[test]
fn bodies_are_never_requests() {
    const INNER: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n";
    // Request line, further fields, whether chunked, how often the inner request is repeated, pause before the body in
    // ms, status.
    #[rustfmt::skip]
    const ROWS: &[(&str, &str, bool, usize, u64, u16)] = &[
        ("GET /livez HTTP/1.1", "", false, 1, 0, 200),
        ("GET /livez HTTP/1.1", "", true, 1, 0, 200),
        ("GET /nope HTTP/1.1", "", false, 1, 0, 404),
        ("OPTIONS /livez HTTP/1.1", "", false, 1, 0, 204),
        ("OPTIONS * HTTP/1.1", "", true, 1, 0, 204),
        ("HEAD /livez HTTP/1.1", "", false, 1, 0, 200),
        ("HEAD /livez HTTP/1.1", "", true, 1, 0, 200),
        ("POST /livez HTTP/1.1", "", false, 1, 0, 405),
        ("POST /livez HTTP/1.1", "", true, 1, 0, 405),
        ("PUT /livez HTTP/1.1", "", false, 1, 0, 405),
        ("FOO /livez HTTP/1.1", "", false, 1, 0, 501),
        ("FOO /livez HTTP/1.1", "", true, 1, 0, 501),
        ("GET /livez HTTP/1.0", "", false, 1, 0, 200),
        ("GET /livez HTTP/1.0", "Connection: keep-alive\r\n", false, 1, 0, 200),
        ("POST /livez HTTP/1.0", "Connection: keep-alive\r\n", false, 1, 0, 405),
        ("GET /livez HTTP/1.1", "Connection: keep-alive\r\n", false, 1, 0, 200),
        ("POST /livez HTTP/1.1", "Connection: keep-alive\r\n", true, 1, 0, 405),
        ("GET /livez HTTP/1.1", "Connection: close\r\n", false, 1, 0, 200),
        ("GET /livez HTTP/1.1", "", false, 1, 200, 200),
        ("GET /livez HTTP/1.1", "", true, 1, 200, 200),
        ("HEAD /livez HTTP/1.1", "", false, 1, 200, 200),
        ("POST /livez HTTP/1.1", "", false, 1, 200, 405),
        ("POST /livez HTTP/1.1", "", true, 1, 200, 405),
        ("FOO /livez HTTP/1.1", "", false, 1, 200, 501),
        ("GET /livez HTTP/1.0", "", false, 1, 200, 200),
        ("GET /livez HTTP/1.1", "", false, 300, 0, 200),
        ("GET /livez HTTP/1.1", "", true, 300, 0, 200),
        ("POST /livez HTTP/1.1", "", false, 300, 0, 405),
        ("GET /livez HTTP/1.1", "", false, 33_000, 0, 200),
        ("GET /livez HTTP/1.1", "", true, 33_000, 0, 200),
        ("POST /livez HTTP/1.1", "", false, 33_000, 0, 405),
        ("POST /livez HTTP/1.1", "", true, 33_000, 0, 405),
        ("POST /livez HTTP/1.1", "", false, 33_000, 200, 405),
        ("POST /livez HTTP/1.1", "", true, 33_000, 200, 405),
        ("GET /livez HTTP/1.1", "Expect: 100-continue\r\n", false, 1, 0, 200),
        ("GET /livez HTTP/1.1", "Expect: 100-continue\r\n", true, 1, 0, 200),
        ("POST /livez HTTP/1.1", "Expect: 100-continue\r\n", false, 1, 0, 405),
        ("POST /livez HTTP/1.1", "Expect: 100-continue\r\n", false, 1, 200, 405),
        ("POST /livez HTTP/1.1", "Expect: 100-Continue\r\n", true, 1, 200, 405),
    ];
    let livelet = Livelet::start(&[]);
    each(
        ROWS,
        |row| format!("{row:?}"),
        |(line, fields, chunked, count, pause, status)| {
            let inner = INNER.repeat(*count);
            let size = inner.len();
            let (framing, body) = if *chunked {
                let chunk = [format!("{size:x}\r\n").as_bytes(), &inner, b"\r\n0\r\n\r\n"].concat();
                ("Transfer-Encoding: chunked".to_string(), chunk)
            } else {
                (format!("Content-Length: {size}"), inner)
            };
            let host = if line.ends_with("1.0") {
                ""
            } else {
                "Host: h\r\n"
            };
            let head = format!("{line}\r\n{host}{fields}{framing}\r\n\r\n");
            let mut client = Client::open(livelet.addr());
            if *pause == 0 {
                client.send(&[head.as_bytes(), &body].concat())?;
            } else {
                client.send(head.as_bytes())?;
                std::thread::sleep(Duration::from_millis(*pause));
                // In two writes: the second fails where the first was answered with a reset.
                let (first, second) = body.split_at(body.len() / 2);
                client.send(first)?;
                std::thread::sleep(PAUSE);
                client.send(second)?;
            }
            let reply = client.reply(line.starts_with("HEAD"))?;
            ensure(reply.status == *status, || {
                format!("expected {status}, got {:?}", reply.head)
            })?;
            reply.expect_field("connection", Some("close"))?;
            client.end()?;
            std::thread::sleep(Duration::from_millis(20));
            client.end()
        },
    );
}

#[test]
fn expect_is_answered_by_the_final_status_before_the_body() {
    #[rustfmt::skip]
    const ROWS: &[(&str, u16)] = &[
        ("GET /livez HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 200),
        ("GET /nope HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 404),
        ("GET /livez HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("POST /livez HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 405),
        ("FOO /livez HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 501),
        ("POST /livez HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 400),
    ];
    let cases: Vec<_> = ROWS
        .iter()
        .map(|(head, status)| case(&[head.as_bytes()], *status, Closed))
        .collect();
    run_cases(&[], &cases);
}

// ---------------------------------------------------------------- time

#[test]
fn a_head_has_five_seconds() {
    // What is answered before with 200, the bytes sent at once, and those sent one every 500 ms.
    #[rustfmt::skip]
    const ROWS: &[(&str, &[u8], &[u8])] = &[
        ("", b"G", b""),
        ("", b"GET /livez HTTP/1.1\r\nHost: h\r\n", b""),
        ("", b"GET /livez HTTP/1.1\r\nHost: h\r\n\r", b""),
        ("", b"GET /livez", b""),
        ("", b"G", b"ET /livez HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("", b"GET /livez HTTP/1.1\r\nHost: h\r\nX: ", b"aaaaaaaaaaaaaaaaaaaaaaaa"),
        ("", b"GET /", b"aaaaaaaaaaaaaaaaaaaaaaaa"),
        ("g", b"GET /livez HTTP/1.1\r\n", b""),
        ("g", b"G", b"ET /livez HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("ggg", b"GET /livez HTTP/1.1\r\nHost: h\r\nX: ", b"aaaaaaaaaaaaaaaaaaaaaaaa"),
    ];
    let livelet = Livelet::start(&[]);
    each(
        ROWS,
        |(before, start, trickle)| format!("{before:?} {} + {}", show(start), show(trickle)),
        |(before, start, trickle)| {
            let mut client = Client::open(livelet.addr());
            for c in before.chars() {
                client.send(&spell(&c.to_string()))?;
                ensure(client.reply(false)?.status == 200, || {
                    "no 200 before".to_string()
                })?;
            }
            let first_byte = Instant::now();
            client.send(start)?;
            client
                .stream
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            let mut trickle = trickle.iter();
            while client.read().is_err() {
                let waited = first_byte.elapsed();
                ensure(waited < Duration::from_secs(8), || {
                    format!("nothing after {waited:?}")
                })?;
                if let Some(byte) = trickle.next() {
                    client.send(&[*byte])?;
                }
            }
            let waited = first_byte.elapsed();
            client.stream.set_read_timeout(Some(AT_ONCE)).unwrap();
            let reply = client.reply(false)?;
            ensure(reply.status == 408, || {
                format!("got {:?} after {waited:?}", reply.head)
            })?;
            let in_time = (4.5..7.0).contains(&waited.as_secs_f64());
            ensure(in_time, || format!("408 came after {waited:?}"))?;
            client.end()
        },
    );
}

#[test]
fn idle_keep_alive_has_fifteen_seconds() {
    #[rustfmt::skip]
    const ROWS: &[(&str, &[u64])] = &[
        ("g", &[]),
        ("h", &[]),
        ("o", &[]),
        ("n", &[]),
        ("k", &[]),
        ("ggg", &[]),
        ("g", &[4]),
    ];
    let livelet = Livelet::start(&[]);
    each(
        ROWS,
        |row| format!("{row:?}"),
        |(script, more_after)| {
            let mut client = Client::open(livelet.addr());
            client
                .stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            client.send(&spell(script))?;
            for c in script.chars() {
                client.reply(letter(c).0.starts_with("HEAD"))?;
            }
            // Another request starts the time again.
            for seconds in *more_after {
                std::thread::sleep(Duration::from_secs(*seconds));
                client.send(&spell("g"))?;
                client.reply(false)?;
            }
            let answered = Instant::now();
            client.end()?;
            let idle = answered.elapsed();
            ensure((14.0..17.0).contains(&idle.as_secs_f64()), || {
                format!("closed after {idle:?}")
            })
        },
    );
}

#[test]
fn an_unread_response_has_five_seconds() {
    let livelet = Livelet::start(&[]);
    // Little room here, so that the server's side is full soon.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&livelet.addr().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let requests = spell("g").repeat(100);
    let mut progress = Instant::now();
    let mut sent = 0;
    let error = loop {
        // Whole requests only matter to the server's parser: go on where a short write stopped.
        match stream.write(&requests[sent % requests.len()..]) {
            Ok(n) => (sent, progress) = (sent + n, Instant::now()),
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(e) => break e,
        }
        let stalled = progress.elapsed();
        assert!(
            stalled < Duration::from_secs(12),
            "still open, {stalled:?} after the last of {sent} bytes was taken"
        );
    };
    let stalled = progress.elapsed();
    let gone = matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    );
    assert!(
        gone && stalled > Duration::from_secs(4),
        "{error} {stalled:?} after the last of {sent} bytes was taken"
    );
}

// ---------------------------------------------------------------- limits of the process

#[test]
fn as_many_connections_as_allowed_stay_open() {
    const ROWS: &[usize] = &[1, 2, 4, 16];
    each(
        ROWS,
        |row| format!("--max-connections {row}"),
        |limit| {
            let livelet = Livelet::start(&["--max-connections", &limit.to_string()]);
            let mut clients: Vec<_> = (0..*limit).map(|_| Client::open(livelet.addr())).collect();
            for round in 0..3 {
                // Long enough for whatever would be closed without need.
                std::thread::sleep(Duration::from_millis(50));
                for (i, client) in clients.iter_mut().enumerate() {
                    let reply = client.send(GOOD).and_then(|()| client.reply(false));
                    reply.map_err(|e| format!("connection {i}, round {round}: {e}"))?;
                }
            }
            Ok(())
        },
    );
}

#[test]
fn the_longest_waiting_connection_gives_way() {
    // What the held connections have been answered before, and which of them is then the oldest.
    #[rustfmt::skip]
    const ROWS: &[(&[&str], usize)] = &[
        (&["", "", "", ""], 0),
        (&["g", "g", "g", "g"], 0),
        (&["g", "", "", ""], 1),
        (&["g", "g", "", "g"], 2),
        (&["", ""], 0),
        (&["g"], 0),
        (&[""], 0),
    ];
    each(
        ROWS,
        |row| format!("{row:?}"),
        |(held, oldest)| {
            let livelet = Livelet::start(&["--max-connections", &held.len().to_string()]);
            let mut clients: Vec<_> = held.iter().map(|_| Client::open(livelet.addr())).collect();
            for (client, script) in clients.iter_mut().zip(*held) {
                // Apart in time, so that which one is the oldest is not in doubt.
                std::thread::sleep(Duration::from_millis(20));
                client.send(&spell(script))?;
                for _ in script.chars() {
                    client.reply(false)?;
                }
            }
            run_script(livelet.addr(), "c", &[], 1, Ended)
                .map_err(|e| format!("the probe: {e}"))?;
            clients[*oldest]
                .end()
                .map_err(|e| format!("the oldest: {e}"))?;
            for (i, client) in clients.iter_mut().enumerate().filter(|(i, _)| i != oldest) {
                client
                    .send(GOOD)
                    .map_err(|e| format!("connection {i}: {e}"))?;
                client
                    .reply(false)
                    .map_err(|e| format!("connection {i}: {e}"))?;
            }
            Ok(())
        },
    );
}

#[test]
fn a_probe_is_answered_among_many_idle_connections() {
    let livelet = Livelet::start(&[]);
    let mut idle = Vec::new();
    for i in 0..600 {
        let mut client = Client::open(livelet.addr());
        if i % 2 == 0 {
            client.send(b"GET /livez HT").unwrap();
        }
        idle.push(client);
        if i % 50 == 49 {
            run_script(livelet.addr(), "c", &[], 1, Ended)
                .unwrap_or_else(|e| panic!("after {i} idle ones: {e}"));
        }
    }
}

#[test]
fn out_of_descriptors_it_waits_and_then_resumes() {
    let mut livelet = Livelet::start(&[]);
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .map(str::to_string)
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let open = std::fs::read_dir(format!("/proc/{}/fd", livelet.pid()))
        .unwrap()
        .count();
    let limit = std::process::Command::new("prlimit")
        .args([
            "--pid",
            &livelet.pid().to_string(),
            &format!("--nofile={}", open + 8),
        ])
        .status()
        .unwrap();
    assert!(limit.success());
    let idle: Vec<_> = (0..40).map(|_| Client::open(livelet.addr())).collect();
    // The queue is never empty and nothing can be accepted: a busy loop would take about 100 ticks in this second.
    std::thread::sleep(Duration::from_millis(200));
    let before = ticks(livelet.pid());
    std::thread::sleep(Duration::from_secs(1));
    let used = ticks(livelet.pid()) - before;
    assert!(livelet.is_running());
    assert!(
        used < 20,
        "{used} ticks of CPU in a second without a free descriptor"
    );
    drop(idle);
    run_script(livelet.addr(), "c", &[], 1, Ended).unwrap();
}
