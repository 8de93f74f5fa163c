//! Texts that `--help` prints, at most 80 columns wide.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::options::FLAGS;

/// Text of `livelet --help` before the list of options.
const HEAD: &str = "\
Usage: livelet [OPTIONS] [-- COMMAND [ARG]...]
       livelet probe [OPTIONS] [CHECK]
       livelet notify NAME=VALUE...
       livelet install PATH
Answers health probes over HTTP, for itself or for the command that it runs.
Each of the other three has a page of its own: livelet probe --help.
";

/// Text of `livelet --help` after the list of options.
const TAIL: &str = "
A variable stands for each option: LIVELET_BIND_WAIT for --bind-wait, and
LIVELET_LOG=quiet or verbose. DUR is 250ms, 5s, 2m or 1h. These may be repeated:
--listen, --live, --ready, --path, --stop-signal, --signal, --ok-exit.

CHECK, or NAME=CHECK, holds while:
  notify                        the command has said READY=1 (sd_notify)
  watchdog:30s                  its last WATCHDOG=1 is younger
  heartbeat:/path:30s           the file was modified more recently
  file:/path                    the file exists
  tcp:127.0.0.1:5432            a connection is accepted
  unix:/run/app.sock            a connection is accepted
  http://127.0.0.1:3000/health  the status is 2xx or 3xx
  exec:/bin/check arg           the program exits with 0

Paths:
  / /livez /live /healthz /health /health/live  liveness
  /readyz /ready /health/ready                  readiness
  /startupz /startup /health/started            200 once readiness has held
  /livez/NAME /readyz/NAME                      one check
  /metrics                                      Prometheus
";

const PROBE: &str = "\
Usage: livelet probe [--ready] [-l ADDR] [--timeout DUR] [--wait DUR] [CHECK]
Asks the livelet of this machine whether it is alive, or looks at a CHECK: file,
heartbeat, tcp, unix or http, as in livelet --help. Exits with 0 or 1.
      --ready        ask /readyz, not /livez
  -l, --listen ADDR  where livelet listens (default LIVELET_LISTEN, else 9090)
      --timeout DUR  for one attempt (default 1s)
      --wait DUR     try again until it holds, for this long (default 0s)
";

const NOTIFY: &str = "\
Usage: livelet notify NAME=VALUE...
Sends one message to NOTIFY_SOCKET, as sd_notify(3) does: READY=1, RELOADING=1,
STOPPING=1, WATCHDOG=1, STATUS=TEXT. Exits with 0 if it was taken, else 1.
";

const INSTALL: &str = "\
Usage: livelet install PATH
Writes its own executable to PATH, or into it if it is a directory, whole or not
at all, with mode 0755.
";

/// Help page of livelet or of one of its subcommands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// Page that `livelet --help` prints.
    Livelet,
    /// Page that `livelet probe --help` prints.
    Probe,
    /// Page that `livelet notify --help` prints.
    Notify,
    /// Page that `livelet install --help` prints.
    Install,
}

/// Returns the text of the help page `page`.
#[must_use]
pub fn help(page: Page) -> Cow<'static, str> {
    Cow::Borrowed(match page {
        Page::Livelet => return Cow::Owned(whole()),
        Page::Probe => PROBE,
        Page::Notify => NOTIFY,
        Page::Install => INSTALL,
    })
}

fn whole() -> String {
    /// Width, in columns, of the left part of the list of options: an option's names and its value.
    const COLUMN: usize = 30;
    let mut text = String::from(HEAD);
    for flag in &FLAGS {
        if let Some(heading) = flag.heading() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n{heading}:");
        }
        let short = flag.short.map_or("   ".to_string(), |c| format!("-{c},"));
        let left = format!("{short} --{} {}", flag.long, flag.value);
        let _ = writeln!(text, "  {left:COLUMN$}{}", flag.help);
    }
    text.push_str(TAIL);
    text
}
