//! Health as Prometheus reads it, text format 0.0.4.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Endpoint, Line};

/// What is counted beside the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// How long livelet has served.
    pub uptime: Duration,
    /// Open connections.
    pub connections: usize,
    /// Requests that were answered.
    pub requests: u64,
}

/// Every metric; checks that have no room within `most` bytes are left out.
pub(super) fn exposition(
    endpoints: &[(Endpoint, Vec<Line<'_>>)],
    numbers: &Numbers,
    most: usize,
) -> String {
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
        numbers.uptime.as_secs(),
        numbers.uptime.subsec_millis(),
        numbers.connections,
        numbers.requests,
    );
    for (endpoint, lines) in endpoints {
        let holds = lines.iter().all(|(_, outcome, _)| outcome.is_ok());
        let _ = writeln!(
            out,
            "livelet_up{{endpoint=\"{}\"}} {}",
            endpoint.name(),
            u8::from(holds)
        );
    }
    out.push_str("# HELP livelet_check_up Whether a check holds.\n# TYPE livelet_check_up gauge\n");
    for (endpoint, lines) in endpoints {
        for (name, outcome, _) in lines {
            // Names are of letters, digits, dots, dashes and underlines: nothing to escape.
            let row = format!(
                "livelet_check_up{{endpoint=\"{}\",check=\"{name}\"}} {}\n",
                endpoint.name(),
                u8::from(outcome.is_ok())
            );
            if out.len() + row.len() < most {
                out.push_str(&row);
            }
        }
    }
    // The encoder ends every content with a line end.
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there() {
        let numbers = Numbers {
            uptime: Duration::from_millis(1500),
            connections: 2,
            requests: 3,
        };
        let live: Vec<Line<'_>> = vec![("worker", Ok(()), None), ("db", Err("gone".into()), None)];
        let text = exposition(&[(Endpoint::Live, live)], &numbers, 4096);
        let samples: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .skip(1)
            .collect();
        assert_eq!(
            samples,
            [
                "livelet_uptime_seconds 1.500",
                "livelet_connections 2",
                "livelet_requests_total 3",
                "livelet_up{endpoint=\"livez\"} 0",
                "livelet_check_up{endpoint=\"livez\",check=\"worker\"} 1",
                "livelet_check_up{endpoint=\"livez\",check=\"db\"} 0",
            ]
        );
        let many: Vec<Line<'_>> = (0..500).map(|_| ("db", Ok(()), None)).collect();
        assert!(exposition(&[(Endpoint::Live, many)], &numbers, 4096).len() < 4096);
    }
}
