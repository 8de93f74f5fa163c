//! Processes that are not the worker: what it leaves, what was there before, what belongs to
//! others.

use std::process::Command;
use std::time::{Duration, Instant};

use super::jobs::{Lines, PLACES, Place, unshare};
use crate::support::{
    self, Livelet, SOON, binary, descendants, finish, is_alive, livelet, probe, send, wait_for,
    wait_until_draining, worker_of,
};

/// Reads up to this, which may come before or after the ready line.
fn until_said(livelet: &mut Livelet, part: &str) {
    if !livelet.said.contains(part) {
        livelet.wait_until_said(part);
    }
}

fn start(place: Place, args: &[&str], script: &str) -> Livelet {
    let mut command = place.command(&binary());
    command.args(["-l", "127.0.0.1:0"]).args(args);
    Livelet::spawn(command.args(["--", "sh", "-c", script]))
}

#[test]
fn processes_left_by_a_stopped_worker_get_signals_and_are_awaited() {
    for place in PLACES {
        let lines = Lines::new("waits");
        let script = format!(
            "(trap 'echo TERM >> {0}' TERM; trap 'exit 0' USR1; echo go >&2; while :; do sleep 0.01; done) & wait",
            lines.path()
        );
        let mut livelet = start(place, &[], &script);
        livelet.wait_until_ready(1);
        until_said(&mut livelet, "go\n");
        let pid = place.pid(&livelet);
        send(pid, "TERM");
        livelet.wait_until_said("signal TERM\n");
        wait_for("the leftover to be told", || lines.count("TERM") == 1);
        // The leftover counts as the worker: alive, not ready. A second signal goes to it too.
        assert_eq!(probe(livelet.addr(), "/livez").status, 200, "{place:?}");
        assert_eq!(probe(livelet.addr(), "/readyz").status, 503, "{place:?}");
        send(pid, "TERM");
        wait_for("the leftover to be told again", || lines.count("TERM") == 2);
        send(pid, "USR1");
        assert_eq!(livelet.wait(SOON).code(), Some(143), "{place:?}");
    }
}

#[test]
fn processes_left_by_a_worker_that_exits_are_killed_after_5s() {
    std::thread::scope(|scope| {
        for place in PLACES {
            scope.spawn(move || {
                let lines = Lines::new("deaf");
                let file = lines.path();
                let deaf = format!("trap '' TERM; echo > {file}; while :; do sleep 0.01; done");
                let script = format!("({deaf}) & until [ -e {file} ]; do sleep 0.01; done; exit 7");
                let mut livelet = start(place, &["--grace", "1h"], &script);
                livelet.wait_until_ready(1);
                livelet.wait_until_said("exited with code 7");
                let from = Instant::now();
                assert_eq!(probe(livelet.addr(), "/livez").status, 503, "{place:?}");
                assert_eq!(livelet.wait(SOON).code(), Some(7), "{place:?}");
                assert!(from.elapsed() >= Duration::from_millis(4500), "{place:?}");
            });
        }
    });
}

#[test]
fn after_the_grace_processes_that_keep_forking_are_killed() {
    for place in PLACES {
        // Each generation lives for some milliseconds and starts the next one, in its own session.
        // All end when the file is removed.
        let lines = Lines::new("hops");
        std::fs::write(lines.path(), "").unwrap();
        let mut command = place.command(&binary());
        command.args(["-l", "127.0.0.1:0", "--grace", "200ms", "--"]);
        command.args([
            "sh",
            "-c",
            r#"trap '' TERM; setsid sh -c "$HOP" & wait; sleep 1000"#,
        ]);
        command.env(
            "HOP",
            r#"[ -e "$LINES" ] || exit; echo hop >> "$LINES"; setsid sh -c "$HOP" & sleep 0.002"#,
        );
        command.env("LINES", lines.path());
        let mut livelet = Livelet::spawn(&mut command);
        livelet.wait_until_ready(1);
        wait_for("ten generations", || lines.count("hop") > 10);
        send(place.pid(&livelet), "TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(137), "{place:?}");
        // Nothing is left that would go on.
        let hops = lines.count("hop");
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            assert_eq!(lines.count("hop"), hops, "{place:?}");
        }
    }
}

#[test]
fn a_process_left_by_the_worker_that_ignores_int_or_quit_gets_term() {
    // A shell has what it starts with `&` ignore INT and QUIT.
    for place in PLACES {
        for signal in ["INT", "QUIT"] {
            let options = ["--stop-signal", "INT", "--stop-signal", "QUIT"];
            let mut livelet = start(place, &options, "sleep 1000 & echo go >&2; wait");
            livelet.wait_until_ready(1);
            until_said(&mut livelet, "go\n");
            send(place.pid(&livelet), signal);
            let expected = if signal == "INT" { 130 } else { 131 };
            assert_eq!(livelet.wait(SOON).code(), Some(expected), "{place:?}");
        }
    }
}

#[test]
fn children_started_before_livelet_itself_read_its_whole_output() {
    let script = r#"
        "$BIN" -l 127.0.0.1:0 -- sh -c 'i=0; while [ $i -lt 300 ]; do echo line; i=$((i + 1)); done; echo last; exit 5'"#;
    let entrypoints = [
        format!(r#"exec > >(tee "$LINES") 2>&1; exec {script}"#),
        // The reader begins when livelet has nothing else to do.
        format!(r#"exec > >(sleep 0.3; cat > "$LINES") 2>&1; exec {script}"#),
    ];
    std::thread::scope(|scope| {
        for place in PLACES {
            let entrypoints = &entrypoints;
            scope.spawn(move || {
                for run in 0..20 {
                    let lines = Lines::new("tee");
                    let mut command = place.command("bash");
                    command.args(["-c", &entrypoints[usize::from(run % 5 == 0)]]);
                    command.env("BIN", binary()).env("LINES", lines.path());
                    let output = finish(&mut command, SOON);
                    assert_eq!(output.status.code(), Some(5), "{place:?}: {output:?}");
                    let said = lines.read();
                    assert_eq!(lines.count("line"), 300, "{place:?}, run {run}: {said}");
                    assert_eq!(lines.count("last"), 1, "{place:?}, run {run}: {said}");
                    let own = said.lines().last().unwrap_or_default();
                    assert!(own.ends_with("exited with code 5"), "{place:?}: {said}");
                }
            });
        }
    });
}

#[test]
fn children_started_before_livelet_itself_get_no_signal() {
    for place in PLACES {
        let lines = Lines::new("before");
        let entrypoint = r#"
            exec > >(trap 'echo TERM >> "$LINES"' TERM; while read -r line; do :; done; echo eof >> "$LINES") 2> >(cat >&3)
            exec "$BIN" -l 127.0.0.1:0 --grace 100ms -- sh -c 'trap "" TERM; echo go >&2; while :; do sleep 0.01; done'"#;
        let mut command = place.command("bash");
        command.args(["-c", &format!("exec 3>&2; {entrypoint}")]);
        command.env("BIN", binary()).env("LINES", lines.path());
        let mut livelet = Livelet::spawn(&mut command);
        until_said(&mut livelet, "go\n");
        let pid = match place {
            Place::Init => descendants(livelet.pid())[0],
            Place::Subreaper => livelet.pid(),
        };
        send(pid, "TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(137), "{place:?}");
        let said = lines.read();
        assert_eq!(lines.count("TERM"), 0, "{place:?}: {said}");
        assert_eq!(lines.count("eof"), 1, "{place:?}: {said}");
    }
}

#[test]
fn children_started_before_livelet_delay_the_exit_by_at_most_5s() {
    let entrypoint = r#"sleep 1000 & exec "$BIN" -l 127.0.0.1:0 -- sh -c 'trap "exit 3" TERM; echo go >&2; while :; do sleep 0.01; done'"#;
    let mut command = Place::Subreaper.command("sh");
    command.args(["-c", entrypoint]).env("BIN", binary());
    let mut livelet = Livelet::spawn(&mut command);
    until_said(&mut livelet, "go\n");
    let mut before = None;
    wait_for("the child from before", || {
        before = descendants(livelet.pid()).into_iter().find(|&pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with("sleep\x001000"))
        });
        before.is_some()
    });
    livelet.signal("TERM");
    livelet.wait_until_said("exited with code 3");
    let from = Instant::now();
    assert_eq!(livelet.wait(SOON).code(), Some(3));
    assert!(from.elapsed() >= Duration::from_millis(4500));
    let before = before.unwrap();
    assert!(is_alive(before), "it was ended");
    send(before, "KILL");
}

/// Executes a program with another uid (setpriv(1)).
const AS_ANOTHER_USER: [&str; 6] = [
    "setpriv",
    "--reuid",
    "65534",
    "--regid",
    "65534",
    "--clear-groups",
];

/// Returns a command without CAP_KILL: root may not signal processes of another user then.
fn without_cap_kill(place: Place, args: &[&str]) -> Command {
    let mut command = place.command("setpriv");
    command.args(["--bounding-set", "-kill", "--inh-caps", "-kill"]);
    command.arg(binary()).args(["-l", "127.0.0.1:0"]).args(args);
    let script = "trap '' TERM; echo go >&2; while :; do sleep 0.01; done";
    command
        .arg("--")
        .args(AS_ANOTHER_USER)
        .args(["sh", "-c", script]);
    command
}

#[test]
fn a_signal_that_livelet_may_not_send_is_logged() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for place in PLACES {
        let mut livelet = Livelet::spawn(&mut without_cap_kill(place, &["--grace", "300ms"]));
        livelet.wait_until_ready(1);
        until_said(&mut livelet, "go\n");
        let pid = place.pid(&livelet);
        let worker = worker_of(pid);
        send(pid, "TERM");
        livelet.wait_until_said("cannot send TERM: operation not permitted; ");
        livelet.wait_until_said("cannot send KILL: operation not permitted; ");
        assert_eq!(
            livelet.said.matches("CAP_KILL").count(),
            2,
            "{}",
            livelet.said
        );
        if place == Place::Subreaper {
            // Its end would leave the worker behind: it waits.
            assert!(livelet.is_running() && is_alive(worker));
            send(worker, "KILL");
        }
        assert_eq!(livelet.wait(SOON).code(), Some(137), "{place:?}");
        wait_for("the worker to be gone", || !is_alive(worker));
        let log = livelet.log();
        assert!(!log.contains("cannot send"), "{log}");
        assert!(!livelet.said.contains("see --grace"), "{}", livelet.said);
    }
}

#[test]
fn a_worker_of_another_user_is_signalled_with_cap_kill() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for place in PLACES {
        let mut command = place.command(&binary());
        command
            .args(["-l", "127.0.0.1:0", "--"])
            .args(AS_ANOTHER_USER);
        command.args([
            "sh",
            "-c",
            "trap 'exit 9' TERM; echo go >&2; while :; do sleep 0.01; done",
        ]);
        let mut livelet = Livelet::spawn(&mut command);
        livelet.wait_until_ready(1);
        until_said(&mut livelet, "go\n");
        send(place.pid(&livelet), "TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(9), "{place:?}");
    }
}

#[test]
fn no_other_process_is_signalled_if_proc_shows_another_namespace() {
    // Without a new /proc, its numbers are those of the outer namespace.
    let script = r#"
        for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done
        "$BIN" -l 127.0.0.1:0 -- sh -c 'setsid sleep 1000 & exit 3'
        code=$?
        for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done
        alive=0; for job in $(jobs -p); do kill -0 $job && alive=$((alive + 1)); done
        echo "$code $alive"; exit 0"#;
    let mut command = unshare();
    command.args(["bash", "-c", script]).env("BIN", binary());
    let output = finish(&mut command, 2 * SOON);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 16\n", "{said}");
    assert!(said.contains("belongs to another pid namespace"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn after_unshare_without_fork_the_worker_runs_as_pid_1() {
    let mut command = support::command("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args([
        "--pid",
        &binary(),
        "-l",
        "127.0.0.1:0",
        "--",
        "sh",
        "-c",
        "echo $$; exit 4",
    ]);
    let output = finish(&mut command, SOON);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(output.stdout, b"1\n");
}

#[test]
fn lame_duck_and_grace_apply_to_signals_that_stop_signal_sets() {
    for place in PLACES {
        let script = "trap 'echo told >&2' QUIT; trap 'exit 0' USR1; echo go >&2; while :; do sleep 0.01; done";
        let options = [
            "--stop-signal",
            "QUIT",
            "--lame-duck",
            "200ms",
            "--grace",
            "2s",
        ];
        let mut livelet = start(place, &options, script);
        livelet.wait_until_ready(1);
        until_said(&mut livelet, "go\n");
        let from = Instant::now();
        send(place.pid(&livelet), "QUIT");
        wait_until_draining(livelet.addr());
        livelet.wait_until_said("told\n");
        assert!(from.elapsed() >= Duration::from_millis(200), "{place:?}");
        assert_eq!(livelet.wait(SOON).code(), Some(137), "{place:?}");
        assert!(from.elapsed() >= Duration::from_millis(2200), "{place:?}");
    }
}

#[test]
fn a_stop_by_takeover_or_bad_health_sends_the_rewritten_signal() {
    let script = "trap 'echo got QUIT >&2; exit 0' QUIT; echo go >&2; while :; do sleep 0.01; done";
    let mut old = start(Place::Subreaper, &["--signal", "TERM=QUIT"], script);
    old.wait_until_ready(1);
    until_said(&mut old, "go\n");
    let address = old.addr().to_string();
    let mut command = livelet();
    command.args(["-l", &address, "--takeover", "--", "sleep", "1000"]);
    let mut new = Livelet::start_command(&mut command, 1);
    old.wait_until_said("got QUIT\n");
    assert_eq!(old.wait(SOON).code(), Some(0));
    new.signal("TERM");
    assert_eq!(new.wait(SOON).code(), Some(143));

    let beat = Lines::new("beat");
    std::fs::write(beat.path(), "").unwrap();
    let check = format!("file:{}", beat.path());
    let options = [
        "--signal",
        "TERM=QUIT",
        "--live",
        &check,
        "--exit-on-unhealthy",
        "50ms",
    ];
    let mut livelet = start(Place::Subreaper, &options, script);
    livelet.wait_until_ready(1);
    until_said(&mut livelet, "go\n");
    assert_eq!(probe(livelet.addr(), "/livez").status, 200);
    std::fs::remove_file(beat.path()).unwrap();
    livelet.wait_until_said("got QUIT\n");
    assert_eq!(livelet.wait(SOON).code(), Some(75));
}

#[test]
fn window_and_job_control_signals_are_not_logged() {
    let mut livelet = start(Place::Subreaper, &[], "echo go >&2; exec sleep 1000");
    livelet.wait_until_ready(1);
    until_said(&mut livelet, "go\n");
    for name in ["WINCH", "CONT", "URG", "HUP"] {
        livelet.signal(name);
    }
    assert_eq!(livelet.wait(SOON).code(), Some(129));
    let log = livelet.said.clone() + &livelet.log();
    assert_eq!(log.matches("signal: ").count(), 1, "{log}");
}

#[test]
fn a_worker_in_another_process_group_gets_the_signal() {
    // The worker goes into a group of its child's.
    let code = r"my $child = fork;
        if ($child == 0) { setpgrp(0, 0); sleep 1000; exit; }
        select(undef, undef, undef, 0.01) while getpgrp($child) != $child;
        setpgrp(0, $child);
        $SIG{TERM} = sub { exit 9 };
        print STDERR qq(go\n);
        sleep 1 while 1;";
    for args in [&[][..], &["--group"]] {
        let mut command = livelet();
        command.args(["-l", "127.0.0.1:0"]).args(args);
        let mut livelet = Livelet::spawn(command.args(["--", "perl", "-e", code]));
        livelet.wait_until_ready(1);
        until_said(&mut livelet, "go\n");
        livelet.signal("TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(9), "{args:?}");
    }
}
