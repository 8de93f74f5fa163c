//! Sockets that accept connections.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, getpeername, socket_with,
    sockopt,
};

use super::said;
use crate::runtime::Source;

/// Connects to the first of the addresses that accepts.
pub(super) async fn connect_to(addresses: &[SocketAddr]) -> io::Result<Source<TcpStream>> {
    let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        outcome = connected(family, address).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

async fn connected(
    family: AddressFamily,
    address: &impl SocketAddrArg,
) -> io::Result<Source<TcpStream>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    let begun = connect(&socket, address);
    let socket = Source::new(TcpStream::from(socket));
    match begun {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            // Without a peer it is connecting still: where the system refuses to wait, that may be over too early.
            while getpeername(socket.get_ref()) == Err(Errno::NOTCONN) {
                socket.readable().await?;
                sockopt::socket_error(socket.get_ref())??;
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(socket)
}

pub(super) async fn accepts(addresses: &[SocketAddr]) -> Result<(), String> {
    match connect_to(addresses).await {
        Ok(_) => Ok(()),
        Err(cause) => Err(match addresses.first() {
            Some(address) => format!("{address}: {}", cause.kind()),
            None => cause.to_string(),
        }),
    }
}

pub(super) async fn accepts_at(path: &Path) -> Result<(), String> {
    let connected = async {
        let address = SocketAddrUnix::new(path)?;
        connected(AddressFamily::UNIX, &address).await
    };
    match connected.await {
        Ok(_) => Ok(()),
        Err(cause) => Err(format!("{}: {}", path.display(), said(&cause))),
    }
}
