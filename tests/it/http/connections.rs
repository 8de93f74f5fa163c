//! Several requests on a connection: keep-alive, pipelining, half-close.

use std::net::SocketAddr;

use super::client::*;
use crate::support::Livelet;

/// A letter's request and the status of its answer.
#[rustfmt::skip]
pub(crate) const LETTERS: &[(char, &str, Option<u16>)] = &[
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

pub(crate) fn letter(wanted: char) -> (&'static str, Option<u16>) {
    let found = LETTERS.iter().find(|(letter, ..)| *letter == wanted);
    found
        .map(|(_, request, status)| (*request, *status))
        .unwrap()
}

pub(crate) fn spell(script: &str) -> Vec<u8> {
    script.chars().flat_map(|c| letter(c).0.bytes()).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    /// The connection can still be used.
    StaysOpen,
    /// The server ends it, before we do.
    Ended,
    /// We end our side before we read the first answer.
    HalfClosed,
}
use Ending::{Ended, HalfClosed, StaysOpen};

/// Writes the script in pieces that end at `cuts`; `answers` letters that have an answer are
/// answered, in order.
pub(crate) fn run_script(
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
fn pipelined_requests_are_answered_in_order() {
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
        // Bytes after a request that ends the connection are not answered.
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
fn two_empty_lines_between_requests_get_400() {
    let livelet = Livelet::start(&[]);
    let mut client = Client::open(livelet.addr());
    client.send(&spell("geeg")).unwrap();
    assert_eq!(client.reply(false).unwrap().status, 200);
    assert_eq!(client.reply(false).unwrap().status, 400);
    client.end().unwrap();
}

#[test]
fn a_request_split_at_any_byte_is_answered() {
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
fn requests_before_a_half_close_are_answered() {
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
fn a_half_close_within_a_request_closes_the_connection() {
    // Bytes sent first, and the number of their answers with 200. Then the connection ends with a
    // 4xx at most.
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
fn a_half_close_after_the_answer_closes_the_connection() {
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

/// A read(2) ends at urgent data (tcp(7)), although more bytes have arrived.
#[test]
fn urgent_data_within_a_head_does_not_lose_the_bytes_after_it() {
    use rustix::net::{SendFlags, send};
    let livelet = Livelet::start(&[]);
    for pause in [true, false] {
        let mut client = Client::open(livelet.addr());
        if pause {
            // livelet waits for the client already.
            client
                .send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
                .unwrap();
            assert_eq!(client.reply(false).unwrap().status, 200);
        }
        client.send(b"GET /livez HT").unwrap();
        send(&client.stream, b"!", SendFlags::OOB).unwrap();
        client.send(b"TP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(client.reply(false).unwrap().status, 200);
    }
}
