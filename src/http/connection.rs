//! One connection's protocol: when to read, what to answer, when to close.
//!
//! Pure: bytes, the end of the stream and `now` in; the next [`Step`] and the deadline out. `server` does the I/O.
//! It keeps the bytes of an unfinished head and of unsent answers, and nothing while it is idle.
//!
//! Invariants: answers leave in the order of their requests; no byte is parsed after the request that closes; while an
//! answer is unsent nothing is read, so a client that does not read can make it keep at most
//! [`OUTBOX_ENOUGH`] bytes and one answer.

use std::ops::Deref;
use std::time::{Duration, Instant};

use super::{
    self as http, Common, Connection, Known, Method, Parsed, Rejection, Request, Response, Status,
};

/// From a head's first byte to its last.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// Between two requests, or before the first.
const IDLE_LIMIT: Duration = Duration::from_secs(15);
/// From an answer to the moment the client's side has taken the last byte of it.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// A lingering close discards what the client still sends for this long.
const LINGER_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection that has not asked anything yet is still waited for when a drain begins: its request may be
/// one round trip behind.
const FIRST_REQUEST_GRACE: Duration = Duration::from_millis(100);
/// Pipelined requests are answered in one write until the answers have this many bytes.
///
/// As many connections as there may be can each make livelet keep that much, one answer and what was read.
const OUTBOX_ENOUGH: usize = 1024;
/// The most that is buffered of what a client sends: a head, and the empty line that may come before it.
const INBOX_MAX: usize = http::MAX_HEAD + 2;
/// The most that is read at once: a probe's whole request, and no more of those that a client has queued than are answered
/// soon, as what is read has to be kept.
const READ_AT_ONCE: usize = 2 * 1024;
/// How long an answer is waited for; the site has limits of its own, well below.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// What connections answer with.
pub trait Site {
    /// The answer to a request that was whole at `since`; `None` where it is not known yet.
    fn respond(&self, request: &Request<'_>, since: Instant) -> Option<Response>;
    /// The answer to what is not a request.
    fn reject(&self, rejection: &Rejection) -> Response;
    /// The fields that every response has, the date among them.
    fn common(&self) -> impl Deref<Target = Common>;
}

/// Who gives way before whom, see [`Conn::precedence`].
pub type Precedence = Option<(bool, Instant)>;

/// What the connection wants done next.
#[derive(Debug)]
pub enum Step<'c> {
    /// Read into this, then call [`Conn::received`].
    Read(&'c mut [u8]),
    /// Wait until the site may know the answer.
    Wait,
    /// Send from this, then call [`Conn::sent`].
    Send(&'c [u8]),
    /// Shut the sending side down.
    ShutDown,
    /// Close the socket.
    Close,
}

/// The buffers of whichever connection is being worked on: on one thread, one pair is enough.
#[derive(Debug, Default)]
pub struct Buffers {
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Requests are read and answered.
    Open,
    /// The last answer is on its way.
    Ending {
        linger: bool,
    },
    /// The client has been told that nothing more comes; what it still sends is thrown away, because closing a socket
    /// with unread bytes resets it, and a reset can destroy the answer before the client has read it (RFC 9112 §9.6).
    Lingering,
    Closed,
}

/// One connection.
#[derive(Debug)]
pub struct Conn {
    state: State,
    /// The first `filled` bytes have arrived and are not answered; the rest is room to read into.
    inbox: Vec<u8>,
    filled: usize,
    /// Answers, of which the first `sent` bytes have left.
    outbox: Vec<u8>,
    sent: usize,
    /// When what it does now began: waiting for a request, receiving a head, sending, lingering.
    since: Instant,
    /// When it asked its last whole request; before the first, when it was accepted.
    asked_at: Instant,
    has_asked: bool,
    /// Since when the first request in the inbox has waited for its answer.
    waits_since: Option<Instant>,
    /// In a drain: how long another request is waited for.
    drain_until: Option<Instant>,
}

impl Conn {
    /// A connection accepted at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Conn {
        Conn {
            state: State::Open,
            inbox: Vec::new(),
            filled: 0,
            outbox: Vec::new(),
            sent: 0,
            since: now,
            asked_at: now,
            has_asked: false,
            waits_since: None,
            drain_until: None,
        }
    }

    /// Takes buffers to work with; what it has kept of what arrived moves into them.
    pub fn borrow(&mut self, buffers: &mut Buffers) {
        std::mem::swap(&mut self.inbox, &mut buffers.inbox);
        self.inbox.resize(INBOX_MAX, 0);
        let kept = std::mem::take(&mut buffers.inbox);
        if let Some(start) = self.inbox.get_mut(..kept.len()) {
            start.copy_from_slice(&kept);
        }
        if self.outbox.is_empty() {
            std::mem::swap(&mut self.outbox, &mut buffers.outbox);
        }
    }

    /// Gives the buffers back; what is still needed of their content moves into ones of just that size.
    pub fn give_back(&mut self, buffers: &mut Buffers) {
        // Mostly nothing.
        let kept = |bytes: &[u8]| match bytes {
            [] => Vec::new(),
            bytes => bytes.to_vec(),
        };
        let unanswered = kept(self.inbox.get(..self.filled).unwrap_or_default());
        let unsent = kept(self.unsent());
        buffers.inbox = std::mem::replace(&mut self.inbox, unanswered);
        buffers.outbox = std::mem::replace(&mut self.outbox, unsent);
        buffers.outbox.clear();
        self.sent = 0;
    }

    /// When [`Conn::expired`] is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let limit = match self.state {
            _ if !self.unsent().is_empty() => SEND_LIMIT,
            State::Open if self.waits_since.is_some() => ANSWER_LIMIT,
            State::Open if self.filled > 0 => HEAD_LIMIT,
            State::Open => match self.drain_until {
                Some(until) if self.has_asked => return until,
                Some(until) => return until.max(self.since + FIRST_REQUEST_GRACE),
                None => IDLE_LIMIT,
            },
            State::Ending { .. } | State::Lingering => LINGER_LIMIT,
            State::Closed => Duration::ZERO,
        };
        self.since + limit
    }

    /// Who gives way first at the connection limit: the smallest of these. One whose answers are not taken comes first: the
    /// kernel has room for hundreds, so no probe is among them. Then the one that has waited longest for a whole request.
    /// `None`: it asked and waits for its answer.
    #[must_use]
    pub fn precedence(&self) -> Precedence {
        let precedence = (self.unsent().is_empty(), self.asked_at);
        self.waits_since.is_none().then_some(precedence)
    }

    /// What to do now. It answers what has arrived as far as it can.
    pub fn step(&mut self, now: Instant, site: &impl Site, known: &mut Known) -> Step<'_> {
        self.answer(now, site, known);
        if !self.unsent().is_empty() {
            return Step::Send(self.outbox.get(self.sent..).unwrap_or_default());
        }
        match self.state {
            State::Open if self.waits_since.is_some() => Step::Wait,
            State::Open | State::Lingering => Step::Read(self.room()),
            State::Ending { linger: true } => {
                self.state = State::Lingering;
                self.since = now;
                Step::ShutDown
            }
            State::Ending { linger: false } | State::Closed => {
                self.state = State::Closed;
                Step::Close
            }
        }
    }

    /// `count` bytes were read; 0 is the end of the stream. Every whole request before it has been answered by then,
    /// because reading comes last.
    pub fn received(&mut self, count: usize, now: Instant) {
        match self.state {
            _ if count == 0 => self.state = State::Closed,
            State::Open => {
                if self.filled == 0 {
                    self.since = now;
                }
                self.filled += count;
            }
            State::Ending { .. } | State::Lingering | State::Closed => {}
        }
    }

    /// `count` bytes of the last [`Step::Send`] have left.
    pub fn sent(&mut self, count: usize, now: Instant) {
        self.sent += count;
        if self.unsent().is_empty() {
            self.outbox.clear();
            self.sent = 0;
            self.since = now;
        }
    }

    /// The deadline has passed: an unfinished head is answered with 408, anything else is closed.
    pub fn expired(&mut self, now: Instant, site: &impl Site) {
        let has_unfinished_head = self.filled > 0 && self.waits_since.is_none();
        if self.state == State::Open && has_unfinished_head && self.unsent().is_empty() {
            let rejection = Rejection {
                status: Status::RequestTimeout,
                reason: "the head was not complete within 5 s",
                head_only: false,
            };
            self.reject(rejection, site);
            self.since = now;
        } else {
            self.outbox.clear();
            self.sent = 0;
            self.state = State::Closed;
        }
    }

    /// The server stops: what has been asked is answered, and said to be the last. One that is idle may still ask until
    /// then: what a client that does not know of the stop has under way would be lost.
    pub fn drain(&mut self, until: Instant) {
        self.drain_until = Some(until);
    }

    /// More has arrived than was answered.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.filled > 0
    }

    fn unsent(&self) -> &[u8] {
        self.outbox.get(self.sent..).unwrap_or_default()
    }

    fn room(&mut self) -> &mut [u8] {
        let end = INBOX_MAX.min(self.filled + READ_AT_ONCE);
        self.inbox.get_mut(self.filled..end).unwrap_or_default()
    }

    /// Answers the whole requests in the inbox, in their order.
    fn answer(&mut self, now: Instant, site: &impl Site, known: &mut Known) {
        let was_empty = self.outbox.is_empty();
        let mut answered = 0;
        while self.state == State::Open && self.outbox.len() < OUTBOX_ENOUGH {
            let rest = self.inbox.get(answered..self.filled).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match known.parse(rest) {
                Parsed::Incomplete => break,
                Parsed::Rejected(rejection) => self.reject(rejection, site),
                Parsed::Request(request, length) => {
                    let since = *self.waits_since.get_or_insert(now);
                    let Some(response) = site.respond(&request, since) else {
                        break;
                    };
                    self.waits_since = None;
                    let is_last_here = length == rest.len();
                    let is_safe =
                        matches!(request.method, Method::Get | Method::Head | Method::Options);
                    let goes_on = request.keep_alive
                        && is_safe
                        && !request.has_body
                        && !(self.drain_until.is_some() && is_last_here);
                    let connection = if goes_on {
                        Connection::KeepAlive(request.version)
                    } else {
                        self.state = State::Ending {
                            linger: request.has_body || !is_safe || !is_last_here,
                        };
                        Connection::Close
                    };
                    let head_only = request.method == Method::Head;
                    known.encode(
                        &mut self.outbox,
                        &response,
                        &site.common(),
                        connection,
                        head_only,
                    );
                    answered += length;
                    self.asked_at = now;
                    self.has_asked = true;
                }
            }
        }
        if answered > 0 {
            self.inbox.copy_within(answered..self.filled, 0);
            self.filled -= answered;
        }
        if self.state != State::Open {
            self.filled = 0;
        }
        if was_empty && !self.outbox.is_empty() {
            self.since = now;
        }
    }

    fn reject(&mut self, rejection: Rejection, site: &impl Site) {
        let response = site.reject(&rejection);
        let head_only = rejection.head_only;
        http::encode(
            &mut self.outbox,
            &response,
            &site.common(),
            Connection::Close,
            head_only,
        );
        self.state = State::Ending { linger: true };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It knows what time it is.
    struct Fixed(Instant);

    impl Site for Fixed {
        fn respond(&self, request: &Request<'_>, since: Instant) -> Option<Response> {
            match request.path {
                "/" => Some(Response::fixed(Status::Ok, "x")),
                // Known a second later.
                "/slow" if since + Duration::from_secs(1) > self.0 => None,
                "/slow" => Some(Response::fixed(Status::ServiceUnavailable, "x")),
                _ => Some(Response::fixed(Status::NotFound, "x")),
            }
        }

        fn reject(&self, rejection: &Rejection) -> Response {
            Response::fixed(rejection.status, rejection.reason)
        }

        fn common(&self) -> impl Deref<Target = Common> {
            Box::new(Common::at(0))
        }
    }

    /// A connection in simulated time, and what has been sent on it.
    struct Simulated {
        conn: Conn,
        buffers: Buffers,
        known: Known,
        now: Instant,
        sent: String,
        /// How many bytes the client takes of what is sent.
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
                conn: Conn::new(now),
                buffers: Buffers::default(),
                known: Known::default(),
                now,
                sent: String::new(),
                window: usize::MAX,
                shut_down: false,
            }
        }

        /// Lets bytes arrive (none: nothing to read) and goes on until the connection waits.
        fn feed(&mut self, mut bytes: &[u8]) -> At {
            self.conn.borrow(&mut self.buffers);
            let at = loop {
                match self.conn.step(self.now, &Fixed(self.now), &mut self.known) {
                    Step::Read(_) if bytes.is_empty() => {
                        if self.now < self.conn.deadline() {
                            break At::Reading;
                        }
                        self.conn.expired(self.now, &Fixed(self.now));
                    }
                    Step::Read(room) => {
                        let count = room.len().min(bytes.len());
                        room[..count].copy_from_slice(&bytes[..count]);
                        bytes = &bytes[count..];
                        self.conn.received(count, self.now);
                    }
                    Step::Wait => {
                        assert!(bytes.is_empty(), "more is read than can be answered");
                        break At::Waiting;
                    }
                    Step::Send(_) if self.window == 0 => break At::Sending,
                    Step::Send(answer) => {
                        let count = answer.len().min(self.window);
                        self.sent
                            .push_str(str::from_utf8(&answer[..count]).unwrap());
                        self.window -= count;
                        self.conn.sent(count, self.now);
                    }
                    Step::ShutDown => self.shut_down = true,
                    Step::Close => break At::Closed,
                }
            };
            self.conn.give_back(&mut self.buffers);
            at
        }

        /// Lets time pass, and the deadline where it has come.
        fn pass(&mut self, ms: u64) -> At {
            self.now += Duration::from_millis(ms);
            if self.now >= self.conn.deadline() {
                self.conn.expired(self.now, &Fixed(self.now));
            }
            self.feed(b"")
        }

        fn drain(&mut self, ms: u64) {
            self.conn.drain(self.now + Duration::from_millis(ms));
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
        assert_eq!(simulated.conn.inbox.capacity(), 0);
        assert_eq!(simulated.conn.outbox.capacity(), 0);
        simulated.feed(b"GET");
        assert_eq!(simulated.conn.inbox.capacity(), 3);
    }

    #[test]
    fn more_pipelined_requests_than_either_buffer_holds() {
        let mut simulated = Simulated::new();
        assert_eq!(simulated.feed(&GET.repeat(1000)), At::Reading);
        assert_eq!(simulated.statuses(), vec!["200"; 1000]);
    }

    #[test]
    fn a_client_that_does_not_read_bounds_what_is_kept() {
        let mut simulated = Simulated::new();
        simulated.window = 10;
        assert_eq!(simulated.feed(&GET.repeat(1000)), At::Sending);
        assert!(simulated.conn.outbox.len() < OUTBOX_ENOUGH + 4096);
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
    fn deadlines() {
        let idle = |ms| Simulated::new().pass(ms);
        assert_eq!((idle(14_999), idle(15_000)), (At::Reading, At::Closed));

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
            assert_eq!(simulated.pass(14_999), At::Reading);
            assert_eq!(simulated.feed(GET), At::Reading);
        }
        assert_eq!(simulated.statuses(), ["200"; 3]);
    }

    #[test]
    fn a_body_is_thrown_away() {
        let mut simulated = Simulated::new();
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n";
        assert_eq!(simulated.feed(&[head, GET].concat()), At::Reading);
        assert_eq!(simulated.feed(GET), At::Reading);
        assert_eq!(simulated.statuses(), ["200"]);
        assert!(simulated.shut_down);
    }

    #[test]
    fn an_answer_that_is_not_known_yet_keeps_those_after_it_back() {
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
        // It asked before others: it does not give way.
        let mut waiting = Simulated::new();
        waiting.feed(slow);
        assert_eq!(waiting.conn.precedence(), None);
    }

    #[test]
    fn draining() {
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
    fn who_gives_way() {
        let now = Instant::now();
        let older = Conn::new(now);
        let newer = Conn::new(now + Duration::from_millis(1));
        assert!(older.precedence() < newer.precedence());
        let mut sending = Simulated::new();
        sending.window = 0;
        sending.feed(GET);
        assert!(sending.conn.precedence() < older.precedence());
    }
}
