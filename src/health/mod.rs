//! What a path answers. Pure: a request, the state and what the checks have shown in; a response out.

mod json;
mod metrics;
mod page;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Instant;

use crate::check::Check;
use crate::http::{Content, Method, Request, Response, Status};

pub use json::Facts;
pub use metrics::Numbers;

/// The longest content, in bytes.
const MAX_BODY: usize = 4096;
/// The longest reason that is shown, in bytes.
const MAX_REASON: usize = 256;

/// The state that answers depend on, as `run` published it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// A worker was started.
    pub has_worker: bool,
    /// A stop was asked for: not ready any more, but alive.
    pub stopping: bool,
    /// The worker has ended.
    pub worker_ended: bool,
    /// The worker's process id; livelet's where it has none.
    pub pid: u32,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Is it alive.
    Live,
    /// Can it be given work.
    Ready,
    /// Has it ever been ready.
    Startup,
}

impl Endpoint {
    /// The endpoint of a path and, after it, the name of one check.
    fn at(path: &str) -> Option<(Endpoint, Option<&str>)> {
        let endpoint = match path {
            "/livez" | "/live" | "/healthz" | "/health" | "/" => Endpoint::Live,
            "/readyz" | "/ready" => Endpoint::Ready,
            "/startupz" | "/startup" => Endpoint::Startup,
            _ => {
                let named = |prefix| path.strip_prefix(prefix).filter(|name| !name.is_empty());
                return named("/livez/")
                    .map(|name| (Endpoint::Live, Some(name)))
                    .or_else(|| named("/readyz/").map(|name| (Endpoint::Ready, Some(name))));
            }
        };
        Some((endpoint, None))
    }

    /// As answers and the log call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Endpoint::Live => "livez",
            Endpoint::Ready => "readyz",
            Endpoint::Startup => "startupz",
        }
    }
}

const OPTIONS: Response = Response::fixed(Status::NoContent, "");
const NOT_FOUND: Response = Response::fixed(
    Status::NotFound,
    "not found; try /livez, /readyz or /startupz",
);
const NO_SUCH_CHECK: Response = Response::fixed(Status::NotFound, "no check of this name");
const NOT_ALLOWED: Response = Response::fixed(
    Status::MethodNotAllowed,
    "only GET, HEAD and OPTIONS are served here",
);
const NOT_IMPLEMENTED: Response = Response::fixed(Status::NotImplemented, "unknown method");

/// What a request wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'r> {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// One check of it alone.
    only: Option<&'r str>,
    query: &'r str,
    wants_json: bool,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'r> {
    /// This is the answer, whatever the state.
    Fixed(Response),
    /// It asks for a state.
    Ask(Question<'r>),
    /// It asks for every state, and the numbers.
    Metrics,
    /// It asks for every state, as a page.
    Page,
}

/// Routes a request. The methods are the server's, the same for every path; a path counts only for those served.
#[must_use]
pub fn route<'r>(request: &Request<'r>) -> Route<'r> {
    let is_read = matches!(request.method, Method::Get | Method::Head);
    if is_read && request.path == METRICS {
        return Route::Metrics;
    }
    Route::Fixed(match (request.method, Endpoint::at(request.path)) {
        (Method::Unknown, _) => NOT_IMPLEMENTED,
        (Method::Other, _) => NOT_ALLOWED,
        (Method::Options, Some(_)) => OPTIONS,
        (Method::Options, None) if ["*", METRICS].contains(&request.path) => OPTIONS,
        (_, None) => NOT_FOUND,
        (_, Some((endpoint, only))) => {
            let [json, html, text] = weights(request.accept);
            if html > json && html >= text && request.path == "/" && request.query.is_empty() {
                return Route::Page;
            }
            return Route::Ask(Question {
                endpoint,
                only,
                query: request.query,
                wants_json: value(request.query, "format") == Some("json")
                    || json > 0 && json >= html.max(text),
            });
        }
    })
}

/// One line of an answer: the name of a check, why it fails, and since when it has been seen to hold or to fail.
pub type Line<'a> = (&'a str, Result<(), Cow<'a, str>>, Option<Instant>);

impl<'r> Question<'r> {
    /// It asks for the verdict alone, on the whole endpoint.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.only.is_none() && self.query.is_empty() && !self.wants_json
    }

    /// Whether the answer depends on the check of this name.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_none_or(|only| only == name)
            && !self.excluded().any(|excluded| excluded == name)
    }

    fn excluded(&self) -> impl Iterator<Item = &'r str> + use<'r> {
        let pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == "exclude")
            .map(|(_, name)| name)
    }

    fn is_verbose(&self) -> bool {
        let mut keys = self.query.split('&').map(|pair| pair.split('=').next());
        keys.any(|key| key == Some("verbose"))
    }

    /// The answer, from the lines of all that it depends on, and what the worker says of itself.
    #[must_use]
    pub fn answer(&self, lines: &[Line<'_>], names: &[&str], facts: &Facts<'_>) -> Response {
        if self.only.is_some_and(|only| !names.contains(&only)) {
            return NO_SUCH_CHECK;
        }
        let holds = lines.iter().all(|(_, outcome, _)| outcome.is_ok());
        let status = Status::of(holds);
        if self.wants_json {
            return Response {
                status,
                content: Content::Health,
                body: json::document(lines, facts, MAX_BODY - 1).into(),
            };
        }
        let mut unknown = self
            .excluded()
            .filter(|name| !names.contains(name))
            .peekable();
        if holds && !self.is_verbose() && unknown.peek().is_none() {
            return OK;
        }
        let verdict = match (holds, self.is_verbose()) {
            (true, true) => format!("{} check passed", self.endpoint.name()),
            (true, false) => "ok".to_string(),
            (false, _) => format!("{} check failed", self.endpoint.name()),
        };
        let mut body = String::new();
        // What comes after the lines is shorter than the rest.
        let room = MAX_BODY - 512;
        if !holds || self.is_verbose() {
            for (name, outcome, _) in lines {
                let before = body.len();
                // Writing to a String cannot fail.
                let _ = match outcome {
                    Ok(()) => write!(body, "[+]{name} ok"),
                    Err(_) => write!(body, "[-]{name} failed: "),
                };
                if let Err(reason) = outcome {
                    show(&mut body, reason, Form::Text);
                }
                body.push('\n');
                if body.len() > room {
                    body.truncate(before);
                    body.push_str("(more are not shown)\n");
                    break;
                }
            }
        }
        if let Some(said) = facts.said.filter(|_| self.is_verbose()) {
            body.push_str("the worker says: ");
            show(&mut body, said, Form::Text);
            body.push('\n');
        }
        for name in unknown {
            if body.len() + name.len() + 40 < room {
                body.push_str("no check to exclude: ");
                show(&mut body, name, Form::Text);
                body.push('\n');
            }
        }
        body.push_str(&verdict);
        Response {
            status,
            content: Content::Text,
            body: Cow::Owned(body),
        }
    }
}

const METRICS: &str = "/metrics";

/// The answer to [`Route::Metrics`].
#[must_use]
pub fn metrics(endpoints: &[(Endpoint, Vec<Line<'_>>)], numbers: &Numbers) -> Response {
    Response {
        status: Status::Ok,
        content: Content::Metrics,
        body: metrics::exposition(endpoints, numbers, MAX_BODY - 1).into(),
    }
}

fn value<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    if query.is_empty() {
        return None;
    }
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The answer to [`Route::Page`].
#[must_use]
pub fn page(
    endpoints: &[(Endpoint, Vec<Line<'_>>); 2],
    pid: u32,
    facts: &Facts<'_>,
    now: Instant,
) -> Response {
    let [(_, live), _] = endpoints;
    Response {
        status: Status::of(live.iter().all(|(_, outcome, _)| outcome.is_ok())),
        content: Content::Page,
        body: page::page(endpoints, pid, facts, now, MAX_BODY - 1).into(),
    }
}

/// What weight an Accept field gives to JSON and to HTML where it names them, and to what else can be had here (RFC 9110
/// §12.5.1). A form is preferred that is named itself, with no less weight than the others.
fn weights(accept: &str) -> [u32; 3] {
    let [mut json, mut html, mut text] = [0; 3];
    if accept.is_empty() || accept == "*/*" {
        // What probes say.
        return [0; 3];
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        let weight = weight.map_or(1000, thousandths);
        // Compared as they are: a plain probe shall cost no allocation.
        let is_one_of = |names: &[&str]| {
            names
                .iter()
                .any(|name| media_type.eq_ignore_ascii_case(name))
        };
        if is_one_of(&["application/health+json", "application/json"]) {
            json = weight.max(json);
        } else if is_one_of(&["text/html"]) {
            html = weight.max(html);
        } else if is_one_of(&["text/plain", "text/*", "*/*"]) {
            text = weight.max(text);
        }
    }
    [json, html, text]
}

/// A weight, `0.85` or `1`, in thousandths.
fn thousandths(weight: &str) -> u32 {
    match weight.split_once('.').unwrap_or((weight, "")) {
        ("0", digits) => format!("{digits:0<3}")
            .get(..3)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0),
        _ => 1000,
    }
}

/// What a text is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    /// A string, RFC 8259 §7.
    Json,
    Html,
}

/// Appends what others have written: on one line, not too long, and nothing in it means anything to who reads the form.
fn show(out: &mut String, text: &str, form: Form) {
    let start = out.len();
    for c in text.chars() {
        if out.len() - start >= MAX_REASON {
            return out.push_str("...");
        }
        // Those that turn the direction of writing turn what follows too.
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

/// The answer where all holds and nothing else was asked.
pub const OK: Response = Response::fixed(Status::Ok, "ok");

/// Whether what livelet itself knows of an endpoint holds: what [`own_lines`] shows.
#[must_use]
pub fn own_holds(endpoint: Endpoint, snapshot: Snapshot) -> bool {
    !(snapshot.worker_ended || endpoint == Endpoint::Ready && snapshot.stopping)
}

/// What livelet itself knows of an endpoint, before any check.
#[must_use]
pub fn own_lines(endpoint: Endpoint, snapshot: Snapshot) -> Vec<Line<'static>> {
    let runs = if snapshot.worker_ended {
        Err(Cow::Borrowed("it has ended"))
    } else {
        Ok(())
    };
    let mut lines = vec![(
        if snapshot.has_worker {
            "worker"
        } else {
            "livelet"
        },
        runs,
        None,
    )];
    if endpoint == Endpoint::Ready {
        let stays = if snapshot.stopping {
            Err(Cow::Borrowed("livelet is stopping"))
        } else {
            Ok(())
        };
        lines.push(("shutdown", stays, None));
    }
    lines
}

/// Names that checks can't have, as livelet has lines of these.
pub const OWN_NAMES: [&str; 3] = ["worker", "livelet", "shutdown"];

/// The names of an endpoint's lines.
#[must_use]
pub fn names<'c>(own: &[Line<'c>], checks: &'c [Check]) -> Vec<&'c str> {
    let own = own.iter().map(|(name, ..)| *name);
    own.chain(checks.iter().map(|check| check.name.as_str()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse};

    const FACTS: Facts<'_> = Facts {
        pid: 1,
        uptime: std::time::Duration::ZERO,
        said: Some("hm\n"),
    };

    /// The answer to a target where `heartbeat` fails, if it is asked about.
    fn answer(target: &str) -> (Status, String) {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let Parsed::Request(request, _) = parse(bytes.as_bytes()) else {
            panic!("{target}");
        };
        let question = match route(&request) {
            Route::Ask(question) => question,
            Route::Fixed(response) => return (response.status, response.body.into_owned()),
            _ => panic!("{target}"),
        };
        let own = own_lines(question.endpoint, Snapshot::default());
        let checks: [Line<'_>; 2] = [
            ("heartbeat", Err("/b is 41s old\n".into()), None),
            ("db", Ok(()), None),
        ];
        let all: Vec<Line<'_>> = own.into_iter().chain(checks).collect();
        let names: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
        let wanted: Vec<_> = all
            .iter()
            .filter(|(name, ..)| question.wants(name))
            .cloned()
            .collect();
        let response = question.answer(&wanted, &names, &FACTS);
        (response.status, response.body.into_owned())
    }

    #[test]
    fn what_a_path_answers() {
        let failed =
            "[+]livelet ok\n[-]heartbeat failed: /b is 41s old\\n\n[+]db ok\nlivez check failed";
        let verbose = failed.replace("livez check", "the worker says: hm\\n\nlivez check");
        for (target, status, body) in [
            ("/livez", Status::ServiceUnavailable, failed),
            ("/livez?verbose", Status::ServiceUnavailable, &verbose),
            ("/livez?exclude=heartbeat", Status::Ok, "ok"),
            (
                "/livez?verbose&exclude=heartbeat&exclude=db",
                Status::Ok,
                "[+]livelet ok\nthe worker says: hm\\n\nlivez check passed",
            ),
            (
                "/livez?exclude=heartbeat&exclude=x",
                Status::Ok,
                "no check to exclude: x\nok",
            ),
            ("/livez/db", Status::Ok, "ok"),
            (
                "/readyz/db?verbose",
                Status::Ok,
                "[+]db ok\nthe worker says: hm\\n\nreadyz check passed",
            ),
            (
                "/livez/heartbeat",
                Status::ServiceUnavailable,
                "[-]heartbeat failed: /b is 41s old\\n\nlivez check failed",
            ),
            ("/livez/x", Status::NotFound, "no check of this name"),
            ("/livez/shutdown", Status::NotFound, "no check of this name"),
            ("/readyz/shutdown", Status::Ok, "ok"),
            ("/startupz/db", Status::NotFound, NOT_FOUND.body.as_ref()),
            ("/livez/", Status::NotFound, NOT_FOUND.body.as_ref()),
        ] {
            assert_eq!(answer(target), (status, body.to_string()), "{target}");
        }
    }

    #[test]
    fn an_accept_field_says_which_form() {
        for (accept, expected) in [
            ("", "text"),
            ("*/*", "text"),
            ("application/json", "json"),
            ("Application/Health+JSON", "json"),
            ("application/json, text/plain, */*", "json"),
            ("text/plain, application/json;q=0.9", "text"),
            ("text/html;q=0.5, application/json; q=0.8", "json"),
            ("application/json;q=0", "text"),
            ("text/html", "page"),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                "page",
            ),
            (
                "Text/HTML;level=1;q=0.7, text/plain;q=0.699, */*;q=0.1",
                "page",
            ),
            ("text/html;q=0.7, text/plain;q=0.8", "text"),
            ("text/html, application/json", "json"),
            ("text/html, application/json;q=0.999", "page"),
            ("text/html;q=0", "text"),
            ("text/html;q=0.000, */*;q=0", "text"),
            ("text/*", "text"),
            ("application/xhtml+xml", "text"),
        ] {
            for target in [
                "/",
                "/?verbose",
                "/?exclude=db",
                "/livez",
                "/livez/db",
                "/readyz",
            ] {
                for method in ["GET", "HEAD"] {
                    let head = format!(
                        "{method} {target} HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"
                    );
                    let Parsed::Request(request, _) = parse(head.as_bytes()) else {
                        panic!("{head}");
                    };
                    let form = match route(&request) {
                        Route::Page => "page",
                        Route::Ask(question) if question.wants_json => "json",
                        _ => "text",
                    };
                    // The page is for `/` alone, as it is.
                    let expected = match expected {
                        "page" if target != "/" => "text",
                        expected => expected,
                    };
                    assert_eq!(form, expected, "{method} {target} {accept}");
                }
            }
        }
    }

    #[test]
    fn a_body_stays_short() {
        let names: Vec<String> = (0..500).map(|index| format!("check-{index}")).collect();
        let reason = "x".repeat(5000);
        let lines: Vec<Line<'_>> = names
            .iter()
            .map(|name| (name.as_str(), Err(reason.as_str().into()), None))
            .collect();
        let said = "\u{1}".repeat(5000);
        let facts = Facts {
            said: Some(&said),
            ..FACTS
        };
        for first in ["", "verbose&"] {
            // How much room the lines leave differs with their number.
            for count in 0..lines.len() {
                let question = Question {
                    endpoint: Endpoint::Live,
                    only: None,
                    query: &format!("{first}{}", "exclude=unknown&".repeat(100)),
                    wants_json: false,
                };
                let lines = lines.get(count..).unwrap();
                let response = question.answer(lines, &[], &facts);
                assert!(response.body.len() < MAX_BODY - 1, "{first}{count}");
                assert!(response.body.ends_with("\nlivez check failed"));
            }
        }
    }
}
