//! Routes: turn the method, path, query and Accept field of a request into a question.

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

/// Format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// `ok`, or one line for each check if one fails.
    Plain,
    /// One line for each check, also if all pass.
    Verbose,
    /// The health+json draft.
    Json,
    /// HTML.
    Page,
    /// Prometheus text.
    Metrics,
}

/// Additional path of an endpoint, from `--path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The path, which begins with a slash and does not end with one.
    pub path: String,
    /// Endpoint that the path stands for.
    pub endpoint: Endpoint,
}

/// Question that a request asks, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Endpoint that decides the status of the answer.
    pub endpoint: Endpoint,
    /// Format of the answer.
    pub view: View,
    /// Name of the only check that the answer depends on. `None` for all checks.
    only: Option<String>,
    /// Names of the checks that the answer does not depend on.
    excluded: Vec<String>,
    /// The method is OPTIONS: the answer has no content if the endpoint passes.
    pub(super) is_options: bool,
}

/// Route of a request: how its answer is made.
#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    /// This response is the answer, whatever the state.
    Fixed(Response),
    /// The answer depends on the state.
    Ask(Question),
}

/// Returns the route of a request. A method that is not served is refused, whatever the path. A
/// trailing slash makes no difference.
///
/// OPTIONS of an endpoint has the status that GET has, because HAProxy's `option httpchk` asks that
/// way.
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

/// Target of a path.
struct Target<'r> {
    endpoint: Endpoint,
    /// Name of one check.
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

/// Returns the target of a path without a trailing slash. `/health/...` are the paths of
/// MicroProfile Health. Returns `None` for an unknown path.
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

/// Returns the view that the Accept field prefers. The page is for `/` alone, without a query. The
/// page has the status of liveness. So there is no page if an alias makes `/` another endpoint.
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
    /// Returns the question about an endpoint as a whole.
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

    /// Reads `verbose`, `format=json` and `exclude=NAME` in a query.
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

    /// Returns the endpoints that the answer shows.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        match self.view {
            View::Page | View::Metrics => &[Endpoint::Live, Endpoint::Ready],
            View::Plain | View::Verbose | View::Json => std::slice::from_ref(&self.endpoint),
        }
    }

    /// Returns `true` if the answer does not depend on every check of its endpoints.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.only.is_some() || !self.excluded.is_empty()
    }

    /// Returns `true` if the answer depends on the check of this name.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
            && !self.excluded.iter().any(|excluded| excluded == name)
    }

    /// Returns `false` if the question is about one check only, and `names` does not have that
    /// check.
    pub(super) fn is_about_one_of(&self, names: &[&str]) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| names.contains(&only.as_str()))
    }

    /// Returns the excluded names that are not among `names`.
    pub(super) fn unknown_exclusions(&self, names: &[&str]) -> impl Iterator<Item = &str> {
        let excluded = self.excluded.iter().map(String::as_str);
        excluded.filter(|name| !names.contains(name))
    }
}

/// Returns the weights that an Accept field gives to JSON, to HTML and to plain text (RFC 9110
/// §12.5.1). JSON and HTML have a weight only if the field names them.
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

/// Parses a weight, `0.85` or `1`, into thousandths.
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
