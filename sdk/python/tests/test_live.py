"""Both clients against a real daemon and real backends."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Union

import grpc
import pytest
from conftest import IMAGE, TYPES, Daemon

import flash_sandbox
from flash_sandbox import (
    ExecResult,
    HTTPClient,
    MetricsResult,
    SandboxClient,
    SandboxError,
    SandboxHTTPError,
    SandboxNotFoundError,
    SandboxRPCError,
    SnapshotResult,
)

AnyClient = Union[HTTPClient, SandboxClient]
Start = Callable[..., str]

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture(params=["http", "http-prefixed", "grpc", "grpc-prefixed"])
def client(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[AnyClient]:
    transport, _, prefixed = request.param.partition("-")
    address = daemon.http if transport == "http" else daemon.grpc
    if prefixed and daemon.prefix:
        address += "/" + daemon.prefix
    client: AnyClient = HTTPClient(address=address) if transport == "http" else SandboxClient(address=address, timeout=60)
    with client:
        yield client


@pytest.fixture
def start(client: AnyClient, kind: str) -> Iterator[Start]:
    """Starts sandboxes that the end of the test removes."""
    made: List[str] = []

    def start(**more: Any) -> str:
        arguments: Dict[str, Any] = {
            "type": kind,
            "image": IMAGE,
            "command": ["tail", "-f", "/dev/null"],
            "memory_mb": 128,
            **more,
        }
        made.append(client.start_sandbox(**arguments))
        return made[-1]

    yield start
    for sandbox_id in made:
        try:
            client.stop_sandbox(sandbox_id)
        except SandboxNotFoundError:
            pass


def test_main_job(client: AnyClient, start: Start) -> None:
    sandbox_id = start(cpu_cores=0.5)
    assert client.get_status(sandbox_id) == "running"
    assert client.exec_command(sandbox_id, ["sh", "-c", "echo out; echo err >&2; exit 3"]) == ExecResult("out\n", "err\n", 3)
    assert client.exec_command(sandbox_id, "echo $((1+1)) | tr 2 3") == ExecResult("3\n", "", 0)
    assert client.exec_command(sandbox_id, ("no-such-program",)).exit_code == 127
    assert client.run_python(sandbox_id, "print('hi')") == "hi\n"
    assert "ZeroDivisionError" in client.run_python(sandbox_id, "1/0")

    info = json.loads(client.get_platform_info(sandbox_id))
    assert (info["system"], info["sandbox_id"]) == ("Linux", sandbox_id)

    metrics = client.get_metrics(sandbox_id)
    assert isinstance(metrics, MetricsResult)
    assert 0 < metrics.memory_usage_bytes < metrics.memory_limit_bytes == 128 << 20
    assert metrics.pids_current >= 1

    snap = client.snapshot_sandbox(sandbox_id)
    assert isinstance(snap, SnapshotResult)
    assert snap["snapshot_path"] == snap.snapshot_path != ""
    assert client.get_status(sandbox_id) == "paused"
    client.resume_sandbox(sandbox_id)
    assert client.exec_command(sandbox_id, ["echo", "again"]).stdout == "again\n"

    client.stop_sandbox(sandbox_id, cleanup=False)
    assert client.get_status(sandbox_id) == "paused"
    client.resume_sandbox(sandbox_id)
    assert client.get_status(sandbox_id) == "running"

    client.stop_sandbox(sandbox_id)
    for call in (client.get_status, client.stop_sandbox, client.resume_sandbox):
        with pytest.raises(SandboxNotFoundError) as caught:
            call(sandbox_id)
        assert caught.value.code == "sandbox_not_found"
        assert sandbox_id in caught.value.detail


def test_command_that_ends(client: AnyClient, start: Start) -> None:
    sandbox_id = start(command="exit 7")
    deadline = time.monotonic() + 15
    while client.get_status(sandbox_id) != "stopped":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_paused(client: AnyClient, start: Start) -> None:
    sandbox_id = start()
    client.snapshot_sandbox(sandbox_id)
    with pytest.raises(SandboxError) as caught:
        client.exec_command(sandbox_id, ["true"])
    err = caught.value
    assert err.code == "conflict"
    assert err.detail == f"sandbox {sandbox_id} is paused"
    assert "resume" in err.remediation
    assert err.remediation in str(err)
    assert err.request_id
    if isinstance(client, HTTPClient):
        assert isinstance(err, SandboxHTTPError)
        assert err.status_code == 409
    else:
        assert isinstance(err, SandboxRPCError)
        assert err.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert err.remediation in err.details()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        ({"type": "vax"}, "invalid", "type"),
        ({"image": ""}, "invalid", "image"),
        ({"memory_mb": -1}, "invalid", "memory_mb"),
        ({"cpu_cores": -1}, "invalid", "cpu_cores"),
        ({"command": ["a\0b"]}, "invalid", "command"),
    ],
)
def test_refusals(client: AnyClient, start: Start, arguments: Dict[str, Any], code: str, word: str) -> None:
    with pytest.raises(SandboxError) as caught:
        start(**arguments)
    assert caught.value.code == code
    assert caught.value.detail.startswith(word + ":")


@pytest.mark.parametrize("odd", ["a b", "../sandboxes", "a/b", "ä", "x" * 300, "a%2Fb"])
def test_odd_ids_are_not_found(client: AnyClient, odd: str) -> None:
    with pytest.raises(SandboxNotFoundError, match="does not exist"):
        client.exec_command(odd, ["true"])


def test_start_from_a_snapshot(daemon: Daemon, kind: str) -> None:
    with HTTPClient(address=daemon.http) as client:
        made = [client.start_sandbox(kind, IMAGE, ["sleep", "600"], memory_mb=128)]
        try:
            client.exec_command(made[0], "echo saved > /kept.txt")
            snap = client.snapshot_sandbox(made[0])
            paths: Dict[str, Any] = {"snapshot_path": snap.snapshot_path, "mem_file_path": snap.mem_file_path}
            assert paths == snap
            made.append(client.start_sandbox(kind, "", memory_mb=128, **paths))
            assert client.exec_command(made[1], ["cat", "/kept.txt"]).stdout == "saved\n"
        finally:
            for sandbox_id in made:
                client.stop_sandbox(sandbox_id)


def quick_start(number: int) -> str:
    """Return a quick start of the README; a backend that is not tested gives way to one that is."""
    code: str = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[number]
    for named in ("docker", "gvisor"):
        if named not in TYPES:
            code = code.replace(f'type="{named}"', f'type="{TYPES[0]}"')
    return code


def run(code: str, capsys: pytest.CaptureFixture[str]) -> Dict[str, str]:
    """Execute a quick start; return what it prints, by the words before the colon."""
    exec(compile(code, str(README), "exec"), {"__name__": "__main__"})
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())


def test_http_quick_start(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Here(HTTPClient):
        def __init__(self, host: str, port: int) -> None:
            assert (host, port) == ("localhost", 8080)
            super().__init__(address=daemon.http)

    monkeypatch.setattr(flash_sandbox, "HTTPClient", Here)
    told = run(quick_start(0), capsys)
    assert told["Output"] == "Hello from HTTP!"
    assert told["Exit code"] == "0"
    assert told["Status"] == "running"
    assert told["Memory"].endswith(f" / {128 << 20}")
    assert told["CPU"].endswith("%")
    assert told["Python Output"] == "Hello Python in Sandbox"
    assert json.loads(told["Platform Info"])["system"] == "Linux"
    assert told["Snapshot"].startswith("/")


def test_grpc_quick_start(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no Firecracker, its refusal is checked and another sandbox takes its place."""
    lacks_firecracker = "firecracker" not in daemon.backends()
    refused: List[SandboxRPCError] = []

    class Here(SandboxClient):
        def __init__(self, host: str, port: int) -> None:
            assert (host, port) == ("localhost", 50051)
            super().__init__(address=daemon.grpc)

        def start_sandbox(self, type: str, *args: Any, **more: Any) -> str:
            if type == "firecracker" and lacks_firecracker:
                with pytest.raises(SandboxRPCError) as caught:
                    super().start_sandbox(type, *args, **more)
                refused.append(caught.value)
                type = TYPES[0]
            return super().start_sandbox(type, *args, **more)

    monkeypatch.setattr(flash_sandbox, "SandboxClient", Here)
    told = run(quick_start(1), capsys)
    assert len({told[f"{name} Sandbox ID"] for name in ("Docker", "Firecracker", "gVisor")}) == 3
    assert told["Firecracker Status"] == "running"
    assert "snapshot_path" in told["Snapshot Data"]
    assert told["gVisor Output"] == "Hello from gVisor!"
    assert told["gVisor Exit Code"] == "0"
    if lacks_firecracker:
        (err,) = refused
        assert err.code == "unsupported"
        assert "firecracker" in err.detail


def test_context_manager_example(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Here(HTTPClient):
        def __init__(self, host: str) -> None:
            assert host == "localhost"
            super().__init__(address=daemon.http)

    monkeypatch.setattr(flash_sandbox, "HTTPClient", Here)
    code = quick_start(4)
    assert "with HTTPClient" in code
    assert run(code, capsys) == {}


def test_readme_examples_compile() -> None:
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        compile(block, str(README), "exec")
