//! One test: its processes and its files end with it, its time is bounded, and what the shell of the developer set does
//! not change it.

use std::cell::OnceCell;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio, abort};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit, umask};

/// Time after which a test has failed. The longest takes a tenth of it on an idle machine.
const LIMIT: Duration = Duration::from_secs(240);
/// Time that a test has to fail by itself once its processes are gone.
const LAST_MOMENT: Duration = Duration::from_secs(20);
/// Descriptors that the tests need: one holds 300 connections.
const DESCRIPTORS: u64 = 1024;
/// Variable that tells the processes of a test from others.
const VARIABLE: &str = "IT_TEST";

thread_local! {
    /// Set by the first process or file of a test, dropped with the test's thread.
    static TEST: OnceCell<Arc<Test>> = const { OnceCell::new() };
}

/// A test that runs on this thread.
struct Test {
    /// Name of the test, after which the harness names its thread.
    name: String,
    /// `VARIABLE=VALUE` in the environment of each of its processes.
    mark: String,
    directory: PathBuf,
    files: AtomicUsize,
}

impl Test {
    fn current() -> Arc<Test> {
        TEST.with(|test| Arc::clone(test.get_or_init(Test::begin)))
    }

    fn begin() -> Arc<Test> {
        static RESET: Once = Once::new();
        static TESTS: AtomicUsize = AtomicUsize::new(0);
        RESET.call_once(reset_inherited);
        let thread = thread::current();
        // A test can make threads, each with processes of its own.
        let name = thread.name().unwrap_or("a thread of a test");
        let id = format!(
            "{}-{}",
            std::process::id(),
            TESTS.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(format!("livelet-it-{id}"));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let test = Arc::new(Test {
            name: name.to_string(),
            mark: format!("{VARIABLE}={id}"),
            directory,
            files: AtomicUsize::new(0),
        });
        // With --test-threads=1 every test runs on the main thread.
        if name != "main" {
            let test = Arc::downgrade(&test);
            thread::spawn(move || {
                thread::sleep(LIMIT);
                let Some(late) = test.upgrade() else { return };
                eprintln!(
                    "{} still runs after {LIMIT:?}: its processes are killed",
                    late.name
                );
                late.kill_processes();
                drop(late);
                thread::sleep(LAST_MOMENT);
                if test.upgrade().is_some() {
                    abort();
                }
            });
        }
        test
    }

    /// Kills every process of the test, whoever its parent is now.
    fn kill_processes(&self) {
        // A process can start others until it is killed.
        for _ in 0..1000 {
            let running: Vec<Pid> = super::pids().filter(|pid| self.has_process(*pid)).collect();
            if running.is_empty() {
                return;
            }
            for pid in running {
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn has_process(&self, pid: Pid) -> bool {
        let path = format!("/proc/{}/environ", pid.as_raw_pid());
        let environment = fs::read(path).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == self.mark.as_bytes())
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        self.kill_processes();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Returns a path in the temporary directory that nothing else has; what is there at the end of the test is removed.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let test = Test::current();
    let number = test.files.fetch_add(1, Ordering::Relaxed);
    test.directory.join(format!("{number}-{name}"))
}

/// Returns a new directory, which is removed at the end of the test.
pub(crate) fn scratch_directory() -> PathBuf {
    let path = scratch("directory");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// Returns a command whose process is one of the test, without the variables that change what livelet does.
pub(crate) fn command(program: &str) -> Command {
    let test = Test::current();
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let starts = ["LIVELET_", "LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET"];
        if starts.iter().any(|start| name.starts_with(start)) {
            command.env_remove(&*name);
        }
    }
    let (name, value) = test.mark.split_once('=').unwrap();
    command.env(name, value);
    // The notify sockets of livelets that were killed are removed with the directory.
    command.env("XDG_RUNTIME_DIR", &test.directory);
    command.stdin(Stdio::null());
    command
}

/// Undoes what a shell, nohup(1) or a job runner has set. The signal mask is std's to reset: it does for each command.
fn reset_inherited() {
    umask(Mode::from_raw_mode(0o022));
    let mut descriptors = getrlimit(Resource::Nofile);
    if descriptors
        .current
        .is_some_and(|current| current < DESCRIPTORS)
    {
        let most = descriptors.maximum.unwrap_or(DESCRIPTORS);
        descriptors.current = Some(DESCRIPTORS.min(most));
        setrlimit(Resource::Nofile, descriptors).unwrap();
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
    ] {
        if ignored & 1 << (signal - 1) != 0 {
            // execve(2) keeps what is ignored, and resets what has a handler. Here the signal stays without effect.
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).unwrap();
        }
    }
}
