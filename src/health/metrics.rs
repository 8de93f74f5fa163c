//! Health as metrics, in Prometheus' text format 0.0.4.

use std::fmt::Write as _;

use super::{Facts, Report};

/// Returns all metrics in Prometheus' text format, at most `most` bytes long. `reports` give the
/// metrics of the endpoints and their checks, and `facts` the other metrics. If not all checks fit,
/// leaves the metrics of some checks out.
pub(super) fn exposition(reports: &[Report<'_>], facts: &Facts<'_>, most: usize) -> String {
    // Writing to a String cannot fail.
    let mut out = String::new();
    let _ = write!(
        out,
        "# HELP livelet_info The version of livelet.\n\
         # TYPE livelet_info gauge\n\
         livelet_info{{version=\"{}\"}} 1\n\
         # HELP livelet_uptime_seconds How long livelet has served.\n\
         # TYPE livelet_uptime_seconds gauge\n\
         livelet_uptime_seconds {}.{:03}\n\
         # HELP livelet_connections Open connections.\n\
         # TYPE livelet_connections gauge\n\
         livelet_connections {}\n\
         # HELP livelet_requests_total Requests that were answered.\n\
         # TYPE livelet_requests_total counter\n\
         livelet_requests_total {}\n\
         # HELP livelet_up Whether an endpoint's checks all hold.\n\
         # TYPE livelet_up gauge\n",
        env!("CARGO_PKG_VERSION"),
        facts.uptime.as_secs(),
        facts.uptime.subsec_millis(),
        facts.connections,
        facts.requests,
    );
    for report in reports {
        let _ = writeln!(
            out,
            "livelet_up{{endpoint=\"{}\"}} {}",
            report.endpoint.name(),
            u8::from(report.holds())
        );
    }
    out.push_str("# HELP livelet_check_up Whether a check holds.\n# TYPE livelet_check_up gauge\n");
    for report in reports {
        for check in &report.checks {
            // Names are of letters, digits, dots, dashes and underscores: nothing to escape.
            let row = format!(
                "livelet_check_up{{endpoint=\"{}\",check=\"{}\"}} {}\n",
                report.endpoint.name(),
                check.name,
                u8::from(check.outcome.is_ok())
            );
            if out.len() + row.len() < most {
                out.push_str(&row);
            }
        }
    }
    // The encoder ends every content with a line end.
    out.truncate(out.trim_ascii_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::testing::{FACTS, failed, passed};
    use crate::health::{Endpoint, Report};

    #[test]
    fn shows_every_metric() {
        let mut report = Report {
            endpoint: Endpoint::Live,
            checks: vec![passed("worker"), failed("db", "gone")],
        };
        let text = exposition(std::slice::from_ref(&report), &FACTS, 4096);
        let samples: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(1)
            .collect();
        assert_eq!(
            samples,
            [
                "livelet_uptime_seconds 41.500",
                "livelet_connections 2",
                "livelet_requests_total 3",
                "livelet_up{endpoint=\"livez\"} 0",
                "livelet_check_up{endpoint=\"livez\",check=\"worker\"} 1",
                "livelet_check_up{endpoint=\"livez\",check=\"db\"} 0",
            ]
        );
        report.checks = vec![passed("db"); 500];
        assert!(exposition(&[report], &FACTS, 4096).len() < 4096);
    }
}
