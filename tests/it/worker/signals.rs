//! Every signal that livelet gets is the worker's.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{
    self, KillOnDrop, Livelet, SOON, is_alive, livelet, probe, scratch, send_to_group, wait_for,
    wait_until_listening, worker_of,
};

/// Returns the script of a worker that prints each signal it gets, and so does its child. Both wait
/// for lines of the pipe at `waits_at`.
fn printer(waits_at: &Path) -> String {
    let traps = |name: &str| -> String {
        (1..=64)
            .filter(|number| ![9, 17, 19, 32, 33].contains(number))
            .map(|number| format!("trap 'echo {name} got {number} >&2' {number}; "))
            .collect()
    };
    // No other process is in the group, which the signals would end or stop.
    let wait = "while :; do read line <&7; done";
    format!(
        "mkfifo {0}; exec 7<>{0}; ({1} echo child ready >&2; {wait}) & {2} echo worker ready >&2; {wait}",
        waits_at.display(),
        traps("child"),
        traps("worker"),
    )
}

/// Writes lines to a pipe while it has a reader. A shell handles a signal that comes just before
/// its read(2) only when that returns.
fn keep_awake(path: &Path) {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    let mut pipe = options.open(path).unwrap();
    let deadline = Instant::now() + 10 * SOON;
    std::thread::spawn(move || {
        while Instant::now() < deadline {
            let written = pipe.write(b"\n");
            if written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

fn start(args: &[&str]) -> Livelet {
    let pipe = scratch("pipe");
    let mut command = livelet();
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    let mut livelet = Livelet::spawn(command.args(["--", "sh", "-c", &printer(&pipe)]));
    for who in ["child ready", "worker ready"] {
        if !livelet.said.contains(who) {
            livelet.wait_until_said(who);
        }
    }
    keep_awake(&pipe);
    // A process that has the pipe open keeps it.
    std::fs::remove_file(pipe).unwrap();
    livelet
}

impl Livelet {
    fn wait_until_got(&mut self, who: &str, number: i32) {
        let line = format!("{who} got {number}\n");
        if !self.said.contains(&line) {
            self.wait_until_said(line.trim_end());
        }
    }

    /// Kills the worker, which nothing else ends, and its group.
    fn kill_worker(&mut self) {
        send_to_group(worker_of(self.pid()), "KILL");
        assert_eq!(self.wait(SOON).code(), Some(137));
    }
}

/// Returns the signals that can be caught. Real-time signals begin at 34. musl keeps that one for
/// itself, but a worker may use another C library.
fn catchable() -> impl Iterator<Item = i32> {
    (1..=31)
        .filter(|number| ![9, 17, 19].contains(number))
        .chain([34, 35, 50, 64])
}

#[test]
fn with_the_group_option_each_signal_reaches_the_whole_group() {
    let mut livelet = start(&["--group"]);
    for number in catchable() {
        livelet.said.clear();
        livelet.signal(&number.to_string());
        livelet.wait_until_got("worker", number);
        // A shell has what it starts with `&` ignore INT and QUIT.
        if ![2, 3].contains(&number) {
            livelet.wait_until_got("child", number);
        }
    }
    livelet.kill_worker();
}

#[test]
fn without_the_group_option_each_signal_reaches_only_the_worker() {
    let mut livelet = start(&[]);
    // CONT follows Ctrl-Z, which stops the whole group.
    for number in catchable().filter(|&number| number != libc::SIGCONT) {
        livelet.said.clear();
        livelet.signal(&number.to_string());
        livelet.wait_until_got("worker", number);
    }
    // The child's own signal comes after the one that livelet would forward.
    send_to_group(worker_of(livelet.pid()), "36");
    livelet.wait_until_got("child", 36);
    assert_eq!(
        livelet.said.matches("child got").count(),
        1,
        "{}",
        livelet.said
    );
    livelet.kill_worker();
}

/// A network check starts the only other thread. musl unblocks signals 33 and 34 when a process makes
/// its first thread, so that they could reach it.
#[test]
fn signals_reach_the_worker_after_a_network_check_starts_a_thread() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = format!("tcp:{}", listener.local_addr().unwrap());
    let mut livelet = start(&["--live", &check]);
    let addr = wait_until_listening(livelet.pid());
    assert_eq!(probe(addr, "/livez").status, 200);
    for number in [34, 35] {
        livelet.signal(&number.to_string());
        livelet.wait_until_got("worker", number);
    }
    livelet.kill_worker();
}

#[test]
fn the_signal_option_rewrites_and_drops_signals() {
    let mut livelet = start(&[
        "--signal",
        "TERM=QUIT",
        "--signal",
        "SIGUSR1=12",
        "--signal",
        "HUP=0",
        "--signal",
        "35=WINCH",
    ]);
    livelet.signal("HUP");
    for (sent, got) in [("USR1", 12), ("35", 28), ("TERM", 3), ("INT", 2)] {
        livelet.signal(sent);
        livelet.wait_until_got("worker", got);
    }
    for never in ["got 1\n", "got 15\n", "got 10\n", "got 35\n"] {
        assert!(
            !livelet.said.contains(never),
            "{never:?} in {}",
            livelet.said
        );
    }
    livelet.kill_worker();
}

#[test]
fn a_signal_that_arrives_twice_is_forwarded_twice() {
    let mut livelet = start(&[]);
    for name in ["TERM", "TERM", "INT", "USR1", "USR1"] {
        livelet.said.clear();
        livelet.signal(name);
        livelet.wait_until_said("worker got");
    }
    // At once, the kernel may make one of them (signal(7)); it makes no less, and no more than two.
    livelet.said.clear();
    livelet.signal("USR2");
    livelet.signal("USR2");
    livelet.signal("HUP");
    livelet.wait_until_got("worker", 1);
    livelet.wait_until_got("worker", 12);
    let count = livelet.said.matches("worker got 12\n").count();
    assert!((1..=2).contains(&count), "{}", livelet.said);
    livelet.kill_worker();
}

#[test]
fn a_signal_during_livelets_start_is_not_lost() {
    for round in 0..100u64 {
        let mut command = livelet();
        command.args(["--listen", "127.0.0.1:0", "--", "sleep", "1000"]);
        let mut livelet = Livelet::spawn(&mut command);
        // From before its first instruction to after the worker's.
        std::thread::sleep(Duration::from_micros(round * 37));
        livelet.signal("TERM");
        let status = livelet.wait(SOON);
        // A signal before the worker has a handler ends it by default.
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert!(
            status.code() == Some(143) || signal == Some(15),
            "{round}: {status}"
        );
    }
}

#[test]
fn a_sigpipe_from_livelets_own_write_is_not_forwarded() {
    // Its stderr is closed: each line that livelet says is a SIGPIPE.
    let mut command = livelet();
    command.args(["--listen", "127.0.0.1:0", "--", "sleep", "1000"]);
    let mut livelet = Livelet::start_command(&mut command, 1);
    livelet.close_stderr();
    for _ in 0..20 {
        livelet.signal("WINCH");
    }
    let worker = worker_of(livelet.pid());
    wait_for("the signals to have been said", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", livelet.pid())).unwrap();
        status.contains("SigPnd:\t0000000000000000")
    });
    livelet.signal("USR1");
    assert_eq!(
        livelet.wait(SOON).code(),
        Some(138),
        "ended by another signal than the one sent"
    );
    assert!(!is_alive(worker));
}

#[test]
fn a_flood_of_signals_and_orphans_delays_no_probe() {
    // 32 orphans at a time, each of which writes a line to a pipe: without a limit their number grows
    // on a busy machine until nothing else has a processor.
    let script = "trap '' 35; exec 9<> <(:); echo go >&2; \
        while :; do for i in {1..32}; do (sh -c 'echo >&9' &); done; read -r -N 32 -u 9 _; done";
    let mut command = livelet();
    command.args(["-q", "-l", "127.0.0.1:0", "--", "bash", "-c", script]);
    let mut livelet = Livelet::spawn(&mut command);
    livelet.wait_until_said("go\n");
    let addr = wait_until_listening(livelet.pid());
    let flood = format!("while kill -35 {}; do :; done 2>/dev/null", livelet.pid());
    let flooding = support::command("bash").args(["-c", &flood]).spawn();
    let flooding = KillOnDrop(flooding.unwrap());
    // livelet would answer none of them if it read signals, or reaped, for as long as there are any.
    for _ in 0..100 {
        assert_eq!(probe(addr, "/readyz").status, 200);
    }
    drop(flooding);
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(143));
}
