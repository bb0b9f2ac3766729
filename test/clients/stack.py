#!/usr/bin/env python3
"""Start a daemon with everything around it, for tests of clients.

    stack.py [--types gvisor,docker] [--no-nginx] [--logs DIR] -- COMMAND ...
    stack.py [...]

The first form runs COMMAND with the variables that cases/conftest.py lists. The
second prints them as one line of JSON and goes on until its standard input
ends. Either way everything is then taken down, and the exit status is 1 if
something of it is left on the host or the daemon did not end well.

What is started: a registry on loopback that stands in for Docker Hub, with
images made of Debian packages; a private Docker engine if "docker" is tested;
fsbd on free ports, with a data directory of its own; nginx, if there is one,
with a prefix it strips and one it keeps.

Needs root, bin/fsbd (or FSB_TEST_FSBD; `make build`), Go, and what the scripts
in test/images and test/env need. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Dict, Iterator, List, Optional

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/v1/service/sandbox"
STRIPPED = "/stripped/by/nginx"
IMAGES = {"library/alpine:latest": "alpine-python", "library/busybox:latest": "busybox"}

NGINX = """
daemon off;
user root;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {logs}/nginx.log warn;
events {{}}
http {{
    access_log off;
    client_max_body_size 16m;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{
        listen {http_listen};
        location {kept}/ {{ proxy_pass http://{http}; }}
        location {stripped}/ {{ proxy_pass http://{http}/; }}
    }}
    server {{
        listen {grpc_listen} http2;
        location {kept}/ {{ grpc_pass grpc://{grpc}; }}
        location {stripped}/ {{
            rewrite ^{stripped}(/.*)$ $1 break;
            grpc_pass grpc://{grpc};
        }}
    }}
}}
"""


class Failure(Exception):
    """Something could not be started or did not end well."""


def free_address() -> str:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def call(*command: object, **more: object) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, cwd=ROOT, **more)  # type: ignore[call-overload]
    if done.returncode:
        raise Failure(f"{' '.join(map(str, command))}: exit status {done.returncode}")
    return done.stdout


@contextlib.contextmanager
def process(name: str, command: List[str], log: Path, env: Optional[Dict[str, str]] = None, **more: object) -> Iterator[subprocess.Popen[str]]:
    """Run a process that ends, well, when it is told to."""
    with log.open("a") as out:
        more.setdefault("stdout", out)
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=out, env=env, text=True, cwd=ROOT, **more)  # type: ignore[call-overload]
    try:
        yield child
        if child.poll() is not None:
            raise Failure(f"{name} has ended by itself with status {child.returncode}:\n{tail(log)}")
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise Failure(f"{name} did not end within 30 s of SIGTERM:\n{tail(log)}") from None
        if child.stdout:
            child.stdout.close()
    if child.returncode:
        raise Failure(f"{name} ended with status {child.returncode}:\n{tail(log)}")


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def wait_until(what: str, check: object, child: subprocess.Popen[str], log: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if check():  # type: ignore[operator]
                return
        except OSError:
            pass
        if child.poll() is not None:
            raise Failure(f"{what} ended with status {child.returncode}:\n{tail(log)}")
        if time.monotonic() > deadline:
            raise Failure(f"{what} is not ready after {seconds:.0f} s:\n{tail(log)}")
        time.sleep(0.05)


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as reply:
        body: bytes = reply.read()
    return body


def connects(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=1):
        return True


@contextlib.contextmanager
def registry(work: Path, logs: Path) -> Iterator[str]:
    layouts = []
    for name, kind in IMAGES.items():
        layout = work / "images" / kind
        layout.parent.mkdir(exist_ok=True)
        call(ROOT / "test" / "images" / "build.sh", kind, layout)
        layouts.append(f"{name}={layout}")
    program = work / "registry"
    call("go", "build", "-o", program, "./test/images/registry")
    with process("registry", [str(program), *layouts], logs / "registry.log", stdout=subprocess.PIPE) as child:
        assert child.stdout
        url = child.stdout.readline().strip()
        if not url:
            raise Failure(f"the registry does not start:\n{tail(logs / 'registry.log')}")
        yield url


@contextlib.contextmanager
def docker_engine(work: Path, logs: Path) -> Iterator[str]:
    script, where = ROOT / "test" / "env" / "dockerd.sh", work / "d"
    host = call(script, "start", where).strip()
    try:
        yield host
    finally:
        shutil.copy(where / "d.log", logs / "dockerd.log")
        call(script, "stop", where)


@contextlib.contextmanager
def daemon(work: Path, logs: Path, types: List[str], mirror: str, docker_host: str) -> Iterator[Dict[str, str]]:
    program = os.environ.get("FSB_TEST_FSBD") or str(ROOT / "bin" / "fsbd")
    if not os.access(program, os.X_OK):
        raise Failure(f"there is no {program}; run `make build`, or set FSB_TEST_FSBD")
    http, grpc = free_address(), free_address()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FSB_", "DOCKER_"))}
    env.update(
        FSB_DATA_DIR=str(work / "data"),
        FSB_HTTP_ADDR=http,
        FSB_GRPC_ADDR=grpc,
        FSB_BASE_PATH=PREFIX,
        FSB_REGISTRY_MIRRORS=f"docker.io={mirror}",
        FSB_DOCKER_HOST=docker_host,
        FSB_LOG_LEVEL="debug",
    )
    log = logs / "fsbd.log"
    with process("fsbd", [program], log, env) as child:
        wait_until("fsbd", lambda: fetch(f"http://{http}/readyz") is not None, child, log)
        rows = json.loads(fetch(f"http://{http}/backends"))["backends"]
        states = {row["name"]: row.get("reason", "") if not row["available"] else None for row in rows}
        for name in types:
            if states.get(name, "is not in this daemon") is not None:
                raise Failure(f"backend {name}: {states.get(name, 'is not in this daemon')}")
        try:
            yield {"FSB_TEST_ADDR": http, "FSB_TEST_GRPC_ADDR": grpc, "FSB_TEST_PREFIX": PREFIX}
        finally:
            if child.poll() is None:
                remove_sandboxes(http)


def remove_sandboxes(address: str) -> None:
    """Remove what the tests have left, which would outlive the daemon, and complain."""
    left = [s["id"] for s in json.loads(fetch(f"http://{address}/status?sandboxes=true"))["sandboxes"]]
    for sandbox_id in left:
        request = urllib.request.Request(f"http://{address}/sandboxes/{sandbox_id}", method="DELETE")
        with urllib.request.urlopen(request, timeout=60):
            pass
    if left:
        raise Failure(f"the tests left sandboxes: {', '.join(left)}")


@contextlib.contextmanager
def nginx(work: Path, logs: Path, http: str, grpc: str) -> Iterator[Dict[str, str]]:
    http_listen, grpc_listen = free_address(), free_address()
    conf, log = work / "nginx.conf", logs / "nginx.log"
    conf.write_text(
        NGINX.format(
            dir=work, logs=logs, http=http, grpc=grpc, http_listen=http_listen, grpc_listen=grpc_listen, kept=PREFIX, stripped=STRIPPED
        )
    )
    with process("nginx", ["nginx", "-p", str(work), "-c", str(conf)], log) as child:
        for address in (http_listen, grpc_listen):
            wait_until("nginx", lambda a=address: connects(a), child, log)  # type: ignore[misc]
        yield {
            "FSB_TEST_PROXY_ADDRS": f"{http_listen}{PREFIX},{http_listen}{STRIPPED}",
            "FSB_TEST_PROXY_GRPC_ADDRS": f"{grpc_listen}{PREFIX},{grpc_listen}{STRIPPED}",
        }


@contextlib.contextmanager
def leak_check(work: Path) -> Iterator[None]:
    """Nothing that names the work directory or the engine in it may stay."""
    program, notes = work / "leakcheck", work / "before.json"
    call("go", "build", "-o", program, "./internal/testenv/leakcheck")
    subprocess.run([program, "before", notes, work.name], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        mounts = unmount_below(work)
    if mounts:
        raise Failure("left mounted:\n" + "\n".join(mounts))
    done = subprocess.run([program, "after", notes], stdout=subprocess.PIPE, text=True)
    left = [line for line in done.stdout.splitlines() if not line.startswith(f"+ file {work}")]
    if os.environ.get("FSB_TEST_SHARED_HOST"):  # others make these as well, and they bear nobody's mark
        left = [line for line in left if not line.startswith(("+ link", "+ netns"))]
    if left or done.returncode > 1:
        raise Failure("left on the host:\n" + "\n".join(left))


def unmount_below(work: Path) -> List[str]:
    """Detach and return all mounts in the work directory, which is about to be removed with all in it."""
    paths = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [path for path in paths if path.startswith(f"{work}/")]
    for path in reversed(mounts):
        subprocess.run(["umount", "-l", path], check=False)
    return mounts


@contextlib.contextmanager
def stack(types: List[str], with_nginx: bool, logs: Optional[Path]) -> Iterator[Dict[str, str]]:
    """Start everything; yield the variables for the tests."""
    with contextlib.ExitStack() as up:
        # The path is short because sockets live in it.
        work = Path(up.enter_context(tempfile.TemporaryDirectory(prefix="fsbt-", dir="/tmp")))
        logs = logs or work / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        up.enter_context(leak_check(work))
        mirror = up.enter_context(registry(work, logs))
        docker_host = up.enter_context(docker_engine(work, logs)) if any(t.startswith("docker") for t in types) else "off"
        env = up.enter_context(daemon(work, logs, types, mirror, docker_host))
        if with_nginx and shutil.which("nginx"):
            env.update(up.enter_context(nginx(work, logs, env["FSB_TEST_ADDR"], env["FSB_TEST_GRPC_ADDR"])))
        env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1,localhost"
        env["FSB_TEST_TYPES"] = ",".join(types)
        env["FSB_TEST_IMAGE_MISSING"] = f"{mirror.split('://')[1]}/no/such:image"
        yield env


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--types", default=os.environ.get("FSB_TEST_TYPES", "gvisor"))
    parser.add_argument("--no-nginx", action="store_true")
    parser.add_argument("--logs", type=Path, help="keep logs here")
    parser.add_argument("command", nargs="*")
    args = parser.parse_args()
    # Let every with-block end on a signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with stack([t for t in args.types.split(",") if t], not args.no_nginx, args.logs) as env:
            if args.command:
                return subprocess.run(args.command, env={**os.environ, **env}).returncode
            print(json.dumps(env), flush=True)
            sys.stdin.read()
            return 0
    except Failure as err:
        print(f"stack.py: {err}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
