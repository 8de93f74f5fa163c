//! The server's protocol on one connection: decides when to read, what to send and when to close.
//!
//! Pure: bytes, responses and `now` come in; requests, the next [`Step`] and the deadline come out.
//! [`super::server`] does the I/O. A connection keeps the bytes of an unfinished head and of unsent
//! answers, and no buffer while it is idle. An answer here is a response in its encoded form.
//!
//! Invariants:
//!
//! - Answers are sent in the order of their requests.
//! - No byte is parsed after the request whose answer closes the connection.
//! - While an answer is unsent, nothing is read. So a client that does not read its answers costs
//!   at most [`MAX_UNSENT`] bytes, one answer and [`MAX_READ`] bytes of requests.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::{
    CommonFields, MAX_HEAD, Method, Parsed, Persistence, Rejection, Request, Response, Status,
    encode, parse,
};

/// Time limit from the first byte of a request's head to its last byte. A prober waits for a second
/// or a few, and a lost packet is sent again within that time.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for an idle connection, before its first request and between two requests. It is
/// longer than the usual period of a prober.
const IDLE_LIMIT: Duration = Duration::from_secs(75);
/// Time limit for sending an answer, from its encoding until the kernel has accepted its last byte.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Maximum time for which livelet discards bytes that the client still sends, before livelet closes
/// the connection (lingering close, RFC 9112 section 9.6).
const LINGER_LIMIT: Duration = Duration::from_secs(2);
/// Time limit from the arrival of a request until livelet has an answer. The checks have shorter
/// limits of their own.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// Minimum time, from the accept, that a connection without a request stays open during a drain,
/// which is the end of serving. The first request of a connection may arrive one round trip after
/// the connection.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(100);
/// Limit, in bytes, for the unsent answers to pipelined requests. Once the unsent answers of a
/// connection reach this limit, livelet sends them before it answers the next request.
const MAX_UNSENT: usize = 1024;
/// Maximum number of bytes that a connection keeps of requests without an answer: the head of one
/// request, and the empty line that may come before the head.
const MAX_INBOX: usize = MAX_HEAD + 2;
/// Maximum number of bytes that one read takes from a connection. The request of a probe is
/// shorter. Further pipelined requests stay in the kernel's buffer.
pub const MAX_READ: usize = 2 * 1024;

/// Next message of a client: a request, or bytes that are not a valid request.
#[derive(Debug)]
pub enum Incoming<'c> {
    /// A valid request. The caller has to answer it.
    Request(Request<'c>),
    /// Reason why the received bytes are not a valid request. The caller has to answer with this
    /// reason, and the connection closes after the answer.
    Rejection(Rejection),
}

/// Next action that the caller of a [`Connection`] has to do on its socket.
#[derive(Debug)]
pub enum Step<'c> {
    /// Read at most this number of bytes, then call [`Connection::received`].
    Read(usize),
    /// Wait until the last [`Incoming`] can be answered, then call [`Connection::answer`].
    Wait,
    /// Send a part or all of these bytes, then call [`Connection::sent`].
    Send(&'c [u8]),
    /// Shut down the sending side of the socket.
    ShutDown,
    /// Close the socket.
    Close,
}

/// Phase of a connection, from normal service to a forced close. A connection only goes to a later
/// phase, in the order of the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Phase in which the connection stays open as long as the client sends requests.
    Serving,
    /// Phase once a stop has begun: the answer to a request has `Connection: close`, unless bytes
    /// of a further request have already arrived.
    Stopping,
    /// Phase during a drain, which is the end of serving: like `Stopping`, but livelet closes an
    /// idle connection at the time in the field. An earlier close could lose a request that the
    /// client has sent before it learned of the drain.
    Draining(Instant),
    /// Phase of a connection that livelet gives up for a newer one: the connection closes after its
    /// next answer, or at once if no request waits for an answer.
    Evicted,
    /// Phase in which the connection closes at once, without waiting for a request or for an
    /// answer.
    Cut,
}

/// Rank of a connection. At the connection limit, livelet evicts (closes) the connection with the
/// lowest rank first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvictionRank {
    /// Lowest rank, so evicted first: the kernel does not accept the connection's answers yet,
    /// because the client does not read. The kernel buffers hundreds of answers, so such a client
    /// is no prober. The field is the time of the last request; the connection with the earliest
    /// time is evicted first.
    Unread(Instant),
    /// Rank of a connection that waits for a complete request. The field is the time of the last
    /// complete request, or of the accept if there was no request. The connection with the earliest
    /// time is evicted first.
    Idle(Instant),
    /// Highest rank, so evicted last: a request waits for the outcome of a check. The fields are
    /// the number of bytes that have arrived after this request, and the time of this request. The
    /// connection with the most bytes is evicted first, so that a client gains nothing by
    /// pipelining.
    Waiting(Reverse<usize>, Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// State in which livelet reads and answers requests.
    Open,
    /// State in which livelet sends the last answer. If `lingers` is `true`, the state `Lingering`
    /// follows, else the connection closes.
    Ending {
        lingers: bool,
    },
    /// State of a lingering close: livelet has shut down the sending side, and discards bytes that
    /// still arrive. Closing a socket with unread bytes resets the connection. A reset can destroy
    /// the answer before the client has read it (RFC 9112 section 9.6).
    Lingering,
    Closed,
}

/// Request or rejection that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct Pending {
    /// Number of bytes from the beginning of the received bytes to the end of the request's head. 0
    /// for a rejection.
    length: usize,
    /// Persistence of the connection, close or keep-alive, that the request asks for. livelet may
    /// close the connection all the same, such as during a drain.
    persistence: Persistence,
    /// `true` if content may follow the head of the request. livelet does not parse that content,
    /// so a lingering close follows the answer.
    may_have_body: bool,
    head_only: bool,
}

/// Protocol state of one connection to a client.
#[derive(Debug)]
pub struct Connection {
    state: State,
    phase: Phase,
    /// Bytes that the client has sent and livelet has not answered.
    inbox: Vec<u8>,
    /// Encoded answers that have not been sent yet.
    outbox: Vec<u8>,
    pending: Option<Pending>,
    /// Time at which the present activity began: waiting for a request, receiving a head, waiting
    /// for an answer, sending, or lingering. The deadline counts from this time.
    since: Instant,
    /// Time of the last complete request. Before the first request, time of the accept.
    asked_at: Instant,
    has_asked: bool,
}

impl Connection {
    /// Creates the state of a connection that was accepted at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Connection {
        Connection {
            state: State::Open,
            phase: Phase::Serving,
            inbox: Vec::new(),
            outbox: Vec::new(),
            pending: None,
            since: now,
            asked_at: now,
            has_asked: false,
        }
    }

    /// Returns the next request, or the reason why the received bytes are not a valid request. The
    /// caller then has to call [`Connection::answer`]. Returns `None` if no complete head has
    /// arrived. Also returns `None` if an earlier request waits for its answer, or if answers have
    /// to be sent first.
    pub fn incoming(&mut self, now: Instant) -> Option<Incoming<'_>> {
        let is_busy = self.pending.is_some() || self.outbox.len() >= MAX_UNSENT;
        if is_busy || self.state != State::Open || self.inbox.is_empty() {
            return None;
        }
        match parse(&self.inbox) {
            Parsed::Incomplete => None,
            Parsed::Rejected(rejection) => {
                self.pending = Some(Pending::rejected(&rejection));
                Some(Incoming::Rejection(rejection))
            }
            Parsed::Request(request, length) => {
                self.pending = Some(Pending::request(&request, length));
                self.asked_at = now;
                self.has_asked = true;
                if self.outbox.is_empty() {
                    self.since = now;
                }
                Some(Incoming::Request(request))
            }
        }
    }

    /// Encodes `response` as the answer to the last [`Incoming`], with `common`, the header fields
    /// that every response has. The next [`Connection::step`] tells the caller to send the answer.
    /// Does nothing if no request or rejection waits for an answer.
    pub fn answer(&mut self, response: &Response, common: &CommonFields, now: Instant) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let behind = self.inbox.get(pending.length..).unwrap_or_default();
        let is_last = is_blank(behind);
        let ends = match self.phase {
            Phase::Serving => false,
            Phase::Stopping | Phase::Draining(_) => is_last,
            Phase::Evicted | Phase::Cut => true,
        };
        let persistence = if ends {
            Persistence::Close
        } else {
            pending.persistence
        };
        if self.outbox.is_empty() {
            self.since = now;
        }
        encode(
            &mut self.outbox,
            response,
            common,
            persistence,
            pending.head_only,
        );
        if persistence == Persistence::Close {
            let lingers = pending.may_have_body || !is_last;
            self.state = State::Ending { lingers };
            self.inbox = Vec::new();
        } else if behind.is_empty() {
            // An idle connection keeps no buffer.
            self.inbox = Vec::new();
        } else {
            self.inbox.drain(..pending.length);
        }
    }

    /// Returns the action that the caller has to do next on the socket. The caller calls this
    /// method only after [`Connection::incoming`] has returned `None`.
    pub fn step(&mut self, now: Instant) -> Step<'_> {
        if self.is_sending() {
            return Step::Send(&self.outbox);
        }
        match self.state {
            State::Open if self.pending.is_some() => Step::Wait,
            State::Open => Step::Read(MAX_READ.min(MAX_INBOX.saturating_sub(self.inbox.len()))),
            State::Lingering => Step::Read(MAX_READ),
            State::Ending { lingers: true } => {
                self.state = State::Lingering;
                self.since = now;
                Step::ShutDown
            }
            State::Ending { lingers: false } | State::Closed => {
                self.state = State::Closed;
                Step::Close
            }
        }
    }

    /// Processes `bytes`, which the caller has read from the socket. If `bytes` is empty, the
    /// client sends no more, and the connection closes. This close leaves no complete request
    /// without an answer, because [`Connection::step`] asks for a read only after all of them are
    /// answered.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        match self.state {
            _ if bytes.is_empty() => self.state = State::Closed,
            State::Open => {
                let had_begun = self.has_begun();
                self.inbox.extend_from_slice(bytes);
                if !had_begun && self.has_begun() {
                    self.since = now;
                }
            }
            State::Ending { .. } | State::Lingering | State::Closed => {}
        }
    }

    /// Records that the caller has sent the first `count` bytes of the last [`Step::Send`].
    pub fn sent(&mut self, count: usize, now: Instant) {
        if count < self.outbox.len() {
            self.outbox.drain(..count);
        } else {
            self.outbox.clear();
            self.since = now;
        }
    }

    /// Returns the present deadline of the connection. If this time passes, the caller has to call
    /// [`Connection::expire`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let limit = match self.state {
            _ if self.is_sending() => SEND_LIMIT,
            State::Open if self.pending.is_some() => ANSWER_LIMIT,
            State::Open if self.has_begun() => HEAD_LIMIT,
            State::Open => match self.phase {
                Phase::Draining(until) if self.has_asked => return until,
                Phase::Draining(until) => return until.max(self.since + FIRST_REQUEST_GRACE),
                _ => IDLE_LIMIT,
            },
            State::Ending { .. } | State::Lingering => LINGER_LIMIT,
            State::Closed => Duration::ZERO,
        };
        self.since + limit
    }

    /// Handles the deadline of the connection, which has passed. If the head of a request is
    /// incomplete, returns the rejection with which the caller has to call [`Connection::answer`].
    /// Otherwise closes the connection, and returns `None`.
    pub fn expire(&mut self, now: Instant) -> Option<Rejection> {
        let is_receiving = self.has_begun() && self.pending.is_none() && !self.is_sending();
        if self.state != State::Open || !is_receiving {
            self.outbox = Vec::new();
            self.state = State::Closed;
            return None;
        }
        let rejection = Rejection {
            status: Status::RequestTimeout,
            reason: "the head was not complete within 5 s",
            head_only: false,
        };
        self.pending = Some(Pending::rejected(&rejection));
        self.since = now;
        Some(rejection)
    }

    /// Moves the buffer `shared` into this connection, for the encoded answers of the connection,
    /// and leaves a buffer without memory in `shared`. Does nothing if the connection still has
    /// unsent answers in a buffer of its own. All connections use `shared` in turn, so that a probe
    /// allocates no buffer.
    pub fn borrow_outbox(&mut self, shared: &mut Vec<u8>) {
        if self.outbox.is_empty() {
            self.outbox = std::mem::take(shared);
        }
    }

    /// Moves the connection's buffer for answers back to `shared` if every answer has been sent.
    /// Otherwise the connection keeps the buffer.
    pub fn return_outbox(&mut self, shared: &mut Vec<u8>) {
        if self.outbox.is_empty() {
            *shared = std::mem::take(&mut self.outbox);
        }
    }

    /// Enters `phase`, unless the connection is already in a later phase.
    pub fn enter(&mut self, phase: Phase) {
        self.phase = self.phase.max(phase);
    }

    /// Returns `true` if the client has sent bytes that livelet has not answered.
    #[must_use]
    pub fn has_unanswered(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Returns `true` if the connection has to close now instead of waiting for its client or for
    /// the outcome of a check. In [`Phase::Cut`] this is always so. In [`Phase::Evicted`] this is
    /// so if no request waits for an answer. The caller asks before each wait.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        match self.phase {
            Phase::Serving | Phase::Stopping | Phase::Draining(_) => false,
            Phase::Evicted => self.pending.is_none(),
            Phase::Cut => true,
        }
    }

    /// Returns the rank that decides when this connection is evicted at the connection limit: the
    /// lowest rank is evicted first.
    #[must_use]
    pub fn eviction_rank(&self) -> EvictionRank {
        match self.pending {
            _ if self.is_sending() => EvictionRank::Unread(self.asked_at),
            None => EvictionRank::Idle(self.asked_at),
            Some(pending) => {
                let behind = self.inbox.len().saturating_sub(pending.length);
                EvictionRank::Waiting(Reverse(behind), self.asked_at)
            }
        }
    }

    /// Returns `true` if the first byte of the next request has arrived. Empty lines do not count.
    fn has_begun(&self) -> bool {
        !is_blank(&self.inbox)
    }

    fn is_sending(&self) -> bool {
        !self.outbox.is_empty()
    }
}

/// Returns `true` if `bytes` has only CR and LF. Such empty lines begin no request: F5 load
/// balancers append one or two to each of their requests.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| b"\r\n".contains(byte))
}

impl Pending {
    fn request(request: &Request<'_>, length: usize) -> Pending {
        let is_safe = matches!(request.method, Method::Get | Method::Head | Method::Options);
        let may_have_body = request.has_body || !is_safe;
        Pending {
            length,
            persistence: if request.keep_alive && !may_have_body {
                Persistence::KeepAlive(request.version)
            } else {
                Persistence::Close
            },
            may_have_body,
            head_only: request.method == Method::Head,
        }
    }

    fn rejected(rejection: &Rejection) -> Pending {
        Pending {
            length: 0,
            persistence: Persistence::Close,
            may_have_body: true,
            head_only: rejection.head_only,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connection in simulated time, with the bytes that livelet has sent over it. A request for
    /// `/slow` is answered after one second, and any other request at once.
    struct Simulated {
        connection: Connection,
        now: Instant,
        slow_until: Option<Instant>,
        sent: String,
        /// Number of further bytes that the simulated client's kernel takes.
        window: usize,
        shut_down: bool,
    }

    #[derive(Debug, PartialEq)]
    enum At {
        Reading,
        Waiting,
        Sending,
        Closed,
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    impl Simulated {
        fn new() -> Simulated {
            let now = Instant::now();
            Simulated {
                connection: Connection::new(now),
                now,
                slow_until: None,
                sent: String::new(),
                window: usize::MAX,
                shut_down: false,
            }
        }

        /// Answers the complete requests that have arrived, in their order. Stops at a request for
        /// `/slow` until one second after its arrival.
        fn answer(&mut self) {
            let common = CommonFields::at(0);
            loop {
                if let Some(until) = self.slow_until {
                    if self.now < until {
                        return;
                    }
                    self.slow_until = None;
                    let response = Response::fixed(Status::ServiceUnavailable, "x");
                    self.connection.answer(&response, &common, self.now);
                }
                let response = match self.connection.incoming(self.now) {
                    None => return,
                    Some(Incoming::Rejection(rejection)) => {
                        Response::fixed(rejection.status, rejection.reason)
                    }
                    Some(Incoming::Request(request)) if request.path == "/slow" => {
                        self.slow_until = Some(self.now + Duration::from_secs(1));
                        continue;
                    }
                    Some(Incoming::Request(_)) => Response::fixed(Status::Ok, "x"),
                };
                self.connection.answer(&response, &common, self.now);
            }
        }

        /// Delivers `bytes` to the connection, and runs it until it waits. Returns the event that
        /// the connection waits for. If `bytes` is empty, nothing arrives.
        fn feed(&mut self, bytes: &[u8]) -> At {
            let mut shared = Vec::new();
            self.connection.borrow_outbox(&mut shared);
            let at = self.go_on(bytes);
            self.connection.return_outbox(&mut shared);
            at
        }

        fn go_on(&mut self, mut bytes: &[u8]) -> At {
            loop {
                self.answer();
                match self.connection.step(self.now) {
                    Step::Read(_) if bytes.is_empty() => {
                        if self.now < self.connection.deadline() {
                            return At::Reading;
                        }
                        self.expire();
                    }
                    Step::Read(most) => {
                        let (read, rest) = bytes.split_at(most.min(bytes.len()));
                        bytes = rest;
                        self.connection.received(read, self.now);
                    }
                    Step::Wait => {
                        assert!(bytes.is_empty(), "more is read than can be answered");
                        return At::Waiting;
                    }
                    Step::Send(_) if self.window == 0 => return At::Sending,
                    Step::Send(answer) => {
                        let count = answer.len().min(self.window);
                        self.sent
                            .push_str(std::str::from_utf8(&answer[..count]).unwrap());
                        self.window -= count;
                        self.connection.sent(count, self.now);
                    }
                    Step::ShutDown => self.shut_down = true,
                    Step::Close => return At::Closed,
                }
            }
        }

        fn expire(&mut self) {
            if let Some(rejection) = self.connection.expire(self.now) {
                let response = Response::fixed(rejection.status, rejection.reason);
                self.connection
                    .answer(&response, &CommonFields::at(0), self.now);
            }
        }

        /// Lets `ms` milliseconds pass, expires the connection if its deadline has passed, and runs
        /// it until it waits. Returns the event that the connection waits for.
        fn pass(&mut self, ms: u64) -> At {
            self.now += Duration::from_millis(ms);
            if self.now >= self.connection.deadline() {
                self.expire();
            }
            self.feed(b"")
        }

        fn drain(&mut self, ms: u64) {
            let until = self.now + Duration::from_millis(ms);
            self.connection.enter(Phase::Draining(until));
        }

        fn statuses(&self) -> Vec<&str> {
            let lines = self.sent.split("HTTP/1.1 ").skip(1);
            lines.map(|line| &line[..3]).collect()
        }
    }

    #[test]
    fn an_idle_connection_keeps_no_buffer() {
        let mut simulated = Simulated::new();
        assert_eq!(simulated.feed(GET), At::Reading);
        assert_eq!(simulated.connection.inbox.capacity(), 0);
        assert_eq!(simulated.connection.outbox.capacity(), 0);
        simulated.feed(b"GET");
        assert!(simulated.connection.inbox.capacity() < 100);
    }

    #[test]
    fn answers_more_pipelined_requests_than_a_buffer_holds() {
        let mut simulated = Simulated::new();
        assert_eq!(simulated.feed(&GET.repeat(1000)), At::Reading);
        assert_eq!(simulated.statuses(), vec!["200"; 1000]);
    }

    #[test]
    fn a_client_that_does_not_read_can_not_grow_the_buffers() {
        let mut simulated = Simulated::new();
        simulated.window = 10;
        assert_eq!(simulated.feed(&GET.repeat(1000)), At::Sending);
        assert!(simulated.connection.outbox.len() < MAX_UNSENT + 4096);
        assert_eq!(simulated.pass(4999), At::Sending);
        simulated.window = 10;
        assert_eq!(
            simulated.feed(b""),
            At::Sending,
            "a few bytes read buy no time"
        );
        assert_eq!(simulated.pass(1), At::Closed);
    }

    #[test]
    fn each_state_has_its_deadline() {
        let idle = |ms| Simulated::new().pass(ms);
        assert_eq!((idle(74_999), idle(75_000)), (At::Reading, At::Closed));

        let mut trickled = Simulated::new();
        for byte in &GET[..5] {
            trickled.pass(1000);
            assert_eq!(trickled.feed(&[*byte]), At::Reading);
        }
        assert_eq!(trickled.pass(999), At::Reading);
        assert_eq!(trickled.pass(1), At::Reading, "lingers");
        assert_eq!(trickled.statuses(), ["408"]);
        assert!(trickled.shut_down);
        assert_eq!(trickled.pass(2000), At::Closed);
    }

    #[test]
    fn a_request_restarts_the_idle_time() {
        let mut simulated = Simulated::new();
        for _ in 0..3 {
            assert_eq!(simulated.pass(74_999), At::Reading);
            assert_eq!(simulated.feed(GET), At::Reading);
        }
        assert_eq!(simulated.statuses(), ["200"; 3]);
    }

    #[test]
    fn a_request_body_is_discarded() {
        let mut simulated = Simulated::new();
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n";
        assert_eq!(simulated.feed(&[head, GET].concat()), At::Reading);
        assert_eq!(simulated.feed(GET), At::Reading);
        assert_eq!(simulated.statuses(), ["200"]);
        assert!(simulated.shut_down);
    }

    #[test]
    fn later_answers_wait_for_an_earlier_check() {
        let slow: &[u8] = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut simulated = Simulated::new();
        assert_eq!(simulated.feed(&[GET, slow, GET].concat()), At::Waiting);
        assert_eq!(simulated.statuses(), ["200"]);
        assert_eq!(simulated.pass(999), At::Waiting);
        assert_eq!(simulated.pass(1), At::Reading);
        assert_eq!(simulated.statuses(), ["200", "503", "200"]);

        let mut draining = Simulated::new();
        assert_eq!(draining.feed(slow), At::Waiting);
        draining.drain(0);
        assert_eq!(draining.feed(b""), At::Waiting);
        assert_eq!(draining.pass(1000), At::Closed);
        assert!(draining.sent.contains("Connection: close"));
    }

    #[test]
    fn a_drain_closes_idle_connections_and_answers_requests() {
        let mut fresh = Simulated::new();
        fresh.drain(0);
        assert_eq!(
            fresh.pass(99),
            At::Reading,
            "its first request may be on the way"
        );
        assert_eq!(fresh.pass(1), At::Closed);

        let mut used = Simulated::new();
        used.feed(GET);
        used.drain(0);
        assert_eq!(used.feed(b""), At::Closed);

        let mut waited_for = Simulated::new();
        waited_for.feed(GET);
        waited_for.drain(2000);
        assert_eq!(waited_for.pass(1999), At::Reading);
        assert_eq!(waited_for.pass(1), At::Closed);
        let mut asking_again = Simulated::new();
        asking_again.feed(GET);
        asking_again.drain(2000);
        assert_eq!(asking_again.feed(GET), At::Closed);
        assert_eq!(asking_again.sent.matches("Connection: close").count(), 1);

        let mut asking = Simulated::new();
        asking.feed(&GET[..5]);
        asking.drain(0);
        assert_eq!(asking.pass(4000), At::Reading);
        assert_eq!(asking.feed(&GET[5..]), At::Closed);
        assert!(asking.sent.contains("Connection: close"));

        let mut pipelined = Simulated::new();
        pipelined.drain(0);
        assert_eq!(pipelined.feed(&GET.repeat(20)), At::Closed);
        assert_eq!(pipelined.statuses(), ["200"; 20]);
        assert_eq!(pipelined.sent.matches("Connection: close").count(), 1);
    }

    #[test]
    fn an_empty_line_does_not_begin_a_request() {
        for line in ["\r", "\r\n"] {
            let line = line.as_bytes();
            let mut idle = Simulated::new();
            idle.feed(GET);
            assert_eq!(idle.feed(line), At::Reading);
            assert_eq!(idle.pass(74_999), At::Reading, "no 408 after 5 s");
            assert_eq!(idle.pass(1), At::Closed);
            assert_eq!(idle.statuses(), ["200"]);

            let mut draining = Simulated::new();
            draining.feed(&[GET, line].concat());
            draining.drain(0);
            assert_eq!(draining.feed(b""), At::Closed, "no 5 s at a stop");

            let mut asking = Simulated::new();
            asking.feed(line);
            asking.feed(&[b"\r\n".as_slice(), GET].concat()[line.len()..]);
            assert_eq!(asking.statuses(), ["200"]);
        }
    }

    #[test]
    fn a_stop_closes_after_the_last_request_that_has_arrived() {
        let mut idle = Simulated::new();
        idle.feed(GET);
        idle.connection.enter(Phase::Stopping);
        assert_eq!(idle.pass(1000), At::Reading, "an idle connection stays");
        assert_eq!(idle.feed(&GET.repeat(3)), At::Closed);
        assert_eq!(idle.statuses(), ["200"; 4]);
        assert_eq!(idle.sent.matches("Connection: close").count(), 1);
    }

    #[test]
    fn empty_lines_after_the_last_request_do_not_delay_a_stop() {
        let close: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
        for lines in ["\r", "\r\n", "\r\n\r\n"] {
            let lines = lines.as_bytes();
            let mut stopping = Simulated::new();
            stopping.connection.enter(Phase::Stopping);
            assert_eq!(stopping.feed(&[GET, lines].concat()), At::Closed);
            assert_eq!(stopping.statuses(), ["200"]);
            assert!(stopping.sent.contains("Connection: close"));

            let mut closing = Simulated::new();
            assert_eq!(closing.feed(&[close, lines].concat()), At::Closed);
            assert_eq!(closing.statuses(), ["200"]);
        }
    }

    #[test]
    fn an_evicted_connection_closes_after_its_next_answer() {
        let slow: &[u8] = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
        let mut evicted = Simulated::new();
        assert_eq!(evicted.feed(&[slow, slow, slow].concat()), At::Waiting);
        evicted.connection.enter(Phase::Evicted);
        assert_eq!(evicted.pass(1000), At::Reading, "lingers");
        assert_eq!(evicted.statuses(), ["503"]);
        assert!(evicted.sent.contains("Connection: close") && evicted.shut_down);
    }

    #[test]
    fn evicts_unread_answers_first_and_waiting_requests_last() {
        let slow: &[u8] = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
        let at = |bytes: &[u8], window| {
            let mut simulated = Simulated::new();
            simulated.window = window;
            simulated.feed(bytes);
            simulated.connection.eviction_rank()
        };
        let now = Instant::now();
        let older = Connection::new(now).eviction_rank();
        let newer = Connection::new(now + Duration::from_millis(1)).eviction_rank();
        let order = [
            at(GET, 0),
            older,
            newer,
            at(&slow.repeat(3), usize::MAX),
            at(&slow.repeat(2), usize::MAX),
            at(slow, usize::MAX),
        ];
        assert!(order.is_sorted(), "{order:?}");
    }
}
