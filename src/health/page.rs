//! Health as a status page for a person who opens `/` in a browser. The page needs no script and no
//! second request, and reloads itself every few seconds.

use std::fmt::Write as _;

use super::text::{Form, show};
use super::{Endpoint, Facts, Report};
use crate::duration::Human;

/// Beginning of every status page. Its colours can be read on light and on dark backgrounds,
/// because the browser chooses the background.
const HEAD: &str = "<!doctype html><html lang=en><meta charset=utf-8>\
<meta name=viewport content=width=device-width><meta http-equiv=refresh content=5>\
<link rel=icon href=data:,><style>\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{max-width:40em;margin:auto;padding:1em;overflow-wrap:anywhere}\
h1,p{margin:.5rem 0;padding:.5rem 1rem;border-left:6px solid #888;border-radius:6px;background:#8882}\
h1{font-size:1.6em;color:#fff;background:#9a6700;border:0}h2{margin:1.5rem 0 0;font-size:1em}\
i,footer{opacity:.8}i{float:right;margin-left:1em;font-style:normal}\
.y{border-color:#1a7f37}.n{border-color:#d1242f}h1.y{background:#1a7f37}h1.n{background:#d1242f}</style><title>";
const FOOT: &str = concat!(
    "<footer>livelet ",
    env!("CARGO_PKG_VERSION"),
    ", refreshed every 5 s, last at "
);
/// Space, in bytes, that is reserved after the last check of a status page: for the sentence that
/// more checks are not shown, for [`FOOT`] and for the date of the response.
const TAIL: usize = 64 + FOOT.len();

/// Returns the HTML status page, at most `most` bytes long. `reports` are two: the results of the
/// checks of liveness, then those of readiness. The page shows `facts` beside the checks. Failing
/// checks come first. If not all checks fit, the page lacks the last checks, and says so. The page
/// ends with an unfinished sentence, to which the encoder of the response appends the date.
pub(super) fn page(reports: &[Report<'_>], facts: &Facts<'_>, most: usize) -> String {
    let mut holds = reports.iter().map(Report::holds);
    let [live, ready] = [(); 2].map(|()| holds.next() == Some(true));
    let (class, state) = match (live, ready) {
        (true, true) => ("y", "Alive and ready"),
        (true, false) => ("w", "Alive, not ready"),
        (false, _) => ("n", "Not alive"),
    };
    let mut page = String::from(HEAD);
    let mut title = format!("{state}: ");
    show(&mut title, facts.owner.trim_ascii_end(), Form::Html);
    // Writing to a String cannot fail.
    let _ = write!(page, "{title}</title><h1 class={class}>{title}</h1>");
    if let Some(status) = facts.status {
        page.push_str("<p><i>STATUS</i>");
        show(&mut page, status, Form::Html);
    }
    'all: for is_ok in [false, true] {
        for report in reports {
            let mut heading = if report.endpoint == Endpoint::Live {
                "<h2>Liveness</h2>"
            } else {
                "<h2>Readiness</h2>"
            };
            for (index, check) in report.checks.iter().enumerate() {
                if check.outcome.is_ok() != is_ok {
                    continue;
                }
                let before = page.len();
                page.push_str(std::mem::take(&mut heading));
                page.push_str(if is_ok {
                    "<p class=y><i>ok"
                } else {
                    "<p class=n><i>failed"
                });
                if let Some(event) = check.event {
                    let name = if event.is_beat {
                        "last beat"
                    } else {
                        "first seen"
                    };
                    let _ = write!(page, ", {name} {} ago", Human(event.age));
                }
                let _ = write!(page, "</i><b>{}</b><br>", check.name);
                if let Err(reason) = &check.outcome {
                    show(&mut page, reason, Form::Html);
                } else if index == 0 && report.endpoint == Endpoint::Live {
                    let _ = write!(page, "pid {}, up {}", facts.worker_pid, Human(facts.uptime));
                }
                if page.len() > most - TAIL {
                    page.truncate(before);
                    page.push_str("<p>More are not shown.");
                    break 'all;
                }
            }
        }
    }
    page.push_str(FOOT);
    page
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health::testing::{FACTS, failed, passed};
    use crate::health::{CheckResult, LastEvent};

    /// Returns the status page of a livelet whose liveness has a built-in check and the checks in
    /// `checks`. `status` is the worker's STATUS text.
    fn page_of(checks: Vec<CheckResult<'_>>, status: Option<&str>) -> String {
        let facts = Facts {
            worker_pid: 7,
            status,
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

    /// Returns the part of the status page `page` that follows its `<style>` element.
    fn body(page: &str) -> &str {
        page.split_once("</style>").unwrap().1
    }

    #[test]
    fn shows_owner_failures_first_and_events() {
        let mut checks = vec![failed("beat", "/b is 41s old"), passed("db")];
        checks[0].event = Some(LastEvent {
            is_beat: true,
            age: Duration::from_secs(41),
        });
        checks[1].event = Some(LastEvent {
            is_beat: false,
            age: Duration::from_secs(180),
        });
        let page = page_of(checks, Some("3 jobs"));
        let expected = concat!(
            "<title>Not alive: node</title><h1 class=n>Not alive: node</h1><p><i>STATUS</i>3 jobs",
            "<h2>Liveness</h2><p class=n><i>failed, last beat 41s ago</i><b>beat</b><br>/b is 41s old",
            "<h2>Liveness</h2><p class=y><i>ok</i><b>worker</b><br>pid 7, up 41s",
            "<p class=y><i>ok, first seen 3m ago</i><b>db</b><br>",
            "<h2>Readiness</h2><p class=y><i>ok</i><b>worker</b><br>",
            "<footer>livelet 0.1.0, refreshed every 5 s, last at "
        );
        let expected = expected.replace("0.1.0", env!("CARGO_PKG_VERSION"));
        assert_eq!(body(&page), expected);
        assert!(page.len() < 3072, "{}", page.len());
    }

    #[test]
    fn escapes_markup_of_the_worker() {
        let hostile = "</p><script>\"'&amp;\n\u{0}\u{1b}[0m\u{202e}\u{2069}";
        let escaped =
            "&#60;/p&#62;&#60;script&#62;&#34;&#39;&#38;amp;\\n\\u{0}\\u{1b}[0m\\u{202e}\\u{2069}";
        let page = page_of(vec![failed("a", hostile)], Some(hostile));
        assert_eq!(page.matches(escaped).count(), 2, "{page}");
        assert!(!page.contains("script>"), "{page}");
    }

    #[test]
    fn a_page_stays_short() {
        for part in ["x", "<", "\u{1b}", "\u{1f600}", "&#"] {
            let long = part.repeat(1000);
            for count in [0, 1, 9, 500] {
                for name in ["check".to_string(), "n".repeat(300), "n".repeat(100_000)] {
                    let mut check = failed(&name, &long);
                    check.event = Some(LastEvent {
                        is_beat: false,
                        age: Duration::ZERO,
                    });
                    let page = page_of(vec![check; count], Some(&long));
                    assert!(page.len() <= 4095 - 28, "{part} {count}: {}", page.len());
                    assert!(page.ends_with("last at "), "{page}");
                    let is_whole = page.contains("Readiness");
                    assert_eq!(page.contains("<p>More are not shown."), !is_whole, "{page}");
                    assert!(count > 0 || is_whole);
                }
            }
        }
    }
}
