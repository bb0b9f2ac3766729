"""A real daemon for the tests that need one; see "Tests" in README.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Set

import pytest

STACK = Path(__file__).resolve().parents[3] / "test" / "clients" / "stack.py"
TYPES = [t for t in os.environ.get("FSB_TEST_TYPES", "gvisor").split(",") if t]
IMAGE = os.environ.get("FSB_TEST_IMAGE", "alpine:latest")


@dataclass(frozen=True)
class Daemon:
    http: str
    grpc: str
    prefix: str  # without slashes at its ends; may be empty

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Daemon:
        return cls(env["FSB_TEST_ADDR"], env["FSB_TEST_GRPC_ADDR"], env.get("FSB_TEST_PREFIX", "").strip("/"))

    def get(self, path: str) -> Dict[str, Any]:
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=30) as reply:
            answer: Dict[str, Any] = json.load(reply)
        return answer

    def sandboxes(self) -> Set[str]:
        return {s["id"] for s in self.get("/status?sandboxes=true")["sandboxes"]}

    def backends(self) -> List[str]:
        return [b["name"] for b in self.get("/backends")["backends"] if b["available"]]


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """The daemon that the environment names, or one that is started and ended here."""
    if os.environ.get("FSB_TEST_ADDR"):
        yield from watched(Daemon.of(os.environ))
        return
    command = [sys.executable, str(STACK), "--no-nginx", "--types", ",".join(TYPES)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stack:
        assert stack.stdin
        assert stack.stdout
        line = stack.stdout.readline()
        if not line:
            pytest.fail(f"no daemon could be started (status {stack.wait()}); what {STACK.name} says stands above")
        yield from watched(Daemon.of(json.loads(line)))
        stack.stdin.close()
        assert stack.wait(120) == 0, f"{STACK.name} complains; what it says stands above"


def watched(daemon: Daemon) -> Iterator[Daemon]:
    """Hand out the daemon, and check that no sandbox is left in the end."""
    before = daemon.sandboxes()
    yield daemon
    assert daemon.sandboxes() <= before


@pytest.fixture(params=TYPES)
def kind(request: pytest.FixtureRequest) -> str:
    """The backend."""
    name: str = request.param
    return name
