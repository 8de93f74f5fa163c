//! An HTTP/1 client for one GET: a status, and as much of the content as is wanted.

use std::net::SocketAddr;

use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{ACCEPTED, addresses, socket};

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
    let mut stream = socket::connect_to(addresses).await.map_err(failed)?;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: livelet/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 2048];
        let length = stream.read(&mut part).await.map_err(failed)?;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'b> {
    /// The status code.
    pub status: u16,
    /// As much of the content as has arrived.
    pub body: &'b [u8],
    /// All of it has.
    pub is_whole: bool,
}

/// Parses what has arrived of a response; `None` where its head is not whole. Interim responses before it (RFC 9110
/// §15.2) are passed over.
///
/// # Errors
/// What is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Option<Head<'_>>, &'static str> {
    let mut rest = bytes;
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(rest) {
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(length)) => length,
            Err(_) => return Err("its answer is not HTTP/1"),
        };
        let status = response.code.unwrap_or_default();
        let body = rest.get(length..).unwrap_or_default();
        // Nothing of HTTP/1 comes after 101.
        if (100..200).contains(&status) && status != 101 {
            rest = body;
            continue;
        }
        let length_field = response
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case("content-length"));
        let length =
            length_field.and_then(|field| std::str::from_utf8(field.value).ok()?.parse().ok());
        let whole = length.and_then(|length: usize| body.get(..length));
        return Ok(Some(Head {
            status,
            body: whole.unwrap_or(body),
            is_whole: whole.is_some(),
        }));
    }
}

pub(super) async fn is_well(url: &Url) -> Result<(), String> {
    match fetch(url, 0).await?.status {
        200..400 => Ok(()),
        status => Err(format!("{}{}: status {status}", url.authority, url.target)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_response_is_not_the_answer() {
        let status = |text: &str| parse(text.as_bytes()).map(|head| head.map(|head| head.status));
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        for (text, expected) in [
            (hints.to_string(), Ok(None)),
            (format!("{hints}HTTP/1.1 200 OK\r\n"), Ok(None)),
            (format!("{hints}HTTP/1.1 503 No\r\n\r\n"), Ok(Some(503))),
            (hints.repeat(100) + "HTTP/1.0 204 x\r\n\r\n", Ok(Some(204))),
            ("HTTP/1.1 101 x\r\n\r\n\0\0".to_string(), Ok(Some(101))),
            (format!("{hints}\0"), Err("its answer is not HTTP/1")),
        ] {
            assert_eq!(status(&text), expected, "{text}");
        }
    }
}
