//! `pages OUTDIR DATE`: the man page and the completions, from the binary's own table of options.
//!
//! What the table can't hold, because the binary would carry it, is here: longer texts for the man page. An option
//! without one, or a text without its option, is an error; so is a check in the list below that the parser refuses.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use livelet::check::Kind;
use livelet::cli::{FLAGS, Flag};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const COMMANDS: [(&str, &str); 3] = [
    ("probe", "ask once"),
    ("notify", "tell NOTIFY_SOCKET"),
    ("install", "copy the executable"),
];

/// Options of `livelet probe`: name, value, text.
const PROBE: [(&str, &str, &str); 2] = [
    ("ready", "", "ask /readyz in place of /livez"),
    ("timeout", "DUR", "for all of it (default 1s)"),
];

/// Checks: as they are written, whether `probe` takes them, and what they hold by. `` ` `` sets off what is typed.
const CHECKS: [(&str, bool, &str); 8] = [
    (
        "notify",
        false,
        "the worker has said `READY=1` over sd_notify, and not `STOPPING=1` or `RELOADING=1` since",
    ),
    (
        "watchdog:30s",
        false,
        "its last `WATCHDOG=1` is younger than that; it has `WATCHDOG_USEC` in its environment",
    ),
    (
        "heartbeat:/path:30s",
        true,
        "the file's modification is younger than that, or the worker's start is",
    ),
    ("file:/path", true, "the file exists"),
    ("tcp:127.0.0.1:5432", true, "a connection is accepted"),
    ("unix:/run/app.sock", true, "a connection is accepted"),
    (
        "http://127.0.0.1:3000/health",
        true,
        "it answers with 2xx or 3xx; redirects are not followed",
    ),
    (
        "exec:/bin/check arg",
        false,
        "it exits with 0; no shell, split at spaces; its outcome is kept for 10 s, and it is killed with its group when \
         it takes longer than `--check-timeout`",
    ),
];

/// The man page's text for each option.
const TEXTS: [(&str, &str); 21] = [
    (
        "listen",
        "Where to listen: `9090`, `:9090`, `127.0.0.1:9090` or `[::1]:9090`. Repeatable. A bare port is IPv6 and IPv4 on \
         one socket, and IPv4 alone where the machine has no IPv6. Port 0 takes a free one. The default is 9090.",
    ),
    (
        "live",
        "What has to hold for liveness beside the worker's running: see CHECKS. Repeatable. `NAME=` before it names it.",
    ),
    (
        "ready",
        "What has to hold for readiness beside the worker's running: see CHECKS. Repeatable.",
    ),
    (
        "path",
        "Serves an endpoint at one more path, `/up=live`, for a prober whose path can't be chosen; repeatable",
    ),
    (
        "check-timeout",
        "How long one check may take, at most 60s. The default, 800ms, is under the second that a kubelet waits.",
    ),
    (
        "exit-on-unhealthy",
        "When liveness has failed this long without a break, the worker gets TERM and after `--grace` (or 5s) KILL; \
         livelet exits with 75. Without the option, restarting is left to who probes.",
    ),
    (
        "drain",
        "How long open connections may take to finish when livelet stops. The default, 5s, is also the most.",
    ),
    (
        "bind-wait",
        "How long to wait for a port that another process holds. The default is 10s. Then livelet exits with 125 and \
         names the holder.",
    ),
    (
        "takeover",
        "Replace a healthy livelet that holds the port: it hands its listening socket over and stops. One that is \
         stopping already is replaced without this.",
    ),
    (
        "reuse-port",
        "Set SO_REUSEPORT, to share the port with others that set it too. Without it two processes never share a port.",
    ),
    (
        "max-connections",
        "How many connections may be open at once; 256. At the limit the one that has waited longest without a whole \
         request is closed.",
    ),
    (
        "signal",
        "Forward one signal as another: `TERM=QUIT`; `TERM=0` drops it. Repeatable.",
    ),
    (
        "ok-exit",
        "Report this exit code of the worker as 0; `143` is that of a worker which TERM ended. Repeatable.",
    ),
    (
        "stop-signal",
        "Begin the stop when this signal arrives, in images whose STOPSIGNAL is another one: `QUIT`. \
         It replaces TERM and INT. Repeatable.",
    ),
    (
        "group",
        "Signal the worker's whole process group. Without it signals go to the worker alone.",
    ),
    (
        "grace",
        "Kill the worker, and all that it has left behind, when this long has passed since it was asked to stop. \
         Without it that is left to the container engine.",
    ),
    (
        "lame-duck",
        "On TERM or INT: readiness fails for this long before the worker is told. The default is 0s.",
    ),
    (
        "quiet",
        "Say failures alone. `LIVELET_LOG=quiet` does the same.",
    ),
    (
        "verbose",
        "Say each request too. `LIVELET_LOG=verbose` does the same.",
    ),
    ("help", "Print a summary."),
    ("version", "Print the version."),
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [directory, date] = args.as_slice() else {
        eprintln!("usage: pages OUTDIR DATE");
        return ExitCode::from(2);
    };
    match write_all(Path::new(directory), date) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(directory: &Path, date: &str) -> Outcome<()> {
    for (check, ..) in CHECKS {
        Kind::parse(check).map_err(|accepted| format!("{check}: {accepted}"))?;
    }
    for (long, _) in TEXTS {
        if !FLAGS.iter().any(|flag| flag.long == long) {
            return Err(format!("--{long}: has a text and is no option").into());
        }
    }
    fs::write(directory.join("livelet.1"), man(date)?)?;
    fs::write(directory.join("livelet.bash"), bash()?)?;
    fs::write(directory.join("_livelet"), zsh()?)?;
    fs::write(directory.join("livelet.fish"), fish()?)?;
    Ok(())
}

fn text_of(flag: &Flag) -> Outcome<&'static str> {
    let text = TEXTS.iter().find(|(long, _)| *long == flag.long);
    Ok(text.ok_or(format!("--{}: no text", flag.long))?.1)
}

// --- the man page, in man(7)'s macros, which every roff has ---

/// Text for roff: what stands between `` ` `` is bold; a line a sentence, of 80 bytes at most, as roff has it.
fn roff(text: &str) -> String {
    let mut marked = String::new();
    for (index, part) in text.split('`').enumerate() {
        let part = part.replace('\\', "\\e").replace('-', "\\-");
        match index % 2 {
            0 => marked.push_str(&part),
            _ => marked.push_str(&format!("\\fB{part}\\fR")),
        }
    }
    let (mut out, mut line) = (String::new(), 0);
    for word in marked.split_inclusive(' ') {
        if line + word.len() > 80 {
            out.truncate(out.trim_end().len());
            out.push('\n');
            line = 0;
        }
        if line == 0 && word.starts_with(['.', '\'']) {
            // Such a line would be a request.
            out.push_str("\\&");
        }
        out.push_str(word);
        line += word.len();
        if word.ends_with(". ") {
            line = 81;
        }
    }
    out
}

fn man(date: &str) -> Outcome<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!("'\\\" t\n.TH LIVELET 1 {date} \"livelet {version}\"\n");
    out.push_str(HEAD);
    for flag in &FLAGS {
        let short = flag.short.map_or(String::new(), |c| format!("`-{c}`, "));
        let value = match flag.value {
            "" => String::new(),
            "CHECK" => " [\\fINAME\\fR=]\\fICHECK\\fR".to_string(),
            value => format!(" \\fI{value}\\fR"),
        };
        let names = roff(&format!("{short}`--{}`", flag.long));
        writeln!(out, ".TP\n{names}{value}\n{}", roff(text_of(flag)?))?;
        if let Some(variable) = flag.variable {
            writeln!(out, "(\\fB{variable}\\fR)")?;
        }
    }
    out.push_str(CHECKS_HEAD);
    for (check, _, text) in CHECKS {
        writeln!(
            out,
            ".TP\n{}\n{}.",
            roff(&format!("`{check}`")),
            roff(&capital(text))
        )?;
    }
    out.push_str(PROBE_HEAD);
    for (long, value, text) in PROBE {
        let value = match value {
            "" => String::new(),
            value => format!(" \\fI{value}\\fR"),
        };
        let name = roff(&format!("`--{long}`"));
        writeln!(out, ".TP\n{name}{value}\n{}.", roff(&capital(text)))?;
    }
    out.push_str(TAIL);
    Ok(out)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

const HEAD: &str = r#".nh
.ad l
.SH NAME
livelet \- give any process a health endpoint
.SH SYNOPSIS
.B livelet
[\fIOPTIONS\fR] [\fB\-\-\fR \fICOMMAND\fR [\fIARG\fR]...]
.br
.B livelet probe
[\fB\-\-ready\fR] [\fB\-\-timeout\fR \fIDUR\fR] [\fICHECK\fR]
.br
.B livelet notify
\fINAME\fR=\fIVALUE\fR...
.br
.B livelet install
.I PATH
.SH DESCRIPTION
.B livelet
answers liveness and readiness probes over HTTP.
Alone it answers for itself.
In front of a command it runs that command as its worker, as the init of a
container would: it forwards signals, reaps zombies, exits with the worker's
code, and answers for it.
.PP
.TS
tab(|);
lb l.
/livez /live /healthz /health /|liveness
/readyz /ready|readiness
/startupz /startup|200 once readiness has held once
/livez/NAME /readyz/NAME|one check
/metrics|for Prometheus
.TE
.PP
The answer is 200 or 503.
.B ?verbose
lists the checks,
.BI ?exclude= NAME
leaves one out,
.B ?format=json
gives JSON.
A browser gets a page on
.BR / .
.PP
The command begins after
.BR \-\- ;
all of it is the worker's, untouched.
.SH OPTIONS
An option wins over its variable, which is named in parentheses.
In a variable, several values are separated by spaces, and a switch is
.BR 1 ,
.BR true ,
.B yes
or
.BR on ,
or the opposite.
.I DUR
is a whole number and its unit:
.BR 250ms ,
.BR 5s ,
.BR 2m ,
.BR 1h .
"#;

const CHECKS_HEAD: &str = r#".SH CHECKS
Checks are looked at when somebody asks, all of an endpoint's at once.
Addresses are IP addresses or
.BR localhost :
liveness that hangs on another machine makes its outage one of this worker too.
"#;

const PROBE_HEAD: &str = r#".SH COMMANDS
.SS probe
Asks
.B /livez
of the livelet on this machine, on the port of
.B LIVELET_LISTEN
or 9090, prints the answer and exits with 0 or 1.
A
.I CHECK
in its place is looked at directly; all but
.BR notify ,
.B watchdog
and
.B exec
can be.
On a terminal the answer has colours, unless
.B NO_COLOR
is set.
"#;

const TAIL: &str = r#".SS notify
Sends the assignments to
.BR NOTIFY_SOCKET ,
for shells and for runtimes that have no unix datagrams; livelet is its worker's
.BR NOTIFY_SOCKET .
.SS install
Writes its own executable to
.IR PATH ,
mode 0755, whole or not at all.
.SH SIGNALS
With a worker every signal that can be caught is forwarded to it.
TERM and INT stop livelet: readiness fails at once, the worker gets the signal,
and when it has ended open connections get their answers.
Alone, HUP, QUIT and USR2 stop it too.
A second TERM or INT during the drain ends it at once.
.SH ENVIRONMENT
Beside the variables of the options:
.TP
.B LISTEN_FDS LISTEN_PID LISTEN_FDNAMES
Inherited sockets, as
.BR systemd.socket (5)
units pass them.
Those named
.B livelet
or without a name are listened on in place of the default address.
The others, and all of them with
.BR \-\-listen ,
are passed on to the worker.
Without a worker all of them are listened on.
.TP
.B NOTIFY_SOCKET
The supervisor that the worker's messages are passed on to, and that
.B READY=1
is sent to if the worker does not send it.
.TP
.B WATCHDOG_USEC
Limit of the supervisor, which is passed on to the worker. Without a worker
livelet sends
.B WATCHDOG=1
itself while liveness passes.
.SH EXIT STATUS
.TP
.B 0
It was stopped by a signal, alone; the probe holds.
.TP
.B 1
The probe does not hold; nobody took the notification.
.TP
.B 75
.BR \-\-exit\-on\-unhealthy .
.TP
.B 125
Livelet itself failed: a bad command line, a port that is held.
.TP
.B 126 127
The command can't be executed, is not found.
.TP
.I others
The worker's, or 128 and the number of the signal that ended it.
.SH EXAMPLES
.TP
A worker that touches a file each time round:
.nf
.B livelet \-\-live heartbeat:/tmp/beat:60s \-\- node worker.js
.fi
.TP
A worker that is ready once it says so:
.nf
.B livelet \-\-ready notify \-\- python3 worker.py
.fi
.TP
The health check of a container image:
.nf
\fBHEALTHCHECK CMD ["/livelet", "probe"]\fR
.fi
.SH SEE ALSO
.BR sd_notify (3),
.BR systemd.socket (5),
.BR tini (1)
"#;

// --- completions ---

/// Values to offer for an option, by what its value is called.
fn values(value: &str) -> &'static [&'static str] {
    match value {
        "CHECK" => &[
            "notify",
            "watchdog:",
            "file:/",
            "heartbeat:/",
            "tcp:127.0.0.1:",
            "unix:/",
            "http://127.0.0.1:",
            "exec:/",
        ],
        "DUR" => &["250ms", "1s", "5s", "30s", "2m"],
        "FROM=TO" => &["TERM=INT", "TERM=QUIT", "TERM=0", "INT=TERM", "HUP=0"],
        "CODE" => &["130", "143"],
        _ => &[],
    }
}

/// What `probe` takes in place of an endpoint.
fn probe_checks() -> Vec<&'static str> {
    let words = values("CHECK").iter().copied();
    words
        .filter(|word| {
            let kind = word.split(':').next();
            CHECKS
                .iter()
                .any(|(check, askable, _)| *askable && check.split(':').next() == kind)
        })
        .collect()
}

/// Within single quotes, for a POSIX shell and for zsh.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn bash() -> Outcome<String> {
    let mut options = String::new();
    let mut cases = String::new();
    for flag in &FLAGS {
        let short = flag.short.map(|c| format!("-{c}"));
        write!(options, "--{} ", flag.long)?;
        if !flag.value.is_empty() {
            let short = short.map_or(String::new(), |short| format!("{short} | "));
            let words = values(flag.value).join(" ");
            writeln!(
                cases,
                "    {short}--{}) words='{words}' is_value=1 ;;",
                flag.long
            )?;
        }
    }
    let probe: Vec<String> = PROBE.iter().map(|(long, ..)| format!("--{long}")).collect();
    Ok(BASH
        .replace("@OPTIONS@", options.trim_end())
        .replace("@CASES@", cases.trim_end())
        .replace("@COMMANDS@", &COMMANDS.map(|(name, _)| name).join(" "))
        .replace("@PROBE@", &probe.join(" "))
        .replace("@PROBE_CHECKS@", &probe_checks().join(" "))
        .replace("@DUR@", &values("DUR").join(" ")))
}

const BASH: &str = r#"# bash completion for livelet, made from its table of options.
_livelet() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} index words='' is_value=''
    COMPREPLY=()
    # All that follows -- is another command's.
    for ((index = 1; index < COMP_CWORD; index++)); do
        [[ ${COMP_WORDS[index]} == -- ]] || continue
        if declare -F _command_offset >/dev/null; then
            _command_offset $((index + 1))
        elif ((index + 1 == COMP_CWORD)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        fi
        return
    done
    # bash splits words at : and =, so that a path after file: is a word of its own.
    if [[ $cur == /* && $prev == : ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
    fi
    [[ $prev != '=' ]] || prev=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $cur != '=' ]] || cur='' prev=${COMP_WORDS[COMP_CWORD - 1]}
    case ${COMP_WORDS[1]}:$prev in
    probe:--timeout) words='@DUR@' ;;
    probe:*) words='@PROBE@ @PROBE_CHECKS@' ;;
    notify:*) words='READY=1 RELOADING=1 STOPPING=1 WATCHDOG=1 STATUS=' ;;
    install:*) ;;
    *)
        case $prev in
@CASES@
        esac
        if [[ -z $words$is_value ]]; then
            words='@OPTIONS@ --'
            ((COMP_CWORD > 1)) || words+=' @COMMANDS@'
        fi
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    # A value is not finished at its colon or equals sign.
    [[ ${COMPREPLY[0]-} != *[:=/] ]] || compopt -o nospace 2>/dev/null
    [[ ${COMP_WORDS[1]} != install ]] || mapfile -t COMPREPLY < <(compgen -f -- "$cur")
}
complete -F _livelet livelet
"#;

fn zsh() -> Outcome<String> {
    let describe = |value: &str| match values(value) {
        [] => format!(":{value}:"),
        words => {
            let words: Vec<String> = words.iter().map(|word| word.replace(':', "\\:")).collect();
            format!(":{value}:_livelet_value {}", words.join(" "))
        }
    };
    let mut options = String::new();
    for flag in &FLAGS {
        let help = flag.help.replace(']', "\\]").replace('[', "\\[");
        let value = match flag.value {
            "" => String::new(),
            value => describe(value),
        };
        let repeats = if matches!(
            flag.long,
            "listen" | "live" | "ready" | "signal" | "ok-exit"
        ) {
            "*"
        } else {
            ""
        };
        for name in flag
            .short
            .map(|c| format!("-{c}"))
            .into_iter()
            .chain([format!("--{}", flag.long)])
        {
            writeln!(
                options,
                "        {} \\",
                quoted(&format!("{repeats}{name}[{help}]{value}"))
            )?;
        }
    }
    let mut probe = String::new();
    for (long, value, text) in PROBE {
        let value = match value {
            "" => String::new(),
            value => describe(value),
        };
        writeln!(
            probe,
            "        {} \\",
            quoted(&format!("--{long}[{text}]{value}"))
        )?;
    }
    let checks = probe_checks().join(" ").replace(':', "\\:");
    let commands = COMMANDS.map(|(name, text)| quoted(&format!("{name}:{text}")));
    Ok(ZSH
        .replace("@OPTIONS@", options.trim_end())
        .replace("@PROBE@", probe.trim_end())
        .replace("@PROBE_CHECKS@", &checks)
        .replace("@COMMANDS@", &commands.join(" ")))
}

const ZSH: &str = r#"#compdef livelet
# zsh completion for livelet, made from its table of options.

# Values that go on after a colon or an equals sign get no space, and a path is completed after it.
_livelet_value() {
    if [[ $PREFIX == (file|heartbeat|unix|exec):/* ]]; then
        compset -P '*:'
        _files
        return
    fi
    local -a whole begun
    whole=(${argv:#*[:=/]})
    begun=(${(M)argv:#*[:=/]})
    compadd -- $whole
    compadd -S '' -- $begun
}

_livelet_commands() {
    local -a commands
    commands=(@COMMANDS@)
    _describe command commands
}

_livelet() {
    # All that follows -- is another command's.
    local -i dashes=${words[(i)--]}
    if ((dashes < CURRENT)); then
        shift $dashes words
        ((CURRENT -= dashes))
        _normal
        return
    fi
    if ((CURRENT > 2)); then
        case $words[2] in
        probe)
            shift words
            ((CURRENT--))
            _arguments \
@PROBE@
                '1:check:_livelet_value @PROBE_CHECKS@'
            return
            ;;
        notify)
            _livelet_value READY=1 RELOADING=1 STOPPING=1 WATCHDOG=1 STATUS=
            return
            ;;
        install)
            _files
            return
            ;;
        esac
    fi
    _arguments -s \
@OPTIONS@
        '1:command:_livelet_commands'
}

_livelet "$@"
"#;

fn fish() -> Outcome<String> {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut out = String::from(FISH);
    for (name, text) in COMMANDS {
        writeln!(
            out,
            "complete -c livelet -n __livelet_first -a {name} -d {}",
            quoted(text)
        )?;
    }
    for flag in &FLAGS {
        let short = flag.short.map_or(String::new(), |c| format!(" -s {c}"));
        let value = match (flag.value, values(flag.value)) {
            ("", _) => String::new(),
            (_, []) => " -x".to_string(),
            (_, words) => format!(" -xa {}", quoted(&words.join(" "))),
        };
        writeln!(
            out,
            "complete -c livelet -n __livelet_serves{short} -l {}{value} -d {}",
            flag.long,
            quoted(flag.help)
        )?;
    }
    for (long, value, text) in PROBE {
        let value = match value {
            "" => String::new(),
            value => format!(" -xa {}", quoted(&values(value).join(" "))),
        };
        writeln!(
            out,
            "complete -c livelet -n '__livelet_runs probe' -l {long}{value} -d {}",
            quoted(text)
        )?;
    }
    writeln!(
        out,
        "complete -c livelet -n '__livelet_runs probe' -a {}",
        quoted(&probe_checks().join(" "))
    )?;
    out.push_str(
        "complete -c livelet -n '__livelet_runs notify' -a 'READY=1 RELOADING=1 STOPPING=1 WATCHDOG=1 STATUS='\n\
         complete -c livelet -n '__livelet_runs install' -F\n",
    );
    Ok(out)
}

const FISH: &str = r#"# fish completion for livelet, made from its table of options.
function __livelet_worker
    contains -- -- (commandline -opc)
end
function __livelet_runs
    set -l tokens (commandline -opc)
    test "$tokens[2]" = "$argv[1]"
end
function __livelet_first
    test (count (commandline -opc)) = 1
end
function __livelet_serves
    not __livelet_worker
    and not __livelet_runs probe
    and not __livelet_runs notify
    and not __livelet_runs install
end
# All that follows -- is another command's.
function __livelet_complete_worker
    set -l tokens (commandline -opc)
    set -e tokens[1..(contains -i -- -- $tokens)]
    complete -C (string join ' ' -- (string escape -- $tokens) (commandline -ct))
end
complete -c livelet -f
complete -c livelet -n __livelet_worker -a '(__livelet_complete_worker)'
"#;
