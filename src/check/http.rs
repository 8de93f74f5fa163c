//! An HTTP/1 client for one GET: a status, and as much of the content as is wanted.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use super::{ACCEPTED, addresses, stream};

/// The longest head of a response that is read, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    addresses: Vec<SocketAddr>,
    /// As it is written, for the Host field.
    authority: String,
    /// The path and the query.
    target: String,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The status code.
    pub status: u16,
    /// The beginning of the content.
    pub body: Vec<u8>,
}

impl Url {
    /// Parses what follows `http:`.
    pub(super) fn parse(rest: &str) -> Result<Url, &'static str> {
        let rest = rest.strip_prefix("//").ok_or(ACCEPTED)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
            return Err(ACCEPTED);
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url {
            addresses: addresses(authority, Some(80))?,
            authority: authority.to_string(),
            target: format!("{slash}{target}"),
        })
    }

    /// A path of this address.
    #[must_use]
    pub fn at(address: SocketAddr, target: &str) -> Url {
        Url {
            addresses: vec![address],
            authority: address.to_string(),
            target: target.to_string(),
        }
    }
}

/// Asks, and reads at most `most` bytes of the content.
///
/// # Errors
/// Why there was no answer.
pub async fn fetch(url: &Url, most: usize) -> Result<Fetched, String> {
    let Url {
        addresses,
        authority,
        target,
    } = url;
    let failed = |cause: std::io::Error| format!("{authority}: {}", cause.kind());
    let stream = stream::connect_to(addresses).await.map_err(failed)?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: livelet/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut unsent = request.as_bytes();
    while !unsent.is_empty() {
        let sent = stream.write_with(|mut socket| socket.write(unsent)).await;
        unsent = unsent.get(sent.map_err(failed)?..).unwrap_or_default();
    }
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 2048];
        let read = stream.read_with(|mut socket| socket.read(&mut part)).await;
        let length = read.map_err(failed)?;
        bytes.extend_from_slice(part.get(..length).unwrap_or_default());
        match parse(&bytes) {
            Err(why) => return Err(format!("{authority}: {why}")),
            Ok(Some(Head {
                status,
                body,
                is_whole,
            })) => {
                if is_whole || body.len() >= most || length == 0 {
                    let body = body.get(..most).unwrap_or(body).to_vec();
                    return Ok(Fetched { status, body });
                }
            }
            Ok(None) if length == 0 => {
                return Err(format!("{authority}: closed without an answer"));
            }
            Ok(None) if bytes.len() > MAX_HEAD => {
                return Err(format!("{authority}: the head of its answer is over 8 KiB"));
            }
            Ok(None) => {}
        }
    }
}

/// A head that has arrived, and the content so far.
struct Head<'b> {
    status: u16,
    body: &'b [u8],
    is_whole: bool,
}

/// `None` where the head is not whole. Interim responses are passed over, asked for or not (RFC 9110 §15.2).
fn parse(mut bytes: &[u8]) -> Result<Option<Head<'_>>, &'static str> {
    loop {
        match parse_one(bytes)? {
            Some(Head { status, body, .. }) if (100..200).contains(&status) => bytes = body,
            head => return Ok(head),
        }
    }
}

fn parse_one(bytes: &[u8]) -> Result<Option<Head<'_>>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let body = bytes.get(length..).unwrap_or_default();
            let length_field = response
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case("content-length"));
            let length =
                length_field.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
            let whole = length.and_then(|length: usize| body.get(..length));
            Ok(Some(Head {
                status: response.code.unwrap_or_default(),
                body: whole.unwrap_or(body),
                is_whole: whole.is_some(),
            }))
        }
        Err(_) => Err("its answer is not HTTP/1"),
    }
}

pub(super) async fn is_well(url: &Url) -> Result<(), String> {
    match fetch(url, 0).await?.status {
        200..400 => Ok(()),
        status => Err(format!("{}{}: status {status}", url.authority, url.target)),
    }
}
