//! Checks through their life, as an endpoint shows them.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use crate::support::{
    Livelet, Response, SOON, close_everywhere, command, connect, descendants, finish, is_alive,
    livelet, probe, read_response, scratch_directory, uninterrupted, wait_for,
};

/// A directory of the test's own, gone with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        Directory(scratch_directory())
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

/// Asserts that liveness fails, and that the only reason holds these.
fn assert_fails(livelet: &Livelet, reason: &[&str]) {
    let response = probe(livelet.addr(), "/livez");
    assert_eq!(response.status, 503, "{reason:?}");
    let failed: Vec<&str> = response
        .body
        .lines()
        .filter(|line| line.starts_with("[-]"))
        .collect();
    assert_eq!(failed.len(), 1, "{}", response.body);
    for part in reason {
        assert!(failed[0].contains(part), "no {part:?} in {}", response.body);
    }
    assert!(
        response.body.ends_with("\nlivez check failed\n"),
        "{}",
        response.body
    );
}

fn assert_holds(livelet: &Livelet) {
    let response = probe(livelet.addr(), "/livez");
    assert_eq!((response.status, response.body.as_str()), (200, "ok\n"));
}

#[test]
fn a_file_check_passes_while_its_file_exists() {
    let directory = Directory::new();
    let path = directory.path("up");
    let livelet = Livelet::start(&["--live", &format!("file:{path}")]);
    assert_fails(&livelet, &["[-]file failed: ", &path, "no such file"]);
    File::create(&path).unwrap();
    assert_holds(&livelet);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_holds(&livelet);
    fs::remove_dir(&path).unwrap();
    assert_fails(&livelet, &["no such file"]);
    // A pipe without a writer, or a device, is never opened.
    let mut fifo = command("mkfifo");
    assert!(fifo.arg(&path).status().unwrap().success());
    assert_holds(&livelet);
    fs::remove_file(&path).unwrap();
    File::create(&path).unwrap();
    let below = Livelet::start(&["--live", &format!("file:{path}/x")]);
    assert_fails(&below, &["not a directory"]);
}

#[test]
fn a_heartbeat_check_fails_when_its_file_is_old_and_recovers() {
    let directory = Directory::new();
    let path = directory.path("beat");
    // Older than the worker: it counts from the worker's start, as one that was never there does.
    for exists in [true, false] {
        if exists {
            let old = SystemTime::now() - Duration::from_secs(3600);
            File::create(&path).unwrap().set_modified(old).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
        let check = format!("beat=heartbeat:{path}:2s");
        let livelet = Livelet::start(&["--live", &check]);
        assert_holds(&livelet);
        wait_for("it to be old", || {
            probe(livelet.addr(), "/livez").status == 503
        });
        let reason = if exists {
            "old, limit 2s"
        } else {
            "no such file"
        };
        assert_fails(&livelet, &["[-]beat failed: ", &path, reason]);
        File::create(&path).unwrap();
        assert_holds(&livelet);
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        File::create(&path).unwrap().set_modified(ahead).unwrap();
        assert_holds(&livelet);
        // The age counts from the first observation.
        wait_for("it to be old", || {
            probe(livelet.addr(), "/livez").status == 503
        });
    }
}

#[test]
fn the_age_of_a_missing_heartbeat_file_counts_from_worker_start() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = livelet();
    let address = held.local_addr().unwrap();
    command.args(["-l", &address.to_string()]);
    command.args([
        "--live",
        "heartbeat:/nowhere/beat:4s",
        "--live",
        "watchdog:4s",
    ]);
    let mut livelet = Livelet::spawn(command.args(["--", "sleep", "1000"]));
    livelet.wait_until_said("waiting");
    // livelet has run for longer than the limits before its worker starts.
    let began = Instant::now();
    wait_for("the limits to pass", || {
        began.elapsed() > Duration::from_millis(4500)
    });
    drop(held);
    livelet.wait_until_ready(1);
    assert_holds(&livelet);
    wait_for("the limits to pass again", || {
        probe(livelet.addr(), "/livez").status == 503
    });
}

#[test]
fn tcp_and_unix_checks_pass_while_a_process_listens() {
    let directory = Directory::new();
    let path = directory.path("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.5:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let args = [format!("unix:{path}"), format!("tcp:{addr}")];
    let [on_unix, on_tcp] = [0, 1].map(|index| Livelet::start(&["--live", &args[index]]));
    assert_holds(&on_unix);
    assert_holds(&on_tcp);
    close_everywhere(unix);
    close_everywhere(tcp);
    assert_fails(&on_unix, &["[-]unix failed: ", &path, "connection refused"]);
    assert_fails(
        &on_tcp,
        &["[-]tcp failed: ", &addr.to_string(), "connection refused"],
    );
    fs::remove_file(&path).unwrap();
    assert_fails(&on_unix, &["no such file"]);
    File::create(&path).unwrap();
    assert_fails(&on_unix, &["connection refused"]);
    fs::remove_file(&path).unwrap();
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert_fails(&on_unix, &["rotocol wrong type for socket"]);
}

/// Answers every connection with what `answer` says, and counts them.
fn server(
    answer: impl Fn(&mut std::net::TcpStream) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.5:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || answer(&mut { stream }));
        }
    });
    (addr, count)
}

/// Starts a server that reads a request and sends this response.
fn saying(response: String) -> SocketAddr {
    let (addr, _) = server(move |stream| {
        let mut request = [0; 4096];
        let _ = uninterrupted(|| stream.read(&mut request));
        let _ = stream.write_all(response.as_bytes());
    });
    addr
}

#[test]
fn an_http_check_depends_only_on_the_status() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let fields = "X-Field: y\r\n".repeat(65);
    let long = "y".repeat(12 * 1024);
    let pass = "";
    // A comment says why the verdict is not that of `curl -f`.
    for (response, reason) in [
        (format!("{ok}\r\n"), pass),
        (
            "HTTP/1.0 301 x\r\nLocation: http://127.0.0.1:1/\r\n\r\n".into(),
            pass,
        ),
        ("HTTP/1.1 399 X\r\n\r\n".into(), pass),
        (
            "HTTP/1.1 400 Bad\r\n\r\n".into(),
            "/health?x=1: answered 400",
        ),
        ("HTTP/1.1 503 Unavailable\r\n\r\nno".into(), "answered 503"),
        ("HTTP/1.1 204\r\nContent-Length: 0\r\n\r\n".into(), pass),
        (format!("{ok}{fields}\r\n"), pass),
        (format!("{ok}X: {long}\r\n\r\n"), pass),
        (format!("{ok}X: y\r\n z\r\n\tz\r\n\r\n"), pass),
        (format!("{ok}X : y\r\nContent-Length : 0\r\n\r\n"), pass),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok".into(), pass),
        (
            format!("{ok}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n"),
            pass,
        ),
        (format!("{ok}Content-Encoding: gzip\r\n\r\nabc"), pass),
        (
            format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 x\r\n\r\n{ok}\r\n"),
            pass,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\n\r\n".into(),
            "answered 500",
        ),
        // The content of an answer does not matter, so it may be incomplete.
        (format!("{ok}Content-Length: 20\r\n\r\nok"), pass),
        // The kubelet takes three digits alone.
        (
            "HTTP/1.1 200OK\r\n\r\n".into(),
            r#"no HTTP answer: begins with "HTTP/1.1 200OK""#,
        ),
        // HTTP/1.1 was asked.
        ("HTTP/2 200\r\n\r\n".into(), "no HTTP answer: begins with"),
        // curl takes 300 KB.
        (
            format!("{ok}{}", fields.repeat(100)),
            "the head of its answer is over 64 KiB",
        ),
        (
            format!("{ok}nothing\r\n\r\n"),
            r#"no field in the head of its answer: "nothing""#,
        ),
        (
            "HTTP/1.1 199 X\r\n\r\n".into(),
            "connection closed without an answer",
        ),
        (String::new(), "connection closed without an answer"),
        (format!("{ok}X: "), "connection closed without an answer"),
        (
            "SSH-2.0-OpenSSH_9\r\n".into(),
            r#"no HTTP answer: begins with "SSH-2.0-OpenSSH_9""#,
        ),
    ] {
        let addr = saying(response);
        let livelet = Livelet::start(&["--live", &format!("http://{addr}/health?x=1")]);
        if reason == pass {
            assert_holds(&livelet);
        } else {
            assert_fails(&livelet, &["[-]http failed: ", &addr.to_string(), reason]);
        }
    }
}

#[test]
fn an_http_check_of_an_event_stream_passes_before_it_ends() {
    let (addr, count) = server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let check = format!("http://{addr}/");
    let livelet = Livelet::start(&["--check-timeout", "60s", "--live", &check]);
    let from = Instant::now();
    for _ in 0..40 {
        assert_holds(&livelet);
    }
    assert!(from.elapsed() < SOON, "{:?}", from.elapsed());
    assert_eq!(count.load(Ordering::Relaxed), 40);
}

#[test]
fn an_http_check_does_not_reset_a_server_that_still_sends_its_body() {
    const ANSWERS: usize = 50;
    let finished = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&finished);
    let (addr, _) = server(move |stream| {
        let mut request = [0; 4096];
        let _ = uninterrupted(|| stream.read(&mut request));
        let mut answer = || {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            for _ in 0..4 {
                stream.write_all(&[b'x'; 2048])?;
                std::thread::sleep(Duration::from_millis(5));
            }
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read(&mut request)
        };
        if matches!(answer(), Ok(0)) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let check = format!("http://{addr}/");
    let livelet = Livelet::start(&["--check-timeout", "10s", "--live", &check]);
    for _ in 0..ANSWERS {
        assert_holds(&livelet);
    }
    wait_for("every answer to be finished", || {
        finished.load(Ordering::Relaxed) == ANSWERS
    });
}

#[test]
fn http_checks_send_the_host_that_check_host_sets() {
    let (addr, _) = server(|stream| {
        let mut request = [0; 4096];
        let length = uninterrupted(|| stream.read(&mut request)).unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        let is_known = request.contains("\r\nHost: app.example:80\r\n");
        let status = if is_known { "200" } else { "400" };
        let _ = write!(stream, "HTTP/1.1 {status} x\r\n\r\n");
    });
    let check = format!("http://{addr}/");
    assert_fails(&Livelet::start(&["--live", &check]), &["answered 400"]);
    let host = "app.example:80";
    assert_holds(&Livelet::start(&["--live", &check, "--check-host", host]));
    let mut command = livelet();
    command.args(["-l", "127.0.0.1:0", "--live", &check]);
    assert_holds(&Livelet::start_command(
        command.env("LIVELET_CHECK_HOST", host),
        1,
    ));
    let mut command = livelet();
    command
        .args(["probe", &check])
        .env("LIVELET_CHECK_HOST", host);
    assert_eq!(finish(&mut command, SOON).status.code(), Some(0));
}

#[test]
fn an_http_check_reads_a_bounded_part_of_an_endless_answer() {
    // An endless head, an endless body, a byte at a time, nothing at all.
    let (head, _) = server(|stream| while stream.write_all(b"X: y\r\n").is_ok() {});
    let (fields, _) = server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream
            .write_all(
                b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n",
            )
            .is_ok()
        {}
    });
    let (body, _) = server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[b'x'; 65536]).is_ok() {}
    });
    let (slow, _) = server(|stream| {
        for byte in b"HTTP/1.1 200 OK\r\n" {
            let _ = stream.write_all(&[*byte]);
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let (silent, _) = server(|stream| drop(stream.read_to_end(&mut Vec::new())));
    for (addr, reason) in [
        (head, Some("no HTTP answer: begins with \"")),
        (fields, Some("answer")),
        (body, None),
        (slow, Some("no outcome within 300ms")),
        (silent, Some("no outcome within 300ms")),
    ] {
        let check = format!("http://{addr}/");
        let timeout = timeout_for(reason, "300ms");
        let livelet = Livelet::start(&["--check-timeout", timeout, "--live", &check]);
        match reason {
            None => assert_holds(&livelet),
            Some(reason) => assert_fails(&livelet, &[reason]),
        }
    }
}

/// Returns `short` for a check that has to time out, else a limit that no busy machine reaches.
fn timeout_for(reason: Option<&str>, short: &'static str) -> &'static str {
    let times_out = reason.is_some_and(|reason| reason.starts_with("no outcome"));
    if times_out { short } else { "20s" }
}

#[test]
fn a_burst_of_probes_shares_one_run_and_a_hanging_check_blocks_no_other() {
    let (addr, count) = server(|stream| drop(stream.read_to_end(&mut Vec::new())));
    let hangs = format!("http://{addr}/");
    let livelet = Livelet::start(&[
        "--check-timeout",
        "1s",
        "--live",
        &hangs,
        "--ready",
        "file:/",
    ]);
    let addr = livelet.addr();
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| assert_fails(&livelet, &["no outcome within 1s"]));
        }
        wait_for("the check to run", || count.load(Ordering::Relaxed) > 0);
        let from = Instant::now();
        for _ in 0..50 {
            assert_eq!(probe(addr, "/readyz").status, 200);
            assert_eq!(probe(addr, "/livez?exclude=http").status, 200);
        }
        // Generous: what is asserted is that they did not wait for the check, a second each.
        assert!(from.elapsed() < SOON, "{:?}", from.elapsed());
    });
    // A burst need not begin within one run of it.
    let runs = count.load(Ordering::Relaxed);
    assert!(runs <= 3, "{runs} runs for 100 probes at once");
}

#[test]
fn probes_beyond_max_connections_are_all_answered() {
    // A run takes 300 ms, and a busy machine may accept the burst over several of them: what counts
    // is that most share one.
    let (addr, count) = server(|stream| {
        std::thread::sleep(Duration::from_millis(300));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    });
    let check = format!("http://{addr}/");
    for (limit, probes, runs) in [("1000", 600, 9), ("256", 600, 20), ("32", 200, 40)] {
        let before = count.load(Ordering::Relaxed);
        let livelet = Livelet::start(&["--max-connections", limit, "--live", &check]);
        let ask = |_| {
            let mut stream = livelet.connect();
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .unwrap();
            stream
        };
        // livelet is frozen until all have sent their requests: a connection without one may be
        // evicted.
        livelet.freeze();
        let mut streams: Vec<_> = (0..probes).map(ask).collect();
        livelet.signal("CONT");
        for stream in &mut streams {
            assert_eq!(read_response(stream).status, 200);
        }
        let ran = count.load(Ordering::Relaxed) - before;
        assert!(
            ran <= runs,
            "{ran} runs for {probes} probes, {limit} at a time"
        );
    }
}

#[test]
fn a_request_can_select_or_exclude_checks_by_name() {
    let livelet = Livelet::start(&[
        "--live",
        "file:/",
        "--live",
        "file:/nope",
        "--live",
        "db=file:/nope",
        "--ready",
        "file:/",
    ]);
    let addr = livelet.addr();
    for (target, status, lines) in [
        (
            "/livez",
            503,
            "[+]livelet ok\n[+]file ok\n[-]file-2 failed: /nope: no such file or directory\n[-]db failed: /nope: no such file or directory\nlivez check failed\n",
        ),
        ("/livez?exclude=db&exclude=file-2", 200, "ok\n"),
        ("/livez/file", 200, "ok\n"),
        (
            "/livez/file?verbose",
            200,
            "[+]file ok\nlivez check passed\n",
        ),
        (
            "/livez/db",
            503,
            "[-]db failed: /nope: no such file or directory\nlivez check failed\n",
        ),
        ("/livez/nope", 404, "no check of this name\n"),
        (
            "/readyz?verbose",
            200,
            "[+]livelet ok\n[+]shutdown ok\n[+]file ok\nreadyz check passed\n",
        ),
        (
            "/readyz?exclude=nope",
            200,
            "no check to exclude: nope\nok\n",
        ),
        ("/startupz", 200, "ok\n"),
    ] {
        let response = probe(addr, target);
        assert_eq!(
            (response.status, response.body.as_str()),
            (status, lines),
            "{target}"
        );
    }
}

/// Asks with an Accept field.
fn ask(livelet: &Livelet, target: &str, accept: &str) -> Response {
    let mut stream = livelet.connect();
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    read_response(&mut stream)
}

#[test]
fn a_format_parameter_or_accept_field_gets_a_json_answer() {
    let livelet = Livelet::start(&["--live", "file:/", "--live", "db=file:/\"nope\""]);
    let json = "application/health+json";
    for (target, accept, is_json) in [
        ("/livez", "*/*", false),
        ("/livez?format=json", "*/*", true),
        ("/livez?verbose&format=json", "text/plain", true),
        ("/livez", "application/json", true),
        ("/livez", "application/health+json, */*;q=0.1", true),
        ("/livez", "text/html, application/json;q=0.5", false),
    ] {
        let response = ask(&livelet, target, accept);
        assert_eq!(response.status, 503, "{target} {accept}");
        let content = response.field("content-type").unwrap();
        assert_eq!(content == json, is_json, "{target} {accept}: {content}");
        if is_json {
            for part in [
                "{\"status\":\"fail\",",
                &format!("\"pid\":{},", livelet.pid()),
                "\"livelet\":[{\"status\":\"pass\"}],",
                "\"db\":[{\"status\":\"fail\",\"output\":\"/\\\"nope\\\": no such file or directory\"}]",
            ] {
                assert!(
                    response.body.contains(part),
                    "no {part} in {}",
                    response.body
                );
            }
        }
    }
    let one = ask(&livelet, "/livez/file?format=json", "*/*");
    assert_eq!(one.status, 200);
    assert!(
        one.body
            .ends_with("\"checks\":{\"file\":[{\"status\":\"pass\"}]}}\n"),
        "{}",
        one.body
    );
}

#[test]
fn the_metrics_show_every_check() {
    let livelet = Livelet::start(&["--live", "file:/nope", "--ready", "db=file:/"]);
    let response = probe(livelet.addr(), "/metrics");
    assert_eq!(response.status, 200);
    assert_eq!(
        response.field("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for row in [
        "livelet_up{endpoint=\"livez\"} 0\n",
        "livelet_up{endpoint=\"readyz\"} 1\n",
        "livelet_check_up{endpoint=\"livez\",check=\"file\"} 0\n",
        "livelet_check_up{endpoint=\"readyz\",check=\"db\"} 1\n",
        "livelet_connections 1\n",
        "livelet_requests_total 0\n",
    ] {
        assert!(response.body.contains(row), "no {row} in {}", response.body);
    }
    assert!(
        probe(livelet.addr(), "/metrics")
            .body
            .contains("livelet_requests_total 1\n")
    );
}

#[test]
fn startupz_stays_200_once_readiness_has_held() {
    let directory = Directory::new();
    let path = directory.path("up");
    let livelet = Livelet::start(&["--ready", &format!("file:{path}")]);
    let addr = livelet.addr();
    assert_eq!(probe(addr, "/startupz").status, 503);
    assert!(
        probe(addr, "/startupz")
            .body
            .ends_with("startupz check failed\n")
    );
    File::create(&path).unwrap();
    assert_eq!(probe(addr, "/readyz").status, 200);
    fs::remove_file(&path).unwrap();
    assert_eq!(probe(addr, "/readyz").status, 503);
    assert_eq!(probe(addr, "/startupz").status, 200);
}

#[test]
fn each_change_of_health_is_logged_once() {
    let directory = Directory::new();
    let path = directory.path("up");
    let mut livelet = Livelet::start(&["--live", &format!("file:{path}")]);
    let addr = livelet.addr();
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(probe(addr, "/livez").status, 503);
        }
        File::create(&path).unwrap();
        for _ in 0..3 {
            assert_eq!(probe(addr, "/livez").status, 200);
        }
        fs::remove_file(&path).unwrap();
    }
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(0));
    let log = livelet.log();
    let failed = log.matches("health: livez: file failed: ").count();
    let passes = log
        .matches("health: livez: passes (it had failed for ")
        .count();
    assert_eq!((failed, passes), (2, 2), "{log}");
}

#[test]
fn exit_on_unhealthy_stops_a_worker_that_stays_unhealthy() {
    let directory = Directory::new();
    let path = directory.path("beat");
    let check = format!("heartbeat:{path}:1s");
    // One that hangs: TERM does not reach it. And one that stops as it should.
    for (args, script) in [
        (&["--grace", "300ms"][..], "kill -STOP $$"),
        (&[], "trap 'exit 3' TERM; while :; do sleep 0.01; done"),
    ] {
        let mut command = livelet();
        command
            .args(["-l", "127.0.0.1:0", "--live", &check])
            .args(args);
        command.args(["--exit-on-unhealthy", "500ms", "--", "sh", "-c", script]);
        let mut livelet = Livelet::start_command(&mut command, 1);
        let workers = descendants(livelet.pid());
        assert_eq!(livelet.wait(SOON).code(), Some(75), "{script}");
        let log = livelet.log();
        assert!(log.contains("see --exit-on-unhealthy"), "{log}");
        assert!(log.contains("heartbeat failed: "), "{log}");
        for pid in workers {
            wait_for("the worker to be gone", || !is_alive(pid));
        }
    }
    // One that was asked to stop may fail for as long as that takes.
    let up = directory.path("up");
    File::create(&up).unwrap();
    let script = format!("trap 'rm {up}; sleep 2; exit 3' TERM; while :; do sleep 0.01; done");
    let mut livelet = Livelet::start(&[
        "--live",
        &format!("file:{up}"),
        "--exit-on-unhealthy",
        "500ms",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    wait_for("the worker to have its trap", || {
        // The sleep is the worker's child.
        descendants(livelet.pid()).len() > 1
    });
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(3));
    // A worker that stays healthy is not stopped.
    let mut livelet = Livelet::start(&["--exit-on-unhealthy", "100ms", "--live", "file:/"]);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(livelet.is_running());
}

#[test]
fn the_exit_code_of_the_program_decides_an_exec_check() {
    let directory = Directory::new();
    let script = |name: &str, body: &str| -> String {
        let path = directory.path(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap();
        path
    };
    let count = directory.path("count");
    let counted = script("counted", &format!("echo x >>{count}; [ \"$*\" = 'a b' ]"));
    let code = script("code", "exit 3");
    let hangs = script("hangs", "sleep 1000 & sleep 1000");
    for (check, reason) in [
        (format!("exec:{counted} a  b"), None),
        (format!("exec:{code}"), Some("code: exited with code 3")),
        (format!("exec:{hangs}"), Some("no outcome within 500ms")),
        (
            "exec:/no/such".to_string(),
            Some("/no/such: no such file or directory"),
        ),
        (
            "exec:/etc/passwd".to_string(),
            Some("/etc/passwd: permission denied"),
        ),
    ] {
        for command in [&[][..], &["--", "sleep", "1000"]] {
            let timeout = timeout_for(reason, "500ms");
            let mut args = vec!["--check-timeout", timeout, "--live", &check];
            args.extend(command);
            let livelet = Livelet::start(&args);
            match reason {
                None => assert_holds(&livelet),
                Some(reason) => assert_fails(&livelet, &["[-]exec failed: ", reason]),
            }
            // Its outcome is kept: there is no second run.
            for _ in 0..5 {
                let again = probe(livelet.addr(), "/livez").status;
                assert_eq!(again, if reason.is_none() { 200 } else { 503 }, "{check}");
            }
            wait_for("what it left to be gone", || {
                descendants(livelet.pid()).len() == command.len().min(1)
            });
        }
    }
    assert_eq!(fs::read_to_string(count).unwrap(), "x\nx\n");
}

#[test]
fn the_first_line_that_a_failing_exec_check_prints_is_the_reason() {
    for (script, reason) in [
        (
            "echo; echo '  disk full'; echo more; exit 3",
            "exec failed: disk full",
        ),
        (
            "echo \"a  b\" >&2; kill $$; sleep 1000",
            "exec failed: a  b",
        ),
        ("exit 3", "/bin/sh: exited with code 3"),
        ("yes | head -c 1000000; exit 3", "exec failed: y"),
        ("yes | head -c 1000000", ""),
    ] {
        let check = format!("exec:/bin/sh -c '{}'", script.replace('\'', "'\\''"));
        let livelet = Livelet::start(&["--check-timeout", "10s", "--live", &check]);
        if reason.is_empty() {
            assert_holds(&livelet);
        } else {
            assert_fails(&livelet, &[reason]);
        }
    }
}

#[test]
fn an_exec_check_that_times_out_is_killed_with_its_descendants() {
    let script = "(setsid sleep 1000 &); setsid sleep 1000 & exec sleep 1000";
    let check = format!("exec:/bin/sh -c '{script}'");
    let livelet = Livelet::start(&["--check-timeout", "3s", "--live", &check]);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_fails(&livelet, &["no outcome within 3s"]));
        wait_for("all of it to run", || descendants(livelet.pid()).len() == 3);
    });
    wait_for("all of it to be gone", || {
        descendants(livelet.pid()).is_empty()
    });
}

#[test]
fn the_failure_of_an_exec_check_is_cached_for_one_second() {
    let directory = Directory::new();
    let (up, count) = (directory.path("up"), directory.path("count"));
    let check = format!("exec:/bin/sh -c 'echo x >>{count}; test -e {up}'");
    let livelet = Livelet::start(&["--check-timeout", "10s", "--live", &check]);
    assert_fails(&livelet, &["/bin/sh: exited with code 1"]);
    File::create(&up).unwrap();
    let from = Instant::now();
    wait_for("it to pass", || {
        probe(livelet.addr(), "/livez").status == 200
    });
    // A pass counts for 10 s.
    assert!(from.elapsed() < SOON / 2, "{:?}", from.elapsed());
    assert_eq!(fs::read_to_string(count).unwrap(), "x\nx\n");
}

#[test]
fn a_variable_with_several_values_is_split_as_in_a_shell() {
    let directory = Directory::new();
    let path = directory.path("a b");
    let checks = format!(r#"'file:{path}' "sh=exec:/bin/sh -c 'exit 0'" c=file:/nope\ "#);
    let mut command = livelet();
    command
        .args(["-l", "127.0.0.1:0"])
        .env("LIVELET_LIVE", checks);
    let livelet = Livelet::start_command(&mut command, 1);
    File::create(&path).unwrap();
    let said = probe(livelet.addr(), "/livez").body;
    let file = "[+]livelet ok\n[+]file ok\n[+]sh ok\n[-]c failed: /nope : no such file";
    assert!(said.starts_with(file), "{said}");
}

/// Mounts a file system whose server never answers, in a mount namespace of this thread. While the
/// returned file is open, every call below the directory hangs. Returns `None` without the right to
/// mount.
#[allow(unsafe_code, reason = "rustix has no safe unshare(2)")]
fn hanging_mount(directory: &Directory) -> Option<File> {
    let fuse = File::options().read(true).write(true).open("/dev/fuse");
    let fuse = fuse.ok()?;
    // SAFETY: a mount namespace of its own changes nothing but where this thread's paths lead.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return None;
    }
    mount_change(
        "/",
        MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
    )
    .ok()?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0",
        fuse.as_raw_fd()
    );
    let options = CString::new(options).unwrap();
    mount(
        "x",
        directory.path(""),
        "fuse",
        MountFlags::empty(),
        &*options,
    )
    .ok()?;
    Some(fuse)
}

#[test]
fn a_mount_that_hangs_blocks_only_its_own_checks() {
    let directory = Directory::new();
    let Some(fuse) = hanging_mount(&directory) else {
        return eprintln!("skipped: not root, or no /dev/fuse");
    };
    let kinds = [
        format!("file:{}", directory.path("a")),
        format!("heartbeat:{}:9s", directory.path("b")),
        format!("unix:{}", directory.path("c")),
        format!("exec:{}", directory.path("d")),
    ];
    let mut args = vec!["--ready", "file:/", "--check-timeout", "3s"];
    args.extend(kinds.iter().flat_map(|kind| ["--live", kind]));
    let mut livelet = Livelet::start(&args);
    let threads = |livelet: &Livelet| {
        let tasks = fs::read_dir(format!("/proc/{}/task", livelet.pid()));
        tasks.unwrap().count()
    };
    // Earlier looks are held and no further ones are begun.
    for _ in 0..3 {
        let mut asks = connect(livelet.addr());
        asks.write_all(b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n")
            .unwrap();
        wait_for("the looks to be held", || threads(&livelet) == 4);
        let began = Instant::now();
        assert_eq!(probe(livelet.addr(), "/readyz").status, 200);
        assert!(began.elapsed() < Duration::from_secs(3), "{began:?}");
        let response = read_response(&mut asks);
        // The program is not run a second time as long as it can't be killed.
        let reasons = ["no outcome within 3s", "was killed and has not ended"];
        let late = reasons.map(|reason| response.body.matches(reason).count());
        assert_eq!(response.status, 503, "{}", response.body);
        assert_eq!(late.iter().sum::<usize>(), 4, "{}", response.body);
    }
    // The server is gone, and the looks come back.
    drop(fuse);
    wait_for("the looks to come back", || threads(&livelet) == 1);
    let response = probe(livelet.addr(), "/livez/file");
    assert!(response.body.contains("not connected"), "{}", response.body);
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(0));
}
