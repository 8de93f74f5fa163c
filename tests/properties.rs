//! What holds for the pure state whatever happens in whichever order, in simulated time. The seed is printed; with
//! `LIVELET_SEED` the orders are the same again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use livelet::exit_code;
use livelet::health::{self, CheckResult, Endpoint, Facts, Report, Route, Snapshot};
use livelet::http::{Parsed, Status, parse};
use livelet::supervisor::lifecycle::{Action, Event, Lifecycle, Plan};

const ROUNDS: u32 = 4000;
const TERM: i32 = 15;

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
        choices[self.below(choices.len() as u64) as usize]
    }

    fn plan(&mut self) -> Plan {
        let ms = |ms| Duration::from_millis(ms);
        Plan {
            has_worker: self.below(3) > 0,
            drain: self.one_of(&[ms(0), ms(250), ms(5000)]),
            grace: self.one_of(&[None, Some(ms(0)), Some(ms(100)), Some(ms(9000))]),
            lame_duck: self.one_of(&[ms(0), ms(0), ms(700)]),
        }
    }
}

/// A process with its machine, and what is known of it from outside.
struct Simulated {
    lifecycle: Lifecycle,
    plan: Plan,
    now: Instant,
    has_started: bool,
    worker_lives: bool,
    /// A stop was asked for.
    asked: bool,
    is_unhealthy: bool,
    drains_since: Option<Instant>,
    /// The worker was told to stop, first.
    told_at: Option<Instant>,
    exit: Option<u8>,
}

impl Simulated {
    fn new(plan: Plan) -> Simulated {
        Simulated {
            lifecycle: Lifecycle::new(plan),
            plan,
            now: Instant::now(),
            has_started: false,
            worker_lives: plan.has_worker,
            asked: false,
            is_unhealthy: false,
            drains_since: None,
            told_at: None,
            exit: None,
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            has_worker: self.plan.has_worker,
            is_stopping: self.lifecycle.is_stopping(),
            has_worker_ended: self.plan.has_worker && self.lifecycle.is_draining(),
            pid: 1,
        }
    }

    /// Lets an event happen, and looks at all that it leads to.
    fn step(&mut self, event: Event) {
        // Whoever was asked to stop is not given up.
        let was_stopping = self.lifecycle.is_stopping();
        self.has_started |= event == Event::Started;
        self.asked |= match event {
            Event::Terminate(_) => self.has_started,
            Event::Stop(_) => self.has_started && !self.plan.has_worker,
            Event::WorkerEnded(_) | Event::Unhealthy => true,
            _ => false,
        };
        if event == Event::Unhealthy && !was_stopping {
            self.is_unhealthy = true;
        }
        if let Event::WorkerEnded(_) = event {
            self.worker_lives = false;
        }
        let actions = self.lifecycle.step(event, self.now);
        assert!(
            self.exit.is_none() || actions.is_empty(),
            "{event:?} after the end: {actions:?}"
        );
        for action in actions {
            self.act(event, action);
        }
        assert!(
            !self.asked || self.lifecycle.is_stopping(),
            "{event:?}: it does not stop"
        );
        if self.asked {
            // TERM came: not ready, whatever else happens; alive as long as the worker is.
            assert!(
                !Report::own(Endpoint::Ready, self.snapshot()).holds(),
                "{event:?}: ready"
            );
            let is_alive = Report::own(Endpoint::Live, self.snapshot()).holds();
            assert_eq!(is_alive, !self.snapshot().has_worker_ended);
        }
    }

    fn act(&mut self, event: Event, action: Action) {
        assert!(self.exit.is_none(), "{event:?}: {action:?} after the exit");
        match action {
            Action::Forward(_) => {
                // Without a worker nobody gets it, and nobody minds.
                assert!(
                    self.worker_lives || !self.plan.has_worker,
                    "{event:?}: forwarded to nobody"
                );
                if self.lifecycle.is_stopping() && self.plan.has_worker {
                    self.told_at.get_or_insert(self.now);
                }
            }
            Action::Kill => {
                let is_asked_for = self.plan.grace.is_some() || self.is_unhealthy;
                assert!(is_asked_for, "{event:?}: killed without --grace");
            }
            Action::TerminateLeftovers => {
                assert!(!self.worker_lives, "{event:?}: the worker lives")
            }
            Action::Drain => {
                assert!(
                    self.drains_since.is_none() && !self.worker_lives,
                    "{event:?}"
                );
                self.drains_since = Some(self.now);
            }
            Action::Cut => {
                let since = self.drains_since.expect("a drain");
                let is_due = self.now >= since + self.plan.drain;
                assert!(
                    is_due || matches!(event, Event::Terminate(_)),
                    "{event:?}: cut too early"
                );
            }
            Action::Exit(_) => {
                assert!(
                    !self.worker_lives || !self.has_started,
                    "{event:?}: the worker lives"
                );
                let Action::Exit(code) = action else { return };
                assert!(
                    !self.is_unhealthy || code == exit_code::UNHEALTHY,
                    "{event:?}: {code}"
                );
                self.exit = Some(code);
            }
        }
    }

    /// Time passes, and deadlines with it as they come.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut ticks = 0;
        while let Some(at) = self.lifecycle.deadline().filter(|&at| at <= until) {
            self.now = self.now.max(at);
            self.step(Event::Tick);
            ticks += 1;
            // A deadline that has passed and stays would be a busy loop.
            assert!(ticks < 6, "{at:?} stays");
        }
        self.now = until;
    }

    /// A random event that can happen now.
    fn happen(&mut self, random: &mut Random) {
        match random.below(12) {
            0 => self.pass(Duration::from_millis(random.below(3000))),
            1 => self.step(Event::Terminate(TERM)),
            2 => self.step(Event::Stop(1)),
            3 => self.step(Event::Forward(10)),
            4 if self.worker_lives => self.step(Event::WorkerEnded(random.below(256) as u8)),
            5 if self.has_started && !self.is_unhealthy => self.step(Event::Unhealthy),
            6 if !self.worker_lives => self.step(Event::Childless),
            7 if self.lifecycle.awaits_connections() => self.step(Event::Drained),
            8..=10 if !self.has_started => self.step(Event::Started),
            _ => self.step(Event::Tick),
        }
    }
}

#[test]
fn whatever_happens_there_is_an_end() {
    let mut random = Random::new();
    for _ in 0..ROUNDS {
        let plan = random.plan();
        let mut simulated = Simulated::new(plan);
        for _ in 0..random.below(20) {
            simulated.happen(&mut random);
        }
        // Wherever that has led: it is asked to stop, and the worker ends sometime. Nobody helps any further.
        let asked_at = simulated.now;
        simulated.step(Event::Terminate(TERM));
        simulated.pass(plan.lame_duck);
        if simulated.worker_lives && simulated.exit.is_none() {
            assert!(
                simulated.told_at.is_some(),
                "{plan:?}: a worker that is not told"
            );
            simulated.pass(Duration::from_millis(random.below(20_000)));
            assert!(
                simulated.exit.is_none(),
                "{plan:?}: it ends before its worker"
            );
            simulated.step(Event::WorkerEnded(7));
        }
        let unhealthy = Duration::from_secs(5);
        let grace = plan
            .grace
            .unwrap_or_default()
            .max(if simulated.is_unhealthy {
                unhealthy
            } else {
                Duration::ZERO
            });
        simulated.pass(plan.drain.max(grace));
        assert!(
            simulated.exit.is_some(),
            "{plan:?}: no end after {:?}",
            simulated.now - asked_at
        );
        assert_eq!(simulated.lifecycle.deadline(), None);
    }
}

#[test]
fn a_drain_does_not_outlive_its_deadline() {
    let mut random = Random::new();
    for _ in 0..ROUNDS {
        let plan = Plan {
            grace: None,
            ..random.plan()
        };
        let mut simulated = Simulated::new(plan);
        simulated.step(Event::Started);
        while simulated.drains_since.is_none() {
            simulated.happen(&mut random);
        }
        let since = simulated.drains_since.unwrap();
        // Events of any kind and number, none of which is a long time.
        while simulated.exit.is_none() && simulated.now < since + plan.drain {
            simulated.happen(&mut random);
            simulated.pass(Duration::from_millis(random.below(50)));
        }
        simulated.step(Event::Tick);
        if !simulated.is_unhealthy {
            assert!(
                simulated.exit.is_some(),
                "{plan:?}: still there at its deadline"
            );
        }
    }
}

/// A verdict is that of its lines, its body is short, and no reason starts another line.
#[test]
fn answers_say_what_their_lines_do() {
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
            has_worker_ended: random.below(4) == 0,
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
                since: None,
            });
        }
        let all = report.clone();
        let names: Vec<&str> = all.checks.iter().map(|check| check.name).collect();
        report.checks.retain(|check| question.wants(check.name));
        let holds = report.holds();
        let facts = Facts {
            pid: 1,
            worker_pid: 1,
            uptime: Duration::from_secs(1),
            status: None,
            connections: 0,
            requests: 0,
            now: Instant::now(),
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
