"""Figures from the kernel: CPU time, memory, context switches, system calls."""

import collections
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import time

from .peers import DEADLINE, Failure


def cpu_ns(peer):
    """Returns the user and system time of all of the peer's threads, also of ended ones.

    The clock is what clock_getcpuclockid(3) returns for a process: nanoseconds, where /proc/PID/stat has ticks.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in peer.pids())


def status_fields(path):
    """Returns the numbers in /proc/PATH/status by their names."""
    text = pathlib.Path(f"/proc/{path}/status").read_text()
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE)}


def memory(peer, field):
    """VmRSS or RssAnon, summed over the peer's processes: what nginx's two share counts twice, as with every tool."""
    return sum(status_fields(pid)[field] for pid in peer.pids())


def thread_switches(peer):
    """Returns the context switches of each of the peer's threads so far, voluntary and not, by its name and id."""
    counts = {}
    for pid in peer.pids():
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may end meanwhile
                fields = status_fields(f"{pid}/task/{task}")
                name = pathlib.Path(f"/proc/{pid}/task/{task}/comm").read_text().strip()
                counts[name, task] = fields["voluntary_ctxt_switches"], fields["nonvoluntary_ctxt_switches"]
    return counts


def voluntary_switches(peer):
    """Returns how often threads of the peer have gone to sleep."""
    return sum(voluntary for voluntary, _ in thread_switches(peer).values())


def open_files(peer):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in peer.pids())


def settle(peer):
    """Waits until the peer has closed the last measurement's connections."""
    deadline = time.perf_counter() + DEADLINE
    while open_files(peer) > peer.idle_files:
        if time.perf_counter() > deadline:
            raise Failure(f"{peer.kind}: holds connections {DEADLINE} s after its clients have gone")
        time.sleep(0.01)


def trace(strace, peer, action):
    """Returns the system calls by name of all of the peer's threads while `action` runs."""
    summary = peer.log.with_name("strace")
    pids = peer.pids()
    command = [strace, "-f", "-c", "-o", str(summary)] + [f"--attach={pid}" for pid in pids]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            await_attached(tracer, len(pids))
            action()
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=DEADLINE)  # it says that it detaches before it writes the summary
    return parse_summary(summary.read_text())


def await_attached(tracer, count):
    for line in tracer.stderr:
        if "attached" not in line:
            raise Failure(line.strip())
        count -= 1
        if count == 0:
            return
    raise Failure("strace: ended before it had attached")


def parse_summary(text):
    """Returns the rows of `strace -c`: share, seconds, each, calls, failed (blank for none), name."""
    calls = collections.Counter()
    for row in map(str.split, text.splitlines()):
        if len(row) in (5, 6) and row[3].isdigit() and row[-1] != "total":
            calls[row[-1]] += int(row[3])
    return calls
