//! Sockets that accept connections.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use smol::Async;

/// Connects to the first of the addresses that accepts.
pub(super) async fn connect(addresses: &[SocketAddr]) -> io::Result<Async<TcpStream>> {
    let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        outcome = Async::<TcpStream>::connect(*address).await;
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
    match Async::<UnixStream>::connect(path).await {
        Ok(_) => Ok(()),
        Err(cause) => Err(format!("{}: {}", path.display(), cause.kind())),
    }
}
