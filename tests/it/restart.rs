//! A fixed port is free again the moment livelet has ended, and never shared by accident.

use std::io::Write;
use std::net::TcpListener;

use crate::support::{Livelet, SOON, Socket, finish, livelet, probe, read_response, sockets_at};

/// Address of these tests. On 127.0.0.1 another test's outgoing connection could get the port
/// between two starts.
const ADDR: &str = "127.0.0.7:0";

#[test]
fn two_hundred_restarts_on_one_port_all_succeed() {
    let mut livelet = Livelet::start_on(&[ADDR], &[]);
    let addr = livelet.addr();
    let listen = addr.to_string();
    let mut rounds_over_time_wait = 0;
    let mut last_kept = None;
    for round in 0..200 {
        if round > 0 {
            livelet = Livelet::start_on(&[&listen], &[]);
            assert_eq!(livelet.addr(), addr, "round {round}");
            // The first rounds are enough: the kernel's table may have thousands of rows.
            if round < 10 {
                let mut sockets = sockets_at(addr).into_iter();
                rounds_over_time_wait += usize::from(sockets.any(|s| s.state == Socket::TIME_WAIT));
            }
        }
        assert_eq!(probe(addr, "/livez").status, 200, "round {round}");
        let mut kept = livelet.connect();
        kept.write_all(b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n")
            .unwrap();
        assert_eq!(read_response(&mut kept).status, 200, "round {round}");
        livelet.signal("TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(0), "round {round}");
        // Held over the next start: the side that livelet left is then in FIN_WAIT2.
        last_kept = Some(kept);
    }
    drop(last_kept);
    assert!(
        rounds_over_time_wait > 0,
        "no start met a TIME_WAIT socket: this test has shown nothing"
    );
}

#[test]
fn a_restart_after_connections_were_cut_succeeds() {
    let mut livelet = Livelet::start_on(&[ADDR], &["--drain", "0s"]);
    let listen = livelet.addr().to_string();
    for round in 0..20 {
        let mut half = livelet.connect();
        half.write_all(b"GET /livez HT").unwrap();
        livelet.signal("TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(0), "round {round}");
        livelet = Livelet::start_on(&[&listen], &["--drain", "0s"]);
        assert_eq!(probe(livelet.addr(), "/livez").status, 200, "round {round}");
    }
}

#[test]
fn a_restart_after_a_kill_succeeds() {
    let mut livelet = Livelet::start_on(&[ADDR], &[]);
    let listen = livelet.addr().to_string();
    for round in 0..20 {
        assert_eq!(probe(livelet.addr(), "/livez").status, 200, "round {round}");
        livelet.signal("KILL");
        livelet.wait(SOON);
        livelet = Livelet::start_on(&[&listen], &[]);
    }
}

#[test]
fn a_second_livelet_on_the_port_fails_and_the_first_serves_on() {
    let first = Livelet::start(&[]);
    let addr = first.addr().to_string();
    for args in [
        &["--listen", &addr][..],
        &["--listen", "127.0.0.1:0", "--listen", &addr],
        // One side is not enough: the holder of the port did not agree to share it.
        &["--listen", &addr, "--reuse-port"],
    ] {
        assert_held(args, &addr);
        assert_eq!(probe(first.addr(), "/livez").status, 200);
    }
}

#[test]
fn a_start_on_a_port_that_another_program_uses_fails() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = other.local_addr().unwrap().to_string();
    assert_held(&["--listen", &addr], &addr);
}

/// Runs livelet, and asserts that it ends with 125 and one line that names the address.
fn assert_held(args: &[&str], addr: &str) {
    let output = finish(livelet().args(["--bind-wait", "0s"]).args(args), SOON);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{args:?}: {stderr:?}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr:?}");
    assert!(stderr.starts_with("livelet: "), "{args:?}: {stderr:?}");
    assert!(stderr.contains(addr), "{args:?}: {stderr:?}");
    assert!(
        !stderr.contains("listening on http"),
        "{args:?}: {stderr:?}"
    );
}

#[test]
fn two_livelets_with_reuse_port_share_a_port() {
    let mut first = Livelet::start(&["--reuse-port"]);
    let addr = first.addr().to_string();
    let second = Livelet::start_on(&[&addr], &["--reuse-port"]);
    assert_eq!(second.addr(), first.addr());
    for _ in 0..20 {
        assert_eq!(probe(first.addr(), "/livez").status, 200);
    }
    first.signal("TERM");
    assert_eq!(first.wait(SOON).code(), Some(0));
    for _ in 0..20 {
        assert_eq!(probe(second.addr(), "/livez").status, 200);
    }
}
