//! A whole connection: what a client does in time, against the protocol's core.
//!
//! The invariants: the answers are those to the requests that the bytes spell when they are read in
//! one piece, in their order and each once; after a request with content, or one that is rejected,
//! no byte is read as a request; the last answer after a stop says `Connection: close`; another
//! parser reads every answer; every connection comes to its end.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use livelet::http::connection::{Connection, Incoming, Phase, Step};
use livelet::http::{CommonFields, Method, Parsed, Request, Response, Status, parse};

fn echo(request: &Request<'_>) -> String {
    format!("{:?} {} {}", request.method, request.path, request.query)
}

/// An answer as it is expected, or as it came.
#[derive(Debug, PartialEq, Clone)]
struct Answer {
    status: u16,
    body: String,
    closes: bool,
}

/// Requests in the bytes when they are parsed in one piece, without time and without a drain.
fn asked(bytes: &[u8]) -> Vec<(Answer, bool)> {
    let mut answers = Vec::new();
    let mut rest = bytes;
    loop {
        match parse(rest) {
            Parsed::Incomplete => return answers,
            Parsed::Rejected(rejection) => {
                let status = rejection.status.line()[..3].parse().unwrap();
                let body = if rejection.head_only {
                    ""
                } else {
                    rejection.reason
                };
                answers.push((
                    Answer {
                        status,
                        body: body.into(),
                        closes: true,
                    },
                    rejection.head_only,
                ));
                return answers;
            }
            Parsed::Request(request, length) => {
                let is_head = request.method == Method::Head;
                let is_safe = is_head || [Method::Get, Method::Options].contains(&request.method);
                let closes = request.has_body || !is_safe || !request.keep_alive;
                let body = if is_head {
                    String::new()
                } else {
                    echo(&request)
                };
                answers.push((
                    Answer {
                        status: 200,
                        body,
                        closes,
                    },
                    is_head,
                ));
                if closes {
                    return answers;
                }
                rest = &rest[length..];
            }
        }
    }
}

/// Reads answers with httparse; the last may be cut.
fn came(mut sent: &[u8], heads: &[bool], is_whole: bool) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    while !sent.is_empty() {
        assert!(
            answers.last().is_none_or(|last| !last.closes),
            "an answer after the last"
        );
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(length) = head.parse(sent).expect("an answer") else {
            assert!(!is_whole, "half an answer");
            break;
        };
        let value = |name: &str| {
            let mut named = head
                .headers
                .iter()
                .filter(|field| field.name.eq_ignore_ascii_case(name));
            let value = named
                .next()
                .map(|field| std::str::from_utf8(field.value).unwrap());
            assert!(named.next().is_none(), "{name} twice");
            value
        };
        assert!(value("date").is_some() && value("cache-control") == Some("no-store"));
        let length_field: usize = value("content-length").expect("a length").parse().unwrap();
        let is_head = heads.get(answers.len()).copied().unwrap_or(false);
        let end = length + if is_head { 0 } else { length_field };
        if sent.len() < end {
            assert!(!is_whole, "half an answer");
            break;
        }
        let body = std::str::from_utf8(&sent[length..end]).unwrap();
        answers.push(Answer {
            status: head.code.unwrap(),
            body: body.strip_suffix('\n').unwrap_or(body).to_string(),
            closes: value("connection") == Some("close"),
        });
        sent = &sent[end..];
    }
    answers
}

struct Client {
    connection: Connection,
    now: Instant,
    /// The answer to `/slow`, and when it is known.
    slow: Option<(String, Instant)>,
    /// Bytes given to the connection, and bytes that it sent.
    given: Vec<u8>,
    sent: Vec<u8>,
    /// Bytes that the client takes before it stops reading.
    window: usize,
    is_shut: bool,
    is_closed: bool,
    /// A deadline has passed, or a stop begun: answers may be fewer, or other ones.
    is_late: bool,
    /// Number of answers that were given.
    answered: usize,
    /// Value of `answered` when the stop began.
    answered_before_stop: Option<usize>,
}

impl Client {
    fn answer(&mut self, status: Status, body: String) {
        self.answered += 1;
        let response = Response {
            body: body.into(),
            ..Response::fixed(status, "")
        };
        self.connection
            .answer(&response, &CommonFields::at(0), self.now);
    }

    /// Answers requests until one has to wait. An answer repeats what was asked for. `/slow` is
    /// answered after 700 ms.
    fn answer_requests(&mut self) {
        loop {
            if let Some((body, until)) = self.slow.take() {
                if self.now < until {
                    self.slow = Some((body, until));
                    return;
                }
                self.answer(Status::Ok, body);
            }
            let (status, body) = match self.connection.incoming(self.now) {
                None => return,
                Some(Incoming::Rejection(rejection)) => {
                    (rejection.status, rejection.reason.to_string())
                }
                Some(Incoming::Request(request)) if request.path == "/slow" => {
                    let until = self.now + Duration::from_millis(700);
                    self.slow = Some((echo(&request), until));
                    continue;
                }
                Some(Incoming::Request(request)) => (Status::Ok, echo(&request)),
            };
            self.answer(status, body);
        }
    }

    /// Lets the connection go as far as it gets; `end`: the client has closed its side after these
    /// bytes.
    fn go(&mut self, mut bytes: &[u8], end: bool) {
        for _ in 0.. {
            self.answer_requests();
            match self.connection.step(self.now) {
                Step::Read(most) => {
                    assert!(most > 0, "the connection reads nothing");
                    let count = most.min(bytes.len());
                    if count == 0 && !end {
                        break;
                    }
                    // After its end it only throws away.
                    if !self.is_shut {
                        self.given.extend_from_slice(&bytes[..count]);
                    }
                    self.connection.received(&bytes[..count], self.now);
                    bytes = &bytes[count..];
                }
                // A client that has gone is not found out about while its answer is not known.
                Step::Wait => break,
                Step::Send(answer) => {
                    assert!(
                        !answer.is_empty() && !self.is_shut,
                        "it sends after its end"
                    );
                    let count = answer.len().min(self.window);
                    if count == 0 {
                        break;
                    }
                    self.window -= count;
                    self.sent.extend_from_slice(&answer[..count]);
                    self.connection.sent(count, self.now);
                }
                Step::ShutDown => {
                    assert!(!self.is_shut, "shut down twice");
                    self.is_shut = true;
                }
                Step::Close => {
                    self.is_closed = true;
                    break;
                }
            }
        }
    }

    /// Begins the stop or the drain.
    fn enter(&mut self, phase: Phase) {
        self.is_late = true;
        self.answered_before_stop.get_or_insert(self.answered);
        self.connection.enter(phase);
        self.go(b"", false);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.go(b"", false);
        if !self.is_closed && self.now >= self.connection.deadline() {
            self.is_late = true;
            if let Some(rejection) = self.connection.expire(self.now) {
                self.answer(rejection.status, rejection.reason.to_string());
            }
            self.go(b"", false);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let start = Instant::now();
    let mut client = Client {
        connection: Connection::new(start),
        now: start,
        slow: None,
        given: Vec::new(),
        sent: Vec::new(),
        window: usize::MAX,
        is_shut: false,
        is_closed: false,
        is_late: false,
        answered: 0,
        answered_before_stop: None,
    };
    let mut rest = data;
    let mut has_ended = false;
    while let [operation, argument, after @ ..] = rest {
        if client.is_closed || has_ended {
            break;
        }
        rest = after;
        let amount = u32::from(*argument);
        match operation % 8 {
            // Most of an input is bytes.
            0..=3 => {
                let count = (usize::from(*argument) * if operation % 8 == 3 { 64 } else { 1 })
                    .min(rest.len());
                let (bytes, after) = rest.split_at(count);
                rest = after;
                client.go(bytes, false);
            }
            4 => client.pass(Duration::from_millis(25) * amount),
            5 => client.window = usize::from(*argument) * 16,
            6 if *argument > 200 => {
                let until = client.now + Duration::from_millis(10) * (amount - 200);
                client.enter(Phase::Draining(until));
            }
            6 if *argument > 150 => client.enter(Phase::Stopping),
            6 => client.window = usize::MAX,
            _ if *argument > 200 => {
                has_ended = true;
                client.go(b"", true);
            }
            _ => client.go(GET, false),
        }
    }
    // It comes to its end, whatever the client does; each deadline brings it nearer.
    for _ in 0..64 {
        if client.is_closed {
            break;
        }
        let left = client
            .connection
            .deadline()
            .saturating_duration_since(client.now);
        assert!(left <= Duration::from_secs(120));
        client.pass(
            left.min(Duration::from_millis(700))
                .max(Duration::from_millis(1)),
        );
    }
    if !client.is_closed {
        for _ in 0..16 {
            if !client.is_closed {
                let left = client
                    .connection
                    .deadline()
                    .saturating_duration_since(client.now);
                client.pass(left);
            }
        }
    }
    assert!(client.is_closed, "a connection without an end");

    let (expected, heads): (Vec<_>, Vec<_>) = asked(&client.given).into_iter().unzip();
    let answers = came(
        &client.sent,
        &heads,
        client.window == usize::MAX && !client.is_late,
    );
    for (index, answer) in answers.iter().enumerate() {
        match expected.get(index) {
            Some(wanted) => {
                // Which of its faults is named depends on how much of it was there; that it is
                // rejected does not.
                let is_rejected =
                    [400, 414, 431, 501, 505].contains(&answer.status) && answer.closes;
                let is_same = (answer.status, &answer.body) == (wanted.status, &wanted.body);
                assert!(
                    is_same || wanted.status >= 400 && is_rejected,
                    "{answer:?} is not {wanted:?}"
                );
                assert!(answer.closes == wanted.closes || client.is_late && answer.closes);
            }
            // An incomplete request may have had one answer, about its time limit.
            None => {
                assert_eq!(
                    (index, answer.status),
                    (expected.len(), 408),
                    "an answer that nobody asked for"
                );
                assert!(answer.closes);
            }
        }
    }
    let after_stop = client
        .answered_before_stop
        .is_some_and(|before| before < answers.len());
    if client.window == usize::MAX && after_stop && !has_ended {
        let last = answers.last();
        assert!(
            last.is_some_and(|last| last.closes),
            "kept open after a stop: {answers:?}"
        );
    }
    if client.window == usize::MAX && !client.is_late && !has_ended {
        assert_eq!(answers.len(), expected.len(), "a request without an answer");
    }
});

const GET: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n";
