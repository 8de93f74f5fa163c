"""Inits around a command: their costs in time and in memory."""

import collections
import contextlib
import os
import pathlib
import random
import signal
import statistics
import time

from . import kernel
from .peers import CLIENT, DEADLINE, HOST, SERVER, Failure, redirections

ARGUMENTS = {
    "livelet": ["-q", "--listen", f"{HOST}:0", "--"],
    "tini": ["-s", "--"],
    "tini-static": ["-s", "--"],
    "dumb-init": ["--"],
    "catatonit": ["--"],
}


def overheads(binaries, kinds, rounds):
    """Milliseconds for the life of `true` alone, and what each init adds to it.

    From before posix_spawn of `INIT -- true` to its end: medians of the rounds, in an order that changes. livelet binds
    a port meanwhile, serves it and drains it. All of it on one CPU, this process's own aside.
    """
    times = collections.defaultdict(list)
    for _ in range(rounds):
        for kind in random.sample(["bare", *kinds], len(kinds) + 1):
            times[kind].append(command_life(kind, binaries))
    bare = statistics.median(times["bare"])
    return bare, {kind: statistics.median(times[kind]) - bare for kind in kinds}


def command_life(kind, binaries):
    began = time.perf_counter()
    pid = spawn_under(kind, binaries, ["/bin/true"])
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter() - began) * 1e3
    if status != 0:
        raise Failure(f"{kind}: status {status} for `true`")
    return took


def memory(kind, binaries):
    """Returns the fields of /proc/PID/status of an init around `sleep`, once it is idle."""
    pid = spawn_under(kind, binaries, ["/bin/sleep", "1000"])
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
        deadline = time.monotonic() + DEADLINE
        while "sleep" not in [command_of(child) for child in children.read_text().split()]:
            if time.monotonic() > deadline:
                raise Failure(f"{kind}: does not start its command")
            time.sleep(0.001)
        # The init may use more memory after the start of its command.
        fields = {"VmRSS": -1}
        while fields["VmRSS"] != (fields := kernel.status_fields(pid))["VmRSS"]:
            time.sleep(0.02)
        return fields
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def command_of(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()


def spawn_under(kind, binaries, command):
    if kind != "bare":
        command = [binaries[kind], *ARGUMENTS[kind], *command]
    os.sched_setaffinity(0, SERVER)  # the child inherits it
    try:
        return os.posix_spawn(command[0], command, {"PATH": os.environ["PATH"]}, file_actions=redirections())
    finally:
        os.sched_setaffinity(0, CLIENT)
