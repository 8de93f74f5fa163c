//! Health as a page for whoever opens `/` in a browser: no script, all in one answer, anew every few seconds.

use std::fmt::Write as _;

use super::text::{Form, show};
use super::{Endpoint, Facts, Report};
use crate::duration::Human;

/// Colours that stand out on light and on dark, which are the browser's own.
const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
<meta name=viewport content=width=device-width><meta http-equiv=refresh content=5><style>\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{max-width:40em;margin:auto;padding:1em;overflow-wrap:anywhere}\
h1,p{margin:.5rem 0;padding:.5rem 1rem;border-left:6px solid #888;border-radius:6px;background:#8882}\
h1{font-size:1.6em;color:#fff;background:#9a6700;border:0}h2{margin:1.5rem 0 0;font-size:1em}\
i,footer{opacity:.8}i{float:right;margin-left:1em;font-style:normal}\
.y{border-color:#1a7f37}.n{border-color:#d1242f}h1.y{background:#1a7f37}h1.n{background:#d1242f}</style><title>";
const FOOT: &str = concat!(
    "<footer>livelet ",
    env!("CARGO_PKG_VERSION"),
    ", refreshed every 5 s</footer>"
);
/// What the rest needs where a line has no room.
const TAIL: usize = 32 + FOOT.len();

/// Returns the page of liveness and readiness, at most `most` bytes. Lines beyond that are left out, and the page says so.
pub(super) fn page(reports: &[Report<'_>], facts: &Facts<'_>, most: usize) -> String {
    let [live, ready] = [Endpoint::Live, Endpoint::Ready].map(|endpoint| {
        let mut of_endpoint = reports.iter().filter(|report| report.endpoint == endpoint);
        of_endpoint.all(Report::holds)
    });
    let (class, state) = match (live, ready) {
        (true, true) => ("y", "Alive and ready"),
        (true, false) => ("w", "Alive, not ready"),
        (false, _) => ("n", "Not alive"),
    };
    let mut page = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write!(page, "{state}</title><h1 class={class}>{state}</h1>");
    if let Some(status) = facts.status {
        page.push_str("<p><i>STATUS</i>");
        show(&mut page, status, Form::Html);
    }
    'all: for report in reports {
        page.push_str(if report.endpoint == Endpoint::Live {
            "<h2>Liveness</h2>"
        } else {
            "<h2>Readiness</h2>"
        });
        for (index, check) in report.checks.iter().enumerate() {
            let before = page.len();
            page.push_str(match &check.outcome {
                Ok(()) => "<p class=y><i>ok",
                Err(_) => "<p class=n><i>failed",
            });
            if let Some(since) = check.since {
                let _ = write!(
                    page,
                    " for {}",
                    Human(facts.now.saturating_duration_since(since))
                );
            }
            let _ = write!(page, "</i><b>{}</b><br>", check.name);
            match &check.outcome {
                Err(reason) => show(&mut page, reason, Form::Html),
                Ok(()) if index == 0 && report.endpoint == Endpoint::Live => {
                    let _ = write!(page, "pid {}, up {}", facts.worker_pid, Human(facts.uptime));
                }
                Ok(()) => {}
            }
            if page.len() > most - TAIL {
                page.truncate(before);
                page.push_str("<p>More are not shown.");
                break 'all;
            }
        }
    }
    page.push_str(FOOT);
    page
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::health::CheckResult;
    use crate::health::testing::{FACTS, failed, passed};

    /// Returns the page of a worker whose liveness has these checks beside livelet's own.
    fn page_of(checks: Vec<CheckResult<'_>>, status: Option<&str>, now: Instant) -> String {
        let facts = Facts {
            worker_pid: 7,
            status,
            now,
            ..*FACTS
        };
        let live = [vec![passed("worker")], checks].concat();
        let reports = [
            (Endpoint::Live, live),
            (Endpoint::Ready, vec![passed("worker")]),
        ]
        .map(|(endpoint, checks)| Report { endpoint, checks });
        page(&reports, &facts, 4095)
    }

    /// Returns what follows the style.
    fn body(page: &str) -> &str {
        page.split_once("</style>").unwrap().1
    }

    #[test]
    fn a_page_says_all() {
        let now = Instant::now();
        let since = |seconds| Some(now - Duration::from_secs(seconds));
        let mut checks = vec![failed("beat", "/b is 41s old"), passed("db")];
        checks[0].since = since(11);
        checks[1].since = since(180);
        let page = page_of(checks, Some("3 jobs"), now);
        let expected = concat!(
            "<title>Not alive</title><h1 class=n>Not alive</h1><p><i>STATUS</i>3 jobs",
            "<h2>Liveness</h2><p class=y><i>ok</i><b>worker</b><br>pid 7, up 41s",
            "<p class=n><i>failed for 11s</i><b>beat</b><br>/b is 41s old",
            "<p class=y><i>ok for 3m</i><b>db</b><br>",
            "<h2>Readiness</h2><p class=y><i>ok</i><b>worker</b><br>",
            "<footer>livelet 0.1.0, refreshed every 5 s</footer>"
        );
        let expected = expected.replace("0.1.0", env!("CARGO_PKG_VERSION"));
        assert_eq!(body(&page), expected);
        assert!(page.len() < 3072, "{}", page.len());
    }

    #[test]
    fn nothing_that_others_say_is_markup() {
        let hostile = "</p><script>\"'&amp;\n\u{0}\u{1b}[0m\u{202e}\u{2069}";
        let escaped =
            "&#60;/p&#62;&#60;script&#62;&#34;&#39;&#38;amp;\\n\\u{0}\\u{1b}[0m\\u{202e}\\u{2069}";
        let page = page_of(vec![failed("a", hostile)], Some(hostile), Instant::now());
        assert_eq!(page.matches(escaped).count(), 2, "{page}");
        assert!(!page.contains("script>"), "{page}");
    }

    #[test]
    fn a_page_stays_short() {
        let now = Instant::now();
        for part in ["x", "<", "\u{1b}", "\u{1f600}", "&#"] {
            let long = part.repeat(1000);
            for count in [0, 1, 9, 500] {
                for name in ["check".to_string(), "n".repeat(300), "n".repeat(100_000)] {
                    let mut check = failed(&name, &long);
                    check.since = Some(now);
                    let page = page_of(vec![check; count], Some(&long), now);
                    assert!(page.len() <= 4095, "{part} {count}: {}", page.len());
                    assert!(page.ends_with("5 s</footer>"), "{page}");
                    let is_whole = page.contains("Readiness");
                    assert_eq!(page.contains("<p>More are not shown."), !is_whole, "{page}");
                    assert!(count > 0 || is_whole);
                }
            }
        }
    }
}
