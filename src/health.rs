//! What a path answers. Pure: a snapshot of the state and a request in, a response out.

use crate::http::{Method, Request, Response, Status};

/// The state that answers depend on, as `run` published it last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// A stop was asked for: not ready any more, but alive.
    pub stopping: bool,
    /// The worker has ended.
    pub worker_ended: bool,
}

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Live,
    Ready,
    Startup,
}

impl Endpoint {
    fn at(path: &str) -> Option<Endpoint> {
        match path {
            "/livez" | "/live" | "/healthz" | "/health" | "/" => Some(Endpoint::Live),
            "/readyz" | "/ready" => Some(Endpoint::Ready),
            "/startupz" | "/startup" => Some(Endpoint::Startup),
            _ => None,
        }
    }
}

const OK: Response = Response {
    status: Status::Ok,
    body: "ok",
};
const STOPPING: Response = Response {
    status: Status::ServiceUnavailable,
    body: "[-]shutdown failed: livelet is stopping\nreadyz check failed",
};
const WORKER_NOT_LIVE: Response = Response {
    status: Status::ServiceUnavailable,
    body: "[-]worker failed: it has ended\nlivez check failed",
};
const WORKER_NOT_READY: Response = Response {
    status: Status::ServiceUnavailable,
    body: "[-]worker failed: it has ended\nreadyz check failed",
};
const OPTIONS: Response = Response {
    status: Status::NoContent,
    body: "",
};
const NOT_FOUND: Response = Response {
    status: Status::NotFound,
    body: "not found; try /livez, /readyz or /startupz",
};
const NOT_ALLOWED: Response = Response {
    status: Status::MethodNotAllowed,
    body: "only GET, HEAD and OPTIONS are served here",
};
const NOT_IMPLEMENTED: Response = Response {
    status: Status::NotImplemented,
    body: "unknown method",
};

/// Answers a request. The methods are the server's, the same for every path; a path counts only for those served.
#[must_use]
pub fn respond(request: &Request<'_>, snapshot: Snapshot) -> Response {
    match (request.method, Endpoint::at(request.path)) {
        (Method::Unknown, _) => NOT_IMPLEMENTED,
        (Method::Other, _) => NOT_ALLOWED,
        (Method::Options, Some(_)) => OPTIONS,
        (Method::Options, None) if request.path == "*" => OPTIONS,
        (_, None) => NOT_FOUND,
        (_, Some(Endpoint::Live)) if snapshot.worker_ended => WORKER_NOT_LIVE,
        (_, Some(Endpoint::Ready)) if snapshot.worker_ended => WORKER_NOT_READY,
        (_, Some(Endpoint::Ready)) if snapshot.stopping => STOPPING,
        (_, Some(Endpoint::Live | Endpoint::Ready | Endpoint::Startup)) => OK,
    }
}
