//! Deadlines of heads, idle connections and unread answers.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::client::*;
use super::connections::*;
use crate::support::{Livelet, SOON, wait_for};

#[test]
fn an_unfinished_head_gets_408_after_five_seconds() {
    // Bytes that are answered with 200 first, the bytes sent at once, and those sent one every 500
    // ms.
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
                ensure(waited < SOON, || format!("nothing after {waited:?}"))?;
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
            let in_time = waited >= Duration::from_millis(4500);
            ensure(in_time, || format!("408 came after {waited:?}"))?;
            client.end()
        },
    );
}

#[test]
fn a_connection_whose_response_is_unread_is_closed_after_five_seconds() {
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
        // A short write continues at the same byte, because the parser needs complete requests.
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
            stalled < SOON,
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

/// A check sets a deadline 15 s away. Once its client has gone, no wake-up is left.
#[test]
fn an_idle_livelet_does_not_wake_up() {
    let livelet = Livelet::start(&[]);
    let mut client = Client::open(livelet.addr());
    wait_until_sleeping(livelet.pid());
    client.send(&spell("g")).unwrap();
    assert_eq!(client.reply(false).unwrap().status, 200);
    drop(client);
    wait_until_sleeping(livelet.pid());
    let before = context_switches(livelet.pid());
    let deadline = Instant::now() + Duration::from_secs(16);
    while Instant::now() < deadline {
        assert_eq!(context_switches(livelet.pid()), before);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until it has been asleep for a moment.
fn wait_until_sleeping(pid: u32) {
    let mut before = 0;
    wait_for("it sleeps", || {
        let now = context_switches(pid);
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut before, now) == now
    });
}

/// Returns how often the process has gone to sleep, over all of its threads.
fn context_switches(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    let count = |status: String| -> u64 {
        let mut lines = status.lines();
        let switches = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        switches.unwrap().trim().parse().unwrap()
    };
    statuses.map(count).sum()
}
