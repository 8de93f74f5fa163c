//! Finds the socket that uses an address, and its process, in /proc (proc(5)).

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::worker;

/// Maximum length in bytes of a command line that a message shows. A longer one would leave no
/// space in the log line for the hint after it.
const MAX_COMMAND: usize = 256;

/// Returns the command line of the process `pid` as [`shown`] formats it. Returns the name of the
/// process if the command line is empty, and `?` if the process has ended.
pub(super) fn command(pid: i32) -> String {
    let read = |file| {
        // One byte more than is shown tells if anything is cut off, another one is for the last
        // NUL.
        let mut buffer = [0; MAX_COMMAND + 2];
        let file = File::open(format!("/proc/{pid}/{file}"));
        // A process that has ended has no command line.
        let count = file.and_then(|mut file| file.read(&mut buffer));
        shown(buffer.get(..count.unwrap_or_default()).unwrap_or_default())
    };
    let found = [read("cmdline"), read("comm")];
    let named = found.into_iter().find(|command| !command.is_empty());
    named.unwrap_or_else(|| "?".to_string())
}

/// Returns the arguments in `bytes`, the beginning of /proc/PID/cmdline, with spaces between them.
/// Cuts them off after [`MAX_COMMAND`] bytes.
fn shown(bytes: &[u8]) -> String {
    let last = bytes.iter().rposition(|byte| !b"\0\n".contains(byte));
    let end = last.map_or(0, |last| last + 1);
    let cut = if end > MAX_COMMAND { "..." } else { "" };
    let kept = bytes.get(..end.min(MAX_COMMAND)).unwrap_or_default();
    String::from_utf8_lossy(kept).replace('\0', " ") + cut
}

/// A TCP socket that uses a local address: it listens on the address, or is a connection with the
/// address at its own end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HoldingSocket {
    pub(super) address: SocketAddr,
    /// Address at the other end of the connection. `None` if the socket listens.
    pub(super) peer: Option<SocketAddr>,
    pub(super) uid: u32,
    /// Inode number of the socket in /proc. 0 if no process has the socket open.
    pub(super) inode: u64,
}

/// A process that has a certain socket open, and the command line of the process.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) pid: i32,
    pub(super) command: String,
}

/// Returns the socket that uses `address`. Prefers a listening socket to a connection: the local
/// port of a connection may be the same by chance (ip(7), ip_local_port_range). Returns `None` if
/// /proc shows no such socket.
pub(super) fn holding_socket(address: SocketAddr) -> Option<HoldingSocket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let sockets = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(parse_row);
    let overlaps = |held: &HoldingSocket| {
        let (held, wanted) = (
            held.address.ip().to_canonical(),
            address.ip().to_canonical(),
        );
        held == wanted || held.is_unspecified() || wanted.is_unspecified()
    };
    sockets
        .filter(|held| held.address.port() == address.port() && overlaps(held))
        .max_by_key(|held| {
            (
                held.peer.is_none(),
                held.address == address,
                held.inode != 0,
            )
        })
}

/// Parses a row of /proc/net/tcp or /proc/net/tcp6. Returns `None` for the title row, and for a
/// socket in a state that does not block the address.
fn parse_row(row: &str) -> Option<HoldingSocket> {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let mut fields = row.split_ascii_whitespace();
    let address = parse_address(fields.nth(1)?, u32::to_ne_bytes)?;
    let peer = parse_address(fields.next()?, u32::to_ne_bytes)?;
    let state = fields.next()?;
    if state == TIME_WAIT {
        return None;
    }
    Some(HoldingSocket {
        address,
        peer: (state != LISTEN).then_some(peer),
        uid: fields.nth(3)?.parse().ok()?,
        inode: fields.nth(1)?.parse().ok()?,
    })
}

/// Parses an address and a port in hexadecimal digits, such as `0100007F:1F90` in /proc/net/tcp.
/// The kernel stores an address in network order. It reads each 32 bits as a number in the
/// machine's byte order, and prints this number. `bytes` turns the number back into the stored
/// bytes.
fn parse_address(text: &str, bytes: fn(u32) -> [u8; 4]) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(bytes(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?));
    let ip = if ip.len() == 8 {
        IpAddr::from(word(0)?)
    } else {
        let words = [word(0)?, word(8)?, word(16)?, word(24)?];
        let bits = words.iter().fold(0, |bits, word| {
            bits << 32 | u128::from(u32::from_be_bytes(*word))
        });
        Ipv6Addr::from_bits(bits).into()
    };
    Some(SocketAddr::new(ip, port))
}

/// Returns a process that has `socket` open. Root can find every such process, other users only
/// their own. Returns `None` if no process is found.
pub(super) fn owner(socket: HoldingSocket) -> Option<Owner> {
    let link = format!("socket:[{}]", socket.inode);
    let has_it = |pid: &i32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
        })
    };
    let owners = worker::pids().ok()?.into_iter().filter(has_it);
    let pid = owners.min_by_key(|&pid| worker::start_time(pid).unwrap_or(u64::MAX))?;
    Some(Owner {
        pid,
        command: command(pid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_long_command_line_is_cut_off_and_nul_bytes_at_its_end_do_not_count() {
        let whole = "x".repeat(MAX_COMMAND);
        let cut = format!("{whole}...");
        let padded = |text: &str| [text.as_bytes(), &[0; 2 * MAX_COMMAND]].concat();
        let cases = [
            (padded(""), ""),
            (padded("node"), "node"),
            (b"sleep\x00100\0".to_vec(), "sleep 100"),
            (format!("{whole}\0").into_bytes(), &whole),
            (format!("{whole}\0y").into_bytes(), &cut),
        ];
        for (bytes, text) in cases {
            assert_eq!(shown(&bytes), text);
        }
    }

    #[test]
    fn finds_a_listening_socket_and_its_process() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            let socket = holding_socket(address).unwrap();
            assert_eq!((socket.address, socket.peer), (address, None));
            assert_eq!(
                owner(socket).map(|owner| owner.pid),
                Some(std::process::id() as i32)
            );
            drop(listener);
            // A child that another test is just starting has it open until it executes its program.
            while holding_socket(address).is_some() {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_connection_holds_its_local_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = holding_socket(client.local_addr().unwrap()).unwrap();
        assert_eq!(socket.peer, Some(listener.local_addr().unwrap()));
        assert_eq!(owner(socket).unwrap().pid, std::process::id() as i32);
    }

    #[test]
    fn parses_rows_of_proc_net_tcp() {
        let row = "  1: 0100007F:1F90 0100007F:A2B4 01 00000000:00000000 00:00000000 00000000  1000  0 77 1 0 20 4 30 10 -1";
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let connected = parse_row(row).unwrap();
        assert_eq!(connected.address, local(8080));
        assert_eq!(connected.peer, Some(local(41652)));
        assert_eq!((connected.uid, connected.inode), (1000, 77));
        let listens = row.replace(" 01 0000", " 0A 0000");
        assert_eq!(parse_row(&listens).unwrap().peer, None);
        let waits = row.replace(" 01 0000", " 06 0000");
        assert_eq!(parse_row(&waits), None);
        for cut in 0..60 {
            assert_eq!(parse_row(&listens[..cut]), None);
        }
    }

    #[test]
    fn parses_addresses_of_both_byte_orders() {
        let table = [
            ("127.0.0.1:8080", "0100007F:1F90", "7F000001:1F90"),
            ("10.1.2.3:1", "0302010A:0001", "0A010203:0001"),
            (
                "[2001:db8::1:2]:9090",
                "B80D0120000000000000000002000100:2382",
                "20010DB8000000000000000000010002:2382",
            ),
            (
                "[::ffff:192.0.2.1]:80",
                "0000000000000000FFFF0000010200C0:0050",
                "00000000000000000000FFFFC0000201:0050",
            ),
        ];
        for (address, little, big) in table {
            let address = Some(address.parse().unwrap());
            assert_eq!(parse_address(little, u32::to_le_bytes), address);
            assert_eq!(parse_address(big, u32::to_be_bytes), address);
        }
    }

    #[test]
    fn returns_the_command_line_of_a_process() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        // Its command line is not there before its program is.
        while command(pid) != "sleep 100" {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(command(pid), "?");
    }
}
