//! The text of `--help`.

use std::fmt::Write as _;

use super::options::FLAGS;

/// The text of `--help`: 80 columns at most.
#[must_use]
pub fn help() -> String {
    const COLUMN: usize = 27;
    let mut text = String::from(
        "Usage: livelet [OPTIONS] [-- COMMAND [ARG]...]\n\
         \x20      livelet probe [--ready] [--timeout DUR] [--wait DUR] [CHECK]\n\
         \x20      livelet notify NAME=VALUE... | install PATH\n\
         Answers health probes over HTTP, for itself or for the command that it runs.\n",
    );
    for flag in &FLAGS {
        let short = flag.short.map_or("   ".to_string(), |c| format!("-{c},"));
        let left = format!("{short} --{} {}", flag.long, flag.value);
        let mut lines = flag.help.lines();
        let first = lines.next().unwrap_or_default();
        let _ = writeln!(text, "  {left:COLUMN$}{first}");
        for line in lines {
            let _ = writeln!(text, "  {:COLUMN$}{line}", "");
        }
    }
    text.push_str(
        "Each option but the last four has a variable: --bind-wait is LIVELET_BIND_WAIT.\n",
    );
    text
}
