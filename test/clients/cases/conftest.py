"""What the cases are run with.

The cases are run by the Python of a venv that holds one version of the client,
unmodified, and nothing else of this repository is imported. Every case is run
with each transport the version has (HTTP, gRPC, HTTP with asyncio) and each
backend in FSB_TEST_TYPES.

Environment:

    FSB_TEST_ADDR              host:port of the daemon's HTTP side
    FSB_TEST_GRPC_ADDR         host:port of its gRPC side
    FSB_TEST_PREFIX            a path prefix it accepts; empty: none
    FSB_TEST_PROXY_ADDRS       further HTTP addresses, "host:port/prefix,..."
    FSB_TEST_PROXY_GRPC_ADDRS  the same for gRPC
    FSB_TEST_TYPES             backends to test, "gvisor,docker"
    FSB_TEST_IMAGE             an image with Python (default alpine:latest)
    FSB_TEST_IMAGE_BARE        an image without Python (default busybox:latest)
    FSB_TEST_IMAGE_MISSING     an image that no registry has
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import time
import urllib.request
from importlib import metadata
from pathlib import Path

import flash_sandbox
import grpc
import pytest

VERSION = metadata.version("flash-sandbox")
IMAGE = os.environ.get("FSB_TEST_IMAGE", "alpine:latest")
IMAGE_BARE = os.environ.get("FSB_TEST_IMAGE_BARE", "busybox:latest")
IMAGE_MISSING = os.environ.get("FSB_TEST_IMAGE_MISSING", "127.0.0.1:1/no/such:image")
TYPES = [t for t in os.environ.get("FSB_TEST_TYPES", "gvisor").split(",") if t]
README = Path(__file__).resolve().parents[3] / "sdk" / "python" / "README.md"
FOREVER = ["tail", "-f", "/dev/null"]

# The objects came with asyncio support, and the first version has neither.
if not hasattr(flash_sandbox, "Sandbox"):
    collect_ignore = ["test_objects.py"]


def addresses(plain, proxies):
    """Return the addresses a side of the daemon has, by the name of the way there."""
    found = {"plain": os.environ[plain]}
    prefix = os.environ.get("FSB_TEST_PREFIX", "").strip("/")
    if prefix:
        found["prefixed"] = f"{found['plain']}/{prefix}"
    for i, address in enumerate(a for a in os.environ.get(proxies, "").split(",") if a):
        found[f"proxy{i}"] = address
    return found


HTTP = addresses("FSB_TEST_ADDR", "FSB_TEST_PROXY_ADDRS")
GRPC = addresses("FSB_TEST_GRPC_ADDR", "FSB_TEST_PROXY_GRPC_ADDRS")


class AsyncFacade:
    """Calls the coroutines of an AsyncHTTPClient one after the other."""

    def __init__(self, address):
        self.loop = asyncio.new_event_loop()
        self.client = flash_sandbox.AsyncHTTPClient(address=address)

    def __getattr__(self, name):
        method = getattr(self.client, name)  # AttributeError: as on the client
        return lambda *args, **kwargs: self.loop.run_until_complete(method(*args, **kwargs))

    def close(self):
        self.loop.run_until_complete(self.client.close())
        self.loop.close()


OPENERS = {
    "http": (HTTP, lambda a: flash_sandbox.HTTPClient(address=a)),
    "grpc": (GRPC, lambda a: flash_sandbox.SandboxClient(address=a)),
}
if hasattr(flash_sandbox, "AsyncHTTPClient"):
    OPENERS["async"] = (HTTP, AsyncFacade)

# kind of failure: HTTP status, gRPC status
KINDS = {
    "invalid": (400, grpc.StatusCode.INVALID_ARGUMENT),
    "denied": (403, grpc.StatusCode.PERMISSION_DENIED),
    "not_found": (404, grpc.StatusCode.NOT_FOUND),
    "conflict": (409, grpc.StatusCode.FAILED_PRECONDITION),
    "unsupported": (501, grpc.StatusCode.UNIMPLEMENTED),
}


class Subject:
    """A client of one transport, and what differs between transports."""

    def __init__(self, transport, way="plain"):
        self.transport = transport
        table, opener = OPENERS[transport]
        self.client = opener(table[way])
        self.made = []

    def has(self, method):
        return hasattr(self.client, method)

    def start(self, kind, image=IMAGE, command=FOREVER, **more):
        """Start a sandbox that the fixture deletes; return what the client returned."""
        more.setdefault("memory_mb", 128)
        sandbox = self.client.start_sandbox(type=kind, image=image, command=command, **more)
        self.made.append(sandbox)
        return sandbox

    def exec(self, sandbox, *command):
        return self.client.exec_command(sandbox, list(command))

    def sh(self, sandbox, script):
        return self.exec(sandbox, "sh", "-c", script)

    def failure(self, call):
        """Return the kind of failure of a call that must fail, and its text."""
        try:
            result = call()
        except flash_sandbox.SandboxHTTPError as err:
            status, text = err.status_code, err.detail
            if getattr(err, "remediation", ""):  # which published versions have in the detail
                text = f"{text} ({err.remediation})"
            if hasattr(err, "code") and callable(err.code):
                status = err.code()
            assert isinstance(err, flash_sandbox.SandboxNotFoundError) == (err.status_code == 404)
        except grpc.RpcError as err:
            status, text = err.code(), err.details()
        else:
            pytest.fail(f"was accepted, with the result {result!r}")
        expect = grpc.StatusCode if self.transport == "grpc" else int
        assert isinstance(status, expect), f"{status!r}: {text}"
        for kind, statuses in KINDS.items():
            if status in statuses:
                return kind, text
        return str(status), text

    def refused(self, kind, call, *words):
        """Check that a call fails in the given way, with a text that holds the words."""
        got, text = self.failure(call)
        assert got == kind, text
        for word in words:
            assert str(word).lower() in text.lower(), text
        return text

    def wait_status(self, sandbox, want, seconds=15):
        deadline = time.monotonic() + seconds
        while (status := self.client.get_status(sandbox)) != want:
            assert time.monotonic() < deadline, f"is {status!r} after {seconds} s, not {want!r}"
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for sandbox in self.made:
            try:
                self.client.stop_sandbox(sandbox)
            except flash_sandbox.SandboxNotFoundError:
                pass
            except grpc.RpcError as err:
                if err.code() != grpc.StatusCode.NOT_FOUND:
                    raise
        self.client.close()


def sandbox_id(sandbox):
    """Return the id in what start_sandbox returned: a str or a Sandbox."""
    return sandbox if isinstance(sandbox, str) else sandbox.id


@pytest.fixture(params=TYPES)
def kind(request):
    """The backend."""
    return request.param


@pytest.fixture(params=list(OPENERS))
def subject(request):
    """A client at the plain address."""
    with Subject(request.param) as subject:
        yield subject


@pytest.fixture(params=["http", "async"] if "async" in OPENERS else ["http"])
def http_subject(request):
    """A client that speaks HTTP."""
    with Subject(request.param) as subject:
        yield subject


@pytest.fixture(params=[(t, way) for t, (table, _) in OPENERS.items() for way in table], ids="-".join)
def any_way(request):
    """A client at each address of each transport."""
    with Subject(*request.param) as subject:
        yield subject


def get(path):
    with urllib.request.urlopen(f"http://{HTTP['plain']}{path}", timeout=30) as reply:
        return json.load(reply)


@pytest.fixture(scope="session")
def backends():
    """Names of the backends that the daemon says are available."""
    reply = get("/backends")
    rows = reply["backends"] if isinstance(reply, dict) else reply
    return {row["name"] for row in rows if row["available"]}


@pytest.fixture(scope="session", autouse=True)
def nothing_left():
    """No sandbox may outlive the cases."""
    before = {s["id"] for s in get("/status?sandboxes=true")["sandboxes"]}
    yield
    after = {s["id"]: s["status"] for s in get("/status?sandboxes=true")["sandboxes"]}
    left = {i: s for i, s in after.items() if i not in before}
    assert not left, f"sandboxes left behind: {left}"


def pytest_report_header():
    where = Path(inspect.getfile(flash_sandbox)).parent
    return f"flash-sandbox {VERSION} from {where}, Python {sys.version.split()[0]}, backends {', '.join(TYPES)}"
