//! `pages OUTDIR DATE`: the man page and the completions, from the binary's own table of options.
//!
//! What the table can't hold, because the binary would carry it, is here: longer texts of the
//! options, and in `man.txt` the rest of the man page. An option without a text, or a text without
//! its option, is an error; so is a check in the list below that the parser refuses.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use livelet::check::Kind;
use livelet::cli::{FLAGS, Flag};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const COMMANDS: [(&str, &str); 5] = [
    ("probe", "ask once"),
    ("notify", "tell NOTIFY_SOCKET"),
    ("install", "copy the executable"),
    ("help", "print a page of help"),
    ("version", "print the version"),
];

/// Options of `livelet probe`: name, value, text.
const PROBE: [(&str, &str, &str); 4] = [
    ("ready", "", "ask /readyz in place of /livez"),
    ("listen", "ADDR", "where livelet listens, also -l"),
    ("timeout", "DUR", "limit of one attempt (default 1s)"),
    (
        "wait",
        "DUR",
        "try again until it holds, for this long (default 0s)",
    ),
];

/// Checks: their form, `true` if `probe` accepts them, and their condition. `` ` `` marks text to
/// type.
const CHECKS: [(&str, bool, &str); 8] = [
    (
        "notify",
        false,
        "The worker has said `READY=1` over sd_notify, and not `STOPPING=1` or `RELOADING=1` since.",
    ),
    (
        "watchdog:30s",
        false,
        "The worker's last `WATCHDOG=1` is younger than the limit. `WATCHDOG_USEC` in its environment is that limit.",
    ),
    (
        "heartbeat:/path:30s",
        true,
        "The file was modified more recently than the limit.",
    ),
    ("file:/path", true, "The file exists."),
    (
        "tcp:127.0.0.1:5432",
        true,
        "A connection is accepted. A process that hangs passes too, because the kernel accepts for it.",
    ),
    (
        "unix:/run/app.sock",
        true,
        "A connection is accepted, as for `tcp`.",
    ),
    (
        "http://127.0.0.1:3000/health",
        true,
        "The status is 2xx or 3xx. Redirects are not followed.",
    ),
    (
        "exec:/bin/check arg",
        false,
        "The program exits with 0. There is no shell; words are split as a shell splits them. It runs once at a time, \
         and is killed with its process group at `--check-timeout`. A pass is kept for 10 s, a failure for 1 s. The first \
         line that it prints is the reason.",
    ),
];

/// Texts of the man page for each option, without its default and without the note that it is
/// repeatable.
const TEXTS: [(&str, &str); 22] = [
    (
        "listen",
        "Where to listen: `9090`, `:9090`, `127.0.0.1:9090`, `[::1]:9090`, or `env:PORT` for the port that the variable \
         `PORT` holds. Port 0 takes a free one. The default is 9090.",
    ),
    (
        "bind-wait",
        "How long to wait for a port that another process holds: see THE PORT. The default is 10s.",
    ),
    (
        "takeover",
        "Replace a healthy livelet that holds the port. One that is stopping already is replaced without this.",
    ),
    (
        "reuse-port",
        "Set SO_REUSEPORT, to share the port with others that set it too.",
    ),
    (
        "max-connections",
        "How many connections may be open at once. The default is 256.",
    ),
    (
        "live",
        "What has to hold for liveness beside the worker's running: see CHECKS.",
    ),
    (
        "ready",
        "What has to hold for readiness beside the worker's running: see CHECKS.",
    ),
    (
        "check-timeout",
        "How long one check may take, at most 60s. The default, 800ms, is under the second that a kubelet waits.",
    ),
    (
        "check-host",
        "The Host that `http` checks send, for frameworks that allow only known hosts. The default is the address.",
    ),
    (
        "path",
        "Serve `live`, `ready` or `startup` at one more path, such as `/up=live`, for a prober with a fixed path.",
    ),
    (
        "exit-on-unhealthy",
        "When liveness has held once and then failed this long without a break, stop the worker and exit with 75. The \
         worker gets TERM, and KILL after `--grace` or 5s. Without the option a restart is left to the prober.",
    ),
    (
        "stop-signal",
        "A signal that begins a stop, in place of TERM and INT: `QUIT` for images with STOPSIGNAL QUIT.",
    ),
    (
        "lame-duck",
        "How long readiness fails before the worker is told of the stop. The default is 0s.",
    ),
    (
        "drain",
        "How long open connections may take to finish at the end. The default, 5s, is also the most.",
    ),
    (
        "signal",
        "Forward one signal as another, such as `TERM=QUIT`. `TERM=0` drops it. Needs a command.",
    ),
    (
        "group",
        "Signal the worker's whole process group, not the worker alone. Needs a command.",
    ),
    (
        "grace",
        "Kill the worker, and all that it has left, this long after it was asked to stop. The default is never. \
         Needs a command.",
    ),
    (
        "ok-exit",
        "Report this exit code of the worker as 0: `143` is that of a worker which TERM ended. Needs a command.",
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

/// Text for roff: what stands between `` ` `` is bold, between `*` italic; a line a sentence, of 80
/// bytes at most, as roff has it.
fn roff(text: &str) -> String {
    let mut marked = String::new();
    for (index, part) in text.split('`').enumerate() {
        let part = part.replace('\\', "\\e").replace('-', "\\-");
        match index % 2 {
            0 => {
                for (index, part) in part.split('*').enumerate() {
                    match index % 2 {
                        0 => marked.push_str(part),
                        _ => marked.push_str(&format!("\\fI{part}\\fR")),
                    }
                }
            }
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

/// The man page but for its options and checks: `#` and `##` begin sections, `@ TERM | TEXT` is an
/// item, `*` sets off what stands for something else, and a line that begins with a dot is roff.
const TEMPLATE: &str = include_str!("man.txt");

fn man(date: &str) -> Outcome<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(".TH LIVELET 1 {date} \"livelet {version}\"\n.nh\n.ad l\n");
    let mut is_after_blank = false;
    for line in TEMPLATE.lines() {
        let is_text = !line.starts_with(['#', '@', '.']) && !line.is_empty();
        if is_text && is_after_blank {
            out.push_str(".PP\n");
        }
        is_after_blank = line.is_empty();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => {}
            ("#", title) => writeln!(out, ".SH {title}")?,
            ("##", title) => writeln!(out, ".SS {title}")?,
            ("@", item) => {
                let (term, text) = item.split_once(" | ").ok_or(format!("{line}: no text"))?;
                out.push_str(&entry(term, text));
            }
            ("@OPTIONS@", _) => out.push_str(&options()?),
            ("@CHECKS@", _) => {
                for (check, _, text) in CHECKS {
                    out.push_str(&entry(&format!("`{check}`"), text));
                }
                out.push_str(".PP\n");
            }
            ("@PROBE@", _) => {
                for (long, value, text) in PROBE {
                    let text = format!("{}.", capital(text));
                    out.push_str(&entry(&term(None, long, value), &text));
                }
            }
            _ if is_text => writeln!(out, "{}", roff(line))?,
            _ => writeln!(out, "{line}")?,
        }
    }
    Ok(out)
}

/// Returns a term and its text, indented.
fn entry(term: &str, text: &str) -> String {
    format!(".TP\n{}\n{}\n", roff(term), roff(text))
}

/// Returns the names of an option and its value.
fn term(short: Option<char>, long: &str, value: &str) -> String {
    let short = short.map_or(String::new(), |c| format!("`-{c}`, "));
    let value = match value {
        "" => String::new(),
        "CHECK" => " [*NAME*=]*CHECK*".to_string(),
        value => format!(" *{value}*"),
    };
    format!("{short}`--{long}`{value}")
}

fn options() -> Outcome<String> {
    let mut out = String::new();
    for flag in &FLAGS {
        if let Some(heading) = flag.heading() {
            writeln!(out, ".SS {heading}")?;
        }
        let repeatable = if flag.is_repeatable() {
            " Repeatable."
        } else {
            ""
        };
        let variable = flag
            .variable
            .map_or(String::new(), |name| format!(" (`{name}`)"));
        let text = format!("{}{repeatable}{variable}", text_of(flag)?);
        out.push_str(&entry(&term(flag.short, flag.long, flag.value), &text));
    }
    Ok(out)
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

// --- completions ---

/// Returns the values to offer for an option, by the name of its value.
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

/// Returns the checks that `probe` accepts in place of an endpoint.
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

/// Returns a text within single quotes, for a POSIX shell and for zsh.
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
    probe:--timeout | probe:--wait) words='@DUR@' ;;
    probe:--listen | probe:-l) ;;
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
        let repeats = if flag.is_repeatable() { "*" } else { "" };
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
        let value = match (value, values(value)) {
            ("", _) => String::new(),
            (_, []) => " -x".to_string(),
            (_, words) => format!(" -xa {}", quoted(&words.join(" "))),
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
