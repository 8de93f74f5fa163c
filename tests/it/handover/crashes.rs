//! Either side dies, hangs or lies at each step of the protocol.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use super::ADDR;
use super::peer::{Peer, Rendezvous};
use crate::support::{
    Livelet, SOON, close_everywhere, connect, finish, livelet, probe, proc_stat, read_response,
    wait_for,
};

/// Checks that the livelet that serves there can still be replaced.
fn assert_unharmed(mut holder: Livelet, case: &str) {
    let addr = holder.addr();
    assert_eq!(probe(addr, "/livez").status, 200, "{case}");
    let mut successor = successor(addr, &["--takeover"]);
    successor.wait_until_ready(1);
    assert!(successor.origins[0].contains("taken over from"), "{case}");
    assert_eq!(holder.wait(SOON).code(), Some(0), "{case}");
    assert_eq!(probe(addr, "/livez").status, 200, "{case}");
}

fn successor(addr: SocketAddr, args: &[&str]) -> Livelet {
    Livelet::spawn(livelet().args(["--listen", &addr.to_string()]).args(args))
}

/// Step that one side reaches before it dies.
type Steps<'s> = &'s [(&'s str, &'s dyn Fn(&Peer))];

#[test]
fn the_old_livelet_serves_on_if_the_new_one_dies_or_hangs() {
    let steps: Steps<'_> = &[
        ("connected", &|_| ()),
        ("asked", &|peer| peer.ask(false)),
        ("asked for a takeover", &|peer| peer.ask(true)),
        ("in line", &|peer| {
            peer.ask(false);
            peer.assert_receives("livelet 1 healthy ");
        }),
        ("offered", &|peer| {
            peer.ask(true);
            assert!(peer.assert_receives("livelet 1 offer ").is_some());
        }),
        ("hung before it asked", &|peer| peer.assert_closed()),
        ("hung with an offer, and takes it too late", &|peer| {
            peer.ask(true);
            assert!(peer.assert_receives("livelet 1 offer ").is_some());
            peer.assert_receives("livelet 1 withdrawn");
            peer.assert_closed();
            assert!(!peer.send("livelet 1 taken"));
        }),
    ];
    for (case, step) in steps {
        let holder = Livelet::start_on(&[ADDR], &[]);
        let peer = Peer::connect(holder.addr());
        step(&peer);
        drop(peer);
        assert_unharmed(holder, case);
    }
}

#[test]
fn a_dead_or_hung_successor_does_not_delay_the_old_livelets_exit() {
    for dies in [true, false] {
        let mut holder = Livelet::start_on(&[ADDR], &[]);
        let peer = Peer::connect(holder.addr());
        peer.ask(false);
        peer.assert_receives("livelet 1 healthy ");
        let peer = (!dies).then_some(peer);
        holder.signal("TERM");
        assert_eq!(holder.wait(SOON).code(), Some(0));
        if let Some(peer) = peer {
            assert!(peer.assert_receives("livelet 1 offer ").is_some());
            peer.assert_receives("livelet 1 withdrawn");
        }
    }
}

#[test]
fn the_old_livelet_exits_once_the_successor_has_the_socket() {
    let mut holder = Livelet::start_on(&[ADDR], &[]);
    let addr = holder.addr();
    let peer = Peer::connect(addr);
    peer.ask(true);
    let socket = TcpListener::from(peer.assert_receives("livelet 1 offer ").unwrap());
    assert!(peer.send("livelet 1 taken"));
    peer.assert_closed();
    assert_eq!(holder.wait(SOON).code(), Some(0));
    assert_eq!(socket.local_addr().unwrap(), addr);
    // The successor dies: the port is free for the next process.
    close_everywhere(socket);
    let next = Livelet::start_on(&[&addr.to_string()], &[]);
    assert_eq!(probe(next.addr(), "/livez").status, 200);
}

#[test]
fn malformed_or_spoofed_handover_requests_are_rejected() {
    let pid = std::process::id();
    let long = format!("livelet 1 ask pid={pid} takeover=1 {}", "x".repeat(600));
    let messages = [
        String::from("\0"),
        String::from("GET / HTTP/1.1\r\n\r\n"),
        String::from("livelet 1 taken"),
        format!("livelet 0 ask pid={pid} takeover=1"),
        // The pid that a process of another pid namespace has there.
        format!("livelet 1 ask pid={} takeover=1", pid + 1),
        String::from("livelet 1 ask pid=1 takeover=1"),
        long,
    ];
    let holder = Livelet::start_on(&[ADDR], &[]);
    for message in messages {
        let peer = Peer::connect(holder.addr());
        assert!(peer.send(&message));
        peer.assert_closed();
    }
    // More than are listened to, all of them silent.
    let silent: Vec<Peer> = (0..16).map(|_| Peer::connect(holder.addr())).collect();
    for peer in &silent {
        peer.assert_closed();
    }
    assert_unharmed(holder, "garbage");
}

/// A later version asks, with words that this version does not know.
#[test]
fn a_handover_request_of_a_later_version_is_answered() {
    let holder = Livelet::start_on(&[ADDR], &[]);
    let peer = Peer::connect(holder.addr());
    let pid = std::process::id();
    peer.send(&format!("livelet 7 ask colour=red pid={pid} takeover=0"));
    peer.assert_receives("livelet 1 healthy ");
}

/// Plays a holder. Returns its socket, its address and its rendezvous.
fn played_holder() -> (TcpListener, SocketAddr, Rendezvous) {
    let socket = TcpListener::bind(ADDR).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr, Rendezvous::new(addr))
}

#[test]
fn a_successor_serves_if_the_old_livelet_dies_at_any_step() {
    let own = std::process::id();
    let steps: Steps<'_> = &[
        ("accepted", &|_| ()),
        ("was asked", &|peer| drop(peer.receive())),
        ("replied healthy", &|peer| {
            peer.receive();
            peer.send(&format!("livelet 1 healthy pid={own} seconds=1"));
        }),
        ("sent an unknown message", &|peer| {
            peer.receive();
            peer.send("livelet 1 sing");
        }),
    ];
    for (case, step) in steps {
        let (socket, addr, rendezvous) = played_holder();
        let mut new = successor(addr, &[]);
        step(&rendezvous.accept());
        drop((rendezvous, socket));
        new.wait_until_ready(1);
        assert_eq!(new.origins, [""], "{case}");
        assert_eq!(probe(addr, "/livez").status, 200, "{case}");
    }
}

#[test]
fn a_successor_serves_queued_connections_of_a_dead_old_livelet() {
    let own = std::process::id();
    for says_healthy_first in [false, true] {
        let (socket, addr, rendezvous) = played_holder();
        let mut queued = connect(addr);
        let mut new = successor(addr, &[]);
        let peer = rendezvous.accept();
        peer.assert_receives("livelet 1 ask ");
        if says_healthy_first {
            peer.send(&format!("livelet 1 healthy pid={own} seconds=1"));
            new.wait_until_said("waiting");
        }
        let offer = format!("livelet 1 offer pid={own}");
        assert!(peer.send_with(offer.as_bytes(), Some(socket.as_fd())));
        drop((peer, rendezvous, socket));
        new.wait_until_ready(1);
        assert_eq!(new.origins, [format!("(taken over from pid {own})")]);
        let request = b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";
        std::io::Write::write_all(&mut queued, request).unwrap();
        assert_eq!(read_response(&mut queued).status, 200);
        // A successor can ask the new livelet too.
        drop(queued);
        assert_unharmed(new, "after its holder died");
    }
}

#[test]
fn a_successor_does_not_use_a_socket_whose_offer_was_withdrawn() {
    let own = std::process::id();
    let (socket, addr, rendezvous) = played_holder();
    let mut new = successor(addr, &[]);
    let peer = rendezvous.accept();
    peer.assert_receives("livelet 1 ask ");
    // The successor stops before the offer, and continues after the offer was withdrawn.
    new.freeze();
    let offer = format!("livelet 1 offer pid={own}");
    assert!(peer.send_with(offer.as_bytes(), Some(socket.as_fd())));
    peer.withdraw();
    drop(peer);
    new.signal("CONT");
    // The successor asks again.
    let peer = rendezvous.accept();
    peer.assert_receives("livelet 1 ask ");
    assert!(peer.send_with(offer.as_bytes(), Some(socket.as_fd())));
    peer.assert_receives("livelet 1 taken");
    drop((peer, rendezvous, socket));
    new.wait_until_ready(1);
    assert_eq!(probe(addr, "/livez").status, 200);
}

#[test]
fn a_worker_started_for_a_withdrawn_socket_gets_a_normal_stop() {
    let own = std::process::id();
    let script =
        "trap 'echo told >&2; sleep 0.2; exit 9' TERM; echo go >&2; while :; do sleep 0.01; done";
    // A stop signal ends the wait for the port, or the wait is over by itself.
    for (wait, code) in [("1h", 9), ("1s", 125)] {
        let (socket, addr, rendezvous) = played_holder();
        let worker = ["--", "sh", "-c", script];
        let args = [&["--bind-wait", wait], &worker[..]].concat();
        let mut new = successor(addr, &args);
        let peer = rendezvous.accept();
        peer.assert_receives("livelet 1 ask ");
        new.freeze();
        let offer = format!("livelet 1 offer pid={own}");
        assert!(peer.send_with(offer.as_bytes(), Some(socket.as_fd())));
        peer.withdraw();
        drop((peer, rendezvous));
        new.signal("CONT");
        new.wait_until_said("go\n");
        if wait == "1h" {
            new.signal("TERM");
        }
        new.wait_until_said("told\n");
        assert_eq!(new.wait(SOON).code(), Some(code), "{wait}");
        drop(socket);
    }
}

#[test]
fn a_successor_rejects_an_offered_socket_of_another_address() {
    let own = std::process::id();
    let (socket, addr, rendezvous) = played_holder();
    let elsewhere = TcpListener::bind(ADDR).unwrap();
    let connected = connect(addr);
    let datagrams = UdpSocket::bind(addr).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let offered = [
        Some(elsewhere.as_fd()),
        Some(connected.as_fd()),
        Some(datagrams.as_fd()),
        Some(file.as_fd()),
        None,
    ];
    for descriptor in offered {
        let mut command = livelet();
        let addr = addr.to_string();
        command.args(["--listen", &addr, "--bind-wait", "50ms", "--takeover"]);
        let new = std::thread::spawn(move || finish(&mut command, SOON));
        let peer = rendezvous.accept();
        peer.assert_receives("livelet 1 ask ");
        peer.send_with(format!("livelet 1 offer pid={own}").as_bytes(), descriptor);
        peer.assert_closed();
        let output = new.join().unwrap();
        assert_eq!(output.status.code(), Some(125), "{output:?}");
    }
    // One that says another pid than its own lives in another pid namespace.
    let mut command = livelet();
    command.args(["--listen", &addr.to_string(), "--bind-wait", "50ms"]);
    let new = std::thread::spawn(move || finish(&mut command, SOON));
    let peer = rendezvous.accept();
    peer.assert_receives("livelet 1 ask ");
    peer.send_with(b"livelet 1 offer pid=1", Some(socket.as_fd()));
    peer.assert_closed();
    assert_eq!(new.join().unwrap().status.code(), Some(125));
}

#[test]
fn a_takeover_from_a_livelet_that_hangs_is_refused() {
    let holder = Livelet::start_on(&[ADDR], &[]);
    let addr = holder.addr();
    drop(Peer::connect(addr));
    holder.freeze();
    for wait in ["0s", "800ms"] {
        let mut command = livelet();
        command.args([
            "--listen",
            &addr.to_string(),
            "--bind-wait",
            wait,
            "--takeover",
        ]);
        let output = finish(&mut command, SOON);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(
            stderr.contains(&format!("held by pid {} (", holder.pid())),
            "{stderr}"
        );
        assert_eq!(
            stderr.lines().count(),
            1 + usize::from(wait != "0s"),
            "{stderr}"
        );
    }
    holder.signal("CONT");
    assert_unharmed(holder, "after it hung");
}

#[test]
fn a_takeover_succeeds_if_the_old_livelet_replies_late() {
    for takeover in [true, false] {
        let mut holder = Livelet::start_on(&[ADDR], &[]);
        let addr = holder.addr();
        holder.freeze();
        let mut new = successor(addr, if takeover { &["--takeover"] } else { &[] });
        // At first the holder counts as another program.
        new.wait_until_said("waiting up to");
        assert!(!new.said.contains("--takeover replaces it"), "{}", new.said);
        holder.signal("CONT");
        if !takeover {
            new.wait_until_said("--takeover replaces it");
            holder.signal("TERM");
        }
        new.wait_until_ready(1);
        let origin = format!("(taken over from pid {})", holder.pid());
        assert_eq!(new.origins, [origin]);
        assert_eq!(holder.wait(SOON).code(), Some(0), "{takeover}");
        assert_eq!(probe(addr, "/livez").status, 200, "{takeover}");
    }
}

#[test]
fn a_hung_livelet_that_is_killed_frees_the_port() {
    let mut holder = Livelet::start_on(&[ADDR], &[]);
    let addr = holder.addr();
    holder.freeze();
    let mut new = successor(addr, &[]);
    new.wait_until_said("waiting");
    holder.signal("KILL");
    holder.wait(SOON);
    new.wait_until_ready(1);
    assert_eq!(probe(addr, "/livez").status, 200);
}

/// Kills one of the two at a moment that no step of the protocol sets.
#[test]
fn one_livelet_serves_after_a_kill_at_any_moment_of_a_takeover() {
    let mut holder = Livelet::start_on(&[ADDR], &[]);
    let addr = holder.addr();
    for round in 0..60u64 {
        let case = format!("round {round}");
        let mut new = successor(addr, &["--takeover"]);
        // From the first instruction to well after the handover, in steps that no period of it
        // divides.
        std::thread::sleep(Duration::from_micros(round * 137 % 6000));
        if round % 2 == 0 {
            new.signal("KILL");
            new.wait(SOON);
            // The old one goes on, or had been replaced already: then its successor, dead now, has
            // left the port free.
            let mut third = successor(addr, &["--takeover"]);
            third.wait_until_ready(1);
            new = third;
        } else {
            holder.signal("KILL");
            new.wait_until_ready(1);
        }
        assert_eq!(probe(addr, "/livez").status, 200, "{case}");
        wait_for("the old one to end", || {
            !holder.is_running() || proc_stat(holder.pid())[0] == "Z"
        });
        assert_eq!(probe(addr, "/livez").status, 200, "{case}");
        holder = new;
    }
}
