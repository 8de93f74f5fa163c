//! The process that listens on an address, from /proc (proc(5)).

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The command line of a process, its arguments separated by spaces; its name where it hides that, `?` where it is gone.
pub(crate) fn command(pid: i32) -> String {
    let read = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let text = |bytes: Vec<u8>| {
        String::from_utf8_lossy(&bytes)
            .trim_end_matches(['\0', '\n'])
            .replace('\0', " ")
    };
    let found = [text(read("cmdline")), text(read("comm"))];
    let named = found.into_iter().find(|command| !command.is_empty());
    named.unwrap_or_else(|| "?".to_string())
}

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) address: SocketAddr,
    pub(crate) uid: u32,
    pub(crate) inode: u64,
}

/// The socket whose listening keeps another one from this address.
pub(crate) fn listening_socket(address: SocketAddr) -> Option<Socket> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
        .map(|path| fs::read_to_string(path).unwrap_or_default());
    let sockets = tables
        .iter()
        .flat_map(|table| table.lines())
        .filter_map(listening);
    let overlaps = |held: &Socket| {
        let (held, wanted) = (held.address.ip(), address.ip());
        held == wanted || held.is_unspecified() || wanted.is_unspecified()
    };
    sockets
        .filter(|held| held.address.port() == address.port() && overlaps(held))
        .max_by_key(|held| held.address == address)
}

/// A row of /proc/net/tcp or tcp6, if its socket listens.
fn listening(row: &str) -> Option<Socket> {
    const LISTEN: &str = "0A";
    let mut fields = row.split_ascii_whitespace();
    let (ip, port) = fields.nth(1)?.split_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each 32 bits are printed as the number that their bytes, in network order, are on this machine.
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok();
    let ip = if ip.len() == 8 {
        IpAddr::from(word(0)?.to_ne_bytes())
    } else {
        let words = [word(0)?, word(8)?, word(16)?, word(24)?];
        let bits = words
            .iter()
            .fold(0, |bits, word| bits << 32 | u128::from(u32::from_be(*word)));
        Ipv6Addr::from_bits(bits).into()
    };
    Some(Socket {
        address: SocketAddr::new(ip, port),
        uid,
        inode,
    })
}

/// A process that has the socket open, where /proc shows that: one's own, or anybody's for root.
pub(crate) fn owner(inode: u64) -> Option<i32> {
    let link = format!("socket:[{inode}]");
    let has_it = |pid: &i32| {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == link.as_str())
        })
    };
    processes().find(has_it)
}

/// Returns the processes that /proc lists.
fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_listening_socket_and_its_owner() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            let socket = listening_socket(address).unwrap();
            assert_eq!(socket.address, address);
            assert_eq!(owner(socket.inode), Some(std::process::id() as i32));
            drop(listener);
            // A child that another test is just starting has it open until it executes its program.
            while listening_socket(address).is_some() {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn rows_of_other_states_are_no_listeners() {
        let row = "  1: 0100007F:1F90 0100007F:A2B4 01 00000000:00000000 00:00000000 00000000  1000  0 77 1 0 20 4 30 10 -1";
        assert_eq!(listening(row), None);
        let listens = row.replace(" 01 0000", " 0A 0000");
        let socket = listening(&listens).unwrap();
        assert_eq!(socket.address, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert_eq!((socket.uid, socket.inode), (1000, 77));
        for cut in 0..60 {
            assert_eq!(listening(&listens[..cut]), None);
        }
    }

    #[test]
    fn the_command_of_a_process() {
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
