"""Shared parts of the scripts in tests/system, tests/packages and tests/bench.

They start and end a livelet, probe it, read what it uses from /proc, and run checks. The binary is the one that
`packaging/build-static` makes; LIVELET_BIN names another one.
"""

import argparse
import ctypes
import errno
import fcntl
import os
import pathlib
import platform
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
STATIC = ROOT / f"target/static/{platform.machine()}-unknown-linux-musl/release/livelet"
LIVELET = os.path.abspath(os.environ.get("LIVELET_BIN", STATIC))
# Seconds for anything that should happen at once, or within a few seconds, on a machine that is busy with other things.
SOON = 60
CLONE_NEWNET = 0x40000000  # sched.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 1  # netdevice(7)


def reset_signals():
    """Gives signals that are inherited as ignored or blocked their default, for what the scripts start.

    nohup ignores HUP. A shell without job control ignores INT and QUIT of what it starts with `&`.
    """
    own = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores them itself, and resets them for its children
    for number in signal.Signals:
        if number not in own and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


reset_signals()


def environment(**more):
    """Returns the environment without variables that configure livelet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIVELET_")}
    return kept | more


def until(holds, what, within=SOON):
    """Waits until `holds` returns a true value, and returns it."""
    deadline = time.monotonic() + within
    while not (value := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {within} s")
        time.sleep(0.002)
    return value


def equal(what, actual, expected):
    """Raises an AssertionError that names `what` unless both values are equal."""
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r}, not {expected!r}")


class Livelet:
    """A livelet, killed at the end of the block."""

    def __init__(self, *args, listen="127.0.0.1:0", command=(), prefix=(), binary=None, env=None, **popen):
        self.log = tempfile.TemporaryFile()
        words = [*prefix, binary or LIVELET, "-l", listen, *args, *(["--", *command] if command else [])]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": self.log} | popen
        self.process = subprocess.Popen(words, env=environment() if env is None else env, **options)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def said(self):
        return os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")

    def has_ended(self):
        return self.process.poll() is not None

    def ready(self, within=SOON):
        """Returns the address once livelet listens, or None if it has ended."""

        def look():
            ended = self.has_ended()
            found = re.search(r"^livelet: listening on http://(\S+):(\d+)", self.said(), re.MULTILINE)
            return ((found[1].strip("[]"), int(found[2])),) if found else (None,) if ended else None

        return until(look, "the ready line", within)[0]

    def address(self):
        address = self.ready()
        assert address, f"livelet has ended with {self.process.returncode}: {self.said()}"
        return address

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self, within=SOON):
        """Returns the exit code, negative for a signal."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {within} s: {self.said()}") from None

    def stop(self, within=SOON):
        self.signal(signal.SIGTERM)
        return self.wait(within)


def request(path="/livez", close=True):
    connection = "Connection: close\r\n" if close else ""
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n{connection}\r\n".encode()


def probe(address, path="/livez", timeout=1.0, source=None, connect_timeout=SOON):
    """Probes on a new connection. Returns the status and the body. Raises OSError if no answer comes within the timeout.

    The timeout counts from the connection, which the kernel makes without livelet. If the kernel loses a packet of the
    handshake, it sends the packet again only after a second.
    """
    with socket.create_connection(address, connect_timeout, source_address=source and (source, 0)) as client:
        deadline = time.monotonic() + timeout
        client.sendall(request(path))
        answer = b""
        while True:
            client.settimeout(max(deadline - time.monotonic(), 0.001))
            part = client.recv(65536)
            if not part:
                break
            answer += part
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    if not found:
        raise ConnectionError(f"no answer but {answer!r}")
    return int(found[1]), answer.partition(b"\r\n\r\n")[2].decode()


def answers(address, path="/livez", status=200, **more):
    """Returns True if a probe gets this status now."""
    try:
        return probe(address, path, **more)[0] == status
    except OSError:
        return False


def free_port():
    """Returns a port that was free a moment ago, below the ephemeral ports."""
    while True:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", random.randrange(12000, 30000)))
                return tried.getsockname()[1]
            except OSError:
                pass


def use_own_network():
    """Moves this process into a network namespace of its own that has only loopback, and returns True if it may.

    podman and docker switch on the machine's connection tracking. The table keeps each connection for up to two
    minutes after its end. While the table is full, the kernel drops new connections (nf_conntrack_max).
    """
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        if ctypes.get_errno() == errno.EPERM:
            return False
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    return True


def memory(pid):
    """Returns the resident memory in KiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def cpu(pid):
    """Returns the user and system time in seconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def state(pid):
    """Returns the state of a process: R, S, T, Z. Empty if the process has gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def most_calls_in_a_turn(trace, pid):
    """Returns the most system calls of the main thread between two waits, in a file that `strace -f` wrote."""
    most = made = 0
    with open(trace, errors="replace") as lines:
        for line in lines:
            if line.startswith(f"{pid} "):
                made = 0 if " epoll_" in line else made + 1
                most = max(most, made)
    return most


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


CHECKS = []


def check(function):
    """Registers a check. It passes unless it raises. Its result is shown beside its name."""
    CHECKS.append(function)
    return function


def arguments(doc):
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only checks whose name holds one of these")
    return parser


def passes(function):
    """Runs one check and prints its verdict. Returns True if it passed."""
    try:
        note = function()
    except Exception as error:
        print(f"FAIL {function.__name__}", flush=True)
        shown = str(error) if isinstance(error, AssertionError) and str(error) else traceback.format_exc()
        print("\n".join(f"     {line}" for line in shown.rstrip().splitlines()), flush=True)
        return False
    print(f"PASS {function.__name__}{f': {note}' if note else ''}", flush=True)
    return True


def all_pass(names=()):
    """Runs the checks in their order and prints how many passed. Returns True if all did."""
    if not os.access(LIVELET, os.X_OK):
        sys.exit(f"{LIVELET}: not found: packaging/build-static makes it, LIVELET_BIN names another one")
    chosen = [function for function in CHECKS if not names or any(name in function.__name__ for name in names)]
    verdicts = [passes(function) for function in chosen]
    print(f"{sum(verdicts)} passed, {len(verdicts) - sum(verdicts)} failed")
    return all(verdicts)


def run_checks(names=()):
    """Runs the checks, and ends the script with exit code 0 if all passed."""
    sys.exit(not all_pass(names))
