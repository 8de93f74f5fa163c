//! Routing: turns a request's method, path, query and Accept field into a question or a fixed
//! response.

use super::Endpoint;
use crate::http::{Method, Request, Response, Status};

const METRICS: &str = "/metrics";
pub(super) const OPTIONS: Response = Response::fixed(Status::NoContent, "");
const NOT_FOUND: Response = Response::fixed(
    Status::NotFound,
    "not found; try /livez, /readyz or /startupz",
);
pub(super) const NO_SUCH_CHECK: Response =
    Response::fixed(Status::NotFound, "no check of this name");
const NOT_ALLOWED: Response = Response::fixed(
    Status::MethodNotAllowed,
    "only GET, HEAD and OPTIONS are served here",
);
const NOT_IMPLEMENTED: Response = Response::fixed(Status::NotImplemented, "unknown method");

/// Format of a response's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Text that is only `ok` if all checks pass. Otherwise the text has one line for each check.
    Plain,
    /// Text with one line for each check, even if all checks pass.
    Verbose,
    /// JSON document of the type application/health+json (draft-inadarei-api-health-check).
    Json,
    /// HTML status page.
    Page,
    /// Metrics in Prometheus' text format.
    Metrics,
}

/// Additional URL path of an endpoint, from the option `--path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Path, which begins with a slash. It ends with a slash only if it is `/` itself.
    pub path: String,
    /// Endpoint that a request for this path asks for.
    pub endpoint: Endpoint,
}

/// Question about health that an HTTP request asks, parsed from the request's method, path, query
/// and Accept field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Endpoint whose verdict decides the status of the response. The response with the metrics has
    /// the status 200 in any case: its question has liveness here, without effect.
    pub endpoint: Endpoint,
    /// Format of the response's content.
    pub view: View,
    /// Name of the single check that the request asks for. `None` if the request asks for the whole
    /// endpoint.
    only: Option<String>,
    /// Names of the checks that the request excludes. The response does not depend on them.
    excluded: Vec<String>,
    /// `true` if the method is OPTIONS. If the endpoint passes, the response to OPTIONS is 204,
    /// without content.
    pub(super) is_options: bool,
}

/// Decision about how livelet answers a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// Response that does not depend on the state of livelet and its worker, such as one with
    /// status 404.
    Fixed(Response),
    /// Question about health. The response depends on the outcomes of the checks that the question
    /// is about.
    Ask(Question),
}

/// Decides how livelet answers `request`. `aliases` are the additional paths of the endpoints. If
/// livelet does not serve the method of the request, the answer is an error, whatever the path is.
/// A trailing slash of the path makes no difference.
///
/// The response to OPTIONS on the path of an endpoint depends on the verdict, as for GET, because
/// HAProxy's `option httpchk` probes with OPTIONS.
#[must_use]
pub fn route(request: &Request<'_>, aliases: &[Alias]) -> Route {
    let is_options = match request.method {
        Method::Unknown => return Route::Fixed(NOT_IMPLEMENTED),
        Method::Other => return Route::Fixed(NOT_ALLOWED),
        Method::Options => true,
        Method::Get | Method::Head => false,
    };
    let without_slash = request.path.strip_suffix('/').filter(|path| path.len() > 1);
    let path = without_slash.unwrap_or(request.path);
    let alias = aliases.iter().find(|alias| alias.path == path);
    if let Some(Target { endpoint, only }) = alias.map(Alias::target).or_else(|| target(path)) {
        let mut question = Question {
            only: only.map(String::from),
            is_options,
            ..Question::new(endpoint, preferred_view(request, endpoint))
        };
        question.read(request.query);
        return Route::Ask(question);
    }
    match path {
        "*" | METRICS if is_options => Route::Fixed(OPTIONS),
        METRICS => Route::Ask(Question::new(Endpoint::Live, View::Metrics)),
        _ => Route::Fixed(NOT_FOUND),
    }
}

/// Endpoint, or single check of an endpoint, that the path of a request asks for.
struct Target<'r> {
    endpoint: Endpoint,
    /// Name of the check, if the path asks for a single check. `None` if the path asks for the
    /// whole endpoint.
    only: Option<&'r str>,
}

impl Alias {
    fn target(&self) -> Target<'_> {
        Target {
            endpoint: self.endpoint,
            only: None,
        }
    }
}

/// Returns the endpoint, or the single check, that `path` asks for. The caller has removed a
/// trailing slash. The paths below `/health/` are those of MicroProfile Health. Returns `None` for
/// an unknown path.
fn target(path: &str) -> Option<Target<'_>> {
    let endpoint = match path {
        "/livez" | "/live" | "/healthz" | "/health" | "/health/live" | "/" => Endpoint::Live,
        "/readyz" | "/ready" | "/health/ready" => Endpoint::Ready,
        "/startupz" | "/startup" | "/health/started" => Endpoint::Startup,
        _ => {
            let (endpoint, name) = match path.strip_prefix("/livez/") {
                Some(name) => (Endpoint::Live, name),
                None => (Endpoint::Ready, path.strip_prefix("/readyz/")?),
            };
            let only = Some(name).filter(|name| !name.is_empty())?;
            return Some(Target {
                endpoint,
                only: Some(only),
            });
        }
    };
    Some(Target {
        endpoint,
        only: None,
    })
}

/// Returns the format that the request's Accept field prefers. `endpoint` is the endpoint that the
/// request asks for. Only a request for `/` without a query can get the status page, and only if
/// `endpoint` is liveness, because liveness decides the status of that page.
fn preferred_view(request: &Request<'_>, endpoint: Endpoint) -> View {
    let has_page = request.path == "/" && request.query.is_empty() && endpoint == Endpoint::Live;
    let [json, html, text] = weights(request.accept);
    if has_page && html > json && html >= text {
        View::Page
    } else if json > 0 && json >= html.max(text) {
        View::Json
    } else {
        View::Plain
    }
}

impl Question {
    /// Creates a question about all checks of `endpoint`. The response has the format `view`.
    #[must_use]
    pub fn new(endpoint: Endpoint, view: View) -> Question {
        Question {
            endpoint,
            view,
            only: None,
            excluded: Vec::new(),
            is_options: false,
        }
    }

    /// Applies the parameters `verbose`, `format=json` and `exclude=NAME` in `query`, the part of
    /// the request target after `?`, to this question. Ignores other parameters.
    fn read(&mut self, query: &str) {
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("format", "json") => self.view = View::Json,
                ("verbose", _) if self.view == View::Plain => self.view = View::Verbose,
                ("exclude", name) => self.excluded.push(name.to_string()),
                _ => {}
            }
        }
    }

    /// Returns the endpoints whose checks the response shows: liveness and readiness for the status
    /// page and the metrics, else only the endpoint of the question.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        match self.view {
            View::Page | View::Metrics => &[Endpoint::Live, Endpoint::Ready],
            View::Plain | View::Verbose | View::Json => std::slice::from_ref(&self.endpoint),
        }
    }

    /// Returns `true` if the question leaves out some checks of its endpoint.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.only.is_some() || !self.excluded.is_empty()
    }

    /// Returns `true` if the answer depends on the check `name`.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
            && !self.excluded.iter().any(|excluded| excluded == name)
    }

    /// Returns `true` if the question is about one check, and `names`, the names of all checks of
    /// the endpoint, has that check. Also returns `true` if the question is about all checks.
    pub(super) fn is_about_one_of(&self, names: &[&str]) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| names.contains(&only.as_str()))
    }

    /// Returns the names of the excluded checks that do not exist, because they are not in `names`,
    /// the names of all checks of the endpoint.
    pub(super) fn unknown_exclusions(&self, names: &[&str]) -> impl Iterator<Item = &str> {
        let excluded = self.excluded.iter().map(String::as_str);
        excluded.filter(|name| !names.contains(name))
    }
}

/// Returns the weights of JSON, HTML and plain text, in this order, in `accept`, the value of an
/// Accept field (RFC 9110 §12.5.1). The weights are in thousandths. The weight of JSON or HTML is 0
/// unless the field names that type.
fn weights(accept: &str) -> [u32; 3] {
    let [mut json, mut html, mut text] = [0; 3];
    if accept.is_empty() || accept == "*/*" {
        // Probers send this, or no field.
        return [0; 3];
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        let weight = weight.map_or(1000, thousandths);
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

/// Converts `weight`, a number from 0 to 1 such as `0.85`, to thousandths. `0` without a point
/// counts as 0, and so do malformed digits after `0.`. A text that is not `0` and does not begin
/// with `0.` counts as 1.
fn thousandths(weight: &str) -> u32 {
    match weight.split_once('.').unwrap_or((weight, "")) {
        ("0", digits) => format!("{digits:0<3}")
            .get(..3)
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0),
        _ => 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Parsed, parse};

    #[test]
    fn the_accept_field_chooses_the_format() {
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
                    let form = match route(&request, &[]) {
                        Route::Ask(question) => match question.view {
                            View::Page => "page",
                            View::Json => "json",
                            _ => "text",
                        },
                        Route::Fixed(_) => "fixed",
                    };
                    // The page is for `/` alone, without a query.
                    let expected = match expected {
                        "page" if target != "/" => "text",
                        expected => expected,
                    };
                    assert_eq!(form, expected, "{method} {target} {accept}");
                }
            }
        }
    }

    fn answer(method: &str, target: &str, aliases: &[Alias]) -> Route {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let Parsed::Request(request, _) = parse(head.as_bytes()) else {
            panic!("{head}");
        };
        route(&request, aliases)
    }

    #[test]
    fn each_path_names_its_endpoint_with_and_without_a_trailing_slash() {
        use Endpoint::{Live, Ready, Startup};
        let aliases =
            [("/up", Ready), ("/a/b", Startup), ("/live", Ready)].map(|(path, endpoint)| Alias {
                path: path.to_string(),
                endpoint,
            });
        for (path, expected) in [
            ("/", Some(Live)),
            ("/livez", Some(Live)),
            ("/healthz", Some(Live)),
            ("/health", Some(Live)),
            ("/health/live", Some(Live)),
            ("/readyz", Some(Ready)),
            ("/ready", Some(Ready)),
            ("/health/ready", Some(Ready)),
            ("/startupz", Some(Startup)),
            ("/startup", Some(Startup)),
            ("/health/started", Some(Startup)),
            ("/up", Some(Ready)),
            ("/a/b", Some(Startup)),
            // An alias replaces what the path names by default.
            ("/live", Some(Ready)),
            ("/a", None),
            ("/upper", None),
            ("/health/x", None),
        ] {
            for slash in ["", "/"] {
                let target = if path == "/" {
                    path.to_string()
                } else {
                    format!("{path}{slash}")
                };
                for method in ["GET", "HEAD", "OPTIONS"] {
                    let endpoint = match answer(method, &target, &aliases) {
                        Route::Ask(question) => Some(question.endpoint),
                        Route::Fixed(response) => {
                            assert_eq!(response, NOT_FOUND, "{method} {target}");
                            None
                        }
                    };
                    assert_eq!(endpoint, expected, "{method} {target}");
                }
            }
        }
    }

    #[test]
    fn a_root_that_is_another_endpoint_has_no_page() {
        let root = |endpoint| Alias {
            path: "/".to_string(),
            endpoint,
        };
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n";
        let Parsed::Request(request, _) = parse(head) else {
            panic!("no request");
        };
        for (endpoint, view) in [
            (Endpoint::Live, View::Page),
            (Endpoint::Ready, View::Plain),
            (Endpoint::Startup, View::Plain),
        ] {
            let expected = Question::new(endpoint, view);
            assert_eq!(route(&request, &[root(endpoint)]), Route::Ask(expected));
        }
    }

    #[test]
    fn a_method_that_is_not_served_is_refused_whatever_the_path() {
        for (method, target, expected) in [
            ("POST", "/livez", NOT_ALLOWED),
            ("CONNECT", "a:443", NOT_ALLOWED),
            ("PROPFIND", "/nothing", NOT_ALLOWED),
            ("SING", "/livez", NOT_IMPLEMENTED),
            ("OPTIONS", "*", OPTIONS),
            ("OPTIONS", "/metrics", OPTIONS),
        ] {
            assert_eq!(
                answer(method, target, &[]),
                Route::Fixed(expected),
                "{method} {target}"
            );
        }
    }
}
