//! No byte of a body is ever read as a request.

use std::time::Duration;

use super::client::*;
use super::messages::After::*;
use super::messages::*;
use crate::support::Livelet;

#[test]
fn no_byte_of_a_body_is_taken_for_a_request() {
    const INNER: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n";
    // Request line, further fields, whether chunked, how often the inner request is repeated, pause
    // before the body in ms, status.
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
                // Two writes: the second one fails if the first was answered with a reset.
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
fn expect_100_continue_gets_the_final_status_before_the_body_is_sent() {
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
