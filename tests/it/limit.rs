//! A probe is answered however many connections are held, by the limit's rule and without
//! descriptors too.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::support::{
    Livelet, SOON, Socket, assert_closed, binary, command, probe, proc_stat, read_response,
    sockets_at, wait_for,
};

const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";

/// Locks out the other tests of this module. Each holds hundreds of descriptors, and the usual
/// limit is 1024.
fn in_turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a connection and sends `sent` on it, unless livelet closes it before.
fn idle(livelet: &Livelet, sent: &[u8]) -> TcpStream {
    let mut stream = livelet.connect();
    let _ = stream.write_all(sent);
    stream
}

fn ask(stream: &mut TcpStream) {
    stream.write_all(REQUEST).unwrap();
    assert_eq!(read_response(stream).status, 200);
}

/// Returns the number of connections that livelet holds.
fn held(addr: SocketAddr) -> usize {
    let sockets = sockets_at(addr);
    let accepted = |s: &&Socket| s.state == Socket::ESTABLISHED && s.inode != 0;
    sockets.iter().filter(accepted).count()
}

fn probes_are_answered_over(sent: &[u8]) {
    let _turn = in_turn();
    let livelet = Livelet::start(&["--max-connections", "64"]);
    let mut streams: Vec<_> = (0..500).map(|_| idle(&livelet, sent)).collect();
    for _ in 0..100 {
        assert_eq!(probe(livelet.addr(), "/livez").status, 200);
        streams.push(idle(&livelet, sent));
    }
    assert_eq!(probe(livelet.addr(), "/readyz").status, 200);
    wait_for("no more than 64 connections", || held(livelet.addr()) <= 64);
    drop(streams);
    assert_eq!(probe(livelet.addr(), "/livez").status, 200);
}

#[test]
fn probes_are_answered_if_silent_clients_use_all_connections() {
    probes_are_answered_over(b"");
}

#[test]
fn probes_are_answered_if_unfinished_requests_use_all_connections() {
    probes_are_answered_over(b"GET /livez HTTP/1.1\r\nHo");
}

#[test]
fn probes_are_answered_if_idle_clients_use_all_connections() {
    let _turn = in_turn();
    let livelet = Livelet::start(&["--max-connections", "64"]);
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = livelet.connect();
        ask(&mut stream);
        streams.push(stream);
        assert_eq!(probe(livelet.addr(), "/livez").status, 200);
    }
}

/// Many connections are registered with epoll. A request on the last one of them wakes livelet.
#[test]
fn a_request_on_one_of_300_idle_connections_is_answered() {
    let _turn = in_turn();
    let livelet = Livelet::start(&["--max-connections", "400"]);
    let mut clients: Vec<_> = (0..300).map(|_| idle(&livelet, b"")).collect();
    assert_eq!(probe(livelet.addr(), "/livez").status, 200);
    for _ in 0..10 {
        // Nothing else happens that would wake livelet.
        ask(clients.last_mut().unwrap());
    }
}

#[test]
fn a_recently_used_connection_stays_open_at_the_limit() {
    let _turn = in_turn();
    let livelet = Livelet::start(&["--max-connections", "64"]);
    let mut asking = livelet.connect();
    ask(&mut asking);
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.extend((0..20).map(|_| idle(&livelet, b"")));
        // Every connection before it was accepted by now: the queue is first in, first out.
        assert_eq!(probe(livelet.addr(), "/livez").status, 200);
        ask(&mut asking);
    }
}

#[test]
fn at_the_connection_limit_the_longest_idle_connection_closes() {
    let _turn = in_turn();
    let livelet = Livelet::start(&["--max-connections", "4"]);
    let mut streams: Vec<_> = (0..4).map(|_| livelet.connect()).collect();
    // Once the last is answered, each was accepted.
    ask(&mut streams[3]);
    ask(&mut streams[0]);
    // A part of a request is none. Once a later request is answered, livelet has read it.
    streams[1].write_all(b"GET /livez HT").unwrap();
    ask(&mut streams[2]);

    streams.push(livelet.connect());
    assert_closed(&mut streams[1]);
    for kept in [0, 2, 3, 4] {
        ask(&mut streams[kept]);
    }
    // Now the first is the one that waited longest.
    streams.push(livelet.connect());
    assert_closed(&mut streams[0]);
    for kept in [2, 3, 4, 5] {
        ask(&mut streams[kept]);
    }
}

#[test]
fn connections_up_to_max_connections_stay_open() {
    let _turn = in_turn();
    for limit in [1, 2, 16] {
        let livelet = Livelet::start(&["--max-connections", &limit.to_string()]);
        let mut streams: Vec<_> = (0..limit).map(|_| livelet.connect()).collect();
        for _ in 0..3 {
            streams.iter_mut().for_each(ask);
        }
    }
}

#[test]
fn with_max_connections_1_each_probe_is_answered() {
    let _turn = in_turn();
    let livelet = Livelet::start(&["--max-connections", "1"]);
    // Silent, idle after an answer, in the middle of a second head, and of a first head.
    for sent in [&b""[..], REQUEST, &[REQUEST, b"G"].concat(), b"G"] {
        for _ in 0..20 {
            let mut stream = idle(&livelet, sent);
            if sent.starts_with(REQUEST) {
                assert_eq!(read_response(&mut stream).status, 200);
            }
            assert_eq!(probe(livelet.addr(), "/livez").status, 200);
            assert_closed(&mut stream);
        }
    }
}

/// Returns the processor time of a process in seconds. /proc counts in ticks of 1/100 s on every
/// Linux port.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = proc_stat(pid);
    let ticks: u64 = stat[11].parse::<u64>().unwrap() + stat[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

#[test]
fn probes_are_answered_if_file_descriptors_run_out() {
    for sent in [&b""[..], b"GET /livez HT"] {
        let _turn = in_turn();
        let mut command = command("sh");
        command
            .args(["-c", "ulimit -n 24; exec \"$0\" \"$@\"", &binary()])
            .args(["--listen", "127.0.0.1:0"]);
        let mut livelet = Livelet::start_command(&mut command, 1);
        let mut streams: Vec<_> = (0..100).map(|_| idle(&livelet, sent)).collect();
        for _ in 0..10 {
            assert_eq!(probe(livelet.addr(), "/livez").status, 200);
            streams.push(idle(&livelet, sent));
        }
        let before = cpu_seconds(livelet.pid());
        std::thread::sleep(Duration::from_secs(1));
        let used = cpu_seconds(livelet.pid()) - before;
        assert!(used < 0.3, "{used} s of processor time in a second");

        drop(streams);
        for _ in 0..50 {
            assert_eq!(probe(livelet.addr(), "/livez").status, 200);
        }
        livelet.signal("TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(0));
    }
}

/// Keeps three requests queued on each of `count` connections until `is_over`. A connection that
/// closes is replaced.
fn pipeline(addr: SocketAddr, count: usize, is_over: &AtomicBool) {
    let open = || {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.write_all(&REQUEST.repeat(3)).unwrap();
        stream
    };
    let mut streams: Vec<TcpStream> = (0..count).map(|_| open()).collect();
    let mut buffer = [0; 4096];
    while !is_over.load(Ordering::Relaxed) {
        for stream in &mut streams {
            let is_closed = match stream.read(&mut buffer) {
                Ok(0) => true,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    let answers = text.matches("HTTP/1.1 ").count();
                    stream.write_all(&REQUEST.repeat(answers)).is_err()
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if is_closed {
                *stream = open();
            }
        }
    }
}

#[test]
fn clients_that_pipeline_on_all_connections_delay_no_probe() {
    let _turn = in_turn();
    for count in [256, 600] {
        // A check that takes a thread: each answer has to wait for an outcome.
        // On a busy machine the thread may have to wait for the processor.
        let check = ["--live", "file:/proc/self/stat", "--check-timeout", "9s"];
        let livelet = Livelet::start(&check);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients = scope.spawn(|| pipeline(livelet.addr(), count, &is_over));
            wait_for("the connections to be at their limit", || {
                sockets_at(livelet.addr()).len() > 256
            });
            for _ in 0..8 {
                assert_eq!(probe(livelet.addr(), "/livez").status, 200);
            }
            is_over.store(true, Ordering::Relaxed);
            clients.join().unwrap();
        });
    }
}
