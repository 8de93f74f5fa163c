//! Health as text, with one line for each check. Escapes text of other programs for every format.

use std::fmt::Write as _;

use super::route::{Question, View};
use super::{Facts, Report};
use crate::http::{Response, Status};

/// Response with status 200 and the text `ok`, for the case that all checks pass and the request
/// asks for no details.
pub(super) const OK: Response = Response::fixed(Status::Ok, "ok");
/// Maximum length, in bytes, of text from another program, such as the reason of a failure.
const MAX_REASON: usize = 256;
/// Space, in bytes, that is reserved after the lines of the checks: for the worker's STATUS of at
/// most about [`MAX_REASON`] bytes, for unknown excluded names and for the verdict.
const TAIL: usize = 511;

/// Returns the text that answers `question` about the checks in `report`, at most `most` bytes
/// long. If not all lines fit, leaves some out. `names` are the names of all checks of the
/// endpoint: the text says which excluded names are not among them. If the question asks for
/// details, the text also has the worker's STATUS, which is in `facts`. Returns `None` if the text
/// would be only `ok`: the response is then [`OK`].
pub(super) fn body(
    question: &Question,
    report: &Report<'_>,
    names: &[&str],
    facts: &Facts<'_>,
    most: usize,
) -> Option<String> {
    let is_verbose = question.view == View::Verbose;
    let holds = report.holds();
    let mut unknown = question.unknown_exclusions(names).peekable();
    if holds && !is_verbose && unknown.peek().is_none() {
        return None;
    }
    let limit = most - TAIL;
    let mut body = String::new();
    if !holds || is_verbose {
        for check in &report.checks {
            let before = body.len();
            // Writing to a String cannot fail.
            let _ = match &check.outcome {
                Ok(()) => write!(body, "[+]{} ok", check.name),
                Err(_) => write!(body, "[-]{} failed: ", check.name),
            };
            if let Err(reason) = &check.outcome {
                show(&mut body, reason, Form::Text);
            }
            body.push('\n');
            if body.len() > limit {
                body.truncate(before);
                body.push_str("(more are not shown)\n");
                break;
            }
        }
    }
    if let Some(status) = facts.status.filter(|_| is_verbose) {
        body.push_str("the worker says: ");
        show(&mut body, status, Form::Text);
        body.push('\n');
    }
    for name in unknown {
        if body.len() + name.len() + 40 < limit {
            body.push_str("no check to exclude: ");
            show(&mut body, name, Form::Text);
            body.push('\n');
        }
    }
    let name = question.endpoint.name();
    let _ = match (holds, is_verbose) {
        (true, true) => write!(body, "{name} check passed"),
        (true, false) => write!(body, "ok"),
        (false, _) => write!(body, "{name} check failed"),
    };
    Some(body)
}

/// Format of a document into which livelet inserts text from another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    /// String in a JSON document (RFC 8259 §7).
    Json,
    Html,
}

/// Appends `text`, which comes from another program, to `out`, a document in the format `form`.
/// Cuts `text` after about [`MAX_REASON`] bytes. Escapes control characters, so that the text stays
/// on one line. Also escapes each character that has a special meaning in `form`.
pub(super) fn show(out: &mut String, text: &str, form: Form) {
    let start = out.len();
    for c in text.chars() {
        if out.len() - start >= MAX_REASON {
            return out.push_str("...");
        }
        // Control characters, and those that change the direction of writing.
        let is_control =
            c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        // Writing to a String cannot fail.
        let _ = match c {
            _ if form == Form::Json && is_control => write!(out, "\\u{:04x}", u32::from(c)),
            '"' | '\\' if form == Form::Json => write!(out, "\\{c}"),
            '<' | '>' | '&' | '"' | '\'' if form == Form::Html => {
                write!(out, "&#{};", u32::from(c))
            }
            _ if is_control => write!(out, "{}", c.escape_default()),
            _ => out.write_char(c),
        };
    }
}
