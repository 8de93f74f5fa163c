//! Probers and the answers that they expect. The requests are the bytes that each prober sends.
//!
//! Captured from the program itself: HAProxy 2.6, Prometheus 2.42, blackbox_exporter 0.23, Monit
//! 5.33, check_http 2.3, curl, GNU and busybox wget, requests, Node; the HTTP client of the
//! kubelet, Consul and Traefik (Go), of Uptime Kuma (axios 0.30) and of Datadog (requests) with the
//! fields that each sets. The others are after their source or a

//! published capture.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::Instant;

use crate::support::{
    Livelet, Response, SOON, connect, finish, livelet, probe, read_head, read_response,
    read_to_end, split_responses,
};

/// A check of health, and what livelet does with it.
struct Prober {
    name: &'static str,
    /// The request; `|` is the end of a line.
    request: &'static str,
    /// Status if all checks pass.
    passing: u16,
    /// Status if a check of the endpoint fails.
    failing: u16,
    /// The connection stays open for the next request.
    keeps: bool,
}

const fn prober(
    name: &'static str,
    request: &'static str,
    [passing, failing]: [u16; 2],
    keeps: bool,
) -> Prober {
    Prober {
        name,
        request,
        passing,
        failing,
        keeps,
    }
}

const GET: [u16; 2] = [200, 503];
const OPTIONS: [u16; 2] = [204, 503];
const CLOSES: bool = false;
const KEEPS: bool = true;

#[rustfmt::skip]
const PROBERS: &[Prober] = &[
    // The default is OPTIONS in HTTP/1.0; 2xx and 3xx pass.
    prober("HAProxy: option httpchk", "OPTIONS / HTTP/1.0||", OPTIONS, CLOSES),
    prober("HAProxy: option httpchk GET /readyz", "GET /readyz HTTP/1.0||", GET, CLOSES),
    prober("HAProxy: http-check send hdr Host",
        "OPTIONS / HTTP/1.1|host: example.com|connection: close||", OPTIONS, CLOSES),
    prober("HAProxy: HTTP/1.1 without Host", "GET /readyz HTTP/1.1|connection: close||", [400, 400], CLOSES),
    prober("HAProxy: http-check send-state",
        "OPTIONS / HTTP/1.0|x-haproxy-server-state: UP 1/3; address=10.0.0.7; port=9090; name=l/s; node=lb; weight=1/1; \
         scur=0/0; qcur=0||", OPTIONS, CLOSES),
    // The Host is the name of the cluster if none is set; Istio's names have bars. 200 alone
    // passes.
    prober("Envoy", "GET /readyz HTTP/1.1|host: worker|user-agent: Envoy/HC||", GET, KEEPS),
    prober("Envoy before 1.16", "GET /readyz HTTP/1.1|host: worker|user-agent: Envoy/HC|content-length: 0||", GET, KEEPS),
    prober("Istio",
        "GET /readyz HTTP/1.1|host: outbound|9090||worker.default.svc.cluster.local|user-agent: Envoy/HC||", GET, KEEPS),
    // bigd appends two line ends to the Send String (bug 1026781), In-TMM monitors one.
    prober("F5: HTTP/1.0", "GET /readyz HTTP/1.0||||", GET, CLOSES),
    prober("F5: the recommended Send String",
        "GET /readyz HTTP/1.1|Host: |Connection: Close||||", GET, CLOSES),
    prober("F5: a Send String that keeps the connection", "GET /readyz HTTP/1.1|Host:|||", GET, KEEPS),
    // This is HTTP/0.9. Without a Receive String anything passes, with one nothing does.
    prober("F5: the default Send String", "GET /||||", [400, 400], CLOSES),
    prober("AWS: Application and Network Load Balancer",
        "GET / HTTP/1.1|Host: 10.0.7.140:9090|Connection: close|User-Agent: ELB-HealthChecker/2.0|\
         Accept-Encoding: gzip, compressed||", GET, CLOSES),
    prober("AWS: Classic Load Balancer",
        "GET /readyz HTTP/1.1|host: 10.0.7.140|User-Agent: ELB-HealthChecker/1.0|Accept: */*|Connection: keep-alive||",
        GET, KEEPS),
    prober("Google Cloud",
        "GET /readyz HTTP/1.1|Host: 10.96.1.207|User-Agent: GoogleHC/1.0|Connection: Keep-alive||", GET, KEEPS),
    prober("Azure Load Balancer",
        "GET / HTTP/1.1|Connection: Keep-Alive|User-Agent: Load Balancer Agent|Host: 10.0.0.4:9090||", GET, KEEPS),
    prober("Azure Front Door",
        "HEAD / HTTP/1.1|Host: worker.example|User-Agent: Edge Health Probe|Connection: Keep-Alive||", GET, KEEPS),
    prober("Consul",
        "GET /readyz HTTP/1.1|Host: 127.0.0.1:9090|User-Agent: Consul Health Check|Accept: text/plain, text/*, */*|\
         Accept-Encoding: gzip|Connection: close||", GET, CLOSES),
    prober("keepalived: HTTP_GET",
        "GET /readyz HTTP/1.0|User-Agent: KeepAliveClient|Host: 10.0.0.7:9090||", GET, CLOSES),
    prober("keepalived: HTTP_GET with http_protocol 1.1",
        "GET /readyz HTTP/1.1|User-Agent: KeepAliveClient|Connection: close|Host: 10.0.0.7:9090||", GET, CLOSES),
    prober("kubelet",
        "GET /livez HTTP/1.1|Host: 10.244.0.7:9090|User-Agent: kube-probe/1.33|Accept: */*|Connection: close||",
        GET, CLOSES),
    prober("Prometheus 2",
        "GET /metrics HTTP/1.1|Host: 10.0.0.7:9090|User-Agent: Prometheus/2.42.0|\
         Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1|Accept-Encoding: gzip|X-Prometheus-Scrape-Timeout-Seconds: 10||",
        [200, 200], KEEPS),
    prober("Prometheus 3",
        "GET /metrics HTTP/1.1|Host: 10.0.0.7:9090|User-Agent: Prometheus/3.15.0|\
         Accept: application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2|Accept-Encoding: gzip|X-Prometheus-Scrape-Timeout-Seconds: 10||",
        [200, 200], KEEPS),
    prober("blackbox_exporter",
        "GET /readyz HTTP/1.1|Host: 10.0.0.7:9090|User-Agent: Blackbox Exporter/0.23.0|Connection: close||", GET, CLOSES),
    // On `/` the Accept field of a browser gets the page, with the same status.
    prober("Uptime Kuma",
        "GET / HTTP/1.1|Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,\
         */*;q=0.8,application/signed-exchange;v=b3;q=0.9|User-Agent: Uptime-Kuma/1.23.16|\
         Host: 10.0.0.7:9090|Connection: close||", GET, CLOSES),
    prober("Monit",
        "GET /readyz HTTP/1.1|Host: 10.0.0.7:9090|User-Agent: Monit/5.33.0|Accept: */*|Accept-Encoding: identity|\
         Connection: close||", GET, CLOSES),
    prober("Nagios: check_http -I",
        "GET / HTTP/1.0|User-Agent: check_http/v2.3.3 (monitoring-plugins 2.3.3)|Connection: close||", GET, CLOSES),
    prober("Nagios: check_http -H",
        "GET /readyz HTTP/1.1|User-Agent: check_http/v2.3.3 (monitoring-plugins 2.3.3)|Connection: close|\
         Host: 10.0.0.7:9090||", GET, CLOSES),
    prober("Datadog: http_check",
        "GET /readyz HTTP/1.1|Host: 10.0.0.7:9090|User-Agent: Datadog Agent/7.60.0|Accept-Encoding: gzip, deflate|\
         Accept: */*|Connection: keep-alive||", GET, KEEPS),
    prober("Traefik",
        "GET /readyz HTTP/1.1|Host: 10.0.0.7:9090|User-Agent: Go-http-client/1.1|Accept-Encoding: gzip||", GET, KEEPS),
    prober("Varnish", "GET / HTTP/1.1|Host: 10.0.0.7|Connection: close||", GET, CLOSES),
    prober("nginx: upstream_check_module", "GET / HTTP/1.0||", GET, CLOSES),
    prober("NGINX Plus: health_check, and nginx as a proxy", "GET / HTTP/1.0|Host: backend|Connection: close||", GET, CLOSES),
    prober("nginx as a proxy with kept connections", "GET /livez HTTP/1.1|Host: backend||", GET, KEEPS),
    prober("HEALTHCHECK: curl",
        "GET /livez HTTP/1.1|Host: 127.0.0.1:9090|User-Agent: curl/7.88.1|Accept: */*||", GET, KEEPS),
    prober("HEALTHCHECK: wget of busybox",
        "GET /livez HTTP/1.1|Host: 127.0.0.1:9090|User-Agent: Wget|Connection: close||", GET, CLOSES),
    prober("HEALTHCHECK: wget --spider",
        "HEAD /livez HTTP/1.1|Host: 127.0.0.1:9090|User-Agent: Wget/1.21.3|Accept: */*|Accept-Encoding: identity|\
         Connection: Keep-Alive||", GET, KEEPS),
    prober("HEALTHCHECK: requests",
        "GET /livez HTTP/1.1|Host: 127.0.0.1:9090|User-Agent: python-requests/2.34.2|Accept-Encoding: gzip, deflate|\
         Accept: */*|Connection: keep-alive||", GET, KEEPS),
    prober("HEALTHCHECK: fetch of Node",
        "GET /livez HTTP/1.1|host: 127.0.0.1:9090|connection: keep-alive|accept: */*|accept-language: *|\
         sec-fetch-mode: cors|user-agent: node|accept-encoding: gzip, deflate||", GET, KEEPS),
    prober("a load balancer that asks with HTTP/1.0 and keeps the connection",
        "GET / HTTP/1.0|Connection: Keep-Alive||", GET, KEEPS),
];

/// Returns the bytes of a request. Bars are line ends, except those in Istio's Host.
fn bytes(request: &str) -> Vec<u8> {
    const ISTIO: &str = "outbound|9090||worker";
    let own = ISTIO.replace('|', "\0");
    let text = request.replace(ISTIO, &own).replace('|', "\r\n");
    text.replace('\0', "|").into_bytes()
}

fn failing() -> Livelet {
    let check = "gone=file:/nonexistent";
    Livelet::start(&["--live", check, "--ready", check])
}

#[test]
fn each_prober_gets_the_answer_that_it_expects() {
    let livelets = [Livelet::start(&[]), failing()];
    for prober in PROBERS {
        for (livelet, status) in livelets.iter().zip([prober.passing, prober.failing]) {
            let case = format!("{}, {status}", prober.name);
            let mut stream = livelet.connect();
            stream.write_all(&bytes(prober.request)).unwrap();
            let response = if prober.request.starts_with("HEAD") {
                read_head(&mut stream)
            } else {
                read_response(&mut stream)
            };
            assert_eq!(response.status, status, "{case}: {response:?}");
            let says_close = response.field("connection") == Some("close");
            assert_eq!(says_close, !prober.keeps, "{case}: {response:?}");
            if prober.keeps {
                stream
                    .write_all(b"GET /startupz HTTP/1.1\r\nHost: a\r\n\r\n")
                    .unwrap();
                read_response(&mut stream);
            } else {
                assert_eq!(read_to_end(&mut stream), "", "{case}");
            }
        }
    }
}

#[test]
fn an_options_request_to_a_failing_endpoint_gets_the_answer_to_get() {
    let livelet = failing();
    for path in ["/", "/livez", "/readyz", "/health/ready/", "/livez/gone"] {
        let [options, get] = ["OPTIONS", "GET"].map(|method| {
            let mut stream = livelet.connect();
            write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").unwrap();
            read_response(&mut stream)
        });
        let without_date = |response: &Response| {
            let date = response.field("date").unwrap();
            response.head.replace(date, "") + &response.body
        };
        assert_eq!(without_date(&options), without_date(&get), "{path}");
        assert!(get.body.contains("[-]gone failed: /nonexistent"), "{get:?}");
    }
    let mut stream = livelet.connect();
    stream
        .write_all(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert_eq!(read_response(&mut stream).status, 204);
}

#[test]
fn metrics_name_the_version_of_their_format() {
    let livelet = Livelet::start(&[]);
    let scrapes = PROBERS
        .iter()
        .filter(|prober| prober.name.starts_with("Prometheus"));
    for prober in scrapes {
        let mut stream = livelet.connect();
        stream.write_all(&bytes(prober.request)).unwrap();
        let response = read_response(&mut stream);
        assert_eq!(
            response.field("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8"),
            "Prometheus 3 refuses an answer without a type that it knows"
        );
        assert!(
            response
                .body
                .contains("\nlivelet_up{endpoint=\"livez\"} 1\n")
        );
    }
}

#[test]
fn scanners_get_405_for_a_known_method_and_501_for_an_unknown() {
    let livelet = Livelet::start(&[]);
    for (request, status) in [
        ("CONNECT a:443 HTTP/1.1|Host: a:443||", 405),
        (
            "PROPFIND / HTTP/1.1|Host: a|Depth: 0|Content-Length: 0||",
            405,
        ),
        ("TRACE /livez HTTP/1.1|Host: a||", 405),
        ("POST /livez HTTP/1.1|Host: a|Content-Length: 2||{}", 405),
        ("SSTP_DUPLEX_POST / HTTP/1.1|Host: a||", 501),
    ] {
        let mut stream = livelet.connect();
        stream.write_all(&bytes(request)).unwrap();
        let response = read_response(&mut stream);
        assert_eq!(response.status, status, "{request}");
        let allow = (status == 405).then_some("GET, HEAD, OPTIONS");
        assert_eq!(response.field("allow"), allow, "{request}");
        assert_eq!(response.field("connection"), Some("close"), "{request}");
    }
}

#[test]
fn the_path_option_answers_a_prober_with_a_fixed_path() {
    let listen = ["--listen", "127.0.0.1:0"];
    let mut by_variable = livelet();
    by_variable
        .args(listen)
        .args(["--ready", "file:/nonexistent"])
        .env(
            "LIVELET_PATH",
            "/up=live /status/ready/=ready /begun=startup",
        );
    let mut by_flag = livelet();
    by_flag
        .args(listen)
        .args(["--ready", "file:/nonexistent"])
        .args(["--path", "/up=live", "--path", "/status/ready=ready"])
        .args(["--path", "/begun=startup"])
        .env("LIVELET_PATH", "/up=ready");
    for mut command in [by_variable, by_flag] {
        let livelet = Livelet::start_command(&mut command, 1);
        for (path, status) in [
            ("/up", 200),
            ("/up/", 200),
            ("/up?verbose", 200),
            ("/status/ready", 503),
            ("/status/ready/", 503),
            ("/begun", 503),
            ("/health/live", 200),
            ("/health/ready", 503),
            ("/health/started/", 503),
            ("/upper", 404),
            ("/up//", 404),
        ] {
            for (method, status) in [("GET", status), ("OPTIONS", options_status(status))] {
                let mut stream = livelet.connect();
                write!(stream, "{method} {path} HTTP/1.0\r\n\r\n").unwrap();
                assert_eq!(read_response(&mut stream).status, status, "{method} {path}");
            }
        }
    }
}

/// Returns the status of OPTIONS if GET has `status`.
fn options_status(status: u16) -> u16 {
    if status == 200 { 204 } else { status }
}

#[test]
fn listen_env_port_uses_the_port_in_the_environment_variable() {
    // The port is held, so that no other program can take it before livelet does.
    let held = std::net::TcpListener::bind("[::]:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let mut command = livelet();
    command
        .args(["--listen", "env:PORT", "--bind-wait", "0s"])
        .env("PORT", port.to_string());
    let output = finish(&mut command, SOON);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("[::]:{port}")), "{said}");
    assert_eq!(output.status.code(), Some(125), "{said}");
}

#[test]
fn after_term_each_answer_has_the_field_connection_close() {
    let kept: Vec<&Prober> = PROBERS.iter().filter(|prober| prober.keeps).collect();
    let mut livelet = Livelet::start(&["--lame-duck", "1h", "--", "sleep", "1000"]);
    let mut streams: Vec<_> = kept.iter().map(|_| livelet.connect()).collect();
    for (prober, stream) in kept.iter().zip(&mut streams) {
        stream.write_all(&bytes(prober.request)).unwrap();
        let response = read_head(stream);
        let length = response.field("content-length").unwrap().parse().unwrap();
        if !prober.request.starts_with("HEAD") {
            std::io::Read::read_exact(stream, &mut vec![0; length]).unwrap();
        }
        assert_ne!(
            response.field("connection"),
            Some("close"),
            "{}",
            prober.name
        );
    }
    livelet.signal("TERM");
    livelet.wait_until_said("signal: TERM: received");
    for (prober, stream) in kept.iter().zip(&mut streams) {
        stream.write_all(&bytes(prober.request)).unwrap();
        let response = read_head(stream);
        assert_eq!(
            response.field("connection"),
            Some("close"),
            "{}",
            prober.name
        );
        read_to_end(stream);
    }
}

#[test]
fn an_empty_line_on_a_kept_connection_does_not_delay_a_stop() {
    for lines in ["\r", "\r\n"] {
        for behind in [false, true] {
            let mut livelet = Livelet::start(&[]);
            let mut stream = connect(livelet.addr());
            let request = "GET / HTTP/1.1\r\nHost: \r\n\r\n";
            if behind {
                stream
                    .write_all(format!("{request}{lines}").as_bytes())
                    .unwrap();
            }
            // An answer on another connection that was opened later: livelet has seen what came
            // before.
            if !behind {
                stream.write_all(lines.as_bytes()).unwrap();
            } else {
                read_response(&mut stream);
            }
            assert_eq!(probe(livelet.addr(), "/livez").status, 200);
            let from = Instant::now();
            livelet.signal("TERM");
            let (code, took) = livelet.wait_timed(from);
            assert_eq!(code, Some(0));
            assert!(took.as_secs() < 4, "{lines:?}, {behind}: took {took:?}");
            assert_eq!(read_to_end(&mut stream), "", "no 408");
        }
    }
}

#[test]
fn two_empty_lines_after_a_request_get_400() {
    let livelet = Livelet::start(&[]);
    let mut stream = livelet.connect();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n")
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let statuses: Vec<u16> = split_responses(&read_to_end(&mut stream))
        .iter()
        .map(|response| response.status)
        .collect();
    assert_eq!(statuses, [200, 400]);
}
