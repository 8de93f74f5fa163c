//! Changes of health in the log: an event of the kubelet does not show the content of an answer.

use std::fs::{self, File};
use std::path::PathBuf;

use crate::support::{Livelet, SOON, probe, scratch_directory, wait_for};

/// Returns the lines of a log about health.
fn health_lines(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains("health: "))
        .collect()
}

#[test]
fn if_a_worker_never_sends_ready_the_log_says_why_it_is_not_ready() {
    let mut livelet = Livelet::start(&["--ready", "notify", "--", "sleep", "1000"]);
    // The kubelet sends a startup probe again and again, then TERM.
    for _ in 0..5 {
        assert_eq!(probe(livelet.addr(), "/startupz").status, 503);
    }
    livelet.signal("TERM");
    livelet.wait(SOON);
    let log = livelet.log();
    assert_eq!(
        health_lines(&log),
        ["livelet: health: startupz: notify failed: the worker has not said READY=1"],
        "{log}"
    );
}

#[test]
fn each_change_of_the_failing_checks_is_logged_with_all_their_names() {
    let directory = scratch_directory();
    let [db, queue] = ["db", "queue"].map(|name| directory.join(name));
    let check = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        format!("{name}=file:{}", path.display())
    };
    for (flag, path, endpoint) in [
        ("--live", "/livez", "livez"),
        ("--ready", "/readyz", "readyz"),
        ("--ready", "/startupz", "startupz"),
    ] {
        let checks = [check(&db), check(&queue)];
        let mut livelet = Livelet::start(&[flag, &checks[0], flag, &checks[1]]);
        let ask = |status| {
            for _ in 0..2 {
                assert_eq!(probe(livelet.addr(), path).status, status, "{path}");
            }
        };
        ask(503);
        File::create(&db).unwrap();
        ask(503);
        File::create(&queue).unwrap();
        ask(200);
        for path in [&db, &queue] {
            fs::remove_file(path).unwrap();
        }
        let start_is_over = endpoint == "startupz";
        ask(if start_is_over { 200 } else { 503 });
        livelet.signal("TERM");
        livelet.wait(SOON);
        let log = livelet.log();
        let lines = health_lines(&log);
        let missing = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            format!(
                "{name} failed: {}: no such file or directory",
                path.display()
            )
        };
        let starts = [
            format!(
                "livelet: health: {endpoint}: {}; {}",
                missing(&db),
                missing(&queue)
            ),
            format!("livelet: health: {endpoint}: {}", missing(&queue)),
            format!("livelet: health: {endpoint}: passes (it had failed for "),
            format!(
                "livelet: health: {endpoint}: {}; {} (it had passed for ",
                missing(&db),
                missing(&queue)
            ),
        ];
        let expected = if start_is_over {
            &starts[..3]
        } else {
            &starts[..]
        };
        assert_eq!(lines.len(), expected.len(), "{log}");
        for (line, start) in lines.iter().zip(expected) {
            assert!(line.starts_with(start.as_str()), "{line:?}: {start:?}");
        }
    }
}

#[test]
fn a_normal_stop_logs_no_failure() {
    let directory = scratch_directory();
    let begun = directory.join("begun");
    let worker = format!(
        "trap 'sleep 0.3; exit 0' TERM; : > {}; sleep 1000 & wait",
        begun.display()
    );
    let mut livelet = Livelet::start(&["--lame-duck", "200ms", "--", "sh", "-c", &worker]);
    wait_for("the worker's trap", || begun.exists());
    for signal in ["WINCH", "CONT"] {
        livelet.signal(signal);
    }
    assert_eq!(probe(livelet.addr(), "/readyz").status, 200);
    livelet.signal("TERM");
    livelet.wait_until_said("signal: TERM");
    for path in ["/readyz", "/livez", "/startupz", "/metrics"] {
        let status = if path == "/readyz" { 503 } else { 200 };
        assert_eq!(probe(livelet.addr(), path).status, status, "{path}");
    }
    assert_eq!(livelet.wait(SOON).code(), Some(0));
    let said = std::mem::take(&mut livelet.said) + &livelet.log();
    let said: Vec<String> = said
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_ascii_digit()).collect())
        .collect();
    assert_eq!(
        said,
        [
            "livelet: worker: pid : started",
            "livelet: signal: TERM: received",
            "livelet: worker: pid : exited with code ",
        ]
    );
}

#[test]
fn a_worker_that_the_stop_signal_ends_is_not_logged_as_killed() {
    let mut livelet = Livelet::start(&["--", "sleep", "1000"]);
    livelet.wait_until_said("started");
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(143));
    let log = livelet.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.ends_with(": ended by signal TERM"), "{log}");
}
