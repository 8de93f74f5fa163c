//! Checks by HTTP. The response's status decides; then livelet reads on, so that the worker can
//! finish its response.

use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use async_net::TcpStream;

use super::{Url, socket};
use crate::http::client::{self, ResponseHead};

/// Maximum number of bytes that an `http:` check reads from a response's content. The kubelet has
/// the same limit.
pub(super) const MAX_CONTENT: usize = 10 * 1024;

/// HTTP response whose head has arrived, and whose content can be read from the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status code of the response.
    status: u16,
    /// Content of the response, as far as it has been read.
    pub(crate) content: Vec<u8>,
    /// Length of the content in bytes, from Content-Length. `None` if the head gives no length.
    length: Option<usize>,
    stream: TcpStream,
}

/// Sends a GET request for `url`. Returns the response as soon as its head has arrived.
///
/// # Errors
/// Returns the reason as an error if the connection fails, or if no valid response head arrives.
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
            return Err(format!("{authority}: connection closed without an answer"));
        }
    }
}

impl Answer {
    /// Checks that the status of the response is 2xx or 3xx, which the kubelet accepts as well.
    /// `url` is the URL of the request, for the text of the error.
    ///
    /// # Errors
    /// Returns an error that names the URL and the status if the status is any other.
    pub(super) fn verdict(&self, url: &Url) -> Result<(), String> {
        match self.status {
            200..400 => Ok(()),
            status => Err(format!(
                "{}{}: answered {status}",
                url.authority, url.target
            )),
        }
    }

    /// Reads the content of the response into `self.content`, until the content ends or has `most`
    /// bytes. A caller that does not need the content should call this as well before it closes the
    /// connection, because the close could reset a worker that is still writing. The caller limits
    /// the time.
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
