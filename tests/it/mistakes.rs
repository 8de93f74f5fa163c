//! Mistakes on the command line and in its variables. Each is refused before anything is bound or
//! started. The exit code is 125, and one line on stderr names the culprit and the remedy.

use crate::support::{SOON, finish, livelet};

/// A mistake: arguments, variables, and parts of the line: the culprit at its beginning, and what
/// to do.
type Mistake<'m> = (&'m [&'m str], &'m [(&'m str, &'m str)], &'m str, &'m str);

/// A shell that would be heard if it was started.
const WORKER: [&str; 4] = ["--", "sh", "-c", "echo started >&2"];

#[rustfmt::skip]
const WRONG_ORDER: &[Mistake<'_>] = &[
    (&["-v", "probe"], &[], "\"probe\"", "goes first"),
    (&["--listen", "9090", "probe"], &[], "\"probe\"", "goes first"),
    (&["--quiet", "notify", "READY=1"], &[], "\"notify\"", "goes first"),
    (&["-v", "install", "/tmp"], &[], "\"install\"", "goes first"),
    (&["-v", "help"], &[], "\"help\"", "goes first"),
    (&["-v", "version"], &[], "\"version\"", "goes first"),
    (&["node", "--", "worker.js"], &[], "\"node\"", "goes after --"),
    (&["node", "worker.js", "--listen", "9090"], &[], "\"node\"", "goes after --"),
    (&["--listen", "9090", "node", "--", "worker.js"], &[], "\"node\"", "goes after --"),
    (&["9090", "--listen"], &[], "\"9090\"", "goes after --"),
    (&["30s", "--grace"], &[], "\"30s\"", "goes after --"),
    (&["probe", "9090", "--listen"], &[], "probe: \"9090\"", "accepted: "),
    (&["probe", "1s", "--timeout"], &[], "probe: \"1s\"", "accepted: "),
];

#[rustfmt::skip]
const MISSING_DASHES: &[Mistake<'_>] = &[
    (&["node", "worker.js"], &[], "\"node\"", "goes after --"),
    (&["sh", "-c", "true"], &[], "\"sh\"", "goes after --"),
    (&["/usr/bin/node"], &[], "\"/usr/bin/node\"", "goes after --"),
    (&["node worker.js"], &[], "\"node worker.js\"", "goes after --"),
    (&["-l", "9090", "node"], &[], "\"node\"", "goes after --"),
    (&["--group", "node"], &[], "\"node\"", "goes after --"),
    (&["--live", "notify", "python3", "worker.py"], &[], "\"python3\"", "goes after --"),
    (&["--takeover", "npm", "start"], &[], "\"npm\"", "goes after --"),
    (&["-", "node"], &[], "\"-\"", "goes after --"),
    (&["-q", ""], &[], "\"\"", "goes after --"),
    (&["--"], &[], "--", "accepted: -- COMMAND"),
    (&["--listen", "9090", "--"], &[], "--", "accepted: -- COMMAND"),
    (&["-v", "--"], &[], "--", "accepted: -- COMMAND"),
];

#[rustfmt::skip]
const MISSING_VALUE: &[Mistake<'_>] = &[
    (&["--listen"], &[], "--listen", "needs a value; accepted: 9090"),
    (&["-l"], &[], "--listen", "needs a value; accepted: 9090"),
    (&["--listen="], &[], "--listen", "needs a value; accepted: 9090"),
    (&["--listen", ""], &[], "--listen", "needs a value; accepted: 9090"),
    (&["--listen", "--", "true"], &[], "--listen", "needs a value; accepted: 9090"),
    (&["--listen", "-v"], &[], "--listen", "needs a value; accepted: 9090"),
    (&["--live"], &[], "--live", "needs a value; accepted: "),
    (&["--live", "--ready", "notify"], &[], "--live", "needs a value; accepted: "),
    (&["--ready", "--", "true"], &[], "--ready", "needs a value; accepted: "),
    (&["--path"], &[], "--path", "needs a value; accepted: /PATH=live"),
    (&["--check-timeout"], &[], "--check-timeout", "needs a value; accepted: 1ms to 60s"),
    (&["--exit-on-unhealthy", "--", "true"], &[], "--exit-on-unhealthy", "needs a value; accepted: for example 250ms"),
    (&["--drain"], &[], "--drain", "needs a value; accepted: 0s to 5s"),
    (&["--drain", "--quiet"], &[], "--drain", "needs a value; accepted: 0s to 5s"),
    (&["--bind-wait", "--takeover"], &[], "--bind-wait", "needs a value; accepted: for example 250ms"),
    (&["--lame-duck", "--", "true"], &[], "--lame-duck", "needs a value; accepted: for example 250ms"),
    (&["--grace", "--", "true"], &[], "--grace", "needs a value; accepted: for example 250ms"),
    (&["--signal", "--", "true"], &[], "--signal", "needs a value; accepted: FROM=TO"),
    (&["--ok-exit", "--", "true"], &[], "--ok-exit", "needs a value; accepted: 0 to 255"),
    (&["--stop-signal"], &[], "--stop-signal", "needs a value; accepted: for example TERM"),
    (&["--max-connections="], &[], "--max-connections", "needs a value; accepted: 1 to 1000000"),
    (&["probe", "--timeout"], &[], "--timeout", "needs a value; accepted: for example 250ms"),
    (&["probe", "--timeout", "--ready"], &[], "--timeout", "needs a value; accepted: for example 250ms"),
    (&["probe", "-l"], &[], "--listen", "needs a value; accepted: 9090"),
    (&["notify"], &[], "notify", "needs a value; accepted: NAME=VALUE"),
    (&["install"], &[], "install", "accepted: livelet install PATH"),
    (&["install", ""], &[], "install", "accepted: livelet install PATH"),
];

#[rustfmt::skip]
const UNKNOWN_OPTION: &[Mistake<'_>] = &[
    (&["--takover"], &[], "--takover", "did you mean --takeover?"),
    (&["--Listen", "9090"], &[], "--Listen", "did you mean --listen?"),
    (&["--listne", "9090"], &[], "--listne", "did you mean --listen?"),
    (&["--port", "9090"], &[], "--port", "did you mean --listen?"),
    (&["--address=9090"], &[], "--address", "did you mean --listen?"),
    (&["--liveness", "notify"], &[], "--liveness", "did you mean --live?"),
    (&["--readiness", "notify"], &[], "--readiness", "did you mean --ready?"),
    (&["--readyz", "notify"], &[], "--readyz", "did you mean --ready?"),
    (&["--timeout", "1s"], &[], "--timeout", "did you mean --check-timeout?"),
    (&["--max_connections", "9"], &[], "--max_connections", "did you mean --max-connections?"),
    (&["--bindwait", "9s"], &[], "--bindwait", "did you mean --bind-wait?"),
    (&["--exit-on-unhealty", "9s"], &[], "--exit-on-unhealty", "did you mean --exit-on-unhealthy?"),
    (&["--stopsignal", "QUIT"], &[], "--stopsignal", "did you mean --stop-signal?"),
    (&["--versoin"], &[], "--versoin", "did you mean --version?"),
    (&["-g"], &[], "-g", "did you mean --group?"),
    (&["--nope"], &[], "--nope", "see livelet --help"),
    (&["--config", "x"], &[], "--config", "see livelet --help"),
    (&["-x"], &[], "-x", "see livelet --help"),
    (&["-qx"], &[], "-x", "see livelet --help"),
    (&["-listen", "9090"], &[], "-listen", "accepted: two"),
    (&["-live=notify"], &[], "-live", "accepted: two"),
    (&["-help"], &[], "-help", "accepted: two"),
    (&["--single"], &[], "--single", "--group"),
    (&["--takeover=x"], &[], "--takeover: \"x\"", "takes no value"),
    (&["--takeover", "yes"], &[], "\"yes\"", "takes no value"),
    (&["--group", "1"], &[], "\"1\"", "takes no value"),
    (&["-q", "-v"], &[], "--quiet --verbose", "one of them"),
    (&["prob"], &[], "\"prob\"", "did you mean livelet probe?"),
    (&["isntall", "/tmp"], &[], "\"isntall\"", "did you mean livelet install?"),
    (&["help", "prob"], &[], "prob: ", "did you mean probe?"),
    (&["help", "node"], &[], "node: ", "accepted: probe, notify or install"),
    (&["probe", "--redy"], &[], "--redy", "did you mean --ready?"),
    (&["probe", "--live"], &[], "--live", "see livelet probe --help"),
    (&["probe", "-t", "1s"], &[], "-t", "see livelet probe --help"),
    (&["install", "--force", "/tmp"], &[], "--force", "see livelet install --help"),
];

#[rustfmt::skip]
const WRONG_VALUE: &[Mistake<'_>] = &[
    (&["--drain", "5"], &[], "--drain: \"5\"", "such as 250ms or 5s"),
    (&["--drain", "6s"], &[], "--drain: \"6s\"", "accepted: 0s to 5s"),
    (&["--drain", "1m"], &[], "--drain: \"1m\"", "accepted: 0s to 5s"),
    (&["--drain", "5sec"], &[], "--drain: \"5sec\"", "such as 250ms or 5s"),
    (&["--drain", "5 s"], &[], "--drain: \"5 s\"", "such as 250ms or 5s"),
    (&["--bind-wait", "10"], &[], "--bind-wait: \"10\"", "for example 250ms, 5s, 2m or 1h"),
    (&["--bind-wait", "1.5s"], &[], "--bind-wait: \"1.5s\"", "for example 250ms, 5s, 2m or 1h"),
    (&["--bind-wait", "9000h"], &[], "--bind-wait: \"9000h\"", "up to 8760h"),
    (&["--lame-duck", "5S"], &[], "--lame-duck: \"5S\"", "for example 250ms, 5s, 2m or 1h"),
    (&["--lame-duck", "-1s"], &[], "--lame-duck: \"-1s\"", "for example 250ms, 5s, 2m or 1h"),
    (&["--exit-on-unhealthy", "1d"], &[], "--exit-on-unhealthy: \"1d\"", "for example 250ms, 5s, 2m or 1h"),
    (&["--grace", "30"], &[], "--grace: \"30\"", "for example 250ms, 5s, 2m or 1h"),
    (&["--check-timeout", "800"], &[], "--check-timeout: \"800\"", "such as 800ms"),
    (&["--check-timeout", "2m"], &[], "--check-timeout: \"2m\"", "1ms to 60s"),
    (&["--check-host", "http://app"], &[], "--check-host: \"http://app\"", "such as app.example"),
    (&["--max-connections", "0"], &[], "--max-connections: \"0\"", "1 to 1000000"),
    (&["--max-connections", "1k"], &[], "--max-connections: \"1k\"", "1 to 1000000"),
    (&["--signal", "TERM"], &[], "--signal: \"TERM\"", "FROM=TO"),
    (&["--signal", "KILL=TERM"], &[], "--signal: \"KILL=TERM\"", "FROM=TO"),
    (&["--signal", "term=quit"], &[], "--signal: \"term=quit\"", "TERM=QUIT"),
    (&["--signal", "TERM=INT", "--signal", "TERM=HUP"], &[], "--signal: \"TERM=HUP\"", "accepted: once"),
    (&["--stop-signal", "KILL"], &[], "--stop-signal: \"KILL\"", "for example TERM, QUIT or WINCH"),
    (&["--stop-signal", "TERM,INT"], &[], "--stop-signal: \"TERM,INT\"", "for example TERM, QUIT or WINCH"),
    (&["--ok-exit", "256"], &[], "--ok-exit: \"256\"", "0 to 255"),
    (&["--ok-exit", "TERM"], &[], "--ok-exit: \"TERM\"", "0 to 255"),
    (&["--path", "up=live"], &[], "--path: \"up=live\"", "/PATH=live"),
    (&["--path", "/up"], &[], "--path: \"/up\"", "/PATH=live"),
    (&["--path", "/up=liveness"], &[], "--path: \"/up=liveness\"", "/PATH=live"),
    (&["--path", "/a=live", "--path", "/a/=ready"], &[], "--path: \"/a/=ready\"", "accepted: once"),
    (&["probe", "--timeout", "1"], &[], "--timeout: \"1\"", "for example 250ms, 5s, 2m or 1h"),
    (&["notify", "READY"], &[], "notify: \"READY\"", "such as READY=1"),
    (&["notify", "READY", "=", "1"], &[], "notify: \"READY\"", "such as READY=1"),
    (&["install", "/a", "/b"], &[], "install: \"/b\"", "livelet install PATH"),
];

#[rustfmt::skip]
const NAMES_FOR_ADDRESSES: &[Mistake<'_>] = &[
    (&["--listen", "localhost:9090"], &[], "--listen: \"localhost:9090\"", "127.0.0.1:9090"),
    (&["--listen", "worker.example:9090"], &[], "--listen: \"worker.example:9090\"", "127.0.0.1:9090"),
    (&["-l", "http://127.0.0.1:9090"], &[], "--listen: \"http://127.0.0.1:9090\"", "127.0.0.1:9090"),
    (&["--listen", "127.0.0.1"], &[], "--listen: \"127.0.0.1\"", "127.0.0.1:9090"),
    (&["--listen", "::1:9090"], &[], "--listen: \"::1:9090\"", "[::1]:9090"),
    (&["--listen", "*:9090"], &[], "--listen: \"*:9090\"", ":9090"),
    (&["--listen", "70000"], &[], "--listen: \"70000\"", "accepted: 9090"),
    (&["--listen", "$PORT"], &[], "--listen: \"$PORT\"", "env:PORT"),
    (&["--listen", "env:PRT"], &[("PORT", "9090")], "--listen: \"env:PRT\"", "variable that holds a port"),
    (&["--listen", "env:PORT"], &[("PORT", "http")], "--listen: \"env:PORT\"", "variable that holds 0 to 65535"),
    (&["--listen", "9090", "--listen", "127.0.0.1:9090"], &[], "--listen: \"127.0.0.1:9090\"", "accepted: each once"),
    (&["--live", "tcp:db:5432"], &[], "--live: \"tcp:db:5432\"", "an IP address or localhost"),
    (&["--ready", "http://api.example/health"], &[], "--ready: \"http://api.example/health\"", "an IP address or localhost"),
    (&["probe", "tcp:db:5432"], &[], "probe: \"tcp:db:5432\"", "an IP address or localhost"),
    (&["probe", "-l", "localhost:9090"], &[], "--listen: \"localhost:9090\"", "127.0.0.1:9090"),
];

#[rustfmt::skip]
const CHECKS: &[Mistake<'_>] = &[
    (&["--live", "nope"], &[], "--live: \"nope\"", "accepted: "),
    (&["--live", "/tmp/beat"], &[], "--live: \"/tmp/beat\"", "accepted: "),
    (&["--live", "curl localhost"], &[], "--live: \"curl localhost\"", "accepted: "),
    (&["--live", "file"], &[], "--live: \"file\"", "a path with a leading slash; accepted: for example file:/path"),
    (&["--live", "file:"], &[], "--live: \"file:\"", "a path with a leading slash; accepted: for example file:/path"),
    (&["--live", "file:tmp/up"], &[], "--live: \"file:tmp/up\"", "a path with a leading slash; accepted: for example file:/path"),
    (&["--live", "heartbeat:/tmp/beat"], &[], "--live: \"heartbeat:/tmp/beat\"", "a duration above 0 after its path; accepted: for example heartbeat:/path:30s"),
    (&["--live", "heartbeat:/tmp/beat:30"], &[], "--live: \"heartbeat:/tmp/beat:30\"", "a unit; accepted: ms, s, m or h"),
    (&["--live", "heartbeat:/tmp/beat:0s"], &[], "--live: \"heartbeat:/tmp/beat:0s\"", "a duration above 0 after its path"),
    (&["--live", "heartbeat:tmp/beat:30s"], &[], "--live: \"heartbeat:tmp/beat:30s\"", "a path with a leading slash; accepted: for example heartbeat:/path:30s"),
    (&["--live", "heartbeat:30s:/tmp/beat"], &[], "--live: \"heartbeat:30s:/tmp/beat\"", "a path with a leading slash; accepted: for example heartbeat:/path:30s"),
    (&["--live", "heartbeat"], &[], "--live: \"heartbeat\"", "a path with a leading slash; accepted: for example heartbeat:/path:30s"),
    (&["--live", "watchdog"], &[], "--live: \"watchdog\"", "a duration above 0; accepted: for example watchdog:30s"),
    (&["--live", "watchdog:30"], &[], "--live: \"watchdog:30\"", "a unit; accepted: ms, s, m or h"),
    (&["--live", "watchdog:0s"], &[], "--live: \"watchdog:0s\"", "a duration above 0; accepted: for example watchdog:30s"),
    (&["--live", "watchdog:30s"], &[], "--live: \"watchdog\"", "-- COMMAND"),
    (&["--ready", "notify"], &[], "--ready: \"notify\"", "-- COMMAND"),
    (&["--ready", "notify:"], &[], "--ready: \"notify:\"", "takes nothing after it"),
    (&["--ready", "notify:READY=1"], &[], "--ready: \"notify:READY=1\"", "takes nothing after it"),
    (&["--ready", "tcp:5432"], &[], "--ready: \"tcp:5432\"", "an IP address and a port; accepted: for example tcp:127.0.0.1:5432"),
    (&["--ready", "tcp:127.0.0.1"], &[], "--ready: \"tcp:127.0.0.1\"", "an IP address and a port; accepted: for example tcp:127.0.0.1:5432"),
    (&["--ready", "tcp:127.0.0.1:0"], &[], "--ready: \"tcp:127.0.0.1:0\"", "an IP address and a port; accepted: for example tcp:127.0.0.1:5432"),
    (&["--ready", "tcp://127.0.0.1:5432"], &[], "--ready: \"tcp://127.0.0.1:5432\"", "an IP address and a port; accepted: for example tcp:127.0.0.1:5432"),
    (&["--ready", "tcp:::1:80"], &[], "--ready: \"tcp:::1:80\"", "tcp:[::1]:5432"),
    (&["--ready", "unix:run/app.sock"], &[], "--ready: \"unix:run/app.sock\"", "a path with a leading slash; accepted: for example unix:/run/app.sock"),
    (&["--ready", "https://127.0.0.1/"], &[], "--ready: \"https://127.0.0.1/\"", "https is not supported; accepted: http://"),
    (&["--ready", "http:127.0.0.1:3000"], &[], "--ready: \"http:127.0.0.1:3000\"", "accepted: for example http://127.0.0.1:3000/health"),
    (&["--ready", "http://127.0.0.1:99999/"], &[], "--ready: \"http://127.0.0.1:99999/\"", "accepted: for example http://127.0.0.1:3000/health"),
    (&["--ready", "http://127.0.0.1/a b"], &[], "--ready: \"http://127.0.0.1/a b\"", "accepted: for example http://127.0.0.1:3000/health"),
    (&["--ready", "exec:check"], &[], "--ready: \"exec:check\"", "a program with a leading slash"),
    (&["--ready", "exec:"], &[], "--ready: \"exec:\"", "a program with a leading slash"),
    (&["--live", "a b=file:/a"], &[], "--live: \"a b=file:/a\"", "accepted: NAME=CHECK"),
    (&["--live", "=file:/a"], &[], "--live: \"=file:/a\"", "accepted: NAME=CHECK"),
    (&["--live", "worker=file:/a"], &[], "--live: \"worker=file:/a\"", "each name once"),
    (&["--live", "a=file:/a", "--live", "a=file:/b"], &[], "--live: \"a=file:/b\"", "each name once"),
    (&["probe", "notify"], &[], "probe: \"notify\"", "accepted: file, heartbeat"),
    (&["probe", "watchdog:30s"], &[], "probe: \"watchdog:30s\"", "accepted: file, heartbeat"),
    (&["probe", "exec:/bin/true"], &[], "probe: \"exec:/bin/true\"", "accepted: file, heartbeat"),
    (&["probe", "file:/a", "file:/b"], &[], "probe: \"file:/b\"", "accepted: livelet probe"),
    (&["probe", "-l", "9090", "file:/a"], &[], "--listen", "accepted: the option or a check"),
    (&["probe", "--ready", "file:/a"], &[], "--ready", "accepted: the option or a check"),
    (&["probe", "/readyz"], &[], "probe: \"/readyz\"", "accepted: file, heartbeat"),
];

#[rustfmt::skip]
const WITHOUT_WORKER: &[Mistake<'_>] = &[
    (&["--group"], &[], "--group", "-- COMMAND"),
    (&["--grace", "5s"], &[], "--grace", "-- COMMAND"),
    (&["--ok-exit", "143"], &[], "--ok-exit", "-- COMMAND"),
    (&["--signal", "TERM=QUIT"], &[], "--signal", "-- COMMAND"),
];

#[rustfmt::skip]
const VARIABLES: &[Mistake<'_>] = &[
    (&[], &[("LIVELET_LISTEN", "9090 localhost:80")], "LIVELET_LISTEN: \"localhost:80\"", "127.0.0.1:9090"),
    (&[], &[("LIVELET_LISTEN", "9090,9091")], "LIVELET_LISTEN: \"9090,9091\"", "127.0.0.1:9090"),
    (&[], &[("LIVELET_LISTEN", "9090 9090")], "LIVELET_LISTEN: \"9090\"", "each once"),
    (&[], &[("LIVELET_LIVE", "file:/a file:b")], "LIVELET_LIVE: \"file:b\"", "file:/path"),
    (&[], &[("LIVELET_LIVE", "file:/a,tcp:db:80 tcp:db:80")], "LIVELET_LIVE: \"tcp:db:80\"", "localhost"),
    (&[], &[("LIVELET_READY", "notify")], "LIVELET_READY: \"notify\"", "-- COMMAND"),
    (&[], &[("LIVELET_READY", "heartbeat:/a")], "LIVELET_READY: \"heartbeat:/a\"", "a duration above 0 after its path"),
    (&[], &[("LIVELET_LIVE", "exec:'/bin/check")], "LIVELET_LIVE: \"exec:'/bin/check\"", "a quote that is not closed"),
    (&[], &[("LIVELET_LIVE", "exec:\"/bin/check it\" file:b")], "LIVELET_LIVE: \"file:b\"", "a path with a leading slash"),
    (&[], &[("LIVELET_CHECK_HOST", "app example")], "LIVELET_CHECK_HOST: \"app example\"", "such as app.example"),
    (&[], &[("LIVELET_PATH", "/a=live /b")], "LIVELET_PATH: \"/b\"", "/PATH=live"),
    (&[], &[("LIVELET_SIGNAL", "TERM=QUIT TERM=INT")], "LIVELET_SIGNAL: \"TERM=INT\"", "accepted: once"),
    (&[], &[("LIVELET_STOP_SIGNAL", "TERM SIGKILL")], "LIVELET_STOP_SIGNAL: \"SIGKILL\"", "QUIT"),
    (&[], &[("LIVELET_OK_EXIT", "143 -1")], "LIVELET_OK_EXIT: \"-1\"", "0 to 255"),
    (&[], &[("LIVELET_GRACE", "30")], "LIVELET_GRACE: \"30\"", "for example 250ms"),
    (&[], &[("LIVELET_DRAIN", "10s")], "LIVELET_DRAIN: \"10s\"", "0s to 5s"),
    (&[], &[("LIVELET_BIND_WAIT", "forever")], "LIVELET_BIND_WAIT: \"forever\"", "for example 250ms"),
    (&[], &[("LIVELET_LAME_DUCK", "5")], "LIVELET_LAME_DUCK: \"5\"", "for example 250ms"),
    (&[], &[("LIVELET_CHECK_TIMEOUT", "0s")], "LIVELET_CHECK_TIMEOUT: \"0s\"", "1ms to 60s"),
    (&[], &[("LIVELET_EXIT_ON_UNHEALTHY", "on")], "LIVELET_EXIT_ON_UNHEALTHY: \"on\"", "for example 250ms"),
    (&[], &[("LIVELET_MAX_CONNECTIONS", "many")], "LIVELET_MAX_CONNECTIONS: \"many\"", "1 to 1000000"),
    (&[], &[("LIVELET_TAKEOVER", "True")], "LIVELET_TAKEOVER: \"True\"", "true"),
    (&[], &[("LIVELET_GROUP", "y")], "LIVELET_GROUP: \"y\"", "yes"),
    (&[], &[("LIVELET_REUSE_PORT", "9090")], "LIVELET_REUSE_PORT: \"9090\"", "1, true"),
    (&[], &[("LIVELET_LOG", "debug")], "LIVELET_LOG: \"debug\"", "quiet or verbose"),
    (&["probe"], &[("LIVELET_LISTEN", "x")], "LIVELET_LISTEN: \"x\"", "accepted: 9090"),
];

const TABLES: [&[Mistake<'_>]; 9] = [
    WRONG_ORDER,
    MISSING_DASHES,
    MISSING_VALUE,
    UNKNOWN_OPTION,
    WRONG_VALUE,
    NAMES_FOR_ADDRESSES,
    CHECKS,
    WITHOUT_WORKER,
    VARIABLES,
];

/// Returns what is wrong with the outcome of a mistake, if anything is.
fn flaw(args: &[&str], (_, variables, culprit, remedy): Mistake<'_>) -> Option<String> {
    let mut command = livelet();
    command.args(args).envs(variables.iter().copied());
    let output = finish(&mut command, SOON);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let begins = stderr.starts_with(&format!("livelet: {culprit}"));
    let is_good = output.status.code() == Some(125)
        && output.stdout.is_empty()
        && stderr.lines().count() == 1
        && stderr.ends_with('\n')
        && begins
        && stderr.contains(remedy);
    let code = output.status.code();
    (!is_good).then(|| {
        format!("{args:?} {variables:?}: {code:?}: {stderr}wanted: {culprit} ... {remedy}\n")
    })
}

#[test]
fn each_usage_error_is_one_line_that_names_culprit_and_remedy() {
    let mistakes: Vec<Mistake<'_>> = TABLES.concat();
    assert!(mistakes.len() >= 137, "{}", mistakes.len());
    let mut flaws = Vec::new();
    for mistake in mistakes {
        flaws.extend(flaw(mistake.0, mistake));
    }
    assert!(flaws.is_empty(), "{}:\n{}", flaws.len(), flaws.concat());
}

/// The worker would write to stderr if it were started.
#[test]
fn no_worker_is_started_after_a_usage_error() {
    for &mistake in WRONG_VALUE
        .iter()
        .chain(NAMES_FOR_ADDRESSES)
        .chain(VARIABLES)
    {
        let (args, ..) = mistake;
        let is_subcommand = args.first().is_some_and(|first| !first.starts_with('-'));
        if !is_subcommand && mistake.3 != "-- COMMAND" {
            let args = [args, &WORKER].concat();
            assert_eq!(flaw(&args, mistake), None);
        }
    }
}
