//! One request, one answer: paths, methods, framing.

use std::net::SocketAddr;

use super::client::*;
use crate::support::Livelet;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum After {
    Open,
    Closed,
}
use After::{Closed, Open};

pub(crate) struct Case {
    request: Vec<u8>,
    status: u16,
    after: After,
}

/// Returns a case. If the status is a rejection, the connection closes whatever `after` is.
pub(crate) fn case(parts: &[&[u8]], status: u16, after: After) -> Case {
    let after = if rejected(status) { Closed } else { after };
    Case {
        request: parts.concat(),
        status,
        after,
    }
}

/// Sends one request on a new connection. Returns its answer, and checks how the connection goes
/// on.
pub(crate) fn run_case(addr: SocketAddr, case: &Case) -> Outcome<Reply> {
    let mut client = Client::open(addr);
    client.send(&case.request)?;
    let reply = client.reply(case.request.starts_with(b"HEAD "))?;
    ensure(reply.status == case.status, || {
        format!("expected {}, got {:?}", case.status, reply.head)
    })?;
    let http_1_0 = case.request.windows(11).any(|w| w == b" HTTP/1.0\r\n");
    let connection = reply.field("connection").map(str::to_ascii_lowercase);
    match case.after {
        Closed => {
            ensure(http_1_0 || connection.as_deref() == Some("close"), || {
                format!("no close in {:?}", reply.head)
            })?;
            ensure(connection.as_deref() != Some("keep-alive"), || {
                format!("keep-alive in {:?}", reply.head)
            })?;
        }
        Open => {
            ensure(connection.as_deref() != Some("close"), || {
                format!("close in {:?}", reply.head)
            })?;
            let keeps_alive = connection.as_deref() == Some("keep-alive");
            ensure(keeps_alive || !http_1_0, || {
                format!("no keep-alive in {:?}", reply.head)
            })?;
            client.send(b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")?;
            let second = client
                .reply(false)
                .map_err(|e| format!("a second request: {e}"))?;
            ensure(second.status == 200, || {
                format!("a second request: {:?}", second.head)
            })?;
        }
    }
    client.end()?;
    Ok(reply)
}

pub(crate) fn run_cases(args: &[&str], cases: &[Case]) {
    let livelet = Livelet::start(args);
    each(
        cases,
        |case| {
            format!(
                "{} -> {} {:?}",
                show(&case.request),
                case.status,
                case.after
            )
        },
        |case| run_case(livelet.addr(), case).map(drop),
    );
}

pub(crate) const GOOD: &[u8] = b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn each_known_path_gets_200_and_each_other_path_404() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        (b"/livez", 200),
        (b"/live", 200),
        (b"/healthz", 200),
        (b"/health", 200),
        (b"/", 200),
        (b"/readyz", 200),
        (b"/ready", 200),
        (b"/startupz", 200),
        (b"/startup", 200),
        (b"/livez?x=1", 200),
        (b"/livez?", 200),
        (b"/livez?/nope", 200),
        (b"/?x=1", 200),
        (b"/readyz?x=1&y=2", 200),
        (b"/startupz?x", 200),
        (b"/nope", 404),
        (b"/nope?x=1", 404),
        (b"/livez/", 200),
        (b"/readyz/", 200),
        (b"//livez", 404),
        (b"//", 404),
        (b"/LIVEZ", 404),
        (b"/Livez", 404),
        (b"/livezz", 404),
        (b"/live/", 200),
        (b"/liv", 404),
        (b"/livez&x=1", 404),
        (b"/livez;x", 404),
        (b"/livez%20", 404),
        (b"/livez%00", 404),
        (b"/./livez", 404),
        (b"/nope/../livez", 404),
        (b"/startupz/", 200),
        (b"/index.html", 404),
        (b"/favicon.ico", 404),
    ];
    let livelet = Livelet::start(&[]);
    each(
        ROWS,
        |(target, status)| format!("{} -> {status}", show(target)),
        |(target, status)| {
            let get = case(
                &[b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"],
                *status,
                Open,
            );
            let reply = run_case(livelet.addr(), &get)?;
            let ok = *status != 200 || reply.body == b"ok\n";
            ensure(ok, || format!("body {:?}", show(&reply.body)))?;
            let head = case(
                &[b"HEAD ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"],
                *status,
                Open,
            );
            let to_head = run_case(livelet.addr(), &head)?;
            let (get, head) = (reply.head_but_date(), to_head.head_but_date());
            ensure(get == head, || {
                format!("GET and HEAD differ:\n      {get:?}\n      {head:?}")
            })
        },
    );
}

#[test]
fn a_200_answer_has_all_required_header_fields() {
    #[rustfmt::skip]
    const ROWS: &[(&str, Option<&str>)] = &[
        ("content-type", Some("text/plain; charset=utf-8")),
        ("content-length", Some("3")),
        ("cache-control", Some("no-store")),
        ("x-content-type-options", Some("nosniff")),
        ("location", None),
        ("allow", None),
        ("transfer-encoding", None),
        ("content-encoding", None),
        ("set-cookie", None),
    ];
    let livelet = Livelet::start(&[]);
    let reply = run_case(livelet.addr(), &case(&[GOOD], 200, Open)).unwrap();
    imf_fixdate(reply.field("date").unwrap()).unwrap();
    each(
        ROWS,
        |row| format!("{row:?}"),
        |(name, value)| reply.expect_field(name, *value),
    );
}

#[test]
fn get_head_options_are_served_and_other_methods_get_405_or_501() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], &[u8], u16, After)] = &[
        (b"GET /livez HTTP/1.1", b"Host: h\r\n", 200, Open),
        (b"HEAD /livez HTTP/1.1", b"Host: h\r\n", 200, Open),
        (b"OPTIONS /livez HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"OPTIONS /readyz?x=1 HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"OPTIONS / HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"OPTIONS * HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"OPTIONS * HTTP/1.1", b"Host: h\r\nConnection: close\r\n", 204, Closed),
        (b"OPTIONS * HTTP/1.0", b"", 204, Closed),
        (b"OPTIONS / HTTP/1.0", b"", 204, Closed),
        (b"OPTIONS /livez HTTP/1.0", b"", 204, Closed),
        (b"OPTIONS / HTTP/1.0", b"Host: h\r\n", 204, Closed),
        (b"OPTIONS / HTTP/1.0", b"Connection: keep-alive\r\n", 204, Open),
        (b"OPTIONS http://example.com/livez HTTP/1.1", b"Host: h\r\n", 204, Open),
        (b"POST /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"POST /livez HTTP/1.1", b"Host: h\r\nContent-Length: 0\r\n", 405, Closed),
        (b"POST /livez HTTP/1.1", b"Host: h\r\nConnection: keep-alive\r\n", 405, Closed),
        (b"POST /livez HTTP/1.0", b"", 405, Closed),
        (b"POST /livez HTTP/1.0", b"Connection: keep-alive\r\n", 405, Closed),
        (b"PUT /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"DELETE /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"PATCH /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"TRACE /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"CONNECT /livez HTTP/1.1", b"Host: h\r\n", 405, Closed),
        (b"FOO /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"FOO /livez HTTP/1.0", b"", 501, Closed),
        (b"get /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"Get /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"GETT /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"GE /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"X-Y_Z.1!#$%&'*+^`|~ /livez HTTP/1.1", b"Host: h\r\n", 501, Closed),
        (b"G(T /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
        (b"G\xe9T /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
        (b"G\x00T /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
        (b" /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
        (b" GET /livez HTTP/1.1", b"Host: h\r\n", 400, Closed),
    ];
    let cases: Vec<_> = ROWS
        .iter()
        .map(|(line, fields, status, after)| {
            case(&[line, b"\r\n", fields, b"\r\n"], *status, *after)
        })
        .collect();
    run_cases(&[], &cases);
}

#[test]
fn a_missing_doubled_or_malformed_host_gets_400_and_others_200() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        (b"Host: h\r\n", 200),
        (b"host: h\r\n", 200),
        (b"HOST: h\r\n", 200),
        (b"Host:h\r\n", 200),
        (b"Host: \t h \t \r\n", 200),
        (b"Host: example.com\r\n", 200),
        (b"Host: EXAMPLE.com.\r\n", 200),
        (b"Host: example.com:80\r\n", 200),
        (b"Host: a-b_c~d\r\n", 200),
        (b"Host: %41.example\r\n", 200),
        (b"Host: 127.0.0.1\r\n", 200),
        (b"Host: 127.0.0.1:9090\r\n", 200),
        (b"Host: h:65535\r\n", 200),
        // Istio names its clusters so.
        (b"Host: outbound|80||name.default.svc\r\n", 200),
        (b"Host: [::1]\r\n", 200),
        (b"Host: [::1]:9090\r\n", 200),
        (b"Host: [::ffff:127.0.0.1]:9090\r\n", 200),
        (b"X: y\r\nHost: h\r\nY: z\r\n", 200),
        (b"", 400),
        (b"X: y\r\n", 400),
        (b"Hos: h\r\n", 400),
        (b"Hostt: h\r\n", 400),
        (b"X-Host: h\r\n", 400),
        (b"Host:\r\n", 200),
        (b"Host: \r\n", 200),
        (b"Host: \t\r\n", 200),
        (b"Host: h\r\nHost: h\r\n", 400),
        (b"Host: h\r\nhost: h\r\n", 400),
        (b"Host: h\r\nHost: g\r\n", 400),
        (b"Host: h\r\nHost:\r\n", 400),
        (b"Host:\r\nHost: h\r\n", 400),
        (b"Host: h\r\nX: y\r\nHOST: h\r\n", 400),
        (b"Host: a b\r\n", 400),
        (b"Host: a\tb\r\n", 400),
        (b"Host: a, b\r\n", 400),
        (b"Host: a,b\r\n", 400),
        (b"Host: user@host\r\n", 400),
        (b"Host: user:pw@host\r\n", 400),
        (b"Host: @host\r\n", 400),
        (b"Host: host/path\r\n", 400),
        (b"Host: host/\r\n", 400),
        (b"Host: /\r\n", 400),
        (b"Host: http://host\r\n", 400),
        (b"Host: host?x\r\n", 400),
        (b"Host: host#x\r\n", 400),
        (b"Host: host\\x\r\n", 400),
        (b"Host: <host>\r\n", 400),
        (b"Host: \"host\"\r\n", 400),
        (b"Host: ho^st\r\n", 400),
        (b"Host: {host}\r\n", 400),
        (b"Host: h\xc3\xb6st\r\n", 400),
        (b"Host: h\x80\r\n", 400),
        (b"Host: h\x00\r\n", 400),
        (b"Host: h\x7f\r\n", 400),
        (b"Host: h%\r\n", 400),
        (b"Host: h%4\r\n", 400),
        (b"Host: h%zz\r\n", 400),
        (b"Host: host:port\r\n", 400),
        (b"Host: host:99999\r\n", 400),
        (b"Host: host:65536\r\n", 400),
        (b"Host: host:-1\r\n", 400),
        (b"Host: host:+1\r\n", 400),
        (b"Host: host:80x\r\n", 400),
        (b"Host: host: 80\r\n", 400),
        (b"Host: host :80\r\n", 400),
        (b"Host: host:80:80\r\n", 400),
        (b"Host: host:0x50\r\n", 400),
        (b"Host: :80\r\n", 400),
        (b"Host: :\r\n", 400),
        (b"Host: ::1\r\n", 400),
        (b"Host: [::1\r\n", 400),
        (b"Host: ::1]\r\n", 400),
        (b"Host: [\r\n", 400),
        (b"Host: []\r\n", 400),
        (b"Host: [::1]x\r\n", 400),
        (b"Host: [::1]80\r\n", 400),
        (b"Host: x[::1]\r\n", 400),
        (b"Host: [::1]:x\r\n", 400),
        (b"Host: [::1]:99999\r\n", 400),
        (b"Host: [host]\r\n", 400),
        (b"Host: [:::1]\r\n", 400),
        (b"Host: [1:2:3:4:5:6:7:8:9]\r\n", 400),
        (b"Host: [12345::]\r\n", 400),
        (b"Host: [127.0.0.1]\r\n", 400),
    ];
    let mut cases = Vec::new();
    for (fields, status) in ROWS {
        cases.push(case(
            &[b"GET /livez HTTP/1.1\r\n", fields, b"\r\n"],
            *status,
            Open,
        ));
        // On HTTP/1.0 the field may be missing, and that alone is different.
        let missing = !fields
            .to_ascii_lowercase()
            .windows(5)
            .any(|w| w == b"host:")
            || fields.starts_with(b"X-Host");
        let status = if missing { 200 } else { *status };
        cases.push(case(
            &[b"GET /livez HTTP/1.0\r\n", fields, b"\r\n"],
            status,
            Closed,
        ));
    }
    run_cases(&[], &cases);
}

#[test]
fn absolute_urls_are_served_and_malformed_targets_get_400() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        // Absolute form (RFC 9112 §3.2.2).
        (b"GET http://example.com/livez", 200),
        (b"HEAD http://example.com/livez", 200),
        (b"GET https://example.com/livez", 200),
        (b"GET HTTP://example.com/livez", 200),
        (b"GET hTTpS://EXAMPLE.com/livez", 200),
        (b"GET http://example.com:80/livez", 200),
        (b"GET http://127.0.0.1:9090/readyz", 200),
        (b"GET http://[::1]/livez", 200),
        (b"GET http://[::1]:9090/livez", 200),
        (b"GET http://example.com", 200),
        (b"GET http://example.com:80", 200),
        (b"GET http://example.com/", 200),
        (b"GET http://example.com?x=1", 200),
        (b"GET http://example.com/?x=1", 200),
        (b"GET http://example.com/livez?x=1", 200),
        (b"GET http://example.com/livez?x=http://a@b/", 200),
        (b"GET http://example.com/nope", 404),
        (b"GET http://example.com//livez", 404),
        (b"GET http://example.com/livez/", 200),
        (b"GET http://user@example.com/livez", 400),
        (b"GET http://user:pw@example.com/livez", 400),
        (b"GET http://@example.com/livez", 400),
        (b"GET http:///livez", 400),
        (b"GET http://", 400),
        (b"GET http://:80/livez", 400),
        (b"GET http://?x", 400),
        (b"GET http://example.com:x/livez", 400),
        (b"GET http://example.com:99999/livez", 400),
        (b"GET http://[::1/livez", 400),
        (b"GET http://[host]/livez", 400),
        (b"GET http://a,b/livez", 400),
        (b"GET http://example.com/livez#f", 400),
        (b"GET http://example.com#f", 400),
        (b"GET http:/livez", 400),
        (b"GET http:livez", 400),
        (b"GET http:", 400),
        (b"GET http", 400),
        (b"GET ://example.com/livez", 400),
        (b"GET ftp://x/livez", 400),
        (b"GET httpx://x/livez", 400),
        // Neither of the forms.
        (b"GET livez", 400),
        (b"GET livez/", 400),
        (b"GET ./livez", 400),
        (b"GET example.com:80", 400),
        (b"GET example.com", 400),
        (b"GET ?x=1", 400),
        (b"GET \\livez", 400),
        (b"GET %2flivez", 400),
        (b"GET *", 400),
        (b"HEAD *", 400),
        (b"GET */livez", 400),
        (b"GET *?x", 400),
        (b"OPTIONS **", 400),
        (b"OPTIONS *x", 400),
        (b"OPTIONS livez", 400),
        (b"OPTIONS example.com:80", 400),
        (b"GET ", 400),
        (b"GET", 400),
        (b"GET  /livez", 400),
        (b"GET\t/livez", 400),
        (b"GET /livez ", 400),
        (b"GET /livez x", 400),
        (b"GET /li vez", 400),
        // Bytes.
        (b"GET /livez#", 400),
        (b"GET /livez#f", 400),
        (b"GET /livez?x#f", 400),
        (b"GET /#", 400),
        (b"GET #", 400),
        (b"GET /nope#f", 400),
        (b"OPTIONS /livez#f", 400),
        (b"GET /liv\xc3\xa9z", 400),
        (b"GET /livez?\xc3\xa9", 400),
        (b"GET /livez\x80", 400),
        (b"GET /livez\xff", 400),
        (b"GET /livez?\xff", 400),
        (b"GET http://ex\xc3\xa4mple.com/livez", 400),
        (b"GET /livez\x00", 400),
        (b"GET /livez?\x00", 400),
        (b"GET /livez\x01", 400),
        (b"GET /livez\x7f", 400),
        (b"GET /livez\t", 400),
        (b"GET /li\x0bvez", 400),
        (b"GET /li\rvez", 400),
        (b"GET /li\nvez", 400),
    ];
    let mut cases: Vec<_> = ROWS
        .iter()
        .map(|(line, status)| case(&[line, b" HTTP/1.1\r\nHost: h\r\n\r\n"], *status, Open))
        .collect();
    // The authority of the target does not stand in for the field, nor must it be the same.
    cases.push(case(
        &[b"GET http://example.com/livez HTTP/1.1\r\n\r\n"],
        400,
        Closed,
    ));
    cases.push(case(
        &[b"GET http://example.com/livez HTTP/1.1\r\nHost:\r\n\r\n"],
        200,
        Open,
    ));
    cases.push(case(
        &[b"GET http://a/livez HTTP/1.1\r\nHost: b:1\r\n\r\n"],
        200,
        Open,
    ));
    cases.push(case(
        &[b"GET http://example.com/livez HTTP/1.0\r\n\r\n"],
        200,
        Closed,
    ));
    run_cases(&[], &cases);
}

#[test]
fn http_versions_other_than_1_0_and_1_1_get_505_or_400() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        (b"GET /livez HTTP/1.1", 200),
        (b"GET /livez HTTP/2.0", 505),
        (b"GET /livez HTTP/1.2", 505),
        (b"GET /livez HTTP/1.9", 505),
        (b"GET /livez HTTP/0.9", 505),
        (b"GET /livez HTTP/0.0", 505),
        (b"GET /livez HTTP/3.0", 505),
        (b"GET /livez HTTP/9.9", 505),
        (b"GET /livez HTTP/1.1x", 400),
        (b"GET /livez HTTP/1.1 ", 400),
        (b"GET /livez HTTP/1.11", 400),
        (b"GET /livez HTTP/1.10", 400),
        (b"GET /livez HTTP/11.1", 400),
        (b"GET /livez HTTP/01.1", 400),
        (b"GET /livez HTTP/1.", 400),
        (b"GET /livez HTTP/.1", 400),
        (b"GET /livez HTTP/1", 400),
        (b"GET /livez HTTP/2", 400),
        (b"GET /livez HTTP/", 400),
        (b"GET /livez HTTP", 400),
        (b"GET /livez H", 400),
        (b"GET /livez HTTP/11", 400),
        (b"GET /livez HTTP/1,1", 400),
        (b"GET /livez HTTP/1.x", 400),
        (b"GET /livez HTTP/x.1", 400),
        (b"GET /livez HTTP/ 1.1", 400),
        (b"GET /livez HTTP /1.1", 400),
        (b"GET /livez HTTP-1.1", 400),
        (b"GET /livez http/1.1", 400),
        (b"GET /livez Http/1.1", 400),
        (b"GET /livez HTTQ/1.1", 400),
        (b"GET /livez HTTPS/1.1", 400),
        (b"GET /livez\tHTTP/1.1", 400),
        (b"GET /livez ", 400),
        (b"GET /livez", 400),
        (b"GET", 400),
    ];
    let mut cases: Vec<_> = ROWS
        .iter()
        .map(|(line, status)| case(&[line, b"\r\nHost: h\r\n\r\n"], *status, Open))
        .collect();
    cases.push(case(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 505, Closed));
    cases.push(case(&[b"GET /livez HTTP/2.0\nHost: h\n\n"], 400, Closed));
    cases.push(case(
        &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\n\x04\x00\x00\x00\x00\x00"],
        505,
        Closed,
    ));
    cases.push(case(
        &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"],
        505,
        Closed,
    ));
    run_cases(&[], &cases);
}

#[test]
fn each_malformed_line_or_field_is_rejected() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], u16)] = &[
        // A bare LF at the end of each line.
        (b"GET /livez HTTP/1.1\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\n", 400),
        (b"GET /livez HTTP/1.1\nHost: h\n\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\n\n", 400),
        (b"GET /livez HTTP/1.1\nHost: h\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nX: y\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: y\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX:\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost:\nh\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHo\nst: h\r\n\r\n", 400),
        (b"GET /livez\nHTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET\n/livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\n\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\n\n", 400),
        (b"GET /livez HTTP/1.0\n\n", 400),
        (b"GET /livez\n\n", 400),
        (b"\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\r\n\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        // Empty lines before the request line.
        (b"\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        (b"\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 204),
        (b"\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\r\n\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        // Bare CR.
        (b"\rGET /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\rHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez\r HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET\r /livez HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: \ry\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\r: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\rX: y\r\n\r\n", 400),
        // Field names.
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\t: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\nHost : h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n:\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n: y\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX y: z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX(y): z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX@y: z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\"X\": z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\xc3\xa9: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\x00: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\x01: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX\x7f: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\x00: y\r\n\r\n", 400),
        // obs-fold, and whitespace before the first field.
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n\tX: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: y\r\n z\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: y\r\n\tz\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX:\r\n y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost:\r\n h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n \r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n Host: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\tHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n X: y\r\nHost: h\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n \r\nHost: h\r\n\r\n", 400),
        // Field values.
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX:\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX:y\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: \t \r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\tb c\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: : y:z\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: y\r\nX: y\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\n!#$%&'*+-.^_`|~09aZ: y\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: \x00\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x01b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x08b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x0bb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x0cb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x1bb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x1fb\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: h\r\nX: a\x7fb\r\n\r\n", 400),
        // A rejected HEAD has no body.
        (b"HEAD /livez HTTP/1.1\r\n\r\n", 400),
        (b"HEAD /livez HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"HEAD /livez HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n", 400),
        (b"HEAD /livez HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: foo\r\n\r\n", 501),
        // Other protocols.
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n", 400),
        (b"\x00\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
        (b"EHLO example.com\r\n\r\n", 400),
    ];
    let cases: Vec<_> = ROWS
        .iter()
        .map(|(request, status)| case(&[request], *status, Open))
        .collect();
    run_cases(&[], &cases);
}

#[test]
fn malformed_content_length_or_transfer_encoding_gets_400_or_501() {
    // The fields that follow Host, what follows the head, and the answer.
    #[rustfmt::skip]
    const ROWS: &[(&[u8], &[u8], u16, After)] = &[
        (b"Content-Length: 0\r\n", b"", 200, Open),
        (b"Content-Length: 00\r\n", b"", 200, Open),
        (b"Content-Length: 0\r\nContent-Length: 0\r\n", b"", 200, Open),
        (b"Content-Length: 5\r\n", b"hello", 200, Closed),
        (b"content-length:5\r\n", b"hello", 200, Closed),
        (b"Content-Length: \t5 \t\r\n", b"hello", 200, Closed),
        (b"Content-Length: 05\r\n", b"hello", 200, Closed),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello", 200, Closed),
        (b"Content-Length: 5\r\nConnection: keep-alive\r\n", b"hello", 200, Closed),
        (b"Content-Length: +5\r\n", b"hello", 400, Closed),
        (b"Content-Length: -1\r\n", b"hello", 400, Closed),
        (b"Content-Length: -0\r\n", b"", 400, Closed),
        (b"Content-Length: +0\r\n", b"", 400, Closed),
        (b"Content-Length: 5,5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5, 5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 0,0\r\n", b"", 400, Closed),
        (b"Content-Length: 5,\r\n", b"hello", 400, Closed),
        (b"Content-Length: ,5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5x\r\n", b"hello", 400, Closed),
        (b"Content-Length: x5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 0x5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5;q=1\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5.0\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5e0\r\n", b"hello", 400, Closed),
        (b"Content-Length: 1 2\r\n", b"hello", 400, Closed),
        (b"Content-Length: 1_0\r\n", b"hello", 400, Closed),
        (b"Content-Length: \"5\"\r\n", b"hello", 400, Closed),
        (b"Content-Length: \xef\xbc\x95\r\n", b"hello", 400, Closed),
        (b"Content-Length: \r\n", b"", 400, Closed),
        (b"Content-Length:\r\n", b"", 400, Closed),
        (b"Content-Length: 18446744073709551616\r\n", b"", 400, Closed),
        (b"Content-Length: 99999999999999999999999\r\n", b"", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello", 400, Closed),
        (b"Content-Length: 0\r\nContent-Length: 5\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: 0\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: \r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: x\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n", b"hello", 400, Closed),
        (b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6\r\n", b"hello", 400, Closed),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", 200, Closed),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n", 200, Closed),
        (b"transfer-encoding:CHUNKED\r\n", b"0\r\n\r\n", 200, Closed),
        (b"Transfer-Encoding: \tChunked \r\n", b"0\r\n\r\n", 200, Closed),
        (b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n", b"0\r\n\r\n", 200, Closed),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Content-Length: 5\r\nX: y\r\ntransfer-encoding: chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: gzip\r\n", b"", 400, Closed),
        (b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: identity\r\n", b"", 400, Closed),
        (b"Transfer-Encoding: \r\n", b"", 400, Closed),
        (b"Transfer-Encoding:\r\n", b"", 400, Closed),
        (b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: chunked,chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", b"0\r\n\r\n", 400, Closed),
        (b"Transfer-Encoding: foo\r\n", b"", 501, Closed),
        (b"Transfer-Encoding: xchunked\r\n", b"", 501, Closed),
        (b"Transfer-Encoding: chunkedx\r\n", b"", 501, Closed),
        (b"Transfer-Encoding: foo, chunked\r\n", b"0\r\n\r\n", 501, Closed),
        (b"Transfer-Encoding: foo,Chunked\r\n", b"0\r\n\r\n", 501, Closed),
        (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n", 501, Closed),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 501, Closed),
        (b"Transfer-Encoding: foo\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", 501, Closed),
    ];
    let mut cases = Vec::new();
    for (fields, tail, status, after) in ROWS {
        cases.push(case(
            &[b"GET /livez HTTP/1.1\r\nHost: h\r\n", fields, b"\r\n", tail],
            *status,
            *after,
        ));
        // Another method does not change what is rejected.
        let status = if *status == 200 { 405 } else { *status };
        cases.push(case(
            &[
                b"POST /livez HTTP/1.1\r\nHost: h\r\n",
                fields,
                b"\r\n",
                tail,
            ],
            status,
            *after,
        ));
    }
    #[rustfmt::skip]
    const HTTP_1_0: &[(&[u8], &[u8], u16)] = &[
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n", b"0\r\n\r\n", 400),
        (b"Transfer-Encoding: gzip\r\n", b"", 400),
        (b"Transfer-Encoding: identity\r\n", b"", 400),
        (b"Content-Length: 5\r\n", b"hello", 200),
        (b"Content-Length: 5\r\nConnection: keep-alive\r\n", b"hello", 200),
        (b"Content-Length: +5\r\n", b"hello", 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello", 400),
    ];
    for (fields, tail, status) in HTTP_1_0 {
        cases.push(case(
            &[b"GET /livez HTTP/1.0\r\n", fields, b"\r\n", tail],
            *status,
            Closed,
        ));
    }
    run_cases(&[], &cases);
}

/// Returns a request with a target of this many bytes.
pub(crate) fn long_target(length: usize) -> Vec<u8> {
    [
        b"GET /".as_slice(),
        &vec![b'a'; length - 1],
        b" HTTP/1.1\r\nHost: h\r\n\r\n",
    ]
    .concat()
}

/// Returns a request with a head of this many bytes.
pub(crate) fn long_head(length: usize) -> Vec<u8> {
    let start = b"GET /livez HTTP/1.1\r\nHost: h\r\nX: ".as_slice();
    [start, &vec![b'a'; length - start.len() - 4], b"\r\n\r\n"].concat()
}

/// Returns a request with this many fields.
pub(crate) fn many_fields(count: usize) -> Vec<u8> {
    [
        b"GET /livez HTTP/1.1\r\nHost: h\r\n".as_slice(),
        &b"X: y\r\n".repeat(count - 1),
        b"\r\n",
    ]
    .concat()
}

#[test]
fn a_request_over_a_size_limit_gets_414_or_431() {
    #[rustfmt::skip]
    let rows = [
        (long_target(2047), 404),
        (long_target(2048), 404),
        (long_target(2049), 414),
        (long_target(3000), 414),
        (long_target(8000), 414),
        (long_head(8191), 200),
        (long_head(8192), 200),
        (long_head(8193), 431),
        (long_head(9000), 431),
        (long_head(16384), 431),
        (long_head(100_000), 431),
        (many_fields(63), 200),
        (many_fields(64), 200),
        (many_fields(65), 431),
        (many_fields(66), 431),
        (many_fields(128), 431),
        // Heads without an end: the answer does not wait for it.
        (long_target(2049)[..2054].to_vec(), 414),
        (long_target(4000)[..3000].to_vec(), 414),
        (long_target(30_000)[..20_000].to_vec(), 414),
        (long_target(200_000)[..100_000].to_vec(), 414),
        (long_head(20_000)[..8193].to_vec(), 431),
        (long_head(20_000)[..9000].to_vec(), 431),
        (long_head(200_000)[..100_000].to_vec(), 431),
        (many_fields(80)[..460].to_vec(), 431),
    ];
    let cases: Vec<_> = rows
        .iter()
        .map(|(request, status)| case(&[request], *status, Open))
        .collect();
    run_cases(&[], &cases);
}

#[test]
fn keep_alive_follows_the_http_version_and_the_connection_field() {
    #[rustfmt::skip]
    const ROWS: &[(&[u8], &[u8], After)] = &[
        (b"HTTP/1.1", b"Host: h\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nConnection: keep-alive\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nConnection: closed\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nX-Connection: close\r\n", Open),
        (b"HTTP/1.1", b"Host: h\r\nConnection: close\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nconnection:CLOSE\r\n", Closed),
        (b"HTTP/1.1", b"Connection: close\r\nHost: h\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo, Close\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo,close,bar\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo \t, \tclose\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: keep-alive, close\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: close, keep-alive\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: foo\r\nConnection: close\r\n", Closed),
        (b"HTTP/1.1", b"Host: h\r\nConnection: close\r\nConnection: foo\r\n", Closed),
        (b"HTTP/1.0", b"", Closed),
        (b"HTTP/1.0", b"Host: h\r\n", Closed),
        (b"HTTP/1.0", b"Connection: foo\r\n", Closed),
        (b"HTTP/1.0", b"Connection: close\r\n", Closed),
        (b"HTTP/1.0", b"Connection: keep-alive, close\r\n", Closed),
        (b"HTTP/1.0", b"Host: h\r\nConnection: close\r\n", Closed),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", Open),
        (b"HTTP/1.0", b"Connection: Keep-Alive\r\n", Open),
        (b"HTTP/1.0", b"Connection: foo, keep-alive\r\n", Open),
        (b"HTTP/1.0", b"Host: h\r\nConnection: keep-alive\r\n", Open),
        (b"HTTP/1.0", b"Connection: foo\r\nConnection: keep-alive\r\n", Open),
    ];
    let mut cases = Vec::new();
    for (version, fields, after) in ROWS {
        for (line, status) in [
            ("GET /livez", 200),
            ("HEAD /livez", 200),
            ("GET /nope", 404),
            ("OPTIONS /livez", 204),
        ] {
            cases.push(case(
                &[line.as_bytes(), b" ", version, b"\r\n", fields, b"\r\n"],
                status,
                *after,
            ));
        }
    }
    run_cases(&[], &cases);
}
