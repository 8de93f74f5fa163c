//! How a livelet without a worker stops: which signals end it, and what becomes of its connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{
    AT_ONCE, KillOnDrop, Livelet, SOON, assert_closed, connect, livelet, probe, read_response,
    read_to_end, send, split_responses, wait_for, wait_until_draining, wait_until_read,
};

const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";
const HALF: &[u8] = b"GET /livez HTTP/1.1\r\nHo";

/// Opens a connection on which livelet has read half a head.
fn half_asked(livelet: &Livelet) -> TcpStream {
    let mut stream = livelet.connect();
    stream.write_all(HALF).unwrap();
    wait_until_read(livelet.addr());
    stream
}

/// Opens a keep-alive connection on which one request was answered.
fn asked_once(livelet: &Livelet) -> TcpStream {
    let mut stream = livelet.connect();
    stream.write_all(REQUEST).unwrap();
    assert_eq!(read_response(&mut stream).status, 200);
    stream
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn each_stop_signal_ends_an_idle_livelet_with_exit_code_0() {
    for name in ["TERM", "INT", "HUP", "QUIT", "USR2"] {
        let mut livelet = Livelet::start(&[]);
        assert_eq!(probe(livelet.addr(), "/livez").status, 200, "{name}");
        let from = Instant::now();
        livelet.signal(name);
        let (code, took) = livelet.wait_timed(from);
        assert_eq!(code, Some(0), "{name}");
        assert!(took < AT_ONCE, "{name}: {took:?}");
    }
}

#[test]
fn a_request_half_sent_when_the_drain_begins_is_answered() {
    for cut in [1, 10, HALF.len(), REQUEST.len() - 1] {
        for earlier_request in [false, true] {
            let case = format!("cut at {cut}, a request before it: {earlier_request}");
            let mut livelet = Livelet::start(&[]);
            let mut stream = if earlier_request {
                asked_once(&livelet)
            } else {
                livelet.connect()
            };
            stream.write_all(&REQUEST[..cut]).unwrap();
            wait_until_read(livelet.addr());
            livelet.signal("TERM");
            wait_until_draining(livelet.addr());

            stream.write_all(&REQUEST[cut..]).unwrap();
            let response = read_response(&mut stream);
            assert_eq!(response.status, 200, "{case}");
            assert_eq!(response.body, "ok\n", "{case}");
            assert_eq!(response.field("connection"), Some("close"), "{case}");
            assert_closed(&mut stream);
            assert_eq!(livelet.wait(SOON).code(), Some(0), "{case}");
        }
    }
}

#[test]
fn an_unfinished_request_is_cut_at_the_deadline_of_the_drain() {
    let table: [(&[&str], Duration); 5] = [
        (&[], ms(5000)),
        (&["--drain", "5s"], ms(5000)),
        (&["--drain", "1s"], ms(1000)),
        (&["--drain", "250ms"], ms(250)),
        (&["--drain", "0s"], ms(0)),
    ];
    std::thread::scope(|scope| {
        for (args, drain) in table {
            scope.spawn(move || {
                let mut livelet = Livelet::start(args);
                let asked = Instant::now();
                let mut stream = half_asked(&livelet);
                let signalled = Instant::now();
                livelet.signal("TERM");
                assert_eq!(livelet.wait(SOON).code(), Some(0), "{args:?}");
                let answer = read_to_end(&mut stream);
                // The deadline of a head is 5 s as well, and its connection's end is the end of the
                // drain.
                let from = if drain == ms(5000) && answer.starts_with("HTTP/1.1 408 ") {
                    asked
                } else {
                    assert_eq!(answer, "", "{args:?}");
                    signalled
                };
                assert!(from.elapsed() >= drain, "{args:?}: {:?}", from.elapsed());
            });
        }
    });
}

#[test]
fn a_stop_closes_an_idle_connection_at_once() {
    let mut livelet = Livelet::start(&[]);
    let mut stream = asked_once(&livelet);
    let from = Instant::now();
    livelet.signal("TERM");
    assert_closed(&mut stream);
    let (code, took) = livelet.wait_timed(from);
    assert_eq!(code, Some(0));
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn a_stop_closes_many_idle_connections_at_once() {
    let mut livelet = Livelet::start(&[]);
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(asked_once(&livelet));
        streams.push(livelet.connect());
    }
    wait_until_read(livelet.addr());
    let from = Instant::now();
    livelet.signal("TERM");
    for stream in &mut streams {
        assert_closed(stream);
    }
    let (code, took) = livelet.wait_timed(from);
    assert_eq!(code, Some(0));
    assert!(took < AT_ONCE, "{took:?}");
}

#[test]
fn a_stop_closes_idle_connections_although_a_request_is_unfinished() {
    let mut livelet = Livelet::start(&[]);
    let mut idle = asked_once(&livelet);
    let mut busy = half_asked(&livelet);
    livelet.signal("TERM");
    assert_closed(&mut idle);
    assert!(livelet.is_running());
    busy.write_all(&REQUEST[HALF.len()..]).unwrap();
    assert_eq!(read_response(&mut busy).status, 200);
    assert_eq!(livelet.wait(SOON).code(), Some(0));
}

#[test]
fn a_second_term_or_int_ends_the_drain_at_once() {
    for (first, second) in [
        ("TERM", "TERM"),
        ("INT", "INT"),
        ("TERM", "INT"),
        ("INT", "TERM"),
    ] {
        let mut livelet = Livelet::start(&[]);
        let _stream = half_asked(&livelet);
        livelet.signal(first);
        wait_until_draining(livelet.addr());
        assert!(livelet.is_running(), "{first}, then {second}");
        let from = Instant::now();
        livelet.signal(second);
        let (code, took) = livelet.wait_timed(from);
        assert_eq!(code, Some(0), "{first}, then {second}");
        assert!(took < AT_ONCE, "{first}, then {second}: {took:?}");
    }
}

#[test]
fn a_second_hup_or_usr2_does_not_end_the_drain() {
    for name in ["HUP", "USR2"] {
        let mut livelet = Livelet::start(&[]);
        let mut stream = half_asked(&livelet);
        livelet.signal(name);
        wait_until_draining(livelet.addr());
        livelet.signal(name);
        let until = Instant::now() + ms(500);
        while Instant::now() < until {
            assert!(livelet.is_running(), "{name} twice");
            std::thread::sleep(ms(5));
        }
        stream.write_all(&REQUEST[HALF.len()..]).unwrap();
        assert_eq!(read_response(&mut stream).status, 200, "{name} twice");
        assert_eq!(livelet.wait(SOON).code(), Some(0), "{name} twice");
    }
}

#[test]
fn a_connection_made_during_the_drain_gets_one_answer() {
    let mut livelet = Livelet::start(&[]);
    let mut waited_for = half_asked(&livelet);
    livelet.signal("TERM");
    wait_until_draining(livelet.addr());
    let mut newer = livelet.connect();
    newer.write_all(REQUEST).unwrap();
    let response = read_response(&mut newer);
    assert_eq!(response.status, 200);
    assert_eq!(response.field("connection"), Some("close"));
    assert_closed(&mut newer);
    let from = Instant::now();
    waited_for.write_all(&REQUEST[HALF.len()..]).unwrap();
    assert_eq!(read_response(&mut waited_for).status, 200);
    let (code, took) = livelet.wait_timed(from);
    assert_eq!(code, Some(0));
    assert!(took < AT_ONCE, "{took:?}");
    assert!(TcpStream::connect(livelet.addr()).is_err());
}

#[test]
fn connections_queued_before_a_stop_are_answered() {
    let mut livelet = Livelet::start(&[]);
    livelet.freeze();
    let paths = ["/livez", "/livez", "/livez", "/livez", "/readyz"];
    let mut queued = Vec::new();
    for path in paths.iter().cycle().take(50) {
        let mut stream = livelet.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        queued.push((path, stream));
    }
    livelet.signal("TERM");
    livelet.signal("CONT");
    for (i, (path, stream)) in queued.iter_mut().enumerate() {
        let response = read_response(stream);
        assert_eq!(response.field("connection"), Some("close"), "{i} {path}");
        if **path == "/livez" {
            assert_eq!((response.status, response.body.as_str()), (200, "ok\n"));
        } else {
            assert_not_ready(response.status, &response.body);
        }
        assert_closed(stream);
    }
    assert_eq!(livelet.wait(SOON).code(), Some(0));
}

fn assert_not_ready(status: u16, body: &str) {
    assert_eq!(status, 503);
    assert!(body.lines().any(|line| line.starts_with("[-]")), "{body:?}");
    assert!(body.contains("readyz check failed"), "{body:?}");
}

#[test]
fn readyz_fails_from_the_stop_signal_on() {
    let mut livelet = Livelet::start(&[]);
    let mut stream = livelet.connect();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHo").unwrap();
    wait_until_read(livelet.addr());
    livelet.signal("TERM");
    wait_until_draining(livelet.addr());
    stream.write_all(b"st: test\r\n\r\n").unwrap();
    let response = read_response(&mut stream);
    assert_not_ready(response.status, &response.body);
    assert_eq!(livelet.wait(SOON).code(), Some(0));
}

/// Sends 20 requests to a livelet that stands still, lets it go on with a TERM, and reads all that
/// comes.
fn pipeline_over_a_stop(mut livelet: Livelet, mut stream: TcpStream) {
    stream.write_all(&REQUEST.repeat(20)).unwrap();
    livelet.signal("TERM");
    livelet.signal("CONT");
    let responses = split_responses(&read_to_end(&mut stream));
    assert_eq!(responses.len(), 20);
    for (i, response) in responses.iter().enumerate() {
        assert_eq!((response.status, response.body.as_str()), (200, "ok\n"));
        // RFC 9112 §9.6: what follows a response with `close` is ignored, so only the last may have
        // it. It need not: the kernel may hand the signal to one thread while the other already
        // answers.
        assert!(
            i == 19 || response.field("connection").is_none(),
            "response {i}"
        );
    }
    assert_eq!(livelet.wait(SOON).code(), Some(0));
}

#[test]
fn pipelined_requests_queued_before_a_stop_are_answered() {
    let livelet = Livelet::start(&[]);
    livelet.freeze();
    let stream = livelet.connect();
    pipeline_over_a_stop(livelet, stream);
}

#[test]
fn pipelined_requests_on_a_used_connection_are_answered_at_a_stop() {
    let livelet = Livelet::start(&[]);
    let stream = asked_once(&livelet);
    livelet.freeze();
    pipeline_over_a_stop(livelet, stream);
}

#[test]
fn livelet_serves_after_its_stderr_is_closed() {
    for args in [&[][..], &["-v"]] {
        let mut child = KillOnDrop(
            livelet()
                .args(["--listen", "127.0.0.1:0"])
                .args(args)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut stderr = BufReader::new(child.0.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        drop(stderr);
        let url = line.trim_end().rsplit("http://").next().unwrap();
        let addr: SocketAddr = url.parse().unwrap();

        for path in ["/livez", "/readyz"] {
            assert_eq!(probe(addr, path).status, 200, "{args:?}");
        }
        let mut stream = connect(addr);
        stream.write_all(HALF).unwrap();
        wait_until_read(addr);
        send(child.0.id(), "TERM");
        wait_until_draining(addr);
        stream.write_all(&REQUEST[HALF.len()..]).unwrap();
        assert_eq!(read_response(&mut stream).status, 200, "{args:?}");

        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        let mut code = None;
        wait_for("the process to end", || {
            code = child.0.try_wait().unwrap().map(|status| status.code());
            code.is_some()
        });
        assert_eq!(code, Some(Some(0)), "{args:?}");
    }
}
