"""The package's face: its names, the likeness of the clients, the results."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
from importlib import resources
from typing import Any, List

import grpc
import pytest
import requests

import flash_sandbox
from flash_sandbox import ExecResult, HTTPClient, MetricsResult, SandboxClient, SnapshotResult

METHODS = [
    "start_sandbox",
    "stop_sandbox",
    "exec_command",
    "get_status",
    "get_metrics",
    "snapshot_sandbox",
    "resume_sandbox",
    "run_python",
    "get_platform_info",
    "close",
]


def test_all() -> None:
    assert flash_sandbox.__all__ == sorted(flash_sandbox.__all__)
    public = {
        name
        for name, value in vars(flash_sandbox).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(flash_sandbox.__all__)
    assert {
        "HTTPClient",
        "SandboxClient",
        "ExecResult",
        "MetricsResult",
        "SnapshotResult",
        "SandboxHTTPError",
        "SandboxNotFoundError",
    } <= public


def test_typed() -> None:
    assert resources.files("flash_sandbox").joinpath("py.typed").is_file()


@pytest.mark.parametrize("method", METHODS)
def test_both_clients_have_the_same_methods(method: str) -> None:
    http = list(inspect.signature(getattr(HTTPClient, method)).parameters.values())
    rpc = list(inspect.signature(getattr(SandboxClient, method)).parameters.values())
    assert http[: len(rpc)] == rpc
    extra = [p.name for p in http[len(rpc) :]]
    assert extra == (
        ["kernel_image", "initrd_path", "snapshot_path", "mem_file_path"] if method == "start_sandbox" else []
    )
    for client in (HTTPClient, SandboxClient):
        assert inspect.getdoc(getattr(client, method)), f"{client.__name__}.{method} has no docstring"


def test_nothing_else_is_public_on_the_clients() -> None:
    for client in (HTTPClient, SandboxClient):
        assert {n for n in dir(client) if not n.startswith("_")} == set(METHODS)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (ExecResult, ["stdout", "stderr", "exit_code"]),
        (SnapshotResult, ["snapshot_path", "mem_file_path"]),
        (
            MetricsResult,
            [
                "memory_usage_bytes",
                "memory_limit_bytes",
                "memory_percent",
                "cpu_percent",
                "pids_current",
                "net_rx_bytes",
                "net_tx_bytes",
                "block_read_bytes",
                "block_write_bytes",
            ],
        ),
    ],
)
def test_results_are_frozen(kind: Any, fields: List[str]) -> None:
    assert [f.name for f in dataclasses.fields(kind)] == fields
    value = kind()
    for name in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value


def test_snapshot_result_is_a_dict_too() -> None:
    snap = SnapshotResult("/s", "/m")
    plain = {"snapshot_path": "/s", "mem_file_path": "/m"}
    assert snap == plain
    assert plain == snap
    assert snap != SnapshotResult("/s", "/other")
    assert snap["snapshot_path"] == snap.snapshot_path == "/s"
    assert snap.get("mem_file_path") == "/m"
    assert snap.get("nothing") is None
    assert list(snap) == list(snap.keys()) == ["snapshot_path", "mem_file_path"]
    assert json.loads(json.dumps(snap)) == plain
    assert dict(**snap) == {**snap} == dataclasses.asdict(snap) == plain
    assert len({snap, SnapshotResult("/s", "/m")}) == 1
    assert repr(snap) == "SnapshotResult(snapshot_path='/s', mem_file_path='/m')"
    copied = pickle.loads(pickle.dumps(snap))
    assert isinstance(copied, SnapshotResult)
    assert copied == plain


def test_snapshot_result_refuses_changes() -> None:
    snap = SnapshotResult("/s", "/m")
    changes: List[Any] = [
        lambda: snap.__setitem__("snapshot_path", "x"),
        lambda: snap.__delitem__("snapshot_path"),
        lambda: snap.update(snapshot_path="x"),
        lambda: snap.setdefault("x", "y"),
        lambda: snap.pop("snapshot_path"),
        lambda: snap.popitem(),
        lambda: snap.clear(),
        lambda: snap.__ior__({"x": "y"}),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="can't be changed"):
            change()
    assert snap == {"snapshot_path": "/s", "mem_file_path": "/m"}


def test_error_tree() -> None:
    f = flash_sandbox
    parents = {
        f.SandboxHTTPError: (f.SandboxError,),
        f.SandboxNotFoundError: (f.SandboxHTTPError,),
        f.SandboxRPCError: (f.SandboxError, grpc.RpcError),
        f.SandboxRPCNotFoundError: (f.SandboxRPCError, f.SandboxNotFoundError),
        f.SandboxConnectionError: (f.SandboxError, requests.ConnectionError),
        f.SandboxTimeoutError: (f.SandboxError, requests.Timeout),
    }
    for kind, above in parents.items():
        assert issubclass(kind, above[0])
        assert all(issubclass(kind, parent) for parent in above)
    assert {k.__name__ for k in parents} | {"SandboxError"} == {n for n in f.__all__ if n.endswith("Error")}


def test_errors_survive_pickling() -> None:
    http = flash_sandbox.SandboxHTTPError(409, "is paused", code="conflict", remediation="resume it", request_id="r1")
    rpc = flash_sandbox.SandboxRPCNotFoundError(grpc.StatusCode.NOT_FOUND, "gone", code="sandbox_not_found")
    timeout = flash_sandbox.SandboxTimeoutError("late")
    for err in (http, rpc, timeout):
        same = pickle.loads(pickle.dumps(err))
        assert type(same) is type(err)
        assert str(same) == str(err)
        assert {k: str(v) for k, v in vars(same).items()} == {k: str(v) for k, v in vars(err).items()}
    assert pickle.loads(pickle.dumps(rpc)).code() is grpc.StatusCode.NOT_FOUND
