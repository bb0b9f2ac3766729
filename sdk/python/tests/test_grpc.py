"""SandboxClient against a gRPC server that answers what a test tells it to."""

from __future__ import annotations

import socket
import time
from concurrent import futures
from typing import Any, Callable, Dict, Iterator, List, Tuple

import grpc
import pytest

from flash_sandbox import (
    ExecResult,
    MetricsResult,
    SandboxClient,
    SandboxError,
    SandboxHTTPError,
    SandboxNotFoundError,
    SandboxRPCError,
    SandboxRPCNotFoundError,
)
from flash_sandbox._messages import CLASSES, METHODS


class Server(grpc.GenericRpcHandler):
    """Answers by method name and keeps what was asked."""

    def __init__(self) -> None:
        self.answers: Dict[str, Any] = {}
        self.asked: List[Tuple[str, Any]] = []
        self.fail: Callable[[Any], None] = lambda context: None
        self.port = 0

    def service(self, handler_call_details: Any) -> Any:
        path = handler_call_details.method
        name = path.rsplit("/", 1)[1]
        request, response = METHODS[name]

        def answer(message: Any, context: Any) -> Any:
            self.asked.append((path, message))
            self.fail(context)
            return CLASSES[response](**self.answers.get(name, {}))

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=CLASSES[request].FromString,
            response_serializer=CLASSES[response].SerializeToString,
        )


@pytest.fixture
def server() -> Iterator[Server]:
    handler = Server()
    with futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, handlers=[handler])
        handler.port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield handler
        server.stop(None).wait()


@pytest.fixture
def client(server: Server) -> Iterator[SandboxClient]:
    with SandboxClient(host="127.0.0.1", port=server.port) as client:
        yield client


def test_calls_and_replies(server: Server, client: SandboxClient) -> None:
    server.answers = {
        "StartSandbox": {"id": "sb-1"},
        "GetStatus": {"id": "sb-1", "status": "running"},
        "ExecCommand": {"stdout": "o", "stderr": "e", "exit_code": -1},
        "GetMetrics": {"memory_limit_bytes": 1 << 40, "cpu_percent": 1.5},
        "SnapshotSandbox": {"snapshot_path": "/s", "mem_file_path": "/m"},
        "RunPython": {"result": "1\n"},
        "GetPlatformInfo": {"info": "{}"},
    }
    assert client.start_sandbox("docker", "x", "a b", memory_mb=64, cpu_cores=0.5) == "sb-1"
    path, request = server.asked[-1]
    assert path == "/sandbox.SandboxService/StartSandbox"
    assert (request.type, request.image, list(request.command)) == ("docker", "x", ["sh", "-c", "a b"])
    assert (request.memory_mb, request.cpu_cores) == (64, 0.5)

    assert client.get_status("sb-1") == "running"
    assert client.exec_command("sb-1", ["a"]) == ExecResult("o", "e", -1)
    assert client.get_metrics("sb-1") == MetricsResult(memory_limit_bytes=1 << 40, cpu_percent=1.5)
    assert client.snapshot_sandbox("sb-1") == {"snapshot_path": "/s", "mem_file_path": "/m"}
    assert client.run_python("sb-1", "print(1)") == "1\n"
    assert server.asked[-1][1].code == "print(1)"
    assert client.get_platform_info("sb-1") == "{}"
    client.resume_sandbox("sb-1")
    client.stop_sandbox("sb-1")
    assert server.asked[-1][1].skip_cleanup is False
    client.stop_sandbox("sb-1", cleanup=False)
    assert server.asked[-1][1].skip_cleanup is True
    assert {path.rsplit("/", 1)[1] for path, _ in server.asked} == set(METHODS)
    assert all(message.id == "sb-1" for _, message in server.asked[1:])


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_prefix(server: Server, scheme: str) -> None:
    with SandboxClient(address=f"{scheme}127.0.0.1:{server.port}/v1/service/sandbox/") as client:
        client.get_status("sb-1")
    assert server.asked[-1][0] == "/v1/service/sandbox/sandbox.SandboxService/GetStatus"


def test_refusal(server: Server, client: SandboxClient) -> None:
    def fail(context: Any) -> None:
        context.send_initial_metadata((("x-request-id", "req-7"),))
        context.set_trailing_metadata(
            (
                ("fsb-error-code", "conflict"),
                ("fsb-error-reason", "sandbox_paused"),
                ("fsb-error-message", "sandbox%20sb-1%20is%20paused%20%E2%80%93%20100%25"),
                ("fsb-error-remediation", "resume%20it%20first"),
            )
        )
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "sandbox sb-1 is paused; resume it first")

    server.fail = fail
    with pytest.raises(SandboxRPCError) as caught:
        client.exec_command("sb-1", ["x"])
    err = caught.value
    assert not isinstance(err, SandboxHTTPError)
    assert err.detail == "sandbox sb-1 is paused \u2013 100%"
    assert err.details() == "sandbox sb-1 is paused; resume it first"
    assert err.remediation == "resume it first"
    assert err.code == "sandbox_paused"
    assert err.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert err.request_id == "req-7"
    assert ("fsb-error-code", "conflict") in err.trailing_metadata()
    assert str(err) == "FAILED_PRECONDITION: sandbox sb-1 is paused \u2013 100% (resume it first)"
    assert isinstance(err.__cause__, grpc.RpcError)


def test_refusal_by_a_stranger(server: Server, client: SandboxClient) -> None:
    server.fail = lambda context: context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
    with pytest.raises(SandboxRPCError) as caught:
        client.exec_command("sb-1", ["x"])
    err = caught.value
    assert (err.detail, err.details(), err.code, err.remediation, err.request_id) == ("no", "no", "conflict", "", "")


@pytest.mark.parametrize("kind", [grpc.RpcError, SandboxError, SandboxNotFoundError, SandboxRPCNotFoundError])
def test_not_found_is_caught_either_way(server: Server, client: SandboxClient, kind: Any) -> None:
    server.fail = lambda context: context.abort(grpc.StatusCode.NOT_FOUND, "sandbox sb-1 does not exist")
    with pytest.raises(kind) as caught:
        client.get_status("sb-1")
    err: Any = caught.value
    assert err.code() is grpc.StatusCode.NOT_FOUND
    assert err.status_code == 404
    assert err.detail == "sandbox sb-1 does not exist"


def test_every_status_has_a_code(server: Server, client: SandboxClient) -> None:
    for status in grpc.StatusCode:
        if status is grpc.StatusCode.OK:
            continue
        server.fail = lambda context, s=status: context.abort(s, "no")  # type: ignore[misc]
        with pytest.raises(SandboxRPCError) as caught:
            client.get_status("sb-1")
        assert caught.value.code() is status
        assert caught.value.code.isidentifier()


def test_timeout(server: Server) -> None:
    server.fail = lambda context: time.sleep(0.5)
    with SandboxClient("127.0.0.1", server.port, timeout=0.1) as client:
        with pytest.raises(SandboxRPCError) as caught:
            client.get_status("sb-1")
    assert caught.value.code == "timeout"


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with SandboxClient("127.0.0.1", unused.getsockname()[1]) as client:
            with pytest.raises(SandboxRPCError) as caught:
                client.get_status("sb-1")
    assert caught.value.code == "unavailable"


@pytest.mark.parametrize(
    ("method", "arguments", "kind"),
    [
        ("get_status", ("",), ValueError),
        ("get_status", (7,), TypeError),
        ("exec_command", ("sb-1", ["a", None]), TypeError),
        ("start_sandbox", ("docker", "x", None, 0.5), ValueError),
        ("start_sandbox", ("docker", "x", None, 512, float("nan")), ValueError),
    ],
)
def test_arguments_no_request_could_carry(
    server: Server, client: SandboxClient, method: str, arguments: Tuple[Any, ...], kind: Any
) -> None:
    with pytest.raises(kind):
        getattr(client, method)(*arguments)
    assert not server.asked
