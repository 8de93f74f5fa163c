//! Health as JSON, after the draft of application/health+json (draft-inadarei-api-health-check).

use std::fmt::Write as _;
use std::time::Duration;

use super::{Form, Line, show};

/// What is said beside the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The process id of livelet.
    pub pid: u32,
    /// How long it has served.
    pub uptime: Duration,
    /// The worker's last STATUS.
    pub said: Option<&'a str>,
}

/// The document; checks that have no room within `most` bytes are left out, and that is said.
pub(super) fn document(lines: &[Line<'_>], facts: &Facts<'_>, most: usize) -> String {
    let holds = lines.iter().all(|(_, outcome, _)| outcome.is_ok());
    let mut text = format!(
        "{{\"status\":\"{}\",\"version\":\"{}\",\"pid\":{},\"uptime\":{}",
        verdict(holds),
        env!("CARGO_PKG_VERSION"),
        facts.pid,
        facts.uptime.as_secs(),
    );
    if let Some(said) = facts.said {
        text.push_str(",\"notes\":[");
        push(&mut text, said);
        text.push(']');
    }
    text.push_str(",\"checks\":{");
    let mut comma = "";
    for (name, outcome, _) in lines {
        let before = text.len();
        let status = verdict(outcome.is_ok());
        // Names are of letters, digits, dots, dashes and underlines: nothing to escape. Writing to a String cannot fail.
        let _ = write!(text, "{comma}\"{name}\":[{{\"status\":\"{status}\"");
        if let Err(reason) = outcome {
            text.push_str(",\"output\":");
            push(&mut text, reason);
        }
        text.push_str("}]");
        if text.len() + 64 > most {
            text.truncate(before);
            text.push_str("},\"output\":\"more checks are not shown\"}");
            return text;
        }
        comma = ",";
    }
    text.push_str("}}");
    text
}

fn verdict(holds: bool) -> &'static str {
    if holds { "pass" } else { "fail" }
}

/// Appends a string.
fn push(document: &mut String, text: &str) {
    document.push('"');
    show(document, text, Form::Json);
    document.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_and_its_strings() {
        let facts = Facts {
            pid: 7,
            uptime: Duration::from_millis(1999),
            said: Some("a\"b\\c\n\u{0}\u{7f}\u{85}\u{e4}\u{1f600}"),
        };
        let lines: [Line<'_>; 2] = [
            ("worker", Ok(()), None),
            ("db", Err("it's \"gone\"".into()), None),
        ];
        let expected = format!(
            "{{\"status\":\"fail\",\"version\":\"{}\",\"pid\":7,\"uptime\":1,\"notes\":[\"a\\\"b\\\\c\\u000a\\u0000\\u007f\\u0085\u{e4}\u{1f600}\"],\
             \"checks\":{{\"worker\":[{{\"status\":\"pass\"}}],\"db\":[{{\"status\":\"fail\",\"output\":\"it's \\\"gone\\\"\"}}]}}}}",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(document(&lines, &facts, 4096), expected);
        let many: Vec<Line<'_>> = (0..200)
            .map(|_| ("db", Err("\u{1}".repeat(100).into()), None))
            .collect();
        let text = document(&many, &facts, 4000);
        assert!(
            text.len() <= 4000 && text.ends_with("are not shown\"}"),
            "{text}"
        );
    }
}
