//! The log on stderr: a stderr that takes no bytes stops nothing.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use crate::support::{KillOnDrop, livelet, probe, send, terminal, wait_for, wait_until_listening};

/// Returns the command of a livelet that logs several lines for each request.
fn verbose() -> Command {
    let mut command = livelet();
    command
        .args(["--listen", "127.0.0.1:0", "--verbose"])
        .stdout(Stdio::null());
    command
}

/// Probes until the log is larger than any stderr holds, then stops livelet.
fn assert_not_held(mut livelet: KillOnDrop, case: &str) {
    let addr = wait_until_listening(livelet.0.id());
    for _ in 0..4000 {
        assert_eq!(probe(addr, "/livez").status, 200, "{case}");
    }
    send(livelet.0.id(), "TERM");
    assert_eq!(wait(&mut livelet.0), Some(0), "{case}");
}

fn wait(child: &mut Child) -> Option<i32> {
    let mut status = None;
    wait_for("its end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

#[test]
fn an_unread_stderr_terminal_does_not_block_livelet() {
    let (emulator, line) = terminal();
    let livelet = KillOnDrop(verbose().stderr(line).spawn().unwrap());
    assert_not_held(livelet, "not read");
    // Lines may be missing or cut, and none begins within another one.
    let mut lines = 0;
    for line in BufReader::new(emulator).lines().map_while(Result::ok) {
        assert!(
            "livelet: ".starts_with(&line) || line.starts_with("livelet: "),
            "{line:?}"
        );
        assert_eq!(line.matches("livelet: ").count().max(1), 1, "{line:?}");
        lines += 1;
    }
    assert!(lines > 100, "{lines} lines");
}

#[test]
fn an_unread_stderr_pipe_or_socket_does_not_block_livelet() {
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    let livelet = KillOnDrop(verbose().stderr(writer).spawn().unwrap());
    assert_not_held(livelet, "pipe");
    let (_reader, writer) = UnixStream::pair().unwrap();
    let writer = std::os::fd::OwnedFd::from(writer);
    let livelet = KillOnDrop(verbose().stderr(writer).spawn().unwrap());
    assert_not_held(livelet, "socket");
}

/// O_NONBLOCK is a flag of the open file description, which livelet shares with the worker and the
/// shell.
#[test]
fn the_file_status_flags_of_stderr_are_not_changed() {
    let (_emulator, line) = terminal();
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    for stderr in [std::os::fd::OwnedFd::from(line), writer] {
        let before = rustix::fs::fcntl_getfl(&stderr).unwrap();
        let shared = stderr.try_clone().unwrap();
        let mut livelet = KillOnDrop(verbose().stderr(stderr).spawn().unwrap());
        let addr = wait_until_listening(livelet.0.id());
        assert_eq!(probe(addr, "/livez").status, 200);
        assert_eq!(rustix::fs::fcntl_getfl(&shared).unwrap(), before);
        send(livelet.0.id(), "TERM");
        assert_eq!(wait(&mut livelet.0), Some(0));
    }
}
