//! What a worker says over NOTIFY_SOCKET, and what is passed on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use support::{Livelet, SOON, binary, livelet, probe, uninterrupted, wait_for};

/// A worker that says what the test writes to a file of its own, a line a message; `;` stands for a line end in one.
struct Worker {
    livelet: Livelet,
    script: std::path::PathBuf,
}

impl Worker {
    fn start(name: &str, args: &[&str], above: Option<&str>) -> Worker {
        let script =
            std::env::temp_dir().join(format!("livelet-notify-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&script);
        let loops = "while :; do if [ -e $1 ]; then mv $1 $1.now; \
             while read -r line; do echo \"$line\" | tr ';' '\\n' | xargs -d '\\n' \"$0\" notify; done <$1.now; fi; \
             sleep 0.01; done";
        let mut command = livelet();
        command.args(["-l", "127.0.0.1:0"]).args(args);
        command.args(["--", "sh", "-c", loops, &binary(), script.to_str().unwrap()]);
        match above {
            Some(name) => command.env("NOTIFY_SOCKET", name),
            None => command.env_remove("NOTIFY_SOCKET"),
        };
        let livelet = Livelet::start_command(&mut command, 1);
        Worker { livelet, script }
    }

    fn say(&self, lines: &str) {
        let whole = self.script.with_extension("new");
        std::fs::write(&whole, lines).unwrap();
        std::fs::rename(&whole, &self.script).unwrap();
    }

    fn await_status(&self, path: &str, status: u16) -> String {
        let mut body = String::new();
        wait_for(&format!("{path} to be {status}"), || {
            let response = probe(self.livelet.addr(), path);
            body = response.body;
            response.status == status
        });
        body
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.script);
        let _ = std::fs::remove_file(self.script.with_extension("now"));
    }
}

#[test]
fn a_worker_says_when_it_is_ready() {
    let worker = Worker::start("ready", &["--ready", "notify"], None);
    let body = worker.await_status("/readyz", 503);
    assert!(
        body.contains("[-]notify failed: the worker has not said READY=1"),
        "{body}"
    );
    worker.await_status("/livez", 200);
    worker.say("READY=1;STATUS=at work\n");
    worker.await_status("/readyz", 200);
    let body = worker.await_status("/readyz?verbose", 200);
    assert!(body.contains("the worker says: at work\n"), "{body}");
    worker.say("RELOADING=1\n");
    let body = worker.await_status("/readyz", 503);
    assert!(body.contains("RELOADING=1 (at work)"), "{body}");
    worker.say("READY=1\n");
    worker.await_status("/readyz", 200);
    worker.say("STOPPING=1\n");
    worker.await_status("/readyz", 503);
    worker.await_status("/startupz", 200);
    worker.await_status("/livez", 200);
}

#[test]
fn a_watchdog_bites_and_lets_go() {
    let worker = Worker::start("watchdog", &["--live", "watchdog:1s"], None);
    worker.await_status("/livez", 200);
    let body = worker.await_status("/livez", 503);
    assert!(
        body.contains("[-]watchdog failed: no WATCHDOG=1 for 1s, limit 1s"),
        "{body}"
    );
    worker.say("WATCHDOG=1\n");
    worker.await_status("/livez", 200);
    let body = worker.await_status("/livez", 503);
    assert!(body.contains("the last WATCHDOG=1 is 1s old"), "{body}");
    worker.say("WATCHDOG=1;WATCHDOG_USEC=3600000000\n");
    worker.await_status("/livez", 200);
    worker.say("WATCHDOG=trigger\n");
    worker.await_status("/livez", 503);
}

#[test]
fn its_environment_tells_the_worker_where_to_say_it() {
    for (args, expected) in [
        (&["--live", "watchdog:90s"][..], "usec=90000000 pid=own"),
        (&[], "usec= pid=other"),
    ] {
        let mut command = livelet();
        command.args(["-l", "127.0.0.1:0"]).args(args);
        command
            .env("NOTIFY_SOCKET", "@nobody")
            .env("WATCHDOG_USEC", "7")
            .env("WATCHDOG_PID", "7")
            .env("KEPT", "a=b");
        command.args([
            "--",
            "sh",
            "-c",
            "[ \"$WATCHDOG_PID\" = $$ ] && pid=own || pid=other; \
             echo usec=$WATCHDOG_USEC pid=$pid socket=$NOTIFY_SOCKET kept=$KEPT >&2; sleep 1000",
        ]);
        let mut livelet = Livelet::spawn(&mut command);
        livelet.wait_until_said("usec=");
        assert!(
            livelet.said.contains(&format!("{expected} socket=@")),
            "{}",
            livelet.said
        );
        assert!(!livelet.said.contains("socket=@nobody"), "{}", livelet.said);
    }
}

fn supervisor(name: &str) -> (UnixDatagram, String) {
    let name = format!("livelet-test-{name}-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    (socket, format!("@{name}"))
}

fn receive(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = uninterrupted(|| socket.recv(&mut message)).unwrap();
    String::from_utf8(message[..length].to_vec()).unwrap()
}

#[test]
fn what_the_worker_says_is_passed_on() {
    let (socket, above) = supervisor("worker");
    let worker = Worker::start("above", &["--ready", "notify"], Some(&above));
    worker.say("MAINPID=1;READY=1;STATUS=fine;FDSTORE=1\nX=y\nWATCHDOG=1\n");
    assert_eq!(receive(&socket), "READY=1\nSTATUS=fine");
    assert_eq!(receive(&socket), "WATCHDOG=1");
}

#[test]
fn livelet_is_ready_by_itself_where_nobody_else_says_so() {
    let (socket, above) = supervisor("self");
    for args in [&[][..], &["--", "sleep", "1000"]] {
        let mut command = livelet();
        command
            .args(["-l", "127.0.0.1:0"])
            .args(args)
            .env("NOTIFY_SOCKET", &above);
        let _livelet = Livelet::start_command(&mut command, 1);
        assert_eq!(receive(&socket), "READY=1", "{args:?}");
    }
    let _worker = Worker::start("silent", &["--ready", "notify"], Some(&above));
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(uninterrupted(|| socket.recv(&mut [0; 16])).is_err());
}

/// Where the worker of a livelet says things.
fn notify_socket(livelet: &Livelet) -> SocketAddr {
    let worker = support::descendants(livelet.pid())[0];
    let environ = std::fs::read_to_string(format!("/proc/{worker}/environ")).unwrap();
    let name = environ
        .split('\0')
        .find_map(|pair| pair.strip_prefix("NOTIFY_SOCKET=@"))
        .unwrap();
    SocketAddr::from_abstract_name(name).unwrap()
}

#[test]
fn a_supervisor_that_does_not_read_stops_nothing() {
    let (_socket, above) = supervisor("deaf");
    let mut command = livelet();
    command.args(["-v", "-l", "127.0.0.1:0", "--ready", "notify"]);
    command.args(["--", "sleep", "1000"]);
    let mut livelet = Livelet::start_command(command.env("NOTIFY_SOCKET", above), 1);
    let address = notify_socket(&livelet);
    let sender = UnixDatagram::unbound().unwrap();
    // More than unread messages fit into any socket (net.unix.max_dgram_qlen).
    for _ in 0..2000 {
        sender.send_to_addr(b"WATCHDOG=1", &address).unwrap();
    }
    sender.send_to_addr(b"READY=1", &address).unwrap();
    livelet.wait_until_said("Resource temporarily unavailable");
    wait_for("what it said last", || {
        probe(livelet.addr(), "/readyz").status == 200
    });
}

#[test]
fn an_empty_notify_socket_is_none() {
    let mut command = livelet();
    command.args(["-l", "127.0.0.1:0", "--", "sh", "-c", "exit 0"]);
    let mut livelet = Livelet::start_command(command.env("NOTIFY_SOCKET", ""), 1);
    livelet.wait(SOON);
    let log = livelet.log();
    assert!(!log.contains("notify:"), "{log}");
}

#[test]
fn garbage_harms_nothing() {
    let mut worker = Worker::start("garbage", &["-v", "--ready", "notify"], None);
    let address = notify_socket(&worker.livelet);
    let sender = UnixDatagram::unbound().unwrap();
    for message in [
        &b""[..],
        b"\0",
        b"READY=1\0\0",
        b"STATUS=\xff\xfe",
        b"=\n==\nREADY",
        &[b'x'; 4097],
        &[b'\n'; 4096],
    ] {
        sender.send_to_addr(message, &address).unwrap();
    }
    worker.livelet.wait_until_said("malformed");
    worker.livelet.wait_until_said("too long");
    worker.await_status("/readyz", 503);
    sender.send_to_addr(b"READY=1", &address).unwrap();
    worker.await_status("/readyz", 200);
}
