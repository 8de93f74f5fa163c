//! A chain of handovers under load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::ADDR;
use crate::support::{Livelet, SOON, livelet, uninterrupted};

/// Pause of a client after an answer. Without one the clients take the processors that the
/// handovers need, and leave tens of thousands of connections in TIME_WAIT to the tests beside.
const PAUSE: Duration = Duration::from_millis(1);

const REQUEST: &str = "GET /livez HTTP/1.1\r\nHost: test\r\n\r\n";

/// Ends a load with the test that wants it, however that ends.
struct EndOnDrop<'l>(&'l Load);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
    }
}

/// Clients that keep asking until they are stopped, and what they have seen.
#[derive(Default)]
struct Load {
    has_ended: AtomicBool,
    answers: AtomicUsize,
    lost: AtomicUsize,
}

impl Load {
    fn lose(&self, what: &str) {
        if self.lost.fetch_add(1, Ordering::Relaxed) < 10 {
            eprintln!("lost: {what}");
        }
    }

    /// Sends requests one after the other, each on a new connection.
    fn connect_often(&self, addr: SocketAddr) {
        while !self.has_ended.load(Ordering::Relaxed) {
            match ask_once(addr) {
                Ok(answer) if answer.ends_with("\r\n\r\nok\n") => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                }
                other => self.lose(&format!("new connection: {other:?}")),
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Connections on which five requests at a time are sent, for as long as livelet keeps them.
    fn pipeline(&self, addr: SocketAddr) {
        while !self.has_ended.load(Ordering::Relaxed) {
            if let Err(error) = self.pipeline_over_one(addr) {
                self.lose(&format!("kept connection: {error}"));
            }
        }
    }

    fn pipeline_over_one(&self, addr: SocketAddr) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(SOON))?;
        while !self.has_ended.load(Ordering::Relaxed) {
            stream.write_all(REQUEST.repeat(5).as_bytes())?;
            let mut text = Vec::new();
            while count(&text, b"\r\n\r\nok\n") < 5 {
                let mut part = [0; 4096];
                match uninterrupted(|| stream.read(&mut part))? {
                    0 => return Err(std::io::Error::other("ended before its answers")),
                    length => text.extend_from_slice(&part[..length]),
                }
            }
            self.answers.fetch_add(5, Ordering::Relaxed);
            if count(&text, b"Connection: close") > 0 {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn ask_once(addr: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(SOON))?;
    let request = REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len())
        .filter(|window| *window == part)
        .count()
}

/// Starts a successor of `old` on its address, and stops `old`. Every other time `old` is replaced
/// by a takeover. Otherwise it gets TERM while the successor waits.
fn succeed(old: &mut Livelet, by_takeover: bool) -> Livelet {
    let listen = old.addr().to_string();
    let mut command = livelet();
    command.args(["--listen", &listen]);
    let mut new = if by_takeover {
        Livelet::spawn(command.arg("--takeover"))
    } else {
        let mut new = Livelet::spawn(&mut command);
        new.wait_until_said("--takeover replaces it");
        old.signal("TERM");
        new
    };
    new.wait_until_ready(1);
    let origin = format!("(taken over from pid {})", old.pid());
    assert_eq!(new.origins, [origin]);
    new
}

fn chain(length: usize, apart: Duration) {
    let mut current = Livelet::start_on(&[ADDR], &[]);
    let addr = current.addr();
    let load = Load::default();
    let mut stopping = Vec::new();
    std::thread::scope(|scope| {
        let _end = EndOnDrop(&load);
        scope.spawn(|| load.connect_often(addr));
        scope.spawn(|| load.pipeline(addr));
        scope.spawn(|| load.pipeline(addr));
        for round in 0..length {
            let from = Instant::now();
            let new = succeed(&mut current, round % 2 == 0);
            stopping.push(std::mem::replace(&mut current, new));
            if stopping.len() > 20 {
                assert_eq!(stopping.remove(0).wait(SOON).code(), Some(0), "{round}");
            }
            std::thread::sleep(apart.saturating_sub(from.elapsed()));
        }
    });
    for mut old in stopping {
        assert_eq!(old.wait(SOON).code(), Some(0));
    }
    let answers = load.answers.load(Ordering::Relaxed);
    println!("{length} handovers, {answers} answers");
    assert!(answers > length, "{answers}");
    assert_eq!(load.lost.load(Ordering::Relaxed), 0);
}

#[test]
fn three_hundred_handovers_lose_no_request() {
    chain(300, Duration::ZERO);
}

#[test]
fn ten_handovers_a_second_lose_no_request() {
    chain(30, Duration::from_millis(100));
}
