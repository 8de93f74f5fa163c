//! Health as a JSON document of type application/health+json (draft-inadarei-api-health-check).

use std::fmt::Write as _;

use super::text::{Form, show};
use super::{Facts, Report};

/// Returns `report` as a JSON document of at most `most` bytes. The document shows `facts`, such as
/// the uptime, beside the checks. If not all checks fit, the document lacks the last checks, and
/// says so.
pub(super) fn document(report: &Report<'_>, facts: &Facts<'_>, most: usize) -> String {
    let mut text = format!(
        "{{\"status\":\"{}\",\"version\":\"{}\",\"pid\":{},\"uptime\":{}",
        verdict(report.holds()),
        env!("CARGO_PKG_VERSION"),
        facts.pid,
        facts.uptime.as_secs(),
    );
    if let Some(status) = facts.status {
        text.push_str(",\"notes\":[");
        push(&mut text, status);
        text.push(']');
    }
    text.push_str(",\"checks\":{");
    let mut comma = "";
    for check in &report.checks {
        let before = text.len();
        let (name, status) = (check.name, verdict(check.outcome.is_ok()));
        // Names are of letters, digits, dots, dashes and underscores: nothing to escape. Writing to
        // a String cannot fail.
        let _ = write!(text, "{comma}\"{name}\":[{{\"status\":\"{status}\"");
        if let Err(reason) = &check.outcome {
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

/// Appends `text` to `document` as a JSON string (RFC 8259 section 7).
fn push(document: &mut String, text: &str) {
    document.push('"');
    show(document, text, Form::Json);
    document.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::testing::{FACTS, failed, passed};
    use crate::health::{Endpoint, Report};

    #[test]
    fn json_document_escapes_its_strings() {
        let facts = Facts {
            status: Some("a\"b\\c\n\u{0}\u{7f}\u{85}\u{e4}\u{1f600}"),
            ..*FACTS
        };
        let mut report = Report {
            endpoint: Endpoint::Live,
            checks: vec![passed("worker"), failed("db", "it's \"gone\"")],
        };
        let expected = format!(
            "{{\"status\":\"fail\",\"version\":\"{}\",\"pid\":1,\"uptime\":41,\"notes\":[\"a\\\"b\\\\c\\u000a\\u0000\\u007f\\u0085\u{e4}\u{1f600}\"],\
             \"checks\":{{\"worker\":[{{\"status\":\"pass\"}}],\"db\":[{{\"status\":\"fail\",\"output\":\"it's \\\"gone\\\"\"}}]}}}}",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(document(&report, &facts, 4096), expected);
        let reason = "\u{1}".repeat(100);
        report.checks = vec![failed("db", &reason); 200];
        let text = document(&report, &facts, 4000);
        assert!(
            text.len() <= 4000 && text.ends_with("are not shown\"}"),
            "{text}"
        );
    }
}
