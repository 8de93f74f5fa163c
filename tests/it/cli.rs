//! The command line and its variables: what is refused, what is accepted and what it then does.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{
    AT_ONCE, KillOnDrop, Livelet, SOON, assert_closed, binary, command, finish, has_ipv6, livelet,
    probe, wait_until_listening, wait_until_read,
};

/// Runs livelet and asserts that it ends before it binds anything, with 125 and one line that holds
/// `named`.
fn assert_refused(args: &[&OsStr], env: Option<(&str, &OsStr)>, named: &[&str]) {
    let mut command = livelet();
    command.args(args).envs(env);
    let case = format!("{args:?} {env:?}");
    let output = finish(&mut command, SOON);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{case}: {stderr:?}");
    assert_eq!(output.stdout, b"", "{case}");
    assert!(stderr.starts_with("livelet: "), "{case}: {stderr:?}");
    assert!(stderr.ends_with('\n'), "{case}: {stderr:?}");
    assert_eq!(stderr.lines().count(), 1, "{case}: {stderr:?}");
    assert!(!stderr.contains("listening"), "{case}: {stderr:?}");
    assert!(
        !stderr.trim_end().contains(char::is_control),
        "{case}: {stderr:?}"
    );
    for part in named {
        assert!(stderr.contains(part), "{case}: no {part:?} in {stderr:?}");
    }
}

/// Checks that a bad command line after a good address is refused. `named` are parts of the line on
/// stderr.
fn assert_args_refused(args: &[&str], named: &[&str]) {
    let good = ["--listen", "127.0.0.1:0"];
    let args: Vec<&OsStr> = good.iter().chain(args).map(OsStr::new).collect();
    assert_refused(&args, None, named);
}

fn assert_variable_refused(name: &str, value: &str, named: &str) {
    let args: &[&str] = match name {
        "LIVELET_LISTEN" => &[],
        _ => &["--listen", "127.0.0.1:0"],
    };
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    assert_refused(&args, Some((name, OsStr::new(value))), &[name, named]);
}

/// Bad values, and the part of each that its message must show.
const BAD_LISTEN: &[(&str, &str)] = &[
    ("x", "x"),
    ("70000", "70000"),
    ("65536", "65536"),
    ("+80", "+80"),
    (":+80", ":+80"),
    ("-1", "-1"),
    (":", ":"),
    ("localhost:9090", "localhost:9090"),
    ("1.2.3.4", "1.2.3.4"),
    ("1.2.3.4:", "1.2.3.4:"),
    ("1.2.3.4:70000", "1.2.3.4:70000"),
    ("256.0.0.1:80", "256.0.0.1:80"),
    ("[::1]", "[::1]"),
    ("[::1]:", "[::1]:"),
    ("[::1:80", "[::1:80"),
    ("[127.0.0.1]:80", "[127.0.0.1]:80"),
    ("::1:80", "::1:80"),
    ("http://127.0.0.1:80", "http://127.0.0.1:80"),
    ("127.0.0.1:0\nevil", "evil"),
];

const BAD_DRAIN: &[(&str, &str)] = &[
    ("6s", "6s"),
    ("5001ms", "5001ms"),
    ("1m", "1m"),
    ("1h", "1h"),
    ("5", "5"),
    ("5 s", "5 s"),
    ("-1s", "-1s"),
    ("1.5s", "1.5s"),
    ("s", "s"),
    ("x", "x"),
    ("99999999999999999999s", "99999999999999999999s"),
    ("18446744073709551615h", "18446744073709551615h"),
    ("5S", "5S"),
    ("5sec", "5sec"),
    ("1s 1s", "1s 1s"),
    ("5s\nevil", "evil"),
];

const BAD_MAX_CONNECTIONS: &[(&str, &str)] = &[
    ("0", "0"),
    ("-1", "-1"),
    ("x", "x"),
    ("1.5", "1.5"),
    ("64k", "64k"),
    ("1 2", "1 2"),
    ("99999999999999999999", "99999999999999999999"),
    ("64\nevil", "evil"),
];

const BAD_DURATION: &[(&str, &str)] = &[
    ("5", "5"),
    ("-1s", "-1s"),
    ("8761h", "8761h"),
    ("18446744073709551615h", "18446744073709551615h"),
    ("1s 1s", "1s 1s"),
    ("5s\nevil", "evil"),
];

const BAD_CHECK_TIMEOUT: &[(&str, &str)] = &[("0s", "0s"), ("61s", "61s"), ("x", "x")];

const BAD_CHECK: &[(&str, &str)] = &[
    ("nope", "nope"),
    ("file:relative", "relative"),
    ("tcp:example.com:80", "localhost"),
    ("worker=file:/a", "taken"),
];

const BAD_SIGNAL: &[(&str, &str)] = &[
    ("TERM", "TERM"),
    ("TERM=", "TERM="),
    ("=TERM", "=TERM"),
    ("TERM=NOPE", "NOPE"),
    ("NOPE=TERM", "NOPE"),
    ("KILL=TERM", "KILL"),
    ("STOP=TERM", "STOP"),
    ("CHLD=TERM", "CHLD"),
    ("0=TERM", "0=TERM"),
    ("65=TERM", "65"),
    ("TERM=65", "65"),
    ("TERM=-1", "-1"),
    ("TERM=QUIT=INT", "QUIT=INT"),
];

const BAD_OK_EXIT: &[(&str, &str)] = &[
    ("256", "256"),
    ("-1", "-1"),
    ("TERM", "TERM"),
    ("1,2", "1,2"),
];

const BAD_STOP_SIGNAL: &[(&str, &str)] = &[
    ("KILL", "KILL"),
    ("STOP", "STOP"),
    ("CHLD", "CHLD"),
    ("SEGV", "SEGV"),
    ("0", "0"),
    ("65", "65"),
    ("term", "term"),
    ("TERM,QUIT", "TERM,QUIT"),
];

#[test]
fn an_option_of_tini_is_refused_with_the_option_that_replaces_it() {
    assert_args_refused(&["--single", "--", "true"], &["--single", "--group"]);
}

#[test]
fn addresses_that_overlap_are_refused() {
    for (one, two) in [
        ("9090", "[::]:9090"),
        ("9090", "127.0.0.1:9090"),
        ("[::]:9090", "0.0.0.0:9090"),
        ("127.0.0.1:9090", "127.0.0.1:9090"),
    ] {
        let args = ["--listen", one, "--listen", two].map(OsStr::new);
        assert_refused(&args, None, &["--listen", two, "overlaps"]);
        let both = format!("{one} {two}");
        let variable = ("LIVELET_LISTEN", OsStr::new(&both));
        assert_refused(&[], Some(variable), &["LIVELET_LISTEN", two, "overlaps"]);
    }
}

#[test]
fn bad_flags_are_refused() {
    let table: &[(&[&str], &[&str])] = &[
        (&["--nope"], &["--nope"]),
        (&["--nope=1"], &["--nope"]),
        (&["--Listen", "0"], &["--Listen"]),
        (&["--liste", "0"], &["--liste"]),
        (&["-listen"], &["-"]),
        (&["-x"], &["-x"]),
        (&["-qx"], &["-x"]),
        (&["--nope\nevil"], &["evil"]),
        (&["--listen"], &["--listen"]),
        (&["-l"], &["-l"]),
        (&["--drain"], &["--drain"]),
        (&["--max-connections"], &["--max-connections"]),
        (&["--reuse-port=x"], &["--reuse-port", "x"]),
        (&["--quiet=1"], &["--quiet", "1"]),
        (&["--verbose=1"], &["--verbose", "1"]),
        (&["--reuse-port", "yes"], &["yes"]),
        (&["stray"], &["stray", "--"]),
        (&["--"], &["--", "COMMAND"]),
        (&["stray", "--", "true"], &["stray"]),
        (&["--drain", "--", "true"], &["--drain"]),
        (
            &["--signal", "TERM=QUIT", "--signal", "TERM=INT"],
            &["TERM"],
        ),
        (&["--takeover=x"], &["--takeover", "x"]),
        (&["stray\nevil"], &["evil"]),
        (&["-q", "stray", "-q"], &["stray"]),
        (&[""], &[]),
        (&["--listen="], &["--listen"]),
        (&["--listen", ""], &["--listen"]),
        (&["-l", ""], &["-l"]),
        (&["--drain="], &["--drain"]),
        (&["--drain", ""], &["--drain"]),
        (&["--max-connections="], &["--max-connections"]),
        (&["--max-connections", ""], &["--max-connections"]),
    ];
    for (args, named) in table {
        assert_args_refused(args, named);
    }
}

#[test]
fn quiet_and_verbose_together_are_refused() {
    for args in [&["-q", "-v"][..], &["--verbose", "--quiet"], &["-qv"]] {
        assert_args_refused(args, &[]);
        // Which of the two the line blames is its own choice.
        let output = finish(livelet().args(args), SOON);
        let stderr = String::from_utf8(output.stderr).unwrap();
        let names = ["-q", "-v", "--quiet", "--verbose"];
        assert!(
            names.iter().any(|name| stderr.contains(name)),
            "{args:?}: {stderr:?}"
        );
    }
}

#[test]
fn bad_values_are_refused_as_a_flag_and_as_a_variable() {
    for (flag, variable, values) in [
        ("--listen", "LIVELET_LISTEN", BAD_LISTEN),
        ("--drain", "LIVELET_DRAIN", BAD_DRAIN),
        (
            "--max-connections",
            "LIVELET_MAX_CONNECTIONS",
            BAD_MAX_CONNECTIONS,
        ),
        ("--bind-wait", "LIVELET_BIND_WAIT", BAD_DURATION),
        ("--grace", "LIVELET_GRACE", BAD_DURATION),
        (
            "--exit-on-unhealthy",
            "LIVELET_EXIT_ON_UNHEALTHY",
            BAD_DURATION,
        ),
        ("--live", "LIVELET_LIVE", BAD_CHECK),
        ("--ready", "LIVELET_READY", BAD_CHECK),
        (
            "--check-timeout",
            "LIVELET_CHECK_TIMEOUT",
            BAD_CHECK_TIMEOUT,
        ),
        ("--lame-duck", "LIVELET_LAME_DUCK", BAD_DURATION),
        ("--signal", "LIVELET_SIGNAL", BAD_SIGNAL),
        ("--ok-exit", "LIVELET_OK_EXIT", BAD_OK_EXIT),
        ("--stop-signal", "LIVELET_STOP_SIGNAL", BAD_STOP_SIGNAL),
    ] {
        for (value, shown) in values {
            assert_args_refused(&[flag, value], &[flag, shown]);
            assert_args_refused(&[&format!("{flag}={value}")], &[flag, shown]);
            assert_variable_refused(variable, value, shown);
        }
    }
    for (value, shown) in BAD_LISTEN {
        assert_args_refused(&["-l", value], &["-l", shown]);
    }
}

#[test]
fn bad_variables_are_refused() {
    for (name, value, shown) in [
        ("LIVELET_LISTEN", "127.0.0.1:0 x", "x"),
        ("LIVELET_LISTEN", "x 127.0.0.1:0", "x"),
        ("LIVELET_LISTEN", "127.0.0.1:0,127.0.0.1:0", ","),
        ("LIVELET_REUSE_PORT", "maybe", "maybe"),
        ("LIVELET_REUSE_PORT", "maybe\nevil", "evil"),
        ("LIVELET_TAKEOVER", "maybe", "maybe"),
        ("LIVELET_GROUP", "maybe", "maybe"),
        ("LIVELET_STOP_SIGNAL", "TERM KILL", "KILL"),
        ("LIVELET_SIGNAL", "TERM=QUIT TERM=INT", "TERM=INT"),
        ("LIVELET_OK_EXIT", "143 x", "x"),
        ("LIVELET_LOG", "loud", "loud"),
        ("LIVELET_LOG", "QUIET", "QUIET"),
        ("LIVELET_LOG", "quiet verbose", "quiet verbose"),
        ("LIVELET_LOG", "quiet\nevil", "evil"),
    ] {
        assert_variable_refused(name, value, shown);
    }
}

#[test]
fn a_value_that_is_not_utf8_is_refused() {
    let bad = OsStr::from_bytes(b"12\xff7");
    let listen = [OsStr::new("--listen"), OsStr::new("127.0.0.1:0")];
    for flag in ["--listen", "-l", "--drain", "--max-connections"] {
        let args = [listen[0], listen[1], OsStr::new(flag), bad];
        assert_refused(&args, None, &[flag, "12"]);
    }
    for flag in ["--listen=", "--drain=", "--max-connections="] {
        let mut joined = OsString::from(flag);
        joined.push(bad);
        let args = [listen[0], listen[1], &joined];
        assert_refused(&args, None, &[flag.trim_end_matches('='), "12"]);
    }
    assert_refused(&[listen[0], listen[1], bad], None, &["12"]);
    let flag = OsStr::from_bytes(b"--no\xffpe");
    assert_refused(&[listen[0], listen[1], flag], None, &["--no"]);
    assert_refused(&[], Some(("LIVELET_LISTEN", bad)), &["LIVELET_LISTEN"]);
    for name in [
        "LIVELET_DRAIN",
        "LIVELET_MAX_CONNECTIONS",
        "LIVELET_REUSE_PORT",
        "LIVELET_LOG",
    ] {
        assert_refused(&listen, Some((name, bad)), &[name]);
    }
}

#[test]
fn a_bad_value_is_reported_even_if_the_port_is_in_use() {
    // The address is held, so an earlier bind would fail with another message.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = other.local_addr().unwrap().to_string();
    let args = ["--listen", &addr, "--drain", "6s"].map(OsStr::new);
    assert_refused(&args, None, &["--drain", "6s"]);
}

fn on(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}

#[test]
fn each_form_of_an_address_is_served() {
    // Form of the address, address in the ready line, address to ask. A bare port without IPv6 is
    // IPv4 alone.
    let both: &[&str] = &["127.0.0.1", "::1"];
    let any = if has_ipv6() {
        ("::", both)
    } else {
        ("0.0.0.0", &["127.0.0.1"][..])
    };
    let mut table = vec![
        ("0", any.0, any.1),
        (":0", any.0, any.1),
        ("127.0.0.1:0", "127.0.0.1", &["127.0.0.1"][..]),
        ("0.0.0.0:0", "0.0.0.0", &["127.0.0.1"]),
    ];
    if has_ipv6() {
        table.push(("[::1]:0", "::1", &["::1"]));
        table.push(("[::]:0", "::", both));
    }
    for (form, bound, reachable) in table {
        let commands: [&[&str]; 4] = [
            &["--listen", form],
            &[&format!("--listen={form}")],
            &["-l", form],
            &[&format!("-l{form}")],
        ];
        for args in commands {
            assert_serves(livelet().args(args), bound, reachable);
        }
        assert_serves(livelet().env("LIVELET_LISTEN", form), bound, reachable);
    }
}

fn assert_serves(command: &mut Command, bound: &str, reachable: &[&str]) {
    let livelet = Livelet::start_command(command, 1);
    let addr = livelet.addr();
    assert_eq!(addr.ip(), bound.parse::<IpAddr>().unwrap(), "{command:?}");
    assert_ne!(addr.port(), 0, "{command:?}");
    for ip in reachable {
        let response = probe(on(ip, addr.port()), "/livez");
        assert_eq!(response.status, 200, "{command:?} over {ip}");
    }
}

#[test]
fn every_listen_option_is_served() {
    let repeated = ["--listen", "127.0.0.1:0", "-l", "127.0.0.2:0"];
    let listed = ("LIVELET_LISTEN", "127.0.0.1:0 127.0.0.2:0");
    for command in [
        livelet().args(repeated),
        livelet().envs([listed]),
        livelet().env("LIVELET_LISTEN", "127.0.0.1:0  127.0.0.2:0 "),
    ] {
        let mut livelet = Livelet::start_command(command, 2);
        let ips: Vec<_> = livelet.addrs.iter().map(|a| a.ip().to_string()).collect();
        assert_eq!(ips, ["127.0.0.1", "127.0.0.2"], "{command:?}");
        for addr in &livelet.addrs {
            assert_eq!(probe(*addr, "/livez").status, 200, "{command:?}");
        }
        livelet.signal("TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(0), "{command:?}");
    }
}

#[test]
fn a_flag_wins_over_its_variable() {
    for value in ["127.0.0.2:0", "x", "127.0.0.2:0 x"] {
        let mut command = livelet();
        command.args(["--listen", "127.0.0.1:0"]);
        command.env("LIVELET_LISTEN", value);
        let mut livelet = Livelet::start_command(&mut command, 1);
        assert_eq!(livelet.addr().ip().to_string(), "127.0.0.1", "{value}");
        livelet.signal("TERM");
        assert_eq!(livelet.wait(SOON).code(), Some(0));
        let log = livelet.log();
        assert!(!log.contains("listening"), "{value}: {log:?}");
    }
    for value in ["5s", "6s", "x"] {
        let took = drain_time(&["--drain", "0s"], &[("LIVELET_DRAIN", value)]);
        assert!(took < AT_ONCE, "{value}: {took:?}");
    }
    for value in ["64", "0", "x"] {
        let variable = ("LIVELET_MAX_CONNECTIONS", value);
        assert_limit_is_1(&["--max-connections", "1"], &[variable]);
    }
    for value in ["quiet", "loud"] {
        let variable = ("LIVELET_LOG", value);
        assert!(logs_requests(&["-v"], &[variable]), "{value}");
    }
    // A switch can only say yes: with it, no value of its variable matters.
    for value in ["off", "maybe"] {
        let mut command = livelet();
        command.args(["--listen", "127.0.0.1:0", "--reuse-port"]);
        command.env("LIVELET_REUSE_PORT", value);
        let first = Livelet::start_command(&mut command, 1);
        let addr = first.addr().to_string();
        Livelet::start_on(&[&addr], &["--reuse-port"]);
    }
}

#[test]
fn a_variable_does_what_its_flag_does() {
    let took = drain_time(&[], &[("LIVELET_DRAIN", "1s")]);
    assert!(took >= Duration::from_secs(1) && took < AT_ONCE, "{took:?}");
    assert_limit_is_1(&[], &[("LIVELET_MAX_CONNECTIONS", "1")]);
    assert!(logs_requests(&[], &[("LIVELET_LOG", "verbose")]));
    assert_quiet_serves(&[], &[("LIVELET_LOG", "quiet")]);
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let variables = [
        "LIVELET_LISTEN",
        "LIVELET_DRAIN",
        "LIVELET_MAX_CONNECTIONS",
        "LIVELET_REUSE_PORT",
        "LIVELET_LOG",
    ]
    .map(|name| (name, ""));
    assert!(!logs_requests(&[], &variables));
}

#[test]
fn the_drain_option_accepts_each_unit_up_to_five_seconds() {
    for value in ["0s", "0ms", "0m", "0h", "250ms", "5s", "5000ms"] {
        Livelet::start(&["--drain", value]);
        Livelet::start(&[&format!("--drain={value}")]);
    }
}

/// Returns the time from TERM to the exit while a client has sent half a head.
fn drain_time(args: &[&str], env: &[(&str, &str)]) -> Duration {
    let mut command = livelet();
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    command.envs(env.iter().copied());
    let mut livelet = Livelet::start_command(&mut command, 1);
    let mut stream = livelet.connect();
    stream.write_all(b"GET /livez HT").unwrap();
    wait_until_read(livelet.addr());
    let from = Instant::now();
    livelet.signal("TERM");
    let (code, took) = livelet.wait_timed(from);
    assert_eq!(code, Some(0), "{args:?} {env:?}");
    took
}

fn assert_limit_is_1(args: &[&str], env: &[(&str, &str)]) {
    let mut command = livelet();
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    command.envs(env.iter().copied());
    let livelet = Livelet::start_command(&mut command, 1);
    let mut first = livelet.connect();
    let _second = livelet.connect();
    assert_closed(&mut first);
}

/// Returns `true` if stderr has a line for each request. Panics if only some have one.
fn logs_requests(args: &[&str], env: &[(&str, &str)]) -> bool {
    let mut command = livelet();
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    command.envs(env.iter().copied());
    let mut livelet = Livelet::start_command(&mut command, 1);
    let paths = ["/livez", "/livez", "/readyz?verbose", "/no/such/path"];
    for path in paths {
        probe(livelet.addr(), path);
    }
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(0), "{args:?} {env:?}");
    let log = livelet.log();
    let lines = |path: &str| log.lines().filter(|line| line.contains(path)).count();
    let counts = [lines("/livez"), lines("/readyz"), lines("/no/such/path")];
    assert!(
        counts == [2, 1, 1] || counts == [0, 0, 0],
        "{args:?} {env:?}: {log:?}"
    );
    for line in log.lines() {
        assert!(line.starts_with("livelet: "), "{line:?}");
    }
    counts == [2, 1, 1]
}

#[test]
fn with_verbose_livelet_logs_a_line_for_each_request() {
    assert!(logs_requests(&["-v"], &[]));
    assert!(logs_requests(&["--verbose"], &[]));
    assert!(!logs_requests(&[], &[]));
}

fn assert_quiet_serves(args: &[&str], env: &[(&str, &str)]) {
    let mut command = livelet();
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    command.envs(env.iter().copied());
    let mut livelet = Livelet::start_command(&mut command, 0);
    let addr = wait_until_listening(livelet.pid());
    assert_eq!(probe(addr, "/livez").status, 200, "{args:?} {env:?}");
    livelet.signal("TERM");
    assert_eq!(livelet.wait(SOON).code(), Some(0), "{args:?} {env:?}");
    let log = livelet.log();
    assert!(!log.contains("listening"), "{args:?} {env:?}: {log:?}");
    assert!(!log.contains("/livez"), "{args:?} {env:?}: {log:?}");
}

#[test]
fn with_quiet_livelet_serves_and_does_not_log_its_address() {
    assert_quiet_serves(&["-q"], &[]);
    assert_quiet_serves(&["--quiet"], &[]);
    assert_quiet_serves(&["-q"], &[("LIVELET_LOG", "verbose")]);
}

#[test]
fn with_quiet_livelet_still_logs_a_failure() {
    let output = finish(livelet().args(["-q", "--drain", "6s"]), SOON);
    assert_eq!(output.status.code(), Some(125));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("--drain"), "{stderr:?}");
}

/// Returns the output of a command that succeeds.
fn printed(args: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = finish(livelet().args(args), SOON);
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(0), "{args:?}: {stderr:?}");
    assert_eq!(stderr, "", "{args:?}");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn help_names_every_option_check_and_path() {
    let help = printed(&["--help"]);
    assert_eq!(printed(&["-h"]), help);
    assert_eq!(printed(&["help"]), help);
    for name in [
        "-l, --listen ADDR",
        "--drain DUR",
        "--max-connections N",
        "--reuse-port",
        "--live CHECK",
        "--ready CHECK",
        "--check-timeout DUR",
        "--path PATH=ENDPOINT",
        "--exit-on-unhealthy DUR",
        "--bind-wait DUR",
        "--takeover",
        "--signal FROM=TO",
        "--ok-exit CODE",
        "--stop-signal SIG",
        "--group",
        "--grace DUR",
        "--lame-duck DUR",
        "-q, --quiet",
        "-v, --verbose",
        "-h, --help",
        "-V, --version",
        "notify",
        "watchdog:30s",
        "file:/path",
        "heartbeat:/path:30s",
        "tcp:127.0.0.1:5432",
        "unix:/run/app.sock",
        "http://127.0.0.1:3000/health",
        "exec:/bin/check arg",
        "/livez",
        "/readyz",
        "/startupz",
        "/metrics",
        // The rule for all the others, and the one that is no option's.
        "LIVELET_BIND_WAIT",
        "LIVELET_LOG",
    ] {
        assert!(help.contains(name), "no {name} in {help}");
    }
    assert!(help.ends_with('\n'));
    for line in help.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        // A name and its text are at least two spaces apart: columns do not touch.
        if line.starts_with("  ") && !line.trim().starts_with("livelet") {
            let (name, text) = line.trim_start().split_once("  ").expect(line);
            assert!(!name.is_empty() && !text.trim().is_empty(), "{line}");
        }
    }
}

#[test]
fn help_of_each_command_is_a_page_of_its_own() {
    let mut pages = Vec::new();
    for (command, named) in [
        ("probe", "--timeout DUR"),
        ("notify", "NOTIFY_SOCKET"),
        ("install", "mode 0755"),
    ] {
        let page = printed(&[command, "--help"]);
        assert_eq!(printed(&[command, "-h"]), page);
        assert_eq!(printed(&["help", command]), page);
        assert!(
            page.starts_with(&format!("Usage: livelet {command} ")),
            "{page}"
        );
        assert!(page.contains(named), "{page}");
        for line in page.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        pages.push(page);
    }
    pages.dedup();
    assert_eq!(pages.len(), 3);
}

/// Returns the log of a livelet with these variables, from its start to its end.
fn log_with(args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = livelet();
    command.args(["-l", "127.0.0.1:0"]).args(args);
    command.args(["--", "true"]).envs(variables.iter().copied());
    let output = finish(&mut command, SOON);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_unknown_variable_is_logged_once_and_has_no_effect() {
    let log = log_with(&[], &[("LIVELET_LISTN", "9090"), ("LIVELET_WHATEVER", "1")]);
    for line in [
        "livelet: LIVELET_LISTN: unknown variable, which has no effect; did you mean LIVELET_LISTEN?\n",
        "livelet: LIVELET_WHATEVER: unknown variable, which has no effect; see livelet --help\n",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
    let log = log_with(&["-q"], &[("LIVELET_LISTN", "9090")]);
    assert_eq!(log, "");
}

/// The variables are those of Services called livelet and livelet-worker, as in each pod of their
/// namespace.
#[test]
fn variables_that_kubernetes_sets_for_a_service_are_not_unknown() {
    let log = log_with(
        &[],
        &[
            ("LIVELET_SERVICE_HOST", "10.96.0.7"),
            ("LIVELET_SERVICE_PORT", "9090"),
            ("LIVELET_SERVICE_PORT_HEALTH", "9090"),
            ("LIVELET_PORT", "tcp://10.96.0.7:9090"),
            ("LIVELET_PORT_9090_TCP", "tcp://10.96.0.7:9090"),
            ("LIVELET_PORT_9090_TCP_ADDR", "10.96.0.7"),
            ("LIVELET_WORKER_SERVICE_HOST", "10.96.0.8"),
            ("LIVELET_WORKER_PORT_9090_TCP_PROTO", "tcp"),
        ],
    );
    assert!(!log.contains("unknown"), "{log}");
}

/// An image may set variables for its worker that have no effect without one.
#[test]
fn variables_that_only_affect_a_worker_are_accepted_without_one() {
    let mut command = livelet();
    command.args(["-l", "127.0.0.1:0"]).envs([
        ("LIVELET_GROUP", "1"),
        ("LIVELET_GRACE", "5s"),
        ("LIVELET_OK_EXIT", "143"),
        ("LIVELET_SIGNAL", "TERM=QUIT"),
    ]);
    Livelet::start_command(&mut command, 1);
}

#[test]
fn a_command_that_is_not_found_is_reported_with_the_likely_reason() {
    for (words, said) in [
        (
            &["node worker.js"][..],
            "livelet: worker: node worker.js: cannot be started: no such file or directory; this is one word with a space",
        ),
        (&["/bin/sh -c true"], "this is one word with a space"),
        (
            &["--grace", "5s"],
            "livelet: worker: --grace: cannot be started: no such file or directory; options of livelet go before --",
        ),
        (&["no-such-program"], "not in any directory of PATH"),
    ] {
        let output = finish(
            livelet().args(["-l", "127.0.0.1:0", "--"]).args(words),
            SOON,
        );
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(127), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn version_prints_one_line() {
    let version = printed(&["--version"]);
    assert_eq!(printed(&["-V"]), version);
    assert_eq!(printed(&["version"]), version);
    assert_eq!(version.lines().count(), 1, "{version:?}");
    assert!(
        version.contains(env!("CARGO_PKG_VERSION")),
        "not the version: {version:?}"
    );
}

#[test]
fn help_does_not_panic_if_stdout_is_closed() {
    for flag in ["-h", "-V"] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let (stdout, reader) = UnixStream::pair().unwrap();
        drop(reader);
        for stdout in [OwnedFd::from(full.unwrap()), OwnedFd::from(stdout)] {
            let mut child = KillOnDrop(
                livelet()
                    .arg(flag)
                    .stdout(stdout)
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap(),
            );
            let mut stderr = String::new();
            let mut pipe = child.0.stderr.take().unwrap();
            pipe.read_to_string(&mut stderr).unwrap();
            let code = child.0.wait().unwrap().code();
            assert!(!stderr.contains("panicked"), "{flag}: {stderr:?}");
            assert!(matches!(code, Some(0 | 125)), "{flag}: {code:?} {stderr:?}");
        }
        let script = format!("exec \"$0\" {flag} >&-");
        let output = finish(command("sh").args(["-c", &script, &binary()]), SOON);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{flag}: {stderr:?}");
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 125)), "{flag}: {code:?} {stderr:?}");
    }
}

#[test]
fn checks_that_only_a_worker_can_pass_are_refused_without_one() {
    for check in ["notify", "watchdog:9s", "beat=watchdog:9s"] {
        let kind = if check == "notify" { check } else { "watchdog" };
        for flag in ["--live", "--ready"] {
            assert_refused(
                &[OsStr::new(flag), OsStr::new(check)],
                None,
                &[flag, kind, "-- COMMAND"],
            );
        }
        for variable in ["LIVELET_LIVE", "LIVELET_READY"] {
            let given = (variable, OsStr::new(check));
            assert_refused(&[], Some(given), &[variable, kind, "-- COMMAND"]);
        }
    }
}

#[test]
fn a_duration_that_would_overflow_is_refused() {
    for check in [
        "watchdog:18446744073709552ms",
        "heartbeat:/tmp/beat:18446744073709551615s",
        "watchdog:8761h",
    ] {
        assert_refused(
            &[OsStr::new("--live"), OsStr::new(check)],
            None,
            &["--live", check],
        );
    }
}
