//! probe, notify and install.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant, SystemTime};

use crate::support::{
    self, KillOnDrop, Livelet, SOON, binary, close_everywhere, finish, livelet, scratch_directory,
    terminal, uninterrupted,
};

/// Returns the arguments that give `livelet probe` time on a busy machine, unless `args` set a
/// timeout.
fn patient(args: &[&str]) -> &'static [&'static str] {
    match args.contains(&"--timeout") {
        true => &[],
        false => &["--timeout", "20s"],
    }
}

/// Runs `livelet probe`; its exit code, and what it printed.
fn probe(args: &[&str], listen: &str) -> (Option<i32>, String) {
    let mut command = livelet();
    command
        .arg("probe")
        .args(patient(args))
        .args(args)
        .env("LIVELET_LISTEN", listen);
    let Output { status, stdout, .. } = finish(&mut command, SOON);
    (status.code(), String::from_utf8(stdout).unwrap())
}

#[test]
fn probe_asks_the_port_in_the_variable_that_a_platform_sets() {
    let running = Livelet::start(&[]);
    let mut command = livelet();
    command
        .arg("probe")
        .env("LIVELET_LISTEN", "env:PORT")
        .env("PORT", running.addr().port().to_string());
    let Output { status, stdout, .. } = finish(&mut command, SOON);
    assert_eq!((status.code(), stdout), (Some(0), b"ok\n".to_vec()));
}

#[test]
fn probe_asks_the_livelet_on_the_same_machine() {
    let directory = scratch_directory();
    let path = directory.join("ready").to_str().unwrap().to_string();
    let livelet = Livelet::start_on(&["0.0.0.0:0"], &["--ready", &format!("file:{path}")]);
    let port = livelet.addr().port().to_string();
    for listen in [
        port.clone(),
        format!(":{port}"),
        format!("0.0.0.0:{port}"),
        format!("127.0.0.1:{port} 127.0.0.1:1"),
    ] {
        assert_eq!(
            probe(&[], &listen),
            (Some(0), "ok\n".to_string()),
            "{listen}"
        );
    }
    // A flag wins over the variable.
    for args in [
        &["-l", &port][..],
        &["--listen", &port, "-l", "127.0.0.1:1"],
    ] {
        assert_eq!(probe(args, "127.0.0.1:1"), (Some(0), "ok\n".to_string()));
    }
    let (code, said) = probe(&["--ready"], &port);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("[+]livelet ok\n"), "{said}");
    assert!(said.ends_with("readyz check failed\n"), "{said}");
    File::create(&path).unwrap();
    assert_eq!(probe(&["--ready"], &port), (Some(0), "ok\n".to_string()));
    drop(livelet);
    let (code, said) = probe(&[], &port);
    assert_eq!(code, Some(1));
    assert!(
        said.contains(&format!(
            "127.0.0.1:{port}: connection refused; -l or LIVELET_LISTEN names another port"
        )),
        "{said}"
    );
}

#[test]
fn probe_with_a_check_runs_that_check_itself() {
    let directory = scratch_directory();
    let at = |name: &str| directory.join(name).to_str().unwrap().to_string();
    let tcp = TcpListener::bind("127.0.0.4:0").unwrap();
    let _unix = UnixListener::bind(at("socket")).unwrap();
    File::create(at("young")).unwrap();
    let old = SystemTime::now() - Duration::from_secs(60);
    File::create(at("old")).unwrap().set_modified(old).unwrap();
    let served = Livelet::start(&[]);
    let (good, bad) = (served.addr(), tcp.local_addr().unwrap());
    for (check, holds, part) in [
        (format!("file:{}", at("young")), true, "ok\n"),
        (format!("file:{}", at("none")), false, "no such file"),
        (format!("heartbeat:{}:30s", at("young")), true, "ok\n"),
        (
            format!("heartbeat:{}:30s", at("old")),
            false,
            "old, limit 30s",
        ),
        (
            format!("heartbeat:{}:30s", at("none")),
            false,
            "no such file",
        ),
        (format!("unix:{}", at("socket")), true, "ok\n"),
        (format!("unix:{}", at("young")), false, "refused"),
        (format!("tcp:{bad}"), true, "ok\n"),
        ("tcp:127.0.0.4:1".to_string(), false, "refused"),
        (format!("http://{good}/livez"), true, "ok\n"),
        (format!("http://{good}/nope"), false, "answered 404"),
        (format!("http://{bad}/"), false, "no outcome within 300ms"),
    ] {
        // Only the check that never ends is given up soon: an answer may take long on a busy machine.
        let is_endless = part.starts_with("no outcome");
        let timeout = if is_endless { "300ms" } else { "20s" };
        let (code, said) = probe(&["--timeout", timeout, &check], "");
        assert_eq!(code, Some(i32::from(!holds)), "{check}: {said}");
        assert!(said.contains(part), "{check}: {said}");
    }
}

/// Starts a server that sends these bytes to each client, and then nothing.
fn stalling(said: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.4:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let said = said.clone();
            std::thread::spawn(move || {
                let _ = uninterrupted(|| stream.read(&mut [0; 4096]));
                let _ = stream.write_all(&said);
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    addr
}

#[test]
fn probe_ends_at_its_timeout_and_prints_a_limited_answer() {
    // The queue is full and never accepted from: a handshake gets no answer.
    let full = TcpListener::bind("127.0.0.4:0").unwrap();
    let _ = rustix::net::listen(&full, 0);
    let addr = full.local_addr().unwrap();
    let _queued: Vec<TcpStream> = (0..4)
        .filter_map(|_| TcpStream::connect_timeout(&addr, Duration::from_millis(100)).ok())
        .collect();
    let stalls = [
        addr.to_string(),
        stalling(Vec::new()),
        stalling(b"HTTP/1.1 200 OK\r\n".to_vec()),
    ];
    for listen in stalls {
        let from = Instant::now();
        let (code, said) = probe(&["--timeout", "400ms"], &listen);
        assert_eq!(code, Some(1), "{listen}: {said}");
        assert!(
            said.contains("no outcome within 400ms; see --timeout"),
            "{said}"
        );
        assert!(from.elapsed() < SOON / 2, "{listen}: {:?}", from.elapsed());
    }
    // The status decides, and what has come is printed.
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let (code, said) = probe(&["--timeout", "2s"], &stalling(half.to_vec()));
    assert_eq!((code, said.as_str()), (Some(0), "half"));
    let long = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 100_000]].concat();
    let (code, said) = probe(&[], &stalling(long));
    assert_eq!((code, said.len()), (Some(0), 4096));
}

#[test]
fn probe_with_wait_asks_until_the_endpoint_or_check_holds() {
    let directory = scratch_directory();
    let path = directory.join("up").to_str().unwrap().to_string();
    let late = TcpListener::bind("127.0.0.4:0").unwrap();
    let addr = late.local_addr().unwrap();
    close_everywhere(late);
    let waits = |check: String| {
        std::thread::spawn(move || probe(&["--wait", "1h", "--timeout", "10s", &check], ""))
    };
    let asks = [waits(format!("file:{path}")), waits(format!("tcp:{addr}"))];
    // The wait itself is bounded, and the last reason is printed.
    let from = Instant::now();
    for check in [format!("file:{path}"), format!("tcp:{addr}")] {
        let (code, said) = probe(&["--wait", "500ms", "--timeout", "10s", &check], "");
        let reason = if check.starts_with("file") {
            "no such file"
        } else {
            "refused"
        };
        assert_eq!(code, Some(1), "{check}: {said}");
        assert!(said.contains(reason), "{check}: {said}");
    }
    assert!(
        from.elapsed() >= Duration::from_secs(1),
        "{:?}",
        from.elapsed()
    );
    assert!(asks.iter().all(|ask| !ask.is_finished()));
    File::create(&path).unwrap();
    let _listener = TcpListener::bind(addr).unwrap();
    for ask in asks {
        assert_eq!(ask.join().unwrap(), (Some(0), "ok\n".to_string()));
    }
    fs::remove_dir_all(directory).unwrap();
}

/// Returns the output of `livelet probe` on a terminal.
fn on_a_terminal(args: &[&str], listen: &str, variables: &[(&str, &str)]) -> String {
    let (mut emulator, program) = terminal();
    let mut command = livelet();
    command
        .arg("probe")
        .args(patient(args))
        .args(args)
        .env("LIVELET_LISTEN", listen)
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .envs(variables.iter().copied())
        .stdout(program);
    let mut child = KillOnDrop(command.spawn().unwrap());
    // With the command its end of the terminal goes, and reading fails when all has been read.
    drop(command);
    let mut said = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = uninterrupted(|| emulator.read(&mut part)) {
        said.extend_from_slice(&part[..length]);
    }
    child.0.wait().unwrap();
    String::from_utf8(said).unwrap().replace("\r\n", "\n")
}

#[test]
fn probe_prints_colours_only_on_a_terminal() {
    let directory = scratch_directory();
    let path = directory.join("up").to_str().unwrap().to_string();
    let (file, check) = (format!("file:{path}"), format!("a=file:{path}"));
    let livelet = Livelet::start(&["--live", &check, "--live", &file]);
    let port = livelet.addr().to_string();
    let failed = format!(
        "\x1b[32mlivelet          ok\x1b[m\n\
         \x1b[31ma                failed: {path}: no such file or directory\x1b[m\n\
         \x1b[31mfile             failed: {path}: no such file or directory\x1b[m\n\
         \x1b[31mlivez check failed"
    );
    let said = on_a_terminal(&[], &port, &[]);
    assert!(said.starts_with(&failed), "{said:?}");
    let said = on_a_terminal(&[&file], &port, &[]);
    assert!(said.starts_with("\x1b[31m/"), "{said:?}");
    let (_, plain) = probe(&[], &port);
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        assert_eq!(on_a_terminal(&[], &port, &[variable]), plain);
    }
    assert!(plain.starts_with("[+]livelet ok\n[-]a failed: "), "{plain}");
    File::create(&path).unwrap();
    // An empty NO_COLOR counts as none.
    let said = on_a_terminal(&[], &port, &[("NO_COLOR", "")]);
    let rows: Vec<&str> = said.lines().map(str::trim_end).collect();
    assert_eq!(rows.len(), 4, "{said:?}");
    assert_eq!(rows[1], "\x1b[32ma                ok\x1b[m", "{said:?}");
    assert!(
        rows[3].starts_with("\x1b[32mlivez check passed"),
        "{said:?}"
    );
    assert_eq!(probe(&[], &port), (Some(0), "ok\n".to_string()));
}

#[test]
fn a_bad_command_line_exits_with_125() {
    for args in [
        &["probe", "--nope"][..],
        &["probe", "nope"],
        &["probe", "tcp:example.com:80"],
        &["probe", "file:/a", "file:/b"],
        &["probe", "--ready", "file:/a"],
        &["probe", "--timeout"],
        &["probe", "--timeout", "x"],
        &["probe", "--", "x"],
        &["notify"],
        &["notify", "READY"],
        &["notify", "=1"],
        &["install"],
        &["install", ""],
        &["install", "/a", "/b"],
        &["install", "--nope"],
    ] {
        let output = finish(livelet().args(args), SOON);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(125), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    }
    let output = finish(livelet().arg("probe").env("LIVELET_LISTEN", "x"), SOON);
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn notify_sends_its_arguments_to_the_notify_socket() {
    let directory = scratch_directory();
    let path = directory.join("notify");
    let name = format!("livelet-test-{}", std::process::id());
    let sockets = [
        (
            UnixDatagram::bind(&path).unwrap(),
            path.to_str().unwrap().to_string(),
        ),
        (
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            format!("@{name}"),
        ),
    ];
    for (socket, name) in sockets {
        let mut command = livelet();
        command
            .args(["notify", "READY=1", "STATUS=two words = fine"])
            .env("NOTIFY_SOCKET", &name);
        assert_eq!(finish(&mut command, SOON).status.code(), Some(0));
        let mut message = [0; 128];
        let length = uninterrupted(|| socket.recv(&mut message)).unwrap();
        assert_eq!(&message[..length], b"READY=1\nSTATUS=two words = fine");
        close_everywhere(socket);
        let output = finish(&mut command, SOON);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&name), "{stderr}");
    }
    let mut without = livelet();
    without
        .args(["notify", "READY=1"])
        .env_remove("NOTIFY_SOCKET");
    assert_eq!(finish(&mut without, SOON).status.code(), Some(1));
}

#[test]
fn install_writes_the_whole_executable_or_nothing() {
    let directory = scratch_directory();
    let path = directory.join("livelet");
    let install = |path: &PathBuf| {
        let output = finish(livelet().arg("install").arg(path), SOON);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let own = fs::read(binary()).unwrap();
    // The destination is free, is a file, or is an executable that runs.
    for round in 0..3 {
        let mut running = (round == 2).then(|| {
            Livelet::start_command(support::command(&path).args(["-l", "127.0.0.1:0"]), 1)
        });
        assert_eq!(install(&path), (Some(0), String::new()));
        assert_eq!(fs::read(&path).unwrap(), own);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o755
        );
        fs::write(directory.join("other"), "x").unwrap();
        if let Some(livelet) = &mut running {
            assert!(livelet.is_running());
        } else if round == 0 {
            fs::rename(directory.join("other"), &path).unwrap();
        }
    }
    // A try that was killed halfway, as PID 1 in the container where this one is PID 1 too.
    let mut child = support::command("sh");
    child.args([
        "-c",
        "echo half > \"${1%/*}/.${1##*/}.$$\"; exec \"$0\" install \"$1\"",
    ]);
    child.arg(binary()).arg(&path);
    let output = finish(&mut child, SOON);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{:?}",
        String::from_utf8(output.stderr)
    );
    assert_eq!(fs::read(&path).unwrap(), own);
    let before = fs::read_dir(&directory).unwrap().count();
    assert_eq!(before, 2, "more than livelet and other");
    symlink("nowhere", directory.join("dangling")).unwrap();
    symlink("loop", directory.join("loop")).unwrap();
    for (bad, named) in [
        (
            directory.join("dangling"),
            "dangling: is a symlink to nothing",
        ),
        (directory.join("loop"), "loop: is a symlink to nothing"),
        (directory.join("none/"), "none/: names neither"),
        (directory.join("none/livelet"), "none/livelet"),
        (path.join("x"), "livelet/x"),
        (PathBuf::from("/proc/livelet"), "/proc/livelet"),
    ] {
        let (code, stderr) = install(&bad);
        assert_eq!(code, Some(125), "{stderr}");
        assert!(stderr.contains(named), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), before + 2);
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
}

/// Follows symlinks as cp(1) does: `/bin` is a symlink to `usr/bin` on a merged-usr system.
#[test]
fn install_writes_into_a_directory_and_through_symlinks() {
    let directory = scratch_directory();
    let at = |name: &str| directory.join(name);
    let own = fs::read(binary()).unwrap();
    let install = |path: &PathBuf| {
        let output = finish(livelet().arg("install").arg(path), SOON);
        assert!(output.status.success(), "{path:?}: {output:?}");
    };
    fs::create_dir_all(at("usr/bin")).unwrap();
    symlink("usr/bin", at("bin")).unwrap();
    install(&at("bin"));
    assert!(at("bin").is_symlink());
    assert_eq!(fs::read(at("usr/bin/livelet")).unwrap(), own);
    fs::remove_file(at("usr/bin/livelet")).unwrap();
    install(&at("usr/bin/"));
    assert_eq!(fs::read(at("usr/bin/livelet")).unwrap(), own);
    // A symlink to a file, in another directory.
    fs::write(at("usr/old"), "old").unwrap();
    symlink("../usr/old", at("usr/link")).unwrap();
    install(&at("usr/link"));
    assert!(at("usr/link").is_symlink());
    assert_eq!(fs::read(at("usr/old")).unwrap(), own);
    assert_eq!(fs::read_dir(at("usr")).unwrap().count(), 3);
}

#[test]
fn install_fails_and_names_proc_if_proc_is_not_mounted() {
    let mut command = support::command("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs tmpfs /proc && exec \"$0\" install /tmp/livelet-never");
    let output = finish(command.arg(binary()), SOON);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{stderr}");
    assert_eq!(
        stderr,
        "livelet: install: /tmp/livelet-never: cannot read livelet: /proc/self/exe: \
         no such file or directory; is /proc mounted?\n"
    );
}
