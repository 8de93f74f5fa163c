//! The status page, as a browser asks for it. tests/system/page looks at it.

use std::fs::{self, File};
use std::io::Write;

use crate::support::{
    Livelet, Response, SOON, connect, livelet, read_head, read_response, scratch, wait_for,
};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn send(livelet: &Livelet, method: &str, target: &str, accept: &str) -> std::net::TcpStream {
    let mut stream = connect(livelet.addr());
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

fn get(livelet: &Livelet, target: &str, accept: &str) -> Response {
    read_response(&mut send(livelet, "GET", target, accept))
}

#[test]
fn a_browser_gets_the_status_page_only_at_the_root_path() {
    let livelet = Livelet::start(&[]);
    let page = get(&livelet, "/", BROWSER);
    assert_eq!(page.status, 200);
    assert_eq!(
        page.field("content-type"),
        Some("text/html; charset=utf-8"),
        "{}",
        page.head
    );
    let policy = page.field("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(page.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.field("cache-control"), Some("no-store"));
    for part in [
        "<!doctype html>",
        "http-equiv=refresh",
        "<link rel=icon href=data:,>",
        "refreshed every 5 s, last at ",
        "Alive and ready",
        &format!("pid {}, up ", livelet.pid()),
    ] {
        assert!(page.body.contains(part), "no {part} in {}", page.body);
    }
    assert!(page.body.ends_with(" GMT"), "{}", page.body);
    let head = read_head(&mut send(&livelet, "HEAD", "/", BROWSER));
    for name in ["content-length", "content-type", "content-security-policy"] {
        let of_page = page.field(name);
        // The uptime may have another digit by then.
        assert!(
            head.field(name) == of_page || name == "content-length",
            "{}",
            head.head
        );
        assert!(head.field(name).is_some(), "{}", head.head);
    }
    for (target, accept) in [
        ("/livez", BROWSER),
        ("/healthz", BROWSER),
        ("/readyz", BROWSER),
        ("/?verbose", BROWSER),
        ("/?format=json", BROWSER),
        ("/nope", BROWSER),
        ("/", "*/*"),
        ("/", ""),
        ("/", "application/json, text/html"),
    ] {
        let other = get(&livelet, target, accept);
        let kind = other.field("content-type").unwrap();
        assert!(!kind.contains("html"), "{target} {accept}: {kind}");
        assert_eq!(other.field("content-security-policy"), None, "{target}");
    }
}

#[test]
fn the_status_page_has_the_status_of_liveness_and_shows_how_long_a_check_fails() {
    let path = scratch("up");
    let check = format!("up=file:{}", path.display());
    let livelet = Livelet::start(&["--ready", &check]);
    let page = get(&livelet, "/", BROWSER);
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(page.body.contains("Alive, not ready"), "{}", page.body);
    drop(livelet);
    let mut livelet = Livelet::start(&["--live", &check]);
    assert_eq!(get(&livelet, "/", BROWSER).status, 503);
    let says = |part: &str| get(&livelet, "/", BROWSER).body.contains(part);
    // The time grows, however often the page is asked for.
    wait_for("a second of failure", || {
        says("failed, first seen 1s ago</i><b>up</b>")
    });
    File::create(&path).unwrap();
    assert_eq!(get(&livelet, "/", BROWSER).status, 200);
    assert!(!says("failed"));
    wait_for("a second of health", || {
        says("ok, first seen 1s ago</i><b>up</b>")
    });
    fs::remove_file(&path).unwrap();
    // A request for another path has seen the failure, and the page shows its time.
    assert_eq!(get(&livelet, "/livez", "").status, 503);
    wait_for("another second", || {
        says("failed, first seen 1s ago</i><b>up</b>")
    });
    assert!(livelet.is_running());
}

#[test]
fn the_status_page_names_the_worker_and_the_age_of_its_heartbeat() {
    let mut command = livelet();
    let beat = scratch("beat");
    File::create(&beat).unwrap();
    let check = format!("heartbeat:{}:1h", beat.display());
    command.args(["-l", "127.0.0.1:0", "--live", &check, "--", "sleep", "1000"]);
    let mut livelet = Livelet::spawn(&mut command);
    livelet.wait_until_ready(1);
    livelet.wait_until_said(": started");
    let pid = livelet
        .said
        .split("pid ")
        .nth(1)
        .and_then(|rest| rest.split(':').next())
        .unwrap()
        .to_string();
    let page = get(&livelet, "/", BROWSER).body;
    let row = format!("<b>worker</b><br>pid {pid}, up ");
    assert!(page.contains(&row), "no {row} in {page}");
    let title = "<title>Alive and ready: sleep 1000</title>";
    assert!(page.contains(title), "no {title} in {page}");
    let row = "<i>ok, last beat ";
    assert!(page.contains(row), "no {row} in {page}");
    livelet.signal("TERM");
    livelet.wait(SOON);
}

#[test]
fn the_status_page_shows_a_failing_readiness_check_before_passing_ones() {
    let livelet = Livelet::start(&["--ready", "db=file:/nowhere"]);
    let page = get(&livelet, "/", BROWSER).body;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let title = format!("<title>Alive, not ready: {}</title>", host.trim_end());
    assert!(page.contains(&title), "no {title} in {page}");
    let failing = page.find("<b>db</b>").unwrap();
    assert!(failing < page.find("<b>livelet</b>").unwrap(), "{page}");
}
