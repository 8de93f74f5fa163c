//! Messages of a worker over NOTIFY_SOCKET, and their relay.

use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::support::{
    AT_ONCE, Livelet, SOON, binary, livelet, probe, scratch, scratch_directory, uninterrupted,
    wait_for, worker_of,
};
use rustix::io::write;
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr,
};
use rustix::pipe::pipe;
use socket2::{Domain, Socket, Type};

/// A worker that says what the test writes to a file of its own, a line a message; `;` stands for a
/// line end in one.
struct Worker {
    livelet: Livelet,
    script: std::path::PathBuf,
}

impl Worker {
    fn start(name: &str, args: &[&str], above: Option<&str>) -> Worker {
        let script = scratch(name);
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

#[test]
fn ready_reloading_and_stopping_messages_change_readiness() {
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
fn a_watchdog_check_fails_without_new_messages_and_recovers() {
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

/// Returns what a worker finds in its environment.
fn environment_of_worker(args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = livelet();
    command.args(["-l", "127.0.0.1:0"]).args(args);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).env("KEPT", "a=b");
    command.args([
        "--",
        "sh",
        "-c",
        "echo usec=$WATCHDOG_USEC pid=$WATCHDOG_PID kept=$KEPT socket=${NOTIFY_SOCKET-unset} >&2; sleep 1000",
    ]);
    let mut livelet = Livelet::spawn(&mut command);
    livelet.wait_until_said("usec=");
    let line = livelet.said.lines().find(|line| line.starts_with("usec="));
    line.unwrap().to_string()
}

#[test]
fn the_worker_gets_notify_socket_and_the_smaller_watchdog_limit() {
    let above = ("NOTIFY_SOCKET", "@nobody");
    for (args, variables, expected) in [
        (&[][..], &[][..], "usec= pid= kept=a=b socket=unset"),
        (&["--ready", "notify"], &[], "usec= pid= kept=a=b socket=/"),
        (&[], &[above], "usec= pid= kept=a=b socket=/"),
        (
            &["--live", "watchdog:90s", "--ready", "watchdog:80s"],
            &[],
            "usec=80000000 pid= kept=a=b socket=/",
        ),
        (
            &["--live", "watchdog:90s"],
            &[above, ("WATCHDOG_USEC", "7")],
            "usec=7 pid= kept=a=b socket=/",
        ),
        (
            &["--live", "watchdog:3s"],
            &[above, ("WATCHDOG_USEC", "7000000")],
            "usec=3000000 pid= kept=a=b socket=/",
        ),
        (
            &[],
            &[above, ("WATCHDOG_USEC", "7")],
            "usec=7 pid= kept=a=b socket=/",
        ),
        // The limit of another process.
        (
            &[],
            &[above, ("WATCHDOG_USEC", "7"), ("WATCHDOG_PID", "1")],
            "usec= pid= kept=a=b socket=/",
        ),
    ] {
        let line = environment_of_worker(args, variables);
        assert!(line.starts_with(expected), "{args:?} {variables:?}: {line}");
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
fn a_relayed_message_lacks_process_and_descriptor_fields() {
    let (socket, above) = supervisor("worker");
    let worker = Worker::start("above", &["--ready", "notify"], Some(&above));
    worker.say(
        "MAINPID=1;READY=1;STATUS=fine;FDSTORE=1;FDNAME=x;NOTIFYACCESS=all\nBARRIER=1\nX=y\n\
         RELOADING=1;MONOTONIC_USEC=12\nWATCHDOG=1\n",
    );
    assert_eq!(receive(&socket), "READY=1\nSTATUS=fine");
    assert_eq!(receive(&socket), "X=y");
    assert_eq!(receive(&socket), "RELOADING=1\nMONOTONIC_USEC=12");
    assert_eq!(receive(&socket), "WATCHDOG=1");
}

#[test]
fn without_a_worker_livelet_sends_watchdog_while_liveness_passes() {
    let (socket, above) = supervisor("watchdog");
    let file = scratch("alive");
    std::fs::write(&file, "").unwrap();
    let mut command = livelet();
    let check = format!("file:{}", file.display());
    command.args(["-l", "127.0.0.1:0", "--live", &check]);
    command.env("NOTIFY_SOCKET", &above);
    command.env("WATCHDOG_USEC", "100000");
    let mut livelet = Livelet::start_command(&mut command, 1);
    assert_eq!(receive(&socket), "READY=1");
    for _ in 0..3 {
        assert_eq!(receive(&socket), "WATCHDOG=1");
    }
    std::fs::remove_file(&file).unwrap();
    livelet.wait_until_said("file failed");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    // One may have been sent before the check failed.
    while uninterrupted(|| socket.recv(&mut [0; 16])).is_ok() {}
    std::fs::write(&file, "").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(receive(&socket), "WATCHDOG=1");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn livelet_sends_ready_to_the_supervisor_unless_the_worker_does() {
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

/// Returns the address of a livelet's notify socket, from the environment of its worker.
fn notify_socket(livelet: &Livelet) -> SocketAddr {
    let worker = worker_of(livelet.pid());
    let mut name = None;
    wait_for("the worker's environment", || {
        let environ = std::fs::read_to_string(format!("/proc/{worker}/environ")).unwrap();
        let mut variables = environ.split('\0');
        let found = variables.find_map(|pair| pair.strip_prefix("NOTIFY_SOCKET="));
        name = found.map(String::from);
        name.is_some()
    });
    let name = name.unwrap();
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).unwrap(),
        None => SocketAddr::from_pathname(name).unwrap(),
    }
}

#[test]
fn a_supervisor_that_reads_nothing_does_not_block_the_workers_messages() {
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
    livelet.wait_until_said("resource temporarily unavailable");
    wait_for("what it said last", || {
        probe(livelet.addr(), "/readyz").status == 200
    });
}

#[test]
fn an_empty_notify_socket_variable_counts_as_unset() {
    let mut command = livelet();
    command.args(["-l", "127.0.0.1:0", "--", "sh", "-c", "exit 0"]);
    let mut livelet = Livelet::start_command(command.env("NOTIFY_SOCKET", ""), 1);
    livelet.wait(SOON);
    let log = livelet.log();
    assert!(!log.contains("notify:"), "{log}");
}

#[test]
fn malformed_notify_messages_are_ignored() {
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
    worker.livelet.wait_until_said("longer than");
    worker.await_status("/readyz", 503);
    sender.send_to_addr(b"READY=1", &address).unwrap();
    worker.await_status("/readyz", 200);
}

/// Sends a message with descriptors.
fn send_with(address: &SocketAddr, message: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let sender = UnixDatagram::unbound().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let address = SocketAddrUnix::new(address.as_pathname().unwrap()).unwrap();
    let parts = [IoSlice::new(message)];
    sendmsg_addr(&sender, &address, &parts, &mut control, SendFlags::empty()).unwrap();
}

#[test]
fn a_notify_barrier_is_closed_after_earlier_messages_are_read() {
    let worker = Worker::start("barrier", &["--ready", "notify"], None);
    let address = notify_socket(&worker.livelet);
    let (reader, writer) = pipe().unwrap();
    let mut reader = std::fs::File::from(reader);
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to_addr(b"READY=1", &address).unwrap();
    send_with(&address, b"BARRIER=1", &[writer.as_fd()]);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    assert_eq!(probe(worker.livelet.addr(), "/readyz").status, 200);
}

/// Returns a socket whose close(2) waits for 60 s: it lingers, and its peer does not read.
fn lingering() -> (TcpListener, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let address = listener.local_addr().unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_linger(Some(Duration::from_secs(60))).unwrap();
    socket.set_nonblocking(true).unwrap();
    while write(&socket, &[0; 65536]).is_ok() {}
    (listener, socket)
}

#[test]
fn received_descriptors_that_hang_in_close_do_not_block_livelet() {
    let mut worker = Worker::start("linger", &["--ready", "notify"], None);
    let address = notify_socket(&worker.livelet);
    // livelet must be the last to close them.
    worker.livelet.freeze();
    let mut peers = Vec::new();
    for _ in 0..3 {
        let (listener, socket) = lingering();
        send_with(&address, b"STATUS=lingers", &[socket.as_fd()]);
        peers.push(listener);
    }
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to_addr(b"READY=1", &address).unwrap();
    worker.livelet.signal("CONT");
    worker.await_status("/readyz", 200);
    worker.livelet.signal("TERM");
    let (_, took) = worker.livelet.wait_timed(std::time::Instant::now());
    assert!(took < AT_ONCE, "{took:?}");
}

/// A directory for XDG_RUNTIME_DIR.
struct RuntimeDirectory(std::path::PathBuf);

impl RuntimeDirectory {
    fn new() -> RuntimeDirectory {
        RuntimeDirectory(scratch_directory())
    }

    fn start(&self) -> Livelet {
        let mut command = livelet();
        command.args(["-l", "127.0.0.1:0", "--ready", "notify"]);
        command.args(["--", "sleep", "1000"]);
        let livelet = Livelet::start_command(command.env("XDG_RUNTIME_DIR", &self.0), 1);
        // The socket comes with the worker, after the ready line.
        worker_of(livelet.pid());
        livelet
    }

    fn entries(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

#[test]
fn the_directory_of_the_notify_socket_is_removed_at_the_exit() {
    let directory = RuntimeDirectory::new();
    let mut livelet = directory.start();
    let address = notify_socket(&livelet);
    let [entry] = &directory.entries()[..] else {
        panic!("{:?}", directory.entries());
    };
    assert_eq!(address.as_pathname().unwrap().parent(), Some(&**entry));
    livelet.signal("TERM");
    livelet.wait(SOON);
    assert!(directory.entries().is_empty(), "{:?}", directory.entries());
}

#[test]
fn a_runtime_directory_whose_path_is_too_long_is_not_used() {
    let mut directory = RuntimeDirectory::new();
    // bind(2) could use it: the name that the socket has at first is shorter.
    let length = directory.0.as_os_str().len();
    directory
        .0
        .push("x".repeat(63_usize.saturating_sub(length).max(1)));
    std::fs::create_dir(&directory.0).unwrap();
    let mut livelet = directory.start();
    let address = notify_socket(&livelet);
    assert!(!address.as_pathname().unwrap().starts_with(&directory.0));
    assert!(directory.entries().is_empty(), "{:?}", directory.entries());
    livelet.signal("TERM");
    livelet.wait(SOON);
}

#[test]
fn the_notify_directory_of_a_crashed_livelet_is_removed_at_a_start() {
    let directory = RuntimeDirectory::new();
    let running = directory.start();
    let kept = directory.entries();
    let mut crashed = directory.start();
    crashed.signal("KILL");
    crashed.wait(SOON);
    assert_eq!(directory.entries().len(), 2);
    let _next = directory.start();
    let entries = directory.entries();
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert!(entries.contains(&kept[0]), "{entries:?}");
    assert!(!notify_socket(&running).is_unnamed());
}

#[test]
fn without_notify_check_or_supervisor_no_directory_is_made() {
    let directory = RuntimeDirectory::new();
    let mut command = livelet();
    command.args(["-l", "127.0.0.1:0", "--", "sleep", "1000"]);
    command.env("XDG_RUNTIME_DIR", &directory.0);
    let _livelet = Livelet::start_command(command.env_remove("NOTIFY_SOCKET"), 1);
    assert!(directory.entries().is_empty(), "{:?}", directory.entries());
}

/// Returns the number of descriptors that a livelet has open.
fn open_descriptors(livelet: &Livelet) -> usize {
    let path = format!("/proc/{}/fd", livelet.pid());
    std::fs::read_dir(path).unwrap().count()
}

#[test]
fn received_descriptors_of_all_kinds_are_closed() {
    let worker = Worker::start("kinds", &["--ready", "notify"], None);
    let address = notify_socket(&worker.livelet);
    worker.await_status("/readyz", 503);
    let before = open_descriptors(&worker.livelet);
    let (reader, writer) = pipe().unwrap();
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    let directory = std::fs::File::open("/").unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, two) = std::os::unix::net::UnixStream::pair().unwrap();
    // A socket that is in its own queue.
    send_to_itself(&one, &two);
    let datagram = UnixDatagram::unbound().unwrap();
    let kinds = [
        reader.as_fd(),
        writer.as_fd(),
        file.as_fd(),
        directory.as_fd(),
        null.as_fd(),
        tcp.as_fd(),
        one.as_fd(),
        two.as_fd(),
        datagram.as_fd(),
    ];
    for message in [&b""[..], b"\0\0", b"STATUS=x", b"BARRIER=1", &[b'x'; 4097]] {
        for kind in kinds {
            send_with(&address, message, &[kind]);
        }
        send_with(&address, message, &kinds[..4]);
    }
    datagram.send_to_addr(b"READY=1", &address).unwrap();
    worker.await_status("/readyz", 200);
    wait_for("all of them to be closed", || {
        open_descriptors(&worker.livelet) <= before
    });
}

fn send_to_itself(one: &std::os::unix::net::UnixStream, two: &std::os::unix::net::UnixStream) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [two.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let parts = [IoSlice::new(b"x")];
    rustix::net::sendmsg(one, &parts, &mut control, SendFlags::empty()).unwrap();
}
