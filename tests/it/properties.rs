//! Properties of the pure state machines in simulated time, under random events in random order.
//! The seed is printed. With it in `LIVELET_SEED` the orders are the same again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use livelet::exit_code;
use livelet::health::{self, CheckResult, Endpoint, Facts, Report, Route, Snapshot};
use livelet::http::{Parsed, Status, parse};
use livelet::supervisor::lifecycle::{Action, Draining, Event, Lifecycle, Plan, Received};

const ROUNDS: u32 = 4000;
const TERM: i32 = 15;
const QUIT: i32 = 3;

/// xorshift64*: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let fresh = || RandomState::new().build_hasher().finish().max(1);
        let seed =
            std::env::var("LIVELET_SEED").map_or_else(|_| fresh(), |seed| seed.parse().unwrap());
        println!("LIVELET_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = self.below(choices.len() as u64);
        choices[usize::try_from(index).unwrap()]
    }

    fn plan(&mut self) -> Plan {
        let ms = |ms| Duration::from_millis(ms);
        let stop = self.one_of(&[TERM, TERM, QUIT]);
        Plan {
            has_worker: self.below(3) > 0,
            is_init: self.below(2) > 0,
            has_earlier_children: self.below(3) == 0,
            drain: self.one_of(&[ms(0), ms(250), ms(5000)]),
            grace: self.one_of(&[None, Some(ms(0)), Some(ms(100)), Some(ms(9000))]),
            lame_duck: self.one_of(&[ms(0), ms(0), ms(700)]),
            stop_signals: [stop].into_iter().collect(),
            stop_with: self.one_of(&[stop, stop, 0]),
        }
    }
}

/// Time for which a stop signal may be held back.
const SETTLING: Duration = Duration::from_millis(100);

/// Most time that a part of the end takes by itself: leftovers, output that is read.
const PART: Duration = Duration::from_secs(5);

/// A process with its machine, and what is known of it from outside.
struct Simulated {
    lifecycle: Lifecycle,
    plan: Plan,
    now: Instant,
    listens: bool,
    worker_lives: bool,
    /// Descendants that the worker has left and that live.
    leftovers: u64,
    /// A stop was asked for, or the worker has ended.
    stops: bool,
    /// The worker was asked to stop.
    stop_sent: bool,
    forced_code: Option<u8>,
    drains_since: Option<Instant>,
    /// Steps of the drain that were taken.
    drained: Vec<Draining>,
    has_closed_output: bool,
    exit: Option<u8>,
}

impl Simulated {
    fn new(plan: Plan) -> Simulated {
        Simulated {
            lifecycle: Lifecycle::new(plan),
            plan,
            now: Instant::now(),
            listens: false,
            worker_lives: false,
            leftovers: 0,
            stops: false,
            stop_sent: false,
            forced_code: None,
            drains_since: None,
            drained: Vec::new(),
            has_closed_output: false,
            exit: None,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            has_worker: self.plan.has_worker,
            is_stopping: self.lifecycle.is_stopping(),
            has_worker_failed: self.lifecycle.worker_has_failed(),
            is_worker_late: false,
            pid: 1,
        }
    }

    /// Sends a signal that is not rewritten.
    fn signal(&mut self, signal: i32) {
        self.step(Event::Signal(Received {
            signal,
            forward: signal,
            settles: signal == QUIT,
        }));
    }

    fn stop(&mut self) {
        let is_term = self.plan.stop_signals.contains(TERM);
        self.signal(if is_term { TERM } else { QUIT });
    }

    /// Lets an event happen, and looks at all that it leads to.
    fn step(&mut self, event: Event) {
        let was_stopping = self.lifecycle.is_stopping();
        let is_stop = matches!(event, Event::Signal(Received { signal, .. })
            if self.plan.stop_signals.contains(signal) || !self.plan.has_worker && signal == 1);
        self.stops |= match event {
            Event::Signal(_) => is_stop && (self.listens || self.worker_lives),
            Event::WorkerEnded { .. } | Event::Unhealthy | Event::Replaced => true,
            Event::StartFailed => self.worker_lives,
            _ => false,
        };
        match event {
            Event::WorkerStarted => self.worker_lives = true,
            Event::Started => self.listens = true,
            Event::Unhealthy if !was_stopping => self.forced_code = Some(exit_code::UNHEALTHY),
            Event::StartFailed => self.forced_code = Some(exit_code::FAILURE),
            Event::WorkerEnded { .. } => self.worker_lives = false,
            _ => {}
        }
        let step = self.lifecycle.draining();
        let actions = self.lifecycle.step(event, self.now);
        assert!(
            self.exit.is_none() || actions.is_empty(),
            "{event:?} after the end: {actions:?}"
        );
        for action in actions {
            self.act(event, action);
        }
        if let Some(step) = self.lifecycle.draining().filter(|&now| Some(now) != step) {
            self.drained.push(step);
        }
        assert!(
            !self.stops || self.lifecycle.is_stopping(),
            "{event:?}: it does not stop"
        );
        if self.stops {
            // Not ready, whatever else happens; alive as long as the worker is.
            assert!(
                !Report::own(Endpoint::Ready, self.snapshot()).holds(),
                "{event:?}: ready"
            );
            let is_alive = Report::own(Endpoint::Live, self.snapshot()).holds();
            // PID 1 drains even if KILL has not ended the worker: its exit will.
            let is_given_up = self.plan.is_init && self.drains_since.is_some();
            assert!(
                is_alive || !self.worker_lives || is_given_up,
                "{event:?}: not alive"
            );
        }
    }

    fn act(&mut self, event: Event, action: Action) {
        assert!(self.exit.is_none(), "{event:?}: {action:?} after the exit");
        match action {
            Action::Stop(_) => {
                assert!(
                    self.worker_lives && !self.stop_sent,
                    "{event:?}: asked twice, or not there"
                );
                self.stop_sent = true;
            }
            Action::Forward(_) => assert!(self.worker_lives, "{event:?}: there is no worker"),
            Action::StopLeftovers(_) | Action::ForwardToLeftovers(_) => {
                assert!(!self.worker_lives, "{event:?}: the worker lives");
            }
            Action::Kill => {
                let is_asked_for =
                    self.plan.grace.is_some() || self.forced_code == Some(exit_code::UNHEALTHY);
                assert!(
                    is_asked_for || !self.worker_lives,
                    "{event:?}: killed without --grace"
                );
            }
            Action::Drain => {
                let was_killed = self.plan.is_init;
                assert!(self.drains_since.is_none(), "{event:?}");
                assert!(
                    was_killed || !self.worker_lives && self.leftovers == 0,
                    "{event:?}: {} leftovers",
                    self.leftovers
                );
                self.drains_since = Some(self.now);
            }
            // A successor may take the sockets up to here, and older connections have finished.
            Action::EndListening => assert_eq!(
                self.drained,
                [Draining::Older, Draining::Successors],
                "{event:?}"
            ),
            Action::Cut => {
                let since = self.drains_since.expect("a drain");
                let is_due = self.now >= since + self.plan.drain;
                assert!(
                    is_due || matches!(event, Event::Signal(_)),
                    "{event:?}: cut too early"
                );
            }
            Action::CloseOutput => {
                assert!(self.drains_since.is_some(), "{event:?}");
                self.has_closed_output = true;
            }
            Action::Exit(code) => {
                assert!(
                    !self.worker_lives || self.plan.is_init,
                    "{event:?}: the worker lives"
                );
                assert!(
                    self.forced_code.is_none_or(|forced| forced == code),
                    "{event:?}: {code}"
                );
                self.exit = Some(code);
            }
        }
    }

    /// Lets time pass, and handles the deadlines within it.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut at_once = 0;
        while let Some(at) = self.lifecycle.deadline().filter(|&at| at <= until) {
            at_once = if at > self.now { 0 } else { at_once + 1 };
            // A deadline that has passed and stays would be a busy loop.
            assert!(at_once < 6, "{at:?} stays");
            self.now = self.now.max(at);
            self.step(Event::Tick);
        }
        self.now = until;
    }

    fn worker_ends(&mut self, code: u8, leftovers: u64) {
        self.leftovers = leftovers;
        self.step(Event::WorkerEnded {
            code,
            is_last: leftovers == 0,
        });
    }

    fn leftover_ends(&mut self) {
        self.leftovers -= 1;
        self.step(match self.leftovers {
            0 => Event::NoneLeft,
            _ => Event::LeftoverEnded,
        });
    }

    /// Makes a random event happen, one that is possible now.
    fn happen(&mut self, random: &mut Random) {
        match random.below(15) {
            0 => self.pass(Duration::from_millis(random.below(3000))),
            1 => self.stop(),
            2 => self.signal(1),
            3 => self.signal(10),
            4 if self.worker_lives => {
                let leftovers = random.one_of(&[0, 0, 1, 3]);
                let code = u8::try_from(random.below(256)).unwrap();
                self.worker_ends(code, leftovers);
            }
            5 if self.listens && self.forced_code.is_none() => self.step(Event::Unhealthy),
            6 if !self.worker_lives && self.leftovers > 0 => self.leftover_ends(),
            7 | 8 => match self.lifecycle.draining() {
                Some(Draining::Older) => self.step(Event::OlderFinished),
                Some(Draining::Successors) => self.step(Event::Alone),
                Some(Draining::Queue) => self.step(Event::Drained),
                None => {}
            },
            9 if self.listens && !self.lifecycle.is_stopping() => self.step(Event::Replaced),
            10 if !self.worker_lives && self.leftovers == 0 && self.stops => {
                self.step(Event::Childless);
            }
            11..=13 if !self.listens && !self.lifecycle.is_stopping() => {
                if self.plan.has_worker && !self.worker_lives {
                    self.step(Event::WorkerStarted);
                } else if self.worker_lives && random.below(8) == 0 {
                    self.step(Event::StartFailed);
                } else {
                    self.step(Event::Started);
                }
            }
            _ => self.step(Event::Tick),
        }
    }
}

#[test]
fn every_sequence_of_lifecycle_events_reaches_the_exit() {
    let mut random = Random::new();
    for _ in 0..ROUNDS {
        let plan = random.plan();
        let mut simulated = Simulated::new(plan);
        for _ in 0..random.below(20) {
            simulated.happen(&mut random);
        }
        // Now comes a stop, and the worker and its leftovers end at some time. No other event
        // follows.
        let asked_at = simulated.now;
        simulated.stop();
        simulated.pass(plan.lame_duck.max(SETTLING));
        if simulated.worker_lives && simulated.exit.is_none() && simulated.drains_since.is_none() {
            assert!(
                simulated.stop_sent || plan.stop_with == 0,
                "{plan:?}: a worker that is not told"
            );
            simulated.pass(Duration::from_millis(random.below(20_000)));
            if simulated.drains_since.is_none() {
                simulated.worker_ends(7, random.below(3));
            }
        }
        while simulated.leftovers > 0 && simulated.drains_since.is_none() {
            assert!(simulated.exit.is_none(), "{plan:?}: it leaves leftovers");
            simulated.pass(Duration::from_millis(random.below(2000)));
            simulated.leftover_ends();
        }
        simulated.pass(plan.drain + PART);
        assert!(
            simulated.exit.is_some(),
            "{plan:?}: no end after {:?}",
            simulated.now - asked_at
        );
        assert_eq!(simulated.lifecycle.deadline(), None);
    }
}

#[test]
fn a_drain_ends_by_its_deadline_whatever_events_occur() {
    let mut random = Random::new();
    for _ in 0..ROUNDS {
        let plan = random.plan();
        let mut simulated = Simulated::new(plan);
        while simulated.drains_since.is_none() && simulated.exit.is_none() {
            simulated.happen(&mut random);
        }
        let Some(since) = simulated.drains_since else {
            continue;
        };
        // Events of any kind and number, none of which is a long time.
        let deadline = since + plan.drain;
        while simulated.exit.is_none() && simulated.now < deadline {
            simulated.happen(&mut random);
            simulated.pass(Duration::from_millis(random.below(50)));
        }
        simulated.step(Event::Tick);
        assert!(
            simulated.exit.is_some() || simulated.has_closed_output,
            "{plan:?}: still there at its deadline"
        );
        simulated.pass(PART);
        assert!(
            simulated.exit.is_some(),
            "{plan:?}: its output is read for ever"
        );
    }
}

/// The status is that of the lines, the body is short, and no reason starts another line.
#[test]
fn the_status_of_a_health_answer_agrees_with_its_lines() {
    let mut random = Random::new();
    const FRAGMENTS: [&str; 8] = [
        "a",
        "\n",
        "\0",
        "\u{e9}",
        "failed: ",
        "[+]",
        "\u{1b}[31m",
        "\r\n\r\nHTTP/1.1 200 OK",
    ];
    for _ in 0..ROUNDS {
        let path = random.one_of(&[
            "/",
            "/livez",
            "/readyz",
            "/startupz",
            "/livez/c1",
            "/readyz/c2",
        ]);
        let query = random.one_of(&[
            "",
            "?verbose",
            "?exclude=c1",
            "?verbose&exclude=c1&exclude=no",
            "?format=json",
        ]);
        let bytes = format!("GET {path}{query} HTTP/1.1\r\nHost: a\r\n\r\n");
        let Parsed::Request(request, _) = parse(bytes.as_bytes()) else {
            panic!("{bytes}")
        };
        let Route::Ask(question) = health::route(&request, &[]) else {
            panic!("{bytes}")
        };
        let snapshot = Snapshot {
            has_worker: random.below(2) > 0,
            is_stopping: random.below(2) > 0,
            has_worker_failed: random.below(4) == 0,
            is_worker_late: random.below(4) == 0,
            pid: 1,
        };
        let mut report = Report::own(question.endpoint, snapshot);
        let checks: Vec<String> = (0..random.below(60))
            .map(|index| format!("c{index}"))
            .collect();
        let reason = |random: &mut Random| {
            let length = random.below(100);
            (0..length)
                .map(|_| random.one_of(&FRAGMENTS))
                .collect::<String>()
        };
        for name in &checks {
            let fails = random.below(4) == 0;
            report.checks.push(CheckResult {
                name,
                outcome: if fails {
                    Err(reason(&mut random).into())
                } else {
                    Ok(())
                },
                event: None,
            });
        }
        let all = report.clone();
        let names: Vec<&str> = all.checks.iter().map(|check| check.name).collect();
        report.checks.retain(|check| question.wants(check.name));
        let holds = report.holds();
        let facts = Facts {
            pid: 1,
            worker_pid: 1,
            owner: "node",
            uptime: Duration::from_secs(1),
            status: None,
            connections: 0,
            requests: 0,
        };
        let response = health::respond(&question, &[report], &names, &facts);
        assert!(
            response.body.len() < 4096,
            "{bytes}: {} bytes",
            response.body.len()
        );
        let is_unknown = path
            .rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with('c') && !names.contains(&name));
        let expected = match (is_unknown, holds) {
            (true, _) => Status::NotFound,
            (false, true) => Status::Ok,
            (false, false) => Status::ServiceUnavailable,
        };
        assert_eq!(response.status, expected, "{bytes}");
        if query == "?format=json" {
            assert!(!response.body.contains('\u{1b}') || is_unknown);
            continue;
        }
        for line in response.body.lines() {
            let known = [
                "[+]",
                "[-]",
                "ok",
                "no check",
                "(more ",
                "livez check ",
                "readyz check ",
                "startupz check ",
            ];
            assert!(
                known.iter().any(|start| line.starts_with(start)),
                "{bytes}: {line:?}"
            );
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}
