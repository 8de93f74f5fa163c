//! From TERM to the end, probed from outside while it happens.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{
    Livelet, SOON, descendants, is_alive, livelet, probe, read_response, scratch, send, wait_for,
    wait_until_draining, wait_until_read, worker_of,
};

fn start(args: &[&str], script: &str) -> Livelet {
    let mut command = livelet();
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    let mut livelet = Livelet::spawn(command.args(["--", "sh", "-c", script]));
    livelet.wait_until_ready(1);
    if !livelet.said.contains("go\n") {
        livelet.wait_until_said("go");
    }
    livelet
}

const IGNORES_TERM: &str = "trap '' TERM; echo go >&2; while :; do sleep 0.01; done";
const EXITS_ON_USR1: &str =
    "trap 'echo told >&2' TERM; trap 'exit 9' USR1; echo go >&2; while :; do sleep 0.01; done";

#[test]
fn after_term_livelet_answers_probes_until_the_worker_has_ended() {
    let mut livelet = start(&[], EXITS_ON_USR1);
    let addr = livelet.addr();
    assert_eq!(probe(addr, "/readyz").status, 200);
    livelet.signal("TERM");
    wait_until_draining(addr);
    livelet.wait_until_said("told");
    for _ in 0..20 {
        assert_eq!(probe(addr, "/livez").status, 200);
        let not_ready = probe(addr, "/readyz");
        assert_eq!(not_ready.status, 503);
        assert!(
            not_ready.body.ends_with("readyz check failed\n"),
            "{}",
            not_ready.body
        );
    }
    livelet.signal("USR1");
    assert_eq!(livelet.wait(SOON).code(), Some(9));
    assert!(std::net::TcpStream::connect(addr).is_err());
}

/// The check fails as soon as the worker has ended, like a check of the worker's port.
#[test]
fn a_restart_while_a_successor_waits_fails_no_liveness_probe() {
    let [old_runs, new_runs] = ["old", "new"].map(scratch);
    let script = "trap 'rm -f \"$0\"; exit 0' TERM; touch \"$0\"; while :; do sleep 0.01; done";
    let command = |listen: &str, runs: &Path| {
        let mut command = livelet();
        command.args(["--listen", listen, "--live"]);
        command.arg(format!("file:{}", runs.display()));
        command.args(["--", "sh", "-c", script]).arg(runs);
        command
    };
    let mut old = Livelet::spawn(&mut command("127.0.0.8:0", &old_runs));
    old.wait_until_ready(1);
    let addr = old.addr();
    wait_for("liveness", || probe(addr, "/livez").status == 200);
    // The new worker is alive from its first moment.
    std::fs::write(&new_runs, "").unwrap();
    let mut new = Livelet::spawn(&mut command(&addr.to_string(), &new_runs));
    new.wait_until_said("--takeover replaces it");
    // An unfinished request keeps the old livelet in its drain.
    let mut unfinished = old.connect();
    unfinished.write_all(b"GET /livez HTTP/1.1\r\nHo").unwrap();
    wait_until_read(addr);
    old.signal("TERM");
    old.wait_until_said(": exited with code 0");
    assert!(!old_runs.exists());
    for _ in 0..20 {
        let response = probe(addr, "/livez");
        assert_eq!(response.status, 200, "{}", response.body);
        assert_eq!(probe(addr, "/livez/worker").status, 200);
    }
    unfinished.write_all(b"st: test\r\n\r\n").unwrap();
    let response = read_response(&mut unfinished);
    assert_eq!(response.status, 200, "{}", response.body);
    new.wait_until_ready(1);
    assert_eq!(old.wait(SOON).code(), Some(0));
    new.signal("TERM");
    assert_eq!(new.wait(SOON).code(), Some(0));
    assert!(!new_runs.exists());
}

#[test]
fn during_the_lame_duck_readiness_fails_and_no_signal_is_sent() {
    let mut livelet = start(&["--lame-duck", "1h"], EXITS_ON_USR1);
    let addr = livelet.addr();
    livelet.signal("TERM");
    wait_until_draining(addr);
    assert_eq!(probe(addr, "/livez").status, 200);
    // Other signals are the worker's as before.
    livelet.signal("USR2");
    assert!(!livelet.said.contains("told"));
    livelet.wait(SOON);

    let mut livelet = start(&["--lame-duck", "1h"], EXITS_ON_USR1);
    livelet.signal("TERM");
    wait_until_draining(livelet.addr());
    livelet.signal("TERM");
    livelet.wait_until_said("told");
    livelet.signal("USR1");
    assert_eq!(livelet.wait(SOON).code(), Some(9));

    let from = Instant::now();
    let mut livelet = start(&["--lame-duck", "300ms"], "echo go >&2; exec sleep 1000");
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(143));
    assert!(from.elapsed() >= Duration::from_millis(300));
}

#[test]
fn without_grace_a_worker_that_ignores_term_is_not_killed() {
    let mut livelet = start(&[], IGNORES_TERM);
    for _ in 0..3 {
        livelet.signal("TERM");
    }
    wait_until_draining(livelet.addr());
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        assert_eq!(probe(livelet.addr(), "/livez").status, 200);
    }
    send(worker_of(livelet.pid()), "KILL");
    assert_eq!(livelet.wait(SOON).code(), Some(137));
}

#[test]
fn at_the_end_of_the_grace_all_descendants_are_killed() {
    // In its group, in a session of its own, and a child of that.
    let script = format!(
        "trap '' TERM; sh -c 'while :; do sleep 0.01; done' & setsid sh -c 'sleep 1000 & sleep 1000; :' & {IGNORES_TERM}"
    );
    let mut livelet = start(&["--grace", "400ms"], &script);
    wait_for("all of them to run", || {
        descendants(livelet.pid()).len() >= 5
    });
    let all = descendants(livelet.pid());
    let from = Instant::now();
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(137));
    assert!(from.elapsed() >= Duration::from_millis(400));
    for pid in all {
        wait_for("a descendant to die", || !is_alive(pid));
    }
}

#[test]
fn processes_left_by_the_worker_get_term_and_are_awaited() {
    // The leftovers need a moment to end. A livelet that did not wait would leave them.
    let script = "(trap 'sleep 0.3; exit' TERM; echo child >&2; while :; do sleep 0.01; done) & \
        setsid sh -c 'trap \"sleep 0.3; exit\" TERM; echo daemon >&2; while :; do sleep 0.01; done' & \
        trap 'exit 5' TERM; echo go >&2; while :; do sleep 0.01; done";
    for args in [&["--grace", "1h"][..], &[], &["--group"]] {
        let mut livelet = start(args, script);
        for name in ["child\n", "daemon\n"] {
            if !livelet.said.contains(name) {
                livelet.wait_until_said(name);
            }
        }
        let leftovers = descendants(livelet.pid()).split_off(1);
        livelet.signal("TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(5));
        assert!(!leftovers.iter().any(|&pid| is_alive(pid)), "{args:?}");
    }
}

#[test]
fn a_daemonized_process_is_stopped_when_the_worker_ends() {
    let script = "setsid sh -c 'sleep 1000 & sleep 1000' >/dev/null 2>&1 & \
        trap 'exit 6' USR1; echo go >&2; while :; do sleep 0.01; done";
    let mut livelet = start(&[], script);
    wait_for("the daemon to run", || {
        descendants(livelet.pid()).len() >= 4
    });
    let all = descendants(livelet.pid());
    livelet.signal("USR1");
    assert_eq!(livelet.wait(SOON).code(), Some(6));
    for pid in all {
        wait_for("the daemon to end", || !is_alive(pid));
    }
}

#[test]
fn orphaned_descendants_are_reaped() {
    let script = "i=0; while [ $i -lt 200 ]; do (sh -c 'exit 1' & sh -c 'exit 2' &); i=$((i+1)); done; echo go >&2; sleep 1000";
    let mut livelet = start(&[], script);
    wait_for("the worker and its sleep alone to be left", || {
        descendants(livelet.pid()).len() <= 2
    });
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(143));
}
