//! Limits of each test: its time, the processes that it starts, and the directory of its files.
//!
//! Every process that a test starts has the variable [`MARK`] in its environment, and so have its
//! descendants, wherever they move to. The end of the test's thread, passed or failed, kills what
//! bears the test's mark. The guardian, a shell, does the same for all tests when the test process
//! has ended, however it did.

use std::cell::LazyCell;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit, umask};

use super::{KillOnDrop, SOON, finish, pids, wait_for};

/// Seconds that a test has. The longest one takes a tenth of them on an idle machine.
const LIMIT: u64 = 240;
/// Variable that sets another number.
const LIMIT_VARIABLE: &str = "TEST_SECONDS";
/// Time for a test whose processes were killed to fail by itself, before the test process is ended.
const LAST: Duration = Duration::from_secs(30);
/// Variable whose value names the test process and the test.
const MARK: &str = "TESTED_BY";
/// Signals whose default is restored: nohup(1) has HUP ignored, a shell without job control INT and
/// QUIT.
const RESET: [i32; 7] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCHLD,
];
/// Number of descriptors that a process may open: the usual one of a shell.
const DESCRIPTORS: u64 = 1024;

/// Creates a command for a program. Nothing of the developer's shell changes what the program does.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let prefixes = ["LIVELET_", "LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET"];
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    TEST.with(|test| {
        command.env(MARK, &test.mark);
        // The notify socket's directory is made there.
        command.env("XDG_RUNTIME_DIR", &test.directory);
    });
    command.stdin(Stdio::null());
    command
}

/// Returns a path that nothing else has; what is there at the end of the test is removed. It is
/// short: the path of a socket has at most 107 bytes.
pub(crate) fn scratch(name: &str) -> PathBuf {
    TEST.with(|test| test.directory.join(format!("{}{name}", number())))
}

/// Returns a new directory, which is removed at the end of the test.
pub(crate) fn scratch_directory() -> PathBuf {
    new_directory(scratch(""))
}

/// Returns a number that no other file or test has.
fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Makes a directory that every user can search: a worker may run as another one.
fn new_directory(path: PathBuf) -> PathBuf {
    fs::DirBuilder::new().mode(0o755).create(&path).unwrap();
    path
}

thread_local! {
    /// The test that runs on this thread: libtest has a thread for each. A thread that a test
    /// starts counts as one more.
    static TEST: LazyCell<Test> = const { LazyCell::new(Test::begin) };
}

/// One test, from its first command or directory to the end of its thread.
struct Test {
    mark: String,
    directory: PathBuf,
}

impl Test {
    fn begin() -> Test {
        let directory = new_directory(SESSION.directory.join(number().to_string()));
        let mark = format!("{}{}", SESSION.mark, directory.display());
        running().push(Running {
            mark: mark.clone(),
            name: std::thread::current().name().unwrap_or("?").to_string(),
            deadline: Instant::now() + SESSION.limit,
            is_overdue: false,
        });
        Test { mark, directory }
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        end_processes(&self.mark);
        let _ = fs::remove_dir_all(&self.directory);
        running().retain(|test| test.mark != self.mark);
    }
}

/// Entry of a test in the watchdog's table.
struct Running {
    mark: String,
    name: String,
    deadline: Instant,
    is_overdue: bool,
}

fn running() -> MutexGuard<'static, Vec<Running>> {
    static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills the processes of each test that has timed out. So the calls that the test waits for
/// return, and it fails with its own message. Ends the test process if a test goes on even then.
fn watch() {
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = Instant::now();
        for test in running().iter_mut().filter(|test| test.deadline <= now) {
            if test.is_overdue {
                eprintln!("{}: does not end, so that all tests end here", test.name);
                std::process::exit(101);
            }
            eprintln!("{}: killed after {:?}", test.name, SESSION.limit);
            end_processes(&test.mark);
            test.is_overdue = true;
            test.deadline = now + LAST;
        }
    }
}

/// Kills the processes that bear a mark until there are none.
fn end_processes(mark: &str) {
    let deadline = Instant::now() + LAST;
    let entry = format!("{MARK}={mark}");
    loop {
        let marked = marked(|other| other == entry.as_bytes());
        if marked.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in marked {
            // The process may have ended since.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the processes with such an entry in the environment that they were executed with.
fn marked(is_mark: impl Fn(&[u8]) -> bool) -> Vec<Pid> {
    let is_marked = |pid: &Pid| {
        let path = format!("/proc/{}/environ", pid.as_raw_pid());
        let environment = fs::read(path).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(&is_mark)
    };
    pids().filter(is_marked).collect()
}

/// The test process.
struct Session {
    directory: PathBuf,
    /// Start of the mark of each test.
    mark: String,
    /// Time that a test has.
    limit: Duration,
}

static SESSION: LazyLock<Session> = LazyLock::new(|| {
    reset_what_was_inherited();
    let own = std::process::id();
    let directory = std::env::temp_dir().join(format!("livelet-it-{own}"));
    let directory = new_directory(directory);
    let mark = format!("{own}:");
    start_guardian(&mark, &directory);
    std::thread::spawn(watch);
    let limit = std::env::var(LIMIT_VARIABLE).map_or(LIMIT, |seconds| seconds.parse().unwrap());
    Session {
        directory,
        mark,
        limit: Duration::from_secs(limit),
    }
});

/// Sets what a started process takes from the test process to what a login shell has. The standard
/// library itself empties the signal mask, and resets the disposition of PIPE.
fn reset_what_was_inherited() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
    for signal in RESET {
        if ignored & 1 << (signal - 1) != 0 {
            // A signal that has a handler is at its default after execve(2). Here it stays without
            // effect.
            signal_hook::flag::register(signal, Arc::default()).unwrap();
        }
    }
    umask(Mode::WGRP | Mode::WOTH);
    let limits = [
        // The kernel writes a core file to the working directory.
        (Resource::Core, Some(0)),
        (Resource::Nofile, Some(DESCRIPTORS)),
        (Resource::As, None),
        (Resource::Cpu, None),
        (Resource::Data, None),
        (Resource::Fsize, None),
        (Resource::Memlock, None),
        (Resource::Nproc, None),
        (Resource::Sigpending, None),
    ];
    for (resource, current) in limits {
        let maximum = getrlimit(resource).maximum;
        let current = match (current, maximum) {
            (Some(current), Some(maximum)) => Some(current.min(maximum)),
            (None, maximum) => maximum,
            (current, None) => current,
        };
        setrlimit(resource, Rlimit { current, maximum }).unwrap();
    }
}

/// Kills what bears the mark `$1` and removes the directory `$2`, once the test process has closed
/// the pipe. A process that can't be killed is not waited for without end.
const GUARDIAN: &str = r#"trap '' HUP INT QUIT TERM
    read -r _
    tries=0
    while [ "$((tries += 1))" -le 100 ]; do
        found=$(grep -ls -e "$1" /proc/[0-9]*/environ)
        [ "$found" ] || break
        for entry in $found; do
            pid=${entry#/proc/}
            kill -9 "${pid%/environ}"
        done
    done
    rm -rf "$2""#;

/// Starts the guardian, which is waited for when the test process exits.
#[allow(unsafe_code, reason = "there is no safe atexit(3)")]
fn start_guardian(mark: &str, directory: &Path) {
    static GUARDIAN_PROCESS: Mutex<Option<Child>> = Mutex::new(None);
    extern "C" fn wait_for_guardian() {
        let guardian = GUARDIAN_PROCESS.lock().map(|mut guardian| guardian.take());
        if let Ok(Some(mut guardian)) = guardian {
            // Its standard input is closed first.
            let _ = guardian.wait();
        }
    }
    let mut command = Command::new("sh");
    command.args(["-c", GUARDIAN, "guardian"]);
    command.arg(format!("{MARK}={mark}")).arg(directory);
    command.current_dir("/").process_group(0);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    *GUARDIAN_PROCESS.lock().unwrap() = Some(command.spawn().unwrap());
    // SAFETY: the function takes nothing and does not unwind.
    assert_eq!(unsafe { libc::atexit(wait_for_guardian) }, 0);
}

/// Returns a command that runs one test of this module alone, in another test process.
fn alone(test: &str) -> Command {
    let mut command = command(std::env::current_exe().unwrap());
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    command.args(["--exact", &name, "--ignored", "--nocapture"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
#[ignore = "never ends; the tests below run it"]
fn fixture_that_waits_for_a_process_that_does_not_end() {
    let directory = scratch_directory();
    // One descendant is in another session, one has lost its parent.
    let script = "setsid sleep 1000 & (sleep 1000 &); echo \"$0\"; exec sleep 1000";
    let mut command = command("sh");
    command.args(["-c", script]).arg(directory);
    assert!(command.status().unwrap().success());
}

#[test]
fn a_killed_test_process_leaves_no_process_and_no_file() {
    let mut tests = KillOnDrop(
        alone("fixture_that_waits_for_a_process_that_does_not_end")
            .spawn()
            .unwrap(),
    );
    let lines = BufReader::new(tests.0.stdout.take().unwrap()).lines();
    let directory = lines.map(Result::unwrap).find(|line| line.starts_with('/'));
    let directory = directory.unwrap();
    let entry = format!("{MARK}={}:", tests.0.id());
    let left = || marked(|other| other.starts_with(entry.as_bytes())).len();
    wait_for("the processes to run", || left() == 3);
    tests.0.kill().unwrap();
    wait_for("the guardian to end them", || left() == 0);
    // The guardian bears this test's mark too, so that the end of this test would cut its work
    // short.
    let all = Path::new(&directory).ancestors().nth(2).unwrap();
    wait_for("the directory of all tests to go", || !all.exists());
}

#[test]
fn a_test_that_times_out_fails_alone() {
    let mut tests = alone("fixture_that_waits_for_a_process_that_does_not_end");
    let output = finish(tests.env(LIMIT_VARIABLE, "1"), SOON);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("does_not_end: killed after 1s"), "{said}");
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(summary.contains("0 passed; 1 failed"), "{summary}{said}");
}
