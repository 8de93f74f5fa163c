"""The clients: single probes as the kubelet sends them, held connections, wrk."""

import collections
import contextlib
import re
import socket
import subprocess
import time

from .peers import DEADLINE, HOST, Failure

PROBE = (
    b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: kube-probe/1.31\r\n"
    b"Accept: */*\r\nConnection: close\r\n\r\n"
)
KEPT_PROBE = PROBE.replace(b"Connection: close\r\n", b"")


def probe(port):
    """Sends one probe on its own connection, and reads to the end. Returns True for a 200."""
    with socket.socket() as client:
        client.settimeout(DEADLINE)
        client.connect((HOST, port))
        client.sendall(PROBE)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    return is_good(answer)


def is_good(answer):
    return answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")) and answer.endswith(b"ok\n")


def probes(peer, count, gap=0):
    """Sends probes one after the other, with a pause in which the peer waits again."""
    for _ in range(count):
        try:
            is_answered = probe(peer.port)
        except TimeoutError:
            raise Failure(f"{peer.kind}: a probe was not answered within {DEADLINE} s") from None
        if not is_answered:
            raise Failure(f"{peer.kind}: a probe was not answered with 200")
        if gap:
            time.sleep(gap)


def first_answer(peer):
    """Sends requests in a tight loop. Returns the time at which the first 200 had been read."""
    deadline = time.perf_counter() + DEADLINE
    while time.perf_counter() < deadline and not peer.wait(0):
        with contextlib.suppress(ConnectionError):
            if probe(peer.port):
                return time.perf_counter()
    what = "ended before its first 200" if peer.ended else f"no 200 within {DEADLINE} s"
    raise Failure(f"{peer.kind}: {what}: {peer.log.read_text().strip() or 'it said nothing'}")


@contextlib.contextmanager
def held(peer, count):
    """Opens that many keep-alive connections, each idle after one answer."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(socket.socket())
            client.settimeout(DEADLINE)
            client.connect((HOST, peer.port))
            client.sendall(KEPT_PROBE)
            answer = b""
            while not is_good(answer):
                piece = client.recv(4096)
                if not piece:
                    raise Failure(f"{peer.kind}: closed a connection that was to be held")
                answer += piece
        yield


Load = collections.namedtuple("Load", "rate requests errors")


def run_wrk(wrk, peer, seconds, connections, *arguments):
    """Returns requests per second, their number, and the number of failed connections. Any other status than 200 ends the run."""
    command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", *arguments, f"http://{HOST}:{peer.port}/livez"]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 30, text=True).stdout
    requests = re.search(r"(\d+) requests in", said)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if not requests or not rate or not int(requests[1]) or "Non-2xx" in said:
        raise Failure(f"{peer.kind}: wrk: {said.strip()}")
    errors = re.search(r"Socket errors: (.*)", said)
    return Load(float(rate[1]), int(requests[1]), sum(map(int, re.findall(r"\d+", errors[1]))) if errors else 0)
