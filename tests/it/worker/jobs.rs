//! A stop loses no job: each process is asked once, and waited for.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{self, Livelet, SOON, binary, descendants, livelet, scratch, send, wait_for};

/// The place of livelet among the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Subreaper,
    /// PID 1 of a pid namespace.
    Init,
}

pub(crate) const PLACES: [Place; 2] = [Place::Subreaper, Place::Init];

impl Place {
    /// Returns a command that runs a program in this place.
    pub(crate) fn command(self, program: &str) -> Command {
        match self {
            Place::Subreaper => support::command(program),
            Place::Init => {
                let mut command = unshare();
                command.args(["--mount-proc", program]);
                command
            }
        }
    }

    /// Returns the pid of livelet in this place.
    pub(crate) fn pid(self, livelet: &Livelet) -> u32 {
        match self {
            Place::Subreaper => livelet.pid(),
            Place::Init => descendants(livelet.pid())[0],
        }
    }
}

/// Returns an unshare(1) with a new pid namespace. The PID 1 of the namespace dies with it.
pub(crate) fn unshare() -> Command {
    let mut command = support::command("unshare");
    command.args(["--pid", "--fork", "--kill-child"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command
}

/// A file that processes of a test write lines to.
pub(crate) struct Lines(PathBuf);

impl Lines {
    pub(crate) fn new(name: &str) -> Lines {
        Lines(scratch(name))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.read().lines().filter(|other| *other == line).count()
    }
}

/// A worker that takes TERM as `process.once('SIGTERM')` does: it finishes its job, and dies of a
/// second one.
const WORKER: &str = r#"trap 'echo TERM >> "$LINES"; stops=1; trap - TERM' TERM
    echo ready >> "$LINES"
    until [ "$stops" ]; do sleep 0.05 & wait $!; done
    i=0; while [ $i -lt 20 ]; do sleep 0.02; i=$((i + 1)); done
    echo done >> "$LINES"; exit 0"#;

const DIRECT: &[&str] = &["sh", "-c", WORKER];
const BEHIND_A_SHELL: &[&str] = &["sh", "-c", r#"sh -c "$WORKER"; true"#];
const BEHIND_A_SCRIPT: &[&str] = &["bash", "-c", r#"sh -c "$WORKER" & wait"#];
const POOL: &[&str] = &[
    "sh",
    "-c",
    r#"sh -c "$WORKER" & a=$!; sh -c "$WORKER" & b=$!; trap "kill -TERM $a $b" TERM
       echo ready >> "$LINES"; wait $a $b; wait $a; wait $b"#,
];
/// Catches TERM and does not pass it on.
const BEHIND_A_DEAF_SCRIPT: &[&str] = &["sh", "-c", r#"trap : TERM; sh -c "$WORKER" & wait; wait"#];

struct Case {
    form: &'static [&'static str],
    /// Number of processes that say when they have their trap.
    with_trap: usize,
    options: &'static [&'static str],
    /// Number of TERMs that workers saw, of jobs that were finished, and the exit code.
    expected: (usize, usize, i32),
}

fn case(
    form: &'static [&'static str],
    options: &'static [&'static str],
    expected: (usize, usize, i32),
) -> Case {
    // The two workers and their master.
    let with_trap = if form == POOL { 3 } else { 1 };
    Case {
        form,
        with_trap,
        options,
        expected,
    }
}

impl Case {
    fn run(&self, place: Place) {
        let lines = Lines::new("jobs");
        let mut command = place.command(&binary());
        command.args(["-l", "127.0.0.1:0"]).args(self.options);
        command.arg("--").args(self.form);
        command.env("WORKER", WORKER).env("LINES", lines.path());
        let mut livelet = Livelet::spawn(&mut command);
        wait_for("the workers", || lines.count("ready") == self.with_trap);
        livelet.wait_until_ready(1);
        send(place.pid(&livelet), "TERM");
        let code = livelet.wait(SOON).code().unwrap();
        assert_eq!(
            (lines.count("TERM"), lines.count("done"), code),
            self.expected,
            "{place:?}: {:?} {:?}: {}{}",
            self.options,
            self.form,
            lines.read(),
            livelet.log()
        );
    }
}

#[test]
fn at_a_stop_each_worker_gets_one_term_and_finishes_its_job() {
    let with_grace: &[&str] = &["--grace", "20s"];
    let with_group: &[&str] = &["--group"];
    let mut cases = Vec::new();
    for options in [&[], with_grace] {
        cases.extend([
            case(DIRECT, options, (1, 1, 0)),
            case(BEHIND_A_SHELL, options, (1, 1, 143)),
            case(BEHIND_A_SCRIPT, options, (1, 1, 143)),
            case(POOL, options, (2, 2, 0)),
        ]);
    }
    cases.extend([
        case(DIRECT, with_group, (1, 1, 0)),
        case(BEHIND_A_SHELL, with_group, (1, 1, 143)),
        case(BEHIND_A_SCRIPT, with_group, (1, 1, 143)),
        case(BEHIND_A_DEAF_SCRIPT, with_group, (1, 1, 0)),
        case(BEHIND_A_DEAF_SCRIPT, &["--grace", "500ms"], (0, 0, 137)),
    ]);
    std::thread::scope(|scope| {
        for place in PLACES {
            let cases = &cases;
            scope.spawn(move || cases.iter().for_each(|case| case.run(place)));
        }
    });
}

/// Does what tree-kill does for pm2, onchange and concurrently: signals the children first, then
/// livelet.
#[test]
fn a_job_gets_one_signal_if_a_watcher_signals_the_whole_tree() {
    // `once` as in Node: the handler is gone when the program has been told.
    let worker = r"sub say_to_test { open my $lines, '>>', $ENV{LINES}; print $lines qq($_[0]\n); close $lines; }
        $SIG{TERM} = sub {
            $SIG{TERM} = 'DEFAULT'; say_to_test('TERM'); select(undef, undef, undef, 0.5); say_to_test('done'); exit 0;
        };
        say_to_test('ready'); sleep 1 while 1;";
    // Perl is on every Debian.
    let direct = ["perl", "-e", worker];
    let behind_a_shell = ["sh", "-c", r#"perl -e "$WORKER"; true"#];
    for (form, code) in [(&direct, 0), (&behind_a_shell, 143)] {
        let lines = Lines::new("watcher");
        let mut command = livelet();
        command.args(["-v", "-l", "127.0.0.1:0", "--"]).args(form);
        command.env("WORKER", worker).env("LINES", lines.path());
        let mut livelet = Livelet::spawn(&mut command);
        wait_for("the worker", || lines.count("ready") == 1);
        livelet.wait_until_said("noted which signals it catches");
        let mut tree: Vec<u32> = descendants(livelet.pid());
        tree.reverse();
        tree.push(livelet.pid());
        for pid in tree {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        let said = || format!("{form:?}: {}", lines.read());
        assert_eq!(livelet.wait(SOON).code(), Some(code), "{}", said());
        assert_eq!(lines.count("TERM"), 1, "{}", said());
        assert_eq!(lines.count("done"), 1, "{}", said());
    }
}
