"""The figures: how each is measured, and its target. A measurement adds values to the results of a round."""

import collections
import contextlib
import os
import random
import signal
import statistics
import time

from . import asking, inits, kernel
from .peers import CLIENT, DEADLINE, SERVER, Failure, place, progress, running

CONNECTIONS = 32
LOAD_SECONDS = 1  # bounds the sockets that a connection for each request leaves in TIME_WAIT
BATCHES, PROBES = 10, 50
TRACED_PROBES = 200
GAP = 0.002  # seconds between traced probes
HELD = 1000
PACES = {"probe-5ms": 0.005, "probe-100ms": 0.1}  # seconds from one probe of a server to its next
PACED_PROBES = 100
KEEPERS = ("livelet", "nginx", "node", "go")  # these have keep-alive
# busybox has a process for each connection. They end before their CPU time can be read.
PROBED = (*KEEPERS, "python")
INITS = ("livelet", "tini-static", "catatonit")
COMMANDS = 20  # run by each init in a round
IDLE_AFTER, IDLE_WINDOW = 20, 60  # seconds

Figure = collections.namedtuple("Figure", "name title digits target met", defaults=(None, None))


def against(peer, factor):
    return lambda medians: medians["livelet"] <= factor * medians[peer]


def at_most(limit):
    return lambda medians: medians["livelet"] <= limit


FIGURES = (
    Figure("size", "binary, bytes", 0, "≤ 283,232", at_most(283232)),
    Figure(
        "memory", "resident with a worker under it, KiB", 0, "≤ 400, < tini-static",
        lambda medians: medians["livelet"] <= 400 and medians["livelet"] < medians["tini-static"],
    ),
    Figure("alone", "resident as a server alone, KiB", 0),
    Figure("start", "exec to the first 200, ms", 2, "≤ 0.75 × busybox", against("busybox", 0.75)),
    Figure("probe", "CPU µs per probe on a new connection, one CPU", 1, "≤ 1.0 × nginx", against("nginx", 1)),
    Figure("probe-apart", "CPU µs per probe on a new connection, client on another CPU", 1, "≤ 1.0 × nginx", against("nginx", 1)),
    Figure("probe-5ms", "CPU µs per probe, one each 5 ms", 1, "≤ 1.0 × nginx", against("nginx", 1)),
    Figure("probe-100ms", "CPU µs per probe, one each 100 ms", 1, "≤ 1.0 × nginx", against("nginx", 1)),
    Figure("syscalls", "system calls per probe on a new connection", 2, "≤ 9", at_most(9)),
    Figure(
        "keep-alive", "requests/s, keep-alive, 32 connections", 0, "≥ 1.0 × nginx",
        lambda medians: medians["livelet"] >= medians["nginx"],
    ),
    Figure("keep-alive-cpu", "CPU µs per request, keep-alive", 2, "≤ 1.15 × nginx", against("nginx", 1.15)),
    Figure(
        "fresh", "requests/s, a connection each, 32 at once", 0, "≥ 1.0 × nginx",
        lambda medians: medians["livelet"] >= medians["nginx"],
    ),
    Figure("idle", f"context switches in {IDLE_WINDOW} s idle", 0, "0", at_most(0)),
    Figure(
        "held", f"own memory per idle connection, {HELD:,} of them, bytes", 0, "≤ 1.0 × nginx", against("nginx", 1)),
    Figure("entrypoint", "start-up over the bare command, ms", 2, "≤ 1.5 × tini-static", against("tini-static", 1.5)),
    Figure("stop", "TERM to exit, idle, ms", 2, "≤ 1", at_most(1)),
)


class Results:
    """Results of the rounds: lists of values by figure and peer, and the notes under the table."""

    def __init__(self):
        self.values = collections.defaultdict(lambda: collections.defaultdict(list))
        self.calls = collections.defaultdict(collections.Counter)
        self.waits = collections.defaultdict(list)
        self.spawn_ms = collections.defaultdict(list)
        self.bare_ms = []
        self.errors = collections.Counter()

    def add(self, figure, kind, value):
        self.values[figure][kind].append(value)

    def medians(self, figure):
        return {kind: statistics.median(values) for kind, values in self.values[figure].items()}


def measure_server(kind, binaries, scratch, results):
    """Measures one round of one server, which is started for it."""
    with running(kind, binaries, scratch) as peer:
        measure_start(peer, results)
        results.add("alone", kind, kernel.memory(peer, "VmRSS"))
        if kind in KEEPERS:
            measure_keep_alive(peer, binaries["wrk"], results)
        measure_fresh(peer, binaries["wrk"], results)
        measure_syscalls(peer, binaries["strace"], results)
        measure_stop(peer, results)
    if kind in KEEPERS:
        measure_held(kind, binaries, scratch, results)


def measure_start(peer, results):
    """Milliseconds from before posix_spawn to the end of the first whole 200.

    The clock starts before the spawn, the same call for all; how much of the figure that call is (it returns when
    the child has executed its program) is printed under the table. The client is on another CPU than the peer.
    """
    results.spawn_ms[peer.kind].append((peer.spawned - peer.started) * 1e3)
    results.add("start", peer.kind, (asking.first_answer(peer) - peer.started) * 1e3)
    peer.idle_files = kernel.open_files(peer)


def measure_probes(kinds, binaries, scratch, results):
    """CPU time for BATCHES of PROBES probes as the kubelet sends them, divided by their number.

    A new connection each, `Connection: close`, the next one when the last has been read to its end. Once with client
    and server on one CPU, where the request is always there when the server runs, and once on two, where it may not
    be. All servers are up at once and take turns, as the CPU itself is not equally fast from one second to the next.
    """
    spent = collections.Counter()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(running(kind, binaries, scratch)) for kind in kinds]
        for peer in peers:
            asking.first_answer(peer)
            asking.probes(peer, PROBES)
        for _ in range(BATCHES):
            for figure, client in (("probe", SERVER), ("probe-apart", CLIENT)):
                for peer in random.sample(peers, len(peers)):
                    place(peer, SERVER, client)
                    cpu = kernel.cpu_ns(peer)
                    asking.probes(peer, PROBES)
                    spent[figure, peer.kind] += kernel.cpu_ns(peer) - cpu
                    place(peer, SERVER)
        for figure, pace in PACES.items():
            measure_paced(figure, pace, peers, results)
    for (figure, kind), cpu in spent.items():
        results.add(figure, kind, cpu / 1e3 / (BATCHES * PROBES))


def measure_paced(figure, pace, peers, results):
    """CPU time per probe, the client on another CPU. The peers take turns, so that each has a probe each `pace` seconds."""
    before = {peer: kernel.cpu_ns(peer) for peer in peers}
    due = time.perf_counter()
    for _ in range(PACED_PROBES):
        for peer in random.sample(peers, len(peers)):
            due += pace / len(peers)
            time.sleep(max(due - time.perf_counter(), 0))
            asking.probes(peer, 1)
    for peer in peers:
        results.add(figure, peer.kind, (kernel.cpu_ns(peer) - before[peer]) / 1e3 / PACED_PROBES)


def measure_keep_alive(peer, wrk, results):
    """Requests/s that wrk gets from one thread and 32 connections, and the peer's CPU time over their number."""
    cpu = kernel.cpu_ns(peer)
    load = asking.run_wrk(wrk, peer, LOAD_SECONDS, CONNECTIONS)
    results.add("keep-alive", peer.kind, load.rate)
    results.add("keep-alive-cpu", peer.kind, (kernel.cpu_ns(peer) - cpu) / 1e3 / load.requests)
    results.errors[peer.kind] += load.errors


def measure_fresh(peer, wrk, results):
    """Requests/s with a connection each, 32 at once; on a port of its own, so that TIME_WAIT leaves ephemeral ports."""
    load = asking.run_wrk(wrk, peer, LOAD_SECONDS, CONNECTIONS, "-H", "Connection: close")
    results.add("fresh", peer.kind, load.rate)
    results.errors[peer.kind] += load.errors


def measure_syscalls(peer, strace, results):
    """System calls of all of the peer's threads for TRACED_PROBES fresh probes, divided by their number.

    strace slows the peer tenfold. Asked without a pause, the next connection would be there before it waits again, and
    the calls with which it waits would be missed: so there is a pause after each probe, in which it comes to rest, as
    it does between real ones. The other way round, a slow peer always finds the request there, where a quick one may
    have to wait for it. How often it really waits is counted without strace, the same probes with the same pause, and
    printed under the table: 1 means once for the connection and never for its request.

    Nothing is subtracted: the wait that strace interrupts when it attaches is in it, about one call in the whole.
    """
    kernel.settle(peer)
    if peer.kind in KEEPERS:
        waits = kernel.voluntary_switches(peer)
        asking.probes(peer, TRACED_PROBES, GAP)
        results.waits[peer.kind].append((kernel.voluntary_switches(peer) - waits) / TRACED_PROBES)
    calls = kernel.trace(strace, peer, lambda: asking.probes(peer, TRACED_PROBES, GAP))
    results.add("syscalls", peer.kind, sum(calls.values()) / TRACED_PROBES)
    results.calls[peer.kind].update(calls)


def measure_stop(peer, results):
    """Milliseconds from SIGTERM until the process can be reaped, without open connections."""
    kernel.settle(peer)
    began = time.perf_counter()
    os.kill(peer.pid, signal.SIGTERM)
    if not peer.wait(DEADLINE):
        raise Failure(f"{peer.kind}: still there {DEADLINE} s after TERM")
    results.add("stop", peer.kind, (time.perf_counter() - began) * 1e3)


def measure_held(kind, binaries, scratch, results):
    """Growth of RssAnon by HELD connections that have had an answer and are kept alive, divided by their number.

    nginx has allotted its connections at the start, so a part of its cost is not in it.
    """
    with running(kind, binaries, scratch, connections=2 * HELD) as peer:
        asking.first_answer(peer)
        asking.probes(peer, 10)
        before = kernel.memory(peer, "RssAnon")
        with asking.held(peer, HELD):
            results.add("held", kind, (kernel.memory(peer, "RssAnon") - before) * 1024 / HELD)


def measure_idle(binaries, scratch, results):
    """Context switches of every thread in IDLE_WINDOW seconds without a request.

    Measured once, all peers at a time, IDLE_AFTER seconds after the last of ten probes: a thread or timer that the
    probes left behind may end before. 0 is a process that never wakes up. livelet has a worker under it.
    """
    progress(f"idle, {IDLE_AFTER + IDLE_WINDOW} s")
    with contextlib.ExitStack() as stack:
        peers = []
        for kind in ("livelet", "nginx", "busybox", "node"):
            worker = ["--", "/bin/sleep", "1000"] if kind == "livelet" else []
            peer = stack.enter_context(running(kind, binaries, scratch, arguments=worker))
            asking.first_answer(peer)
            asking.probes(peer, 10)
            peers.append(peer)
        time.sleep(IDLE_AFTER)
        before = [switches(peer) for peer in peers]
        time.sleep(IDLE_WINDOW)
        for peer, earlier in zip(peers, before):
            results.add("idle", peer.kind, switches(peer) - earlier)


def switches(peer):
    return sum(map(sum, kernel.thread_switches(peer).values()))


def measure_inits(binaries, results):
    """What harness/inits.py says, for COMMANDS commands of each init."""
    bare, overheads = inits.overheads(binaries, INITS, COMMANDS)
    results.bare_ms.append(bare)
    for kind in INITS:
        results.add("entrypoint", kind, overheads[kind])
        results.add("memory", kind, inits.memory(kind, binaries)["VmRSS"])
