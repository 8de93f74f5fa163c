//! The listening sockets, made option by option.
//!
//! SO_REUSEADDR is always set: on Linux it lets a bind pass over connections in TIME_WAIT, and never over a socket that
//! listens (socket(7)), so a restart does not fail and two livelets do not share a port by accident.

mod inherited;
mod port_owner;
mod wait;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

pub(crate) use inherited::{Inherited, PassedOn, Sharing, take as take_inherited};
pub(crate) use wait::{Found, Wait, find};

/// How many connections the kernel may hold before they are accepted; it takes the lesser of this and
/// net.core.somaxconn (listen(2)).
const BACKLOG: i32 = 1024;

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Every address of the machine, IPv6 and IPv4 on one socket; IPv4 alone where there is no IPv6.
    Port(u16),
    /// This address; `[::]` takes IPv4 too.
    Address(SocketAddr),
}

impl Listen {
    /// The port; 0 takes a free one.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Listen::Port(port) => *port,
            Listen::Address(address) => address.port(),
        }
    }

    /// Whether one socket for each is one too many: the second could never be bound.
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
    type Err = ();

    /// `9090`, `:9090`, `127.0.0.1:9090` or `[::1]:9090`.
    fn from_str(text: &str) -> Result<Listen, ()> {
        let port = text.strip_prefix(':').unwrap_or(text);
        if port.bytes().all(|b| b.is_ascii_digit()) {
            return port.parse().map(Listen::Port).map_err(drop);
        }
        text.parse().map(Listen::Address).map_err(drop)
    }
}

/// Why an address could not be listened on.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    cause: io::Error,
    held_by: HeldBy,
}

/// Who listens on an address already.
#[derive(Debug)]
enum HeldBy {
    /// Not looked for, or /proc has nothing that listens there.
    Unknown,
    /// A livelet that serves.
    Livelet {
        pid: i32,
        command: String,
        seconds: u64,
    },
    /// Another program, or a livelet that could not be asked, and where it listens.
    Process {
        pid: i32,
        command: String,
        address: SocketAddr,
    },
    /// A process that /proc does not show, of this uid.
    User(u32),
}

impl ListenError {
    /// Somebody listens there already.
    fn is_held(&self) -> bool {
        Errno::from_io_error(&self.cause) == Some(Errno::ADDRINUSE)
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenError {
            address,
            cause,
            held_by,
        } = self;
        write!(f, "listen: {address}: ")?;
        match held_by {
            HeldBy::Livelet {
                pid,
                command,
                seconds,
            } => {
                return write!(
                    f,
                    "held by a healthy livelet, pid {pid} ({command}), for {seconds}s; --takeover replaces it"
                );
            }
            HeldBy::Process {
                pid,
                command,
                address: held,
            } => {
                write!(f, "held by pid {pid} ({command})")?;
                if held != address {
                    write!(f, ", which listens on {held}")?;
                }
            }
            HeldBy::User(uid) => {
                write!(f, "held by a process of uid {uid} that /proc does not show")?
            }
            HeldBy::Unknown if self.is_held() => {
                f.write_str("held by a process that /proc does not show")?;
            }
            HeldBy::Unknown => write!(f, "{cause}")?,
        }
        match Errno::from_io_error(cause) {
            Some(Errno::ADDRINUSE) => {
                f.write_str("; --bind-wait waits longer, --listen takes another address")
            }
            Some(Errno::ACCESS) => f.write_str("; ports under 1024 are for root; see --listen"),
            _ => f.write_str("; --listen takes another address"),
        }
    }
}

impl std::error::Error for ListenError {}

/// Binds and listens. With `reuse_port` other sockets that also set SO_REUSEPORT may share the port.
///
/// # Errors
/// What socket(2), bind(2) or listen(2) failed with, and the address.
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

/// A kernel without IPv6 has no such address family; some sandboxes have the family and no address in it.
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
        // The default is the machine's to choose (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit it, which saves a call for each: an answer never waits for the last one's ACK.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
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
            assert_eq!(text.parse::<Listen>(), Err(()), "{text}");
        }
    }

    #[test]
    fn overlaps() {
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
