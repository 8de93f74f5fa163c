//! Checks by HTTP: the status decides, and the worker may finish its answer.

use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use async_net::TcpStream;

use super::{Url, socket};
use crate::http::client::{self, ResponseHead};

/// Most bytes of an answer's content that are read, as with the kubelet.
pub(super) const MAX_CONTENT: usize = 10 * 1024;

/// An answer whose head has arrived.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    status: u16,
    /// The content, as far as it has been read.
    pub(crate) content: Vec<u8>,
    /// Length of the content, if it is known.
    length: Option<usize>,
    stream: TcpStream,
}

/// Sends a request for a URL. Returns the answer as soon as its head has arrived.
///
/// # Errors
/// Returns an error if the connection fails or no answer arrives.
pub(super) async fn ask(url: &Url) -> Result<Answer, String> {
    let authority = &url.authority;
    let failed = |cause: std::io::Error| format!("{authority}: {}", crate::log::Cause(&cause));
    let connected = socket::connect_to(&url.addresses).await;
    let mut stream = connected.map_err(failed)?;
    let request = client::get(&url.target, &url.host);
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = ResponseHead::default();
    let mut part = [0; 2048];
    loop {
        let length = stream.read(&mut part).await.map_err(failed)?;
        let bytes = part.get(..length).unwrap_or_default();
        let content = head
            .push(bytes)
            .map_err(|error| format!("{authority}: {error}"))?;
        if let Some(content) = content {
            return Ok(Answer {
                status: head.status,
                content: content.to_vec(),
                length: head.content_length,
                stream,
            });
        }
        if length == 0 {
            return Err(format!("{authority}: closed without an answer"));
        }
    }
}

impl Answer {
    /// Checks that the status is 2xx or 3xx, as the kubelet does.
    pub(super) fn verdict(&self, url: &Url) -> Result<(), String> {
        match self.status {
            200..400 => Ok(()),
            status => Err(format!(
                "{}{}: answered {status}",
                url.authority, url.target
            )),
        }
    }

    /// Reads the content up to `most` bytes. Closing before that would reset a worker that still
    /// writes.
    pub(crate) async fn read(&mut self, most: usize) {
        let most = most.min(self.length.unwrap_or(most));
        let mut part = [0; 2048];
        while self.content.len() < most {
            match self.stream.read(&mut part).await {
                Ok(length) if length > 0 => {
                    self.content
                        .extend_from_slice(part.get(..length).unwrap_or_default());
                }
                _ => break,
            }
        }
        self.content.truncate(most);
    }
}
