//! Sockets that accept connections.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use async_net::TcpStream;
use async_net::unix::UnixStream;

/// Connects to the first of the addresses that accepts.
pub(super) async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        outcome = TcpStream::connect(address).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

pub(super) async fn accepts(addresses: &[SocketAddr]) -> Result<(), String> {
    match connect(addresses).await {
        Ok(_) => Ok(()),
        Err(cause) => Err(match addresses.first() {
            Some(address) => format!("{address}: {}", cause.kind()),
            None => cause.to_string(),
        }),
    }
}

pub(super) async fn accepts_at(path: &Path) -> Result<(), String> {
    match UnixStream::connect(path).await {
        Ok(_) => Ok(()),
        Err(cause) => Err(format!("{}: {}", path.display(), cause.kind())),
    }
}
