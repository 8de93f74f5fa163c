"""The programs in the comparison: their paths, their start and end, their CPUs."""

import contextlib
import os
import pathlib
import random
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from . import LIVELET

HOST = "127.0.0.1"
CPUS = sorted(os.sched_getaffinity(0))
CLIENT, SERVER = CPUS[:1], CPUS[-1:]  # the same one where there is one alone
DEADLINE = 5  # seconds for anything that should take milliseconds
DESCRIPTORS = 16384  # for 4096 connections, on both sides

# A program, and the Debian package that has it.
PACKAGES = {
    "nginx": "nginx",
    "busybox": "busybox-static",
    "node": "nodejs",
    "go": "golang-go",
    "tini": "tini",
    "tini-static": "tini",
    "dumb-init": "dumb-init",
    "catatonit": "catatonit",
    "wrk": "wrk",
    "strace": "strace",
}
SERVERS = ("livelet", "nginx", "busybox", "node", "python", "go")

NGINX_CONF = """
daemon off; master_process on; worker_processes 1; worker_rlimit_nofile 16384;
pid nginx.pid; error_log error.log crit;
events { worker_connections %(connections)d; }
http {
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server { listen %(host)s:%(port)d; location / { return 200 "ok\\n"; } }
}
"""
NODE_SERVER = """
const server = require('node:http').createServer((request, response) => response.end('ok\\n'));
server.keepAliveTimeout = 60000;
server.listen(%(port)d, '%(host)s');
"""
# The health server of a worker in that language.
PYTHON_SERVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\\n")

    def log_message(self, *_):
        pass

HTTPServer.request_queue_size = 1024
HTTPServer(("%(host)s", %(port)d), Health).serve_forever()
"""
GO_SERVER = """
package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\\n") })
	panic(http.ListenAndServe(os.Args[1], nil))
}
"""


class Failure(Exception):
    """Ends the run with one line on stderr."""


def find_binaries(livelet, programs):
    """Returns absolute paths of all programs. Exits with 2 and one line if one is missing."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
    found = {program: shutil.which(program, path=path) for program in programs}
    missing = [program for program in programs if not found[program]]
    if missing:
        packages = " ".join(PACKAGES[program] for program in missing)
        stop(2, f"{', '.join(missing)} missing: apt-get install {packages}")
    if not os.access(livelet, os.X_OK):
        stop(2, f"{livelet} missing: packaging/build-static makes it, --binary names another")
    return {**found, "livelet": os.path.abspath(livelet)}


def build_go(go, scratch):
    """Builds the server in Go, without symbols as for an image. Returns its path."""
    source, built = pathlib.Path(scratch, "server.go"), pathlib.Path(scratch, "server")
    source.write_text(GO_SERVER)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOCACHE": str(pathlib.Path(scratch, "cache"))}
    subprocess.run([go, "build", "-ldflags", "-s -w", "-o", built, source], env=environment, cwd=scratch, check=True)
    return str(built)


def add_binary_option(parser):
    parser.add_argument("--binary", default=LIVELET, metavar="PATH", help="the livelet to measure (or LIVELET_BIN)")


def raise_descriptor_limit():
    """Raises the limit of descriptors, which all peers inherit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        raise Failure(f"needs {DESCRIPTORS} open files, the limit is {hard}: ulimit -Hn {DESCRIPTORS}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))


class Peer:
    """A running server: its first process, its port and its directory."""

    def __init__(self, kind, path, directory, connections, arguments):
        self.kind, self.path, self.port = kind, path, free_port()
        self.directory, self.log = directory, directory / "stderr"
        self.idle_files = None
        command = [path, *COMMANDS[kind](self, connections), *arguments]
        os.sched_setaffinity(0, SERVER)  # the child inherits it
        self.started = time.perf_counter()
        self.pid = os.posix_spawn(path, command, {"PATH": os.environ["PATH"]}, file_actions=redirections(self.log))
        self.spawned = time.perf_counter()
        os.sched_setaffinity(0, CLIENT)
        self.pidfd = os.pidfd_open(self.pid)
        self.ended = False

    def pids(self):
        """Returns the pids of the first process and its children. nginx has a worker. busybox's live as long as a connection."""
        if self.kind == "busybox":
            return [self.pid]
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [self.pid, *map(int, children.split())]

    def threads(self):
        return [int(task) for pid in self.pids() for task in os.listdir(f"/proc/{pid}/task")]

    def wait(self, seconds):
        """Reaps the first process. Returns False if it has not ended by then."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        if not self.ended and poll.poll(seconds * 1000):
            os.waitpid(self.pid, 0)
            self.ended = True
        return self.ended

    def end(self):
        """Ends the server in any state: by TERM, and KILL for the remaining processes."""
        if not self.ended:
            pids = self.pids()
            os.kill(self.pid, signal.SIGTERM)
            if not self.wait(DEADLINE):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.wait(DEADLINE)
        os.close(self.pidfd)


@contextlib.contextmanager
def running(kind, binaries, scratch, connections=1024, arguments=()):
    """Starts a server that can have that many connections."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=kind, dir=scratch))
    peer = Peer(kind, binaries[kind], directory, connections, arguments)
    try:
        yield peer
    finally:
        peer.end()


def livelet_arguments(peer, connections):
    return ["--listen", f"{HOST}:{peer.port}", "--max-connections", str(connections)]


def nginx_arguments(peer, connections):
    config = peer.directory / "nginx.conf"
    config.write_text(NGINX_CONF % {"host": HOST, "port": peer.port, "connections": connections + 64})
    return ["-p", str(peer.directory), "-c", str(config), "-e", "error.log"]


def busybox_arguments(peer, _connections):
    (peer.directory / "livez").write_text("ok\n")
    return ["httpd", "-f", "-p", f"{HOST}:{peer.port}", "-h", str(peer.directory)]


def node_arguments(peer, _connections):
    return ["-e", NODE_SERVER % {"host": HOST, "port": peer.port}]


def python_arguments(peer, _connections):
    return ["-I", "-c", PYTHON_SERVER % {"host": HOST, "port": peer.port}]


def address_argument(peer, _connections):
    return [f"{HOST}:{peer.port}"]


COMMANDS = {
    "livelet": livelet_arguments,
    "nginx": nginx_arguments,
    "busybox": busybox_arguments,
    "node": node_arguments,
    "python": python_arguments,
    "go": address_argument,
    "async-net": address_argument,
}


def place(peer, server, client=CLIENT):
    """Lets all of the peer's threads run on the first CPUs, and this process on the second."""
    for thread in peer.threads():
        os.sched_setaffinity(thread, server)
    os.sched_setaffinity(0, client)


def redirections(log=os.devnull):
    return [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT, 0o600),
    ]


def free_port():
    """Returns a port below the ephemeral range: otherwise a client could connect to itself before the server listens."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind((HOST, port))
            return port


def progress(what):
    if sys.stderr.isatty():
        print(f"bench: {what}", file=sys.stderr)


def stop(code, why):
    print(f"bench: {why}", file=sys.stderr)
    sys.exit(code)
