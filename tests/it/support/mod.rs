//! Runs the real binary for a test and ends it with the test.

mod test;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

pub(crate) use test::{command, scratch, scratch_directory};

/// Time limit for something that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Time for what happens at once, less than any deadline of livelet's that would make it happen
/// later.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(4);

/// Returns the path of the binary under test: `LIVELET_BIN` if it is set (another build of the same
/// program), else cargo's own.
pub(crate) fn binary() -> String {
    std::env::var("LIVELET_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_livelet").to_string())
}

/// Returns a command for the binary, without variables of the developer's shell that could change
/// the outcome.
pub(crate) fn livelet() -> Command {
    command(binary())
}

/// A running livelet; killed when dropped.
pub(crate) struct Livelet {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Addresses on which the process listens, one for each ready line.
    pub(crate) addrs: Vec<SocketAddr>,
    /// Origin of each address, as its ready line shows it.
    pub(crate) origins: Vec<String>,
    /// Other lines that were read.
    pub(crate) said: String,
}

impl Livelet {
    /// Starts on a free port of 127.0.0.1 with further arguments.
    pub(crate) fn start(args: &[&str]) -> Livelet {
        Livelet::start_on(&["127.0.0.1:0"], args)
    }

    /// Starts on the given `--listen` values and waits for a ready line for each.
    pub(crate) fn start_on(listen: &[&str], args: &[&str]) -> Livelet {
        let mut command = livelet();
        for addr in listen {
            command.args(["--listen", addr]);
        }
        // A busy machine may take longer than the default of 800 ms for a check.
        command.env("LIVELET_CHECK_TIMEOUT", "20s");
        Livelet::start_command(command.args(args), listen.len())
    }

    /// Starts a prepared command and waits for `lines` ready lines, the first that it says.
    pub(crate) fn start_command(command: &mut Command, lines: usize) -> Livelet {
        let mut livelet = Livelet::spawn(command);
        livelet.wait_until_ready(lines);
        assert_eq!(livelet.said, "", "{command:?}: said before it was ready");
        livelet
    }

    /// Starts a prepared command and waits for nothing.
    pub(crate) fn spawn(command: &mut Command) -> Livelet {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Livelet {
            child,
            stderr,
            addrs: Vec::new(),
            origins: Vec::new(),
            said: String::new(),
        }
    }

    /// Reads up to the `lines`th ready line.
    pub(crate) fn wait_until_ready(&mut self, lines: usize) {
        while self.addrs.len() < lines {
            let line = self.read_line();
            let Some(url) = line.strip_prefix("livelet: listening on http://") else {
                self.said.push_str(&line);
                continue;
            };
            let (addr, origin) = url
                .trim_end()
                .split_once(' ')
                .unwrap_or((url.trim_end(), ""));
            self.addrs.push(addr.parse().unwrap());
            self.origins.push(origin.to_string());
        }
    }

    /// Reads up to a line that holds this.
    pub(crate) fn wait_until_said(&mut self, part: &str) {
        loop {
            let line = self.read_line();
            self.said.push_str(&line);
            if line.contains(part) {
                return;
            }
        }
    }

    fn read_line(&mut self) -> String {
        if self.stderr.buffer().is_empty() {
            let mut polled = [PollFd::new(self.stderr.get_ref(), PollFlags::IN)];
            let limit = Timespec::try_from(2 * SOON).unwrap();
            let ready = uninterrupted(|| Ok(poll(&mut polled, Some(&limit))?)).unwrap();
            assert_eq!(ready, 1, "nothing more is said after {:?}", self.said);
        }
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        assert_ne!(line, "", "its stderr has ended after {:?}", self.said);
        line
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the first address that livelet listens on.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// Opens a connection to livelet, on which a read fails after [`SOON`].
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.addr())
    }

    /// Sends a signal by its name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        send(self.pid(), name);
    }

    /// Waits for the end of the process and returns how it ended.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "livelet still runs after {limit:?}; {}",
                state_of(self.pid())
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Closes the reading end of its stderr.
    pub(crate) fn close_stderr(&mut self) {
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        self.stderr = BufReader::new(ChildStderr::from(null));
    }

    /// Returns `true` if the process still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Returns the lines on stderr after the ready lines. Valid once the process has ended.
    pub(crate) fn log(&mut self) -> String {
        let mut log = String::new();
        self.stderr.read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Livelet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a connection on which a read fails after [`SOON`].
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Returns all bytes up to the end of the stream.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// One response.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// Returns the value of a header field. Returns `None` unless the field is there exactly once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.head.lines().skip(1).filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        });
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice in {:?}", self.head);
        value
    }
}

/// Repeats a call while a signal interrupts it. With a timeout set, an ignored signal interrupts
/// too, and so does a machine that stands still for a moment (signal(7)).
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Reads one response whose request was not HEAD, and no byte more.
pub(crate) fn read_response(stream: &mut TcpStream) -> Response {
    let response = read_head(stream);
    let length = response.field("content-length").unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Response {
        body: String::from_utf8(body).unwrap(),
        ..response
    }
}

/// Reads the head of one response, and no byte more.
pub(crate) fn read_head(stream: &mut TcpStream) -> Response {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let n = uninterrupted(|| stream.read(&mut byte)).unwrap();
        assert_eq!(
            n,
            1,
            "the stream ended in a head: {:?}",
            String::from_utf8_lossy(&head)
        );
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .unwrap()
        .parse()
        .unwrap();
    Response {
        status,
        head,
        body: String::new(),
    }
}

/// Splits what came back on a connection into its responses (none of them to HEAD).
pub(crate) fn split_responses(mut text: &str) -> Vec<Response> {
    let mut responses = Vec::new();
    while !text.is_empty() {
        let end = text.find("\r\n\r\n").expect("a whole head") + 4;
        let (head, rest) = text.split_at(end);
        let mut response = Response {
            status: head[9..12].parse().unwrap(),
            head: head.to_string(),
            body: String::new(),
        };
        let length = response.field("content-length").unwrap_or("0");
        let (body, rest) = rest.split_at(length.parse().unwrap());
        response.body = body.to_string();
        responses.push(response);
        text = rest;
    }
    responses
}

impl Livelet {
    /// Stops it with SIGSTOP, and returns once it stands still.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        wait_for("the process to stand still", || {
            proc_stat(self.pid()).first().is_some_and(|s| s == "T")
        });
    }

    /// Waits for the end of the process and returns its exit code and the time from now to then.
    pub(crate) fn wait_timed(&mut self, from: Instant) -> (Option<i32>, Duration) {
        let status = self.wait(SOON);
        (status.code(), from.elapsed())
    }
}

/// A child process that is killed when dropped.
pub(crate) struct KillOnDrop(pub(crate) Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the state of a process, its signals and its present system call (proc(5)).
fn state_of(pid: u32) -> String {
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let status = read("status");
    let lines = status.lines().filter(|line| {
        ["State", "Sig", "ShdPnd", "TracerPid"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    let lines: Vec<&str> = lines.collect();
    format!("{}; system call {}", lines.join(", "), read("syscall"))
}

/// Runs a command that ends by itself, and returns what it wrote; one that has not ended by then is
/// killed.
pub(crate) fn finish(command: &mut Command, limit: Duration) -> std::process::Output {
    let deadline = Instant::now() + limit;
    let mut child = KillOnDrop(
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let status = loop {
        if let Some(status) = child.0.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= deadline {
            let state = state_of(child.0.id());
            let _ = child.0.kill();
            let mut stderr = String::new();
            let mut pipe = child.0.stderr.take().unwrap();
            pipe.read_to_string(&mut stderr).unwrap();
            panic!("{command:?} still runs after {limit:?}; its stderr: {stderr:?}; {state}");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut pipe = child.0.stdout.take().unwrap();
    pipe.read_to_end(&mut stdout).unwrap();
    let mut pipe = child.0.stderr.take().unwrap();
    pipe.read_to_end(&mut stderr).unwrap();
    std::process::Output {
        status,
        stdout,
        stderr,
    }
}

/// Polls until `condition` holds; fails after [`SOON`]. The pauses grow, because a look at
/// /proc/net/tcp takes milliseconds of a processor that the awaited process needs.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    let mut pause = Duration::from_millis(1);
    while !condition() {
        assert!(Instant::now() < deadline, "waited {SOON:?} for {what}");
        std::thread::sleep(pause);
        pause = Duration::from_millis(16).min(pause * 2);
    }
}

/// Closes a socket in every process: a child that another test forks has a copy until it executes
/// its program.
pub(crate) fn close_everywhere(socket: impl Into<OwnedFd>) {
    shutdown(socket.into(), Shutdown::Both).unwrap();
}

/// Returns `true` if the loopback address of IPv6 can be bound.
pub(crate) fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// Opens a terminal. Returns the emulator's end, which `docker run -t` has too, and the program's
/// end.
pub(crate) fn terminal() -> (File, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let emulator = openpt(flags).unwrap();
    grantpt(&emulator).unwrap();
    unlockpt(&emulator).unwrap();
    let path = ptsname(&emulator, Vec::new()).unwrap();
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC);
    (
        emulator.into(),
        options.open(path.to_str().unwrap()).unwrap(),
    )
}

/// Returns the fields of /proc/PID/stat from the state on (proc(5)): utime and stime are at 11 and
/// 12.
pub(crate) fn proc_stat(pid: u32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().map(String::from).collect()
}

/// One row of /proc/net/tcp.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Socket {
    pub(crate) local: SocketAddr,
    pub(crate) state: u8,
    /// 0 until the connection was accepted, and again when no process holds it.
    pub(crate) inode: u64,
}

impl Socket {
    pub(crate) const ESTABLISHED: u8 = 0x01;
    pub(crate) const TIME_WAIT: u8 = 0x06;
    pub(crate) const LISTEN: u8 = 0x0a;

    fn parse(row: &str) -> Socket {
        let hex = |digits: &str| u32::from_str_radix(digits, 16).unwrap();
        let fields: Vec<&str> = row.split_whitespace().collect();
        let (local_ip, local_port) = fields[1].split_once(':').unwrap();
        // The address is printed as the number that its bytes in network order are on this machine.
        let local_ip = std::net::IpAddr::from(hex(local_ip).to_ne_bytes());
        Socket {
            local: SocketAddr::new(local_ip, u16::from_str_radix(local_port, 16).unwrap()),
            state: u8::from_str_radix(fields[3], 16).unwrap(),
            inode: fields[9].parse().unwrap(),
        }
    }
}

/// Returns the kernel's sockets with this local IPv4 address.
pub(crate) fn sockets_at(addr: SocketAddr) -> Vec<Socket> {
    let port = format!(":{:04X} ", addr.port());
    // One read for thousands of rows: the kernel looks for its place in the table at each.
    let mut table = String::with_capacity(1 << 20);
    let mut file = File::open("/proc/net/tcp").unwrap();
    file.read_to_string(&mut table).unwrap();
    // A busy machine has 100,000 rows: only those that may match are parsed.
    let rows = table.lines().skip(1).filter(|row| row.contains(&port));
    rows.map(Socket::parse)
        .filter(|socket| socket.local == addr)
        .collect()
}

/// Returns the kernel's listening IPv4 sockets.
fn listening_sockets() -> Vec<Socket> {
    let table = std::fs::File::open("/proc/net/tcp").unwrap();
    let rows = BufReader::new(table).lines().skip(1);
    // The listening sockets are the first rows.
    rows.map(|row| Socket::parse(&row.unwrap()))
        .take_while(|socket| socket.state == Socket::LISTEN)
        .collect()
}

/// Returns the IPv4 address on which a process listens, once it does. Works without a ready line.
pub(crate) fn wait_until_listening(pid: u32) -> SocketAddr {
    let mut found = None;
    wait_for("the process to listen", || {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let held: Vec<_> = descriptors
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .collect();
        found = listening_sockets().into_iter().find(|socket| {
            let name = format!("socket:[{}]", socket.inode);
            held.iter().any(|link| link.as_os_str() == name.as_str())
        });
        found.is_some()
    });
    found.unwrap().local
}

/// Waits until livelet has accepted and read all that this test has sent to `addr`, if no other
/// client connects meanwhile. livelet then handles events in their order, and answers this probe
/// last.
pub(crate) fn wait_until_read(addr: SocketAddr) {
    probe(addr, "/livez");
}

/// Waits until a new connection is told that livelet stops: the drain has begun.
pub(crate) fn wait_until_draining(addr: SocketAddr) {
    wait_for("/readyz to fail", || probe(addr, "/readyz").status == 503);
}

/// Asks once on a connection of its own, `Connection: close`, and leaves the closing to the server.
pub(crate) fn probe(addr: SocketAddr, path: &str) -> Response {
    let mut stream = connect(addr);
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let response = read_response(&mut stream);
    assert_eq!(read_to_end(&mut stream), "", "bytes after the answer");
    response
}

/// Asserts that the other side closes the connection at once, without a byte more.
pub(crate) fn assert_closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(AT_ONCE)).unwrap();
    let mut bytes = [0; 512];
    let read = uninterrupted(|| stream.read(&mut bytes));
    let text = String::from_utf8_lossy(&bytes[..*read.as_ref().unwrap_or(&0)]);
    assert!(
        matches!(read, Ok(0)),
        "not the end of the stream: {read:?}: {text}"
    );
}

/// Returns the processes that /proc lists.
fn pids() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Returns the descendants of a process, parents first, with zombies.
pub(crate) fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = pids()
        .filter_map(|pid| {
            let pid = pid.as_raw_pid().unsigned_abs();
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (_, fields) = stat.rsplit_once(')')?;
            Some((pid, fields.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(&current) = found.get(next) {
        let children = parents.iter().filter(|(_, parent)| *parent == current);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// Waits until livelet has started its worker, and returns the worker's process id.
pub(crate) fn worker_of(livelet: u32) -> u32 {
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let mut worker = None;
    wait_for("the worker to run", || {
        // Before exec(3) the child is livelet's own program.
        worker = descendants(livelet).first().copied();
        worker.is_some_and(|pid| program(pid).is_some_and(|exe| Some(exe) != program(livelet)))
    });
    worker.unwrap()
}

/// Returns `true` if a process runs, and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Sends a signal to a process, by its name or number.
pub(crate) fn send(pid: u32, signal: &str) {
    let target = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    match named(signal) {
        Some(signal) => kill_process(target, signal).unwrap(),
        None => send_by_shell(&pid.to_string(), signal),
    }
}

/// Sends a signal to a process group, by its name or number.
pub(crate) fn send_to_group(leader: u32, signal: &str) {
    let target = Pid::from_raw(leader.try_into().unwrap()).unwrap();
    match named(signal) {
        Some(signal) => kill_process_group(target, signal).unwrap(),
        None => send_by_shell(&format!("-{leader}"), signal),
    }
}

/// Sends a signal by the shell's own kill, because rustix sends no real-time signals.
fn send_by_shell(target: &str, signal: &str) {
    let kill = Command::new("sh")
        .args(["-c", r#"kill -s "$1" -- "$2""#, "sh", signal, target])
        .status();
    assert!(kill.unwrap().success());
}

fn named(signal: &str) -> Option<Signal> {
    Some(match signal {
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "KILL" => Signal::KILL,
        "QUIT" => Signal::QUIT,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        _ => return None,
    })
}
