//! Listening sockets: bound, inherited, or taken over from another livelet.
//!
//! SO_REUSEADDR is always set. On Linux it lets bind(2) ignore connections in TIME_WAIT, but not a
//! socket that listens (socket(7)). So a restart does not fail, and two livelets do not share a
//! port by accident.

mod inherited;
mod port_owner;
mod wait;

use std::fmt;
use std::io;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::handover::Livelet;
use crate::log;
use port_owner::{HoldingSocket, Owner};

pub(crate) use inherited::{Inherited, PassedOn, Sharing, take_over as take_inherited};
pub(crate) use wait::{Found, Wait, find};

/// Maximum number of connections that the kernel queues for livelet to accept. The kernel uses
/// net.core.somaxconn instead if that is less (listen(2)).
const BACKLOG: i32 = 1024;

/// Address to listen on, from the option `--listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// This port on every address of the machine, IPv6 and IPv4 on one socket. IPv4 alone if the
    /// machine has no IPv6.
    Port(u16),
    /// One address and port. `[::]` accepts IPv4 connections as well.
    Address(SocketAddr),
}

impl Listen {
    /// Returns the port. 0 lets the kernel choose a free port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Listen::Port(port) => *port,
            Listen::Address(address) => address.port(),
        }
    }

    /// Returns `true` if `self` and `other` can't be listened on at the same time.
    pub(crate) fn overlaps(&self, other: &Listen) -> bool {
        let address = |listen: &Listen| match *listen {
            Listen::Port(port) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            Listen::Address(address) => address,
        };
        let (one, two) = (address(self), address(other));
        one.port() == two.port()
            && one.port() != 0
            && (one == two || covers(one.ip(), two.ip()) || covers(two.ip(), one.ip()))
    }
}

fn covers(ip: IpAddr, other: IpAddr) -> bool {
    let (ip, other) = (ip.to_canonical(), other.to_canonical());
    ip == Ipv6Addr::UNSPECIFIED || other.is_ipv4() && (ip.is_unspecified() || ip == other)
}

impl FromStr for Listen {
    type Err = AddrParseError;

    /// Parses an address in one of the forms `9090`, `:9090`, `127.0.0.1:9090` and `[::1]:9090`.
    fn from_str(text: &str) -> Result<Listen, AddrParseError> {
        let port = text.strip_prefix(':').unwrap_or(text);
        match port.parse() {
            Ok(number) if port.bytes().all(|b| b.is_ascii_digit()) => Ok(Listen::Port(number)),
            _ => text.parse().map(Listen::Address),
        }
    }
}

/// Reason why livelet could not listen on an address.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    cause: io::Error,
    held_by: HeldBy,
}

/// Holder of an address: the process or socket that already uses the address.
#[derive(Debug)]
enum HeldBy {
    /// The holder is not known: /proc can't be read, or shows no socket with the address.
    Unknown,
    /// The holder is a livelet that has replied. `command` is its command line.
    Livelet { livelet: Livelet, command: String },
    /// The holder is a socket of another program, or of a livelet that did not reply. `owner` is
    /// its process, or `None` if /proc does not show it.
    Socket {
        socket: Box<HoldingSocket>,
        owner: Option<Owner>,
    },
}

impl ListenError {
    /// Returns `true` if another socket already uses the address (EADDRINUSE).
    fn is_held(&self) -> bool {
        Errno::from_io_error(&self.cause) == Some(Errno::ADDRINUSE)
    }

    fn remedy(&self) -> &'static str {
        match (&self.held_by, Errno::from_io_error(&self.cause)) {
            (HeldBy::Livelet { .. }, _) => "--takeover replaces it",
            (HeldBy::Socket { socket, .. }, _) if socket.peer.is_some() => {
                "sysctl net.ipv4.ip_local_reserved_ports reserves a port"
            }
            (_, Some(Errno::ADDRINUSE)) => {
                "--bind-wait waits longer, --listen sets another address"
            }
            (_, Some(Errno::ACCESS)) => "ports under 1024 are for root; see --listen",
            _ => "--listen sets another address",
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address;
        write!(f, "listen: {address}: ")?;
        match &self.held_by {
            HeldBy::Livelet { livelet, command } => {
                let Livelet { pid, seconds } = livelet;
                write!(
                    f,
                    "held by a healthy livelet, pid {pid} ({command}), for {seconds}s"
                )?;
            }
            HeldBy::Socket { socket, owner } => {
                match owner {
                    Some(Owner { pid, command }) => write!(f, "held by pid {pid} ({command})")?,
                    // A closed connection belongs to no process.
                    None if socket.inode == 0 => f.write_str("held by the kernel")?,
                    None => {
                        let uid = socket.uid;
                        write!(f, "held by a process of uid {uid} that /proc does not show")?;
                    }
                }
                if let Some(peer) = socket.peer {
                    write!(f, ", as the local port of a connection to {peer}")?;
                } else if socket.address != address {
                    write!(f, ", which listens on {}", socket.address)?;
                }
            }
            HeldBy::Unknown if self.is_held() => {
                f.write_str("held by a process that /proc does not show")?;
            }
            HeldBy::Unknown => log::Cause(&self.cause).fmt(f)?,
        }
        write!(f, "; {}", self.remedy())
    }
}

impl std::error::Error for ListenError {}

/// Returns a new socket that is bound to an address and listens on it. If `reuse_port` is `true`,
/// other sockets that also set SO_REUSEPORT may share the port.
///
/// # Errors
/// Returns the error of socket(2), bind(2) or listen(2), together with the address.
fn listen(listen: Listen, reuse_port: bool) -> Result<TcpListener, ListenError> {
    let open = |address: SocketAddr| {
        socket(address, reuse_port).map_err(|cause| ListenError {
            address,
            cause,
            held_by: HeldBy::Unknown,
        })
    };
    match listen {
        Listen::Address(address) => open(address),
        Listen::Port(port) => match open((Ipv6Addr::UNSPECIFIED, port).into()) {
            Err(error) if has_no_ipv6(&error.cause) => open((Ipv4Addr::UNSPECIFIED, port).into()),
            outcome => outcome,
        },
    }
}

/// Returns `true` if `error`, an error of socket(2) or bind(2), means that the machine has no IPv6.
/// Either the kernel lacks the address family IPv6, or a sandbox knows the family but has no IPv6
/// address.
fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
    )
}

fn socket(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // The default depends on the machine (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit the option, which saves a call for each. A response then never waits
    // for the ACK of an earlier one.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_form_of_an_address() {
        let accepted = [
            ("9090", Listen::Port(9090)),
            (":9090", Listen::Port(9090)),
            ("0", Listen::Port(0)),
            (
                "127.0.0.1:9090",
                Listen::Address(([127, 0, 0, 1], 9090).into()),
            ),
            (
                "[::1]:80",
                Listen::Address((Ipv6Addr::LOCALHOST, 80).into()),
            ),
        ];
        for (text, expected) in accepted {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        let refused = [
            "",
            ":",
            "x",
            "65536",
            "+80",
            "-1",
            " 80",
            "::9090",
            "::1:80",
            "1.2.3.4",
            "[::1]",
            "localhost:9090",
            "127.0.0.1:",
            "127.0.0.1:+80",
            "127.0.0.1:65536",
        ];
        for text in refused {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlapping_addresses_are_found() {
        for (one, two, expected) in [
            ("9090", "9090", true),
            ("9090", "[::]:9090", true),
            ("9090", "127.0.0.1:9090", true),
            ("[::]:9090", "0.0.0.0:9090", true),
            ("[::]:9090", "[::1]:9090", true),
            ("0.0.0.0:9090", "127.0.0.1:9090", true),
            ("127.0.0.1:9090", "[::ffff:127.0.0.1]:9090", true),
            ("0.0.0.0:9090", "[::1]:9090", false),
            ("127.0.0.1:9090", "127.0.0.2:9090", false),
            ("127.0.0.1:9090", "[::1]:9090", false),
            ("[fe80::1%2]:9090", "[fe80::1%3]:9090", false),
            ("9090", "9091", false),
            ("0", "0", false),
        ] {
            let [one, two]: [Listen; 2] = [one, two].map(|text| text.parse().unwrap());
            assert_eq!(one.overlaps(&two), expected, "{one:?} {two:?}");
            assert_eq!(two.overlaps(&one), expected, "{two:?} {one:?}");
        }
    }
}
