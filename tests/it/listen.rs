//! Ports that another process holds, and sockets that livelet inherits.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

use socket2::{Domain, Socket, Type};

use crate::support::{
    Livelet, SOON, assert_closed, binary, command, connect, finish, has_ipv6, livelet, probe,
    read_response, wait_for, wait_until_listening,
};

/// Address of these tests. On 127.0.0.1 another test's outgoing connection could get the port.
const ADDR: &str = "127.0.0.6:0";

/// Returns the last message of a livelet that gives up.
fn refused(args: &[&str]) -> String {
    let output = finish(livelet().args(args), SOON);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{args:?}: {stderr}");
    stderr
}

#[test]
fn livelet_takes_a_port_as_soon_as_another_program_frees_it() {
    let other = TcpListener::bind(ADDR).unwrap();
    let addr = other.local_addr().unwrap();
    let mut new = Livelet::spawn(livelet().args(["--listen", &addr.to_string()]));
    new.wait_until_said("waiting up to 10s");
    let holder = format!("held by pid {} (", std::process::id());
    assert!(new.said.contains(&holder), "{}", new.said);
    drop(other);
    new.wait_until_ready(1);
    assert_eq!(probe(addr, "/livez").status, 200);
    assert_eq!(new.said.lines().count(), 1, "{}", new.said);
}

/// The kernel gives an outgoing connection any free port of `net.ipv4.ip_local_port_range`, and
/// 9090 may be in it.
#[test]
fn an_outgoing_connection_that_uses_the_port_is_named() {
    let server = TcpListener::bind("127.0.0.10:0").unwrap();
    let peer = server.local_addr().unwrap();
    let client = TcpStream::connect(peer).unwrap();
    let port = client.local_addr().unwrap().port();
    for listen in [format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}")] {
        let mut command = livelet();
        command.args(["--listen", &listen, "--bind-wait", "0s"]);
        let output = finish(&mut command, SOON);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        let holder = format!(
            "livelet: listen: {listen}: held by pid {} (",
            std::process::id()
        );
        assert!(stderr.starts_with(&holder), "{stderr}");
        let role = format!("), as the local port of a connection to {peer}; ");
        assert!(stderr.contains(&role), "{stderr}");
        assert!(
            stderr.contains("net.ipv4.ip_local_reserved_ports"),
            "{stderr}"
        );
    }
}

#[test]
fn a_signal_ends_the_wait_for_a_port_in_use() {
    let other = TcpListener::bind(ADDR).unwrap();
    let addr = other.local_addr().unwrap().to_string();
    for (signal, command, code) in [
        ("TERM", &[][..], 0),
        ("USR2", &[], 0),
        ("TERM", &["--", "sleep", "100"], 143),
        ("INT", &["--", "sleep", "100"], 130),
    ] {
        let mut new = Livelet::spawn(livelet().args(["--listen", &addr]).args(command));
        new.wait_until_said("waiting");
        new.signal(signal);
        assert_eq!(new.wait(SOON).code(), Some(code), "{signal} {command:?}");
    }
}

#[test]
fn the_process_that_uses_the_port_is_named() {
    let other = TcpListener::bind(ADDR).unwrap();
    let addr = other.local_addr().unwrap().to_string();
    let said = refused(&["--listen", &addr, "--bind-wait", "100ms"]);
    let own = std::env::current_exe().unwrap();
    assert_eq!(said.lines().count(), 2, "{said}");
    for line in said.lines() {
        for part in [
            addr.as_str(),
            &format!("pid {}", std::process::id()),
            own.to_str().unwrap(),
            "--bind-wait",
        ] {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }

    let healthy = Livelet::start_on(&[ADDR], &[]);
    let addr = healthy.addr().to_string();
    let said = refused(&["--listen", &addr, "--bind-wait", "0s"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in [
        addr.as_str(),
        &format!("pid {}", healthy.pid()),
        &binary(),
        "for 0s",
        "--takeover replaces it",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    assert_eq!(probe(healthy.addr(), "/livez").status, 200);
}

#[test]
fn the_command_line_of_a_port_owner_is_cut_off_before_the_hint_is() {
    let classpath = "/usr/share/java/library.jar:".repeat(100);
    let holder = Livelet::start_on(&[ADDR], &["--", "sh", "-c", "exec sleep 100", &classpath]);
    let said = refused(&["--listen", &holder.addr().to_string(), "--bind-wait", "0s"]);
    for part in ["library.jar", "...", "--takeover replaces it"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
}

#[test]
fn a_livelet_on_an_overlapping_address_is_named_and_not_replaced() {
    let pairs = [
        ("127.0.0.6", "[::]"),
        ("[::]", "127.0.0.6"),
        ("0.0.0.0", "[::]"),
        ("[::]", "0.0.0.0"),
        ("[::1]", "[::]"),
        ("0.0.0.0", "127.0.0.6"),
        ("127.0.0.6", "0.0.0.0"),
    ];
    let has_ipv6 = has_ipv6();
    let possible =
        |pair: &&(&str, &str)| has_ipv6 || !(pair.0.contains(':') || pair.1.contains(':'));
    for (held, wanted) in pairs.iter().filter(possible) {
        let case = format!("{held} against {wanted}");
        let (_reserved, port) = reserve_port();
        let holder = Livelet::start_on(&[&format!("{held}:{port}")], &[]);
        let wanted = format!("{wanted}:{port}");
        let said = refused(&["--listen", &wanted, "--takeover", "--bind-wait", "50ms"]);
        let named = format!("pid {}", holder.pid());
        for part in [&wanted, &named, &format!("listens on {held}:{port}")] {
            assert!(said.contains(part), "{case}: no {part} in {said}");
        }
        let ip = held
            .replace("0.0.0.0", "127.0.0.1")
            .replace("[::]", "[::1]");
        let addr = format!("{ip}:{port}").parse().unwrap();
        assert_eq!(probe(addr, "/livez").status, 200, "{case}");
    }
    // Addresses that do not overlap are bound.
    let (_reserved, port) = reserve_port();
    let _holder = Livelet::start_on(&[&format!("127.0.0.6:{port}")], &[]);
    let other = if has_ipv6 { "[::1]" } else { "127.0.0.5" };
    let other = format!("{other}:{port}");
    let beside = Livelet::start_on(&[&other], &["--bind-wait", "0s"]);
    assert_eq!(probe(beside.addr(), "/livez").status, 200);
}

/// Returns a port that the kernel gives to no other socket while the returned socket is open. A
/// program that names the port and sets SO_REUSEADDR, as livelet does, can still bind to it.
fn reserve_port() -> (Socket, u16) {
    let (domain, any) = if has_ipv6() {
        (Domain::IPV6, "[::]:0")
    } else {
        (Domain::IPV4, "0.0.0.0:0")
    };
    let socket = Socket::new(domain, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if domain == Domain::IPV6 {
        socket.set_only_v6(false).unwrap();
    }
    let any: SocketAddr = any.parse().unwrap();
    socket.bind(&any.into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[test]
fn a_takeover_works_for_each_kind_of_address() {
    let kinds = ["127.0.0.6:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "0"];
    let count = if has_ipv6() { kinds.len() } else { 2 };
    for kind in &kinds[..count] {
        let mut old = Livelet::start_on(&[kind], &[]);
        let addr = old.addr().to_string();
        let wanted = if *kind == "0" {
            old.addr().port().to_string()
        } else {
            addr.clone()
        };
        let new = Livelet::start_on(&[&wanted], &["--takeover"]);
        assert_eq!(new.addr().to_string(), addr, "{kind}");
        assert_eq!(
            new.origins,
            [format!("(taken over from pid {})", old.pid())]
        );
        assert_eq!(old.wait(SOON).code(), Some(0), "{kind}");
    }
}

#[test]
fn a_takeover_of_some_addresses_also_binds_the_free_ones() {
    let mut old = Livelet::start_on(&[ADDR, ADDR, ADDR], &[]);
    let [a, b, c] = [0, 1, 2].map(|index| old.addrs[index].to_string());
    // Two of its three, and one that is free.
    let new = Livelet::start_on(&[&b, ADDR, &a], &["--takeover"]);
    let taken = format!("(taken over from pid {})", old.pid());
    assert_eq!(new.origins, [taken.as_str(), "", taken.as_str()]);
    assert_eq!(old.wait(SOON).code(), Some(0));
    assert!(TcpStream::connect(&c).is_err());
    for addr in &new.addrs {
        assert_eq!(probe(*addr, "/livez").status, 200);
    }

    // One is held by another program: nothing listens on the others meanwhile.
    let other = TcpListener::bind(ADDR).unwrap();
    let held = other.local_addr().unwrap().to_string();
    let mut waiting = Livelet::spawn(livelet().args(["--listen", &c, "--listen", &held]));
    waiting.wait_until_said("waiting");
    wait_for("the free address to be let go", || {
        TcpStream::connect(&c).is_err()
    });
    drop(other);
    waiting.wait_until_ready(2);
    assert_eq!(probe(waiting.addrs[0], "/livez").status, 200);
}

/// Returns the command of a livelet that inherits this as descriptor 3, with these variables and
/// arguments.
fn with_inherited(descriptor: OwnedFd, variables: &str, args: &str) -> Command {
    let mut command = command("sh");
    let script = format!("exec 3<&0 </dev/null; {variables} exec \"$0\" {args}");
    command.args(["-c", &script, &binary()]);
    command.stdin(Stdio::from(descriptor));
    command
}

fn listening() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind(ADDR).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

#[test]
fn connections_queued_on_an_inherited_socket_are_answered() {
    for variables in ["LISTEN_FDS=1", "LISTEN_FDS=1 LISTEN_PID=$$"] {
        let (socket, addr) = listening();
        let mut queued = connect(addr);
        queued
            .write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut command = with_inherited(socket.into(), variables, "--listen 127.0.0.1:1");
        let mut livelet = Livelet::start_command(&mut command, 1);
        assert_eq!(livelet.addr(), addr, "{variables}");
        assert_eq!(livelet.origins, ["(inherited)"], "{variables}");
        assert_eq!(read_response(&mut queued).status, 200, "{variables}");
        assert_closed(&mut queued);
        livelet.signal("TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(0));
    }
}

#[test]
fn inherited_sockets_for_another_pid_are_ignored() {
    let (socket, addr) = listening();
    let variables = "LISTEN_FDS=1 LISTEN_PID=1";
    let mut command = with_inherited(socket.into(), variables, "--listen 127.0.0.6:0");
    let livelet = Livelet::start_command(&mut command, 1);
    assert_ne!(livelet.addr(), addr);
    assert_eq!(livelet.origins, [""]);
}

#[test]
fn inherited_descriptors_that_do_not_listen_are_refused() {
    let (listening, addr) = listening();
    let unusable: [OwnedFd; 3] = [
        TcpStream::connect(addr).unwrap().into(),
        UdpSocket::bind(ADDR).unwrap().into(),
        std::fs::File::open("/dev/null").unwrap().into(),
    ];
    for descriptor in unusable {
        let output = finish(&mut with_inherited(descriptor, "LISTEN_FDS=1", ""), SOON);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{stderr}");
        assert!(stderr.contains("LISTEN_FDS"), "{stderr}");
    }
    // One of two is enough; the other is not there at all.
    let mut command = with_inherited(listening.into(), "LISTEN_FDS=2", "");
    let mut livelet = Livelet::spawn(&mut command);
    livelet.wait_until_ready(1);
    assert_eq!(livelet.addr(), addr);
    assert!(livelet.said.contains("descriptor 4"), "{}", livelet.said);
}

#[test]
fn the_worker_inherits_no_descriptor_of_livelet() {
    let (socket, _) = listening();
    let script = "-- sh -c 'ls /proc/self/fd >&2; env | grep ^LISTEN >&2; echo end >&2; sleep 100'";
    let variables = "LISTEN_FDS=1 LISTEN_FDNAMES=livelet";
    let mut livelet = Livelet::spawn(&mut with_inherited(socket.into(), variables, script));
    livelet.wait_until_said("end");
    let numbers =
        |text: &str| -> Vec<u32> { text.lines().filter_map(|line| line.parse().ok()).collect() };
    // Descriptors that a worker would have without livelet: the caller of the tests may leave some
    // open.
    let without = command("sh")
        .args(["-c", "exec sh -c 'ls /proc/self/fd'"])
        .output()
        .unwrap();
    let without = String::from_utf8(without.stdout).unwrap();
    assert_eq!(
        numbers(&livelet.said),
        numbers(&without),
        "{}",
        livelet.said
    );
    assert!(!livelet.said.contains("LISTEN_"), "{}", livelet.said);
}

/// Prints what a worker inherits: the variables, and the descriptors from 3 on.
const SHOW_INHERITED: &str = "[ \\$LISTEN_PID = \\$\\$ ] && own=own || own=other; \
    echo fds=\\$LISTEN_FDS names=\\$LISTEN_FDNAMES pid=\\$own \
    3=\\$(readlink /proc/\\$\\$/fd/3) 4=\\$(readlink /proc/\\$\\$/fd/4) >&2; exec sleep 100";

#[test]
fn inherited_descriptors_not_meant_for_livelet_go_to_the_worker() {
    for (names, expected) in [
        (
            "livelet:one:two",
            "fds=2 names=one:two pid=own 3=/etc/passwd 4=/etc/group",
        ),
        ("::two", "fds=1 names=two pid=own 3=/etc/group"),
        (
            "unknown:one:two",
            "fds=2 names=one:two pid=own 3=/etc/passwd 4=/etc/group",
        ),
    ] {
        let (socket, addr) = listening();
        let mut command = command("sh");
        let script = format!(
            "exec 3<&0 4</etc/passwd 5</etc/group </dev/null; LISTEN_FDS=3 LISTEN_PID=$$ \
             LISTEN_FDNAMES={names} exec \"$0\" -- sh -c \"{SHOW_INHERITED}\""
        );
        command.args(["-c", &script, &binary()]);
        command.stdin(Stdio::from(OwnedFd::from(socket)));
        let mut livelet = Livelet::spawn(&mut command);
        livelet.wait_until_said("fds=");
        assert!(livelet.said.contains(expected), "{names}: {}", livelet.said);
        assert_eq!(wait_until_listening(livelet.pid()), addr, "{names}");
    }
}

#[test]
fn with_a_listen_option_all_inherited_sockets_are_passed_to_the_worker() {
    let (socket, addr) = listening();
    let inode = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    let script = format!("--listen 127.0.0.1:0 -- sh -c \"{SHOW_INHERITED}\"");
    let mut command = with_inherited(socket.into(), "LISTEN_FDS=1", &script);
    let mut livelet = Livelet::spawn(&mut command);
    livelet.wait_until_said("fds=");
    let expected = format!("fds=1 names= pid=own 3={}", inode.display());
    assert!(livelet.said.contains(&expected), "{}", livelet.said);
    assert_ne!(wait_until_listening(livelet.pid()), addr);
    // A worker that closes the socket must be the last to have it. The worker may run before
    // livelet closes its own copy.
    wait_for("livelet to close the worker's socket", || {
        let held = std::fs::read_dir(format!("/proc/{}/fd", livelet.pid())).unwrap();
        let mut links = held.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        !links.any(|link| link == inode)
    });
}
