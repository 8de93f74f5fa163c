//! The worker's exit code, arguments and environment.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::{
    Livelet, SOON, binary, command, descendants, finish, is_alive, livelet, probe, scratch,
    wait_for, worker_of,
};

/// Runs livelet around a command and returns its exit code, and what the command printed.
fn run(args: &[&str], command: &[&OsStr]) -> (Option<i32>, Vec<u8>) {
    let mut livelet = livelet();
    livelet.args(["--listen", "127.0.0.1:0"]).args(args);
    let output = finish(livelet.arg("--").args(command), SOON);
    (output.status.code(), output.stdout)
}

fn sh(script: &str) -> [&OsStr; 3] {
    ["sh", "-c", script].map(OsStr::new)
}

#[test]
fn livelet_exits_with_the_workers_code() {
    let table: [(&str, i32); 9] = [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 75", 75),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
        ("kill -HUP $$", 129),
        ("kill -PIPE $$", 141),
    ];
    for (script, code) in table {
        assert_eq!(run(&[], &sh(script)).0, Some(code), "{script}");
    }
    for (args, script, code) in [
        (&["--ok-exit", "143"][..], "kill -TERM $$", 0),
        (&["--ok-exit", "143"], "exit 1", 1),
        (&["--ok-exit", "1", "--ok-exit", "2"], "exit 2", 0),
    ] {
        assert_eq!(run(args, &sh(script)).0, Some(code), "{args:?} {script}");
    }
}

/// The kernel reaps the children of a process that ignores SIGCHLD, and their exit codes are lost.
#[test]
fn the_workers_code_is_kept_if_livelets_parent_ignores_sigchld() {
    // dash does not ignore CHLD.
    let script = "trap '' CHLD; exec \"$0\" -l 127.0.0.1:0 -- sh -c 'exit 7'";
    let output = finish(command("bash").args(["-c", script, &binary()]), SOON);
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_command_that_cannot_start_exits_with_its_code_and_reason() {
    for (program, code) in [
        ("/no/such/program", 127),
        ("no-such-program", 127),
        ("/etc/passwd/x", 127),
        ("/etc/passwd", 126),
        ("/etc", 126),
        ("", 127),
    ] {
        let mut livelet = livelet();
        livelet.args(["--listen", "127.0.0.1:0", "--", program]);
        let output = finish(&mut livelet, SOON);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{program}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(program), "{stderr}");
    }
}

#[test]
fn arguments_reach_the_worker_unchanged() {
    let odd = OsStr::from_bytes(b"\xff\n--drain");
    let command = ["printf", "%s|", "--help", "--", "-l"].map(OsStr::new);
    let command: Vec<&OsStr> = command.into_iter().chain([odd]).collect();
    let (code, printed) = run(&[], &command);
    assert_eq!(code, Some(0));
    assert_eq!(printed, b"--help|--|-l|\xff\n--drain|");
}

/// A shell runs such a script, as with tini: execvp(3) does it, whichever C library livelet is
/// built with.
#[test]
fn a_script_without_an_interpreter_line_runs_in_the_shell() {
    let script = scratch("script");
    std::fs::write(&script, "printf '%s|' \"$0\" \"$@\"; exit 3\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let (code, printed) = run(
        &[],
        &[script.as_os_str(), OsStr::new("a b"), OsStr::new("")],
    );
    let expected = format!("{}|a b||", script.display());
    assert_eq!((code, printed), (Some(3), expected.into_bytes()));
}

#[test]
fn the_worker_starts_with_default_signals_except_an_ignored_hup() {
    for (ignored, raised, code) in [
        ("", "HUP", 129),
        ("HUP", "HUP", 0),
        ("INT", "INT", 130),
        ("QUIT", "QUIT", 131),
        ("PIPE", "PIPE", 141),
        ("CHLD", "TERM", 143),
    ] {
        let script = format!(
            "trap '' {ignored} TTOU; exec \"$0\" -l 127.0.0.1:0 -- sh -c 'kill -{raised} $$; exit 0'"
        );
        let output = finish(command("sh").args(["-c", &script, &binary()]), SOON);
        assert_eq!(output.status.code(), Some(code), "{ignored} {raised}");
    }
}

#[test]
fn livelet_serves_if_its_worker_closes_stdio_or_calls_exec() {
    for (script, code) in [
        ("exec <&- >&- 2>&-; sleep 0.1; exit 3", 3),
        ("exec sh -c 'exit 4'", 4),
        (":", 0),
        // Orphans of its own, gone before it.
        (
            "for i in 1 2 3 4 5 6 7 8 9; do (sh -c 'exit 1' &); done; exit 5",
            5,
        ),
    ] {
        for _ in 0..5 {
            assert_eq!(run(&[], &sh(script)).0, Some(code), "{script}");
        }
    }
}

#[test]
fn a_worker_that_fills_stderr_does_not_block_answers() {
    // The worker fills stderr only after USR1, when the ready line is there.
    let script = "trap 'exec yes >&2' USR1; echo go >&2; while :; do sleep 0.01; done";
    let mut command = livelet();
    command.args(["-l", "127.0.0.1:0", "--", "sh", "-c", script]);
    let mut livelet = Livelet::spawn(&mut command);
    livelet.wait_until_ready(1);
    if !livelet.said.contains("go\n") {
        livelet.wait_until_said("go\n");
    }
    livelet.signal("USR1");
    let pid = livelet.pid();
    wait_for("the pipe to be full", || {
        let waits = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/wchan"));
        descendants(pid)
            .into_iter()
            .any(|pid| waits(pid).is_ok_and(|wchan| wchan.contains("pipe")))
    });
    for _ in 0..20 {
        assert_eq!(probe(livelet.addr(), "/livez").status, 200);
    }
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(143));
}

#[test]
fn the_worker_dies_when_livelet_is_killed() {
    let mut livelet = Livelet::start(&[
        "--",
        "sh",
        "-c",
        "trap '' TERM HUP; while :; do sleep 0.01; done",
    ]);
    let worker = worker_of(livelet.pid());
    livelet.signal("KILL");
    livelet.wait(SOON);
    wait_for("the worker to die", || !is_alive(worker));
}

#[test]
fn all_endpoints_pass_while_the_worker_runs_and_its_exit_is_logged() {
    let script = "trap 'exit 7' TERM; echo go >&2; while :; do sleep 0.01; done";
    let mut livelet = Livelet::start(&["--", "sh", "-c", script]);
    livelet.wait_until_said("go\n");
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(probe(livelet.addr(), path).status, 200, "{path}");
    }
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(7));
    let log = livelet.log();
    for part in ["signal: TERM: received", "exited with code 7"] {
        assert!(log.contains(part), "no {part:?} in {log}");
    }
}

#[test]
fn without_an_exec_check_livelet_alone_changes_to_the_root_directory() {
    for (check, moves) in [(&[][..], true), (&["--live", "exec:/bin/true"], false)] {
        let directory = std::fs::canonicalize(std::env::temp_dir()).unwrap();
        let mut command = livelet();
        command.args(["-l", "127.0.0.1:0"]).args(check);
        command
            .args(["--", "sleep", "1000"])
            .current_dir(&directory);
        let livelet = Livelet::start_command(&mut command, 1);
        let cwd = |pid: u32| std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        let own = if moves {
            std::path::Path::new("/")
        } else {
            &directory
        };
        wait_for("livelet to move", || cwd(livelet.pid()) == own);
        assert_eq!(cwd(worker_of(livelet.pid())), directory);
    }
}

#[test]
fn the_listening_line_comes_before_all_output_of_the_worker() {
    for _ in 0..20 {
        let mut command = livelet();
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--",
            "sh",
            "-c",
            "echo first >&2; exec sleep 1000",
        ]);
        // `start_command` fails if another line comes first.
        let _livelet = Livelet::start_command(&mut command, 1);
    }
}

#[test]
fn the_listening_line_is_logged_even_if_the_worker_fills_stderr() {
    let mut command = livelet();
    command.args(["--listen", "127.0.0.1:0", "--", "sh", "-c", "exec yes >&2"]);
    let livelet = Livelet::start_command(&mut command, 1);
    assert_eq!(probe(livelet.addr(), "/livez").status, 200);
}
