//! Compares livelet's parser with hyper's. Each difference is in [`DIFFERENCES`] with the sentence
//! of the RFC that livelet follows. A difference that is not listed fails.
//!
//!     cargo run --manifest-path tests/differential/Cargo.toml [-- MUTATIONS [SEED]]

mod differences;
mod hyper_side;

use std::collections::BTreeMap;
use std::process::ExitCode;

use differences::DIFFERENCES;
use hyper_side::Verdict;
use livelet::http::{Parsed, parse};

/// Requests to begin with: one of each kind that the framing policy knows.
const TABLE: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /livez?verbose HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n",
    "HEAD / HTTP/1.0\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS / HTTP/1.0\r\n\r\n",
    "GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET https://[::1]:8/b HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n",
    "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\nHost: a\n\n",
    "GET / HTTP/1.1\r\nHost: a\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /a\"b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: outbound|80||a\r\n\r\n",
    "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
    "PROPFIND / HTTP/1.1\r\nHost: a\r\nDepth: 0\r\n\r\n",
    "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
    " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "GET / HTTP/0.9\r\n\r\n",
    "GET /\r\n\r\n",
    "GET / http/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x-new, chunked\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "GET /?a\"b HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, \r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length:\r\n\r\n0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "GET / HTTX",
    "GET / HTTP/1.1\r\nHost: a\n",
    "\r\n\r\nGET",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// Returns heads over the limits, complete and incomplete ones.
fn long() -> Vec<Vec<u8>> {
    let heads = [
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n", "a".repeat(3000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "X: b\r\n".repeat(70)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "b".repeat(9000)),
    ];
    let wholes = heads.iter().map(|head| format!("{head}\r\n").into_bytes());
    wholes
        .chain(heads.iter().map(|head| head.clone().into_bytes()))
        .collect()
}

/// Bytes inserted at random, on which parsers disagree.
const SCRAPS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    "\0",
    ":",
    ",",
    ";",
    "#",
    "?",
    "/",
    "*",
    "@",
    "%",
    "\"",
    "\u{e9}",
    "Host: b\r\n",
    "Content-Length: 1\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "http://",
    "+",
    "-",
    "0",
    "9",
    "[",
    "]",
    "chunked",
    "a",
    "|",
];

/// xorshift64*: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    fn mutated(&mut self) -> Vec<u8> {
        let mut bytes = TABLE[self.below(TABLE.len())].as_bytes().to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            let scrap = SCRAPS[self.below(SCRAPS.len())].as_bytes();
            match self.below(4) {
                0 => drop(bytes.splice(at..at, scrap.iter().copied())),
                1 => drop(bytes.splice(
                    at..(at + scrap.len()).min(bytes.len()),
                    scrap.iter().copied(),
                )),
                2 => drop(bytes.drain(at..(at + 1 + self.below(4)).min(bytes.len()))),
                _ if at < bytes.len() => bytes[at] = self.below(256) as u8,
                _ => {}
            }
        }
        if self.below(50) == 0 {
            // Long ones: the limits are policy too.
            let at = self.below(bytes.len() + 1);
            let filler = [b"a".repeat(3000), b"X: b\r\n".repeat(70), b"b".repeat(9000)];
            bytes.splice(at..at, filler[self.below(3)].iter().copied());
        }
        bytes
    }
}

/// Returns the reason of a difference, livelet's or hyper's in parentheses, and hyper's verdict.
fn difference(bytes: &[u8]) -> Option<(String, Verdict)> {
    let (hyper, said) = hyper_side::verdict(bytes);
    match (parse(bytes), hyper) {
        (Parsed::Incomplete, Verdict::Incomplete)
        | (Parsed::Rejected(_), Verdict::Rejected)
        | (Parsed::Request(..), Verdict::Accepted) => None,
        // livelet has no reason here, so hyper's tells one kind from another.
        (Parsed::Incomplete, hyper) => Some((format!("undecided ({said})"), hyper)),
        (Parsed::Request(..), hyper) => Some((format!("accepted ({said})"), hyper)),
        (Parsed::Rejected(rejection), hyper) => Some((rejection.reason.into(), hyper)),
    }
}

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse().ok())
        .collect();
    let mutations = numbers.first().copied().unwrap_or(20_000);
    let seed = numbers.get(1).copied().unwrap_or(7);
    let mut random = Random(seed.max(1));
    let mutated = (0..mutations).map(|_| random.mutated());
    let inputs = TABLE
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .chain(long())
        .chain(mutated);

    let mut seen: BTreeMap<(String, Verdict), (usize, Vec<u8>)> = BTreeMap::new();
    let mut count = 0;
    for bytes in inputs {
        count += 1;
        if let Some(difference) = difference(&bytes) {
            seen.entry(difference).or_insert((0, bytes)).0 += 1;
        }
    }
    let mut unlisted = 0;
    for ((livelet, hyper), (times, example)) in &seen {
        let listed = DIFFERENCES
            .iter()
            .find(|entry| entry.livelet == livelet && entry.hyper == *hyper);
        let why = listed.map_or("NOT LISTED", |entry| entry.why);
        unlisted += usize::from(listed.is_none());
        println!("{times:6}  livelet: {livelet}; hyper: {hyper:?}: {why}");
        if listed.is_none() {
            let shown = example.escape_ascii().to_string();
            println!("        {:.300}", shown);
        }
    }
    // One that is never seen is no difference: the table is of what there is.
    for entry in DIFFERENCES {
        if !seen.contains_key(&(entry.livelet.to_string(), entry.hyper)) {
            println!(
                "     0  listed and not seen: livelet: {}; hyper: {:?}",
                entry.livelet, entry.hyper
            );
            unlisted += 1;
        }
    }
    println!(
        "differential: {count} requests, seed {seed}, {} kinds of difference",
        seen.len()
    );
    if unlisted == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
