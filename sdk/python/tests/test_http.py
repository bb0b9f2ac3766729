"""HTTPClient against a server that answers what a test tells it to."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest
import requests

from flash_sandbox import (
    ExecResult,
    HTTPClient,
    MetricsResult,
    SandboxConnectionError,
    SandboxError,
    SandboxHTTPError,
    SandboxNotFoundError,
    SandboxTimeoutError,
)

PROBLEM = {
    "type": "about:blank",
    "title": "Conflict",
    "status": 409,
    "detail": "sandbox sb-1 is paused",
    "code": "conflict",
    "message": "sandbox sb-1 is paused; resume it first",
    "remediation": "resume it first",
    "request_id": "req-7",
}


class Server(ThreadingHTTPServer):
    """Answers every request with ``reply`` and keeps what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply: Tuple[int, Dict[str, str], bytes] = (200, {}, b"{}")
        self.asked: List[Tuple[str, str, Dict[str, str], bytes]] = []
        self.hold = threading.Event()
        self.hold.set()

    def answer(self, status: int, body: Any, **headers: str) -> None:
        kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        fields = {"Content-Type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
        self.reply = (status, fields, data)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.server.hold.wait(10)
        status, fields, data = self.server.reply
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = _any

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(server: Server) -> Iterator[HTTPClient]:
    with HTTPClient(host="127.0.0.1", port=server.server_port) as client:
        yield client


def sent(server: Server) -> Tuple[str, str, Optional[Any]]:
    method, path, _, body = server.asked[-1]
    return method, path, json.loads(body) if body else None


def test_start(server: Server, client: HTTPClient) -> None:
    server.answer(201, {"id": "sb-1", "status": "running", "more": None})
    assert client.start_sandbox(type="docker", image="x") == "sb-1"
    assert sent(server) == (
        "POST",
        "/sandboxes",
        {"type": "docker", "image": "x", "command": [], "memory_mb": 512, "cpu_cores": 1.0},
    )
    client.start_sandbox(
        "firecracker",
        "",
        command=("a", "b c"),
        memory_mb=64,
        cpu_cores=0,
        kernel_image="/k",
        initrd_path="",
        snapshot_path="/s",
        mem_file_path="/m",
    )
    assert sent(server)[2] == {
        "type": "firecracker",
        "image": "",
        "command": ["a", "b c"],
        "memory_mb": 64,
        "cpu_cores": 0.0,
        "kernel_image": "/k",
        "initrd_path": "",
        "snapshot_path": "/s",
        "mem_file_path": "/m",
    }


def test_routes_and_replies(server: Server, client: HTTPClient) -> None:
    server.answer(200, {"status": "paused"})
    assert client.get_status("sb-1") == "paused"
    assert sent(server) == ("GET", "/sandboxes/sb-1", None)

    server.answer(200, {"stdout": "out", "stderr": "err", "exit_code": 3, "duration_ms": 1.5})
    assert client.exec_command("sb-1", ["echo", "hi"]) == ExecResult("out", "err", 3)
    assert sent(server) == ("POST", "/sandboxes/sb-1/exec", {"command": ["echo", "hi"]})
    client.exec_command("sb-1", "echo $HOME")
    assert sent(server)[2] == {"command": ["sh", "-c", "echo $HOME"]}

    server.answer(200, {"memory_usage_bytes": 5, "memory_percent": 0.5, "cpu_percent": 12, "pids_current": 2})
    assert client.get_metrics("sb-1") == MetricsResult(
        memory_usage_bytes=5, memory_percent=0.5, cpu_percent=12.0, pids_current=2
    )
    assert sent(server) == ("GET", "/sandboxes/sb-1/metrics", None)

    server.answer(200, {"snapshot_path": "/s", "mem_file_path": "/m", "node_id": "sn-1"})
    assert client.snapshot_sandbox("sb-1") == {"snapshot_path": "/s", "mem_file_path": "/m"}
    assert sent(server) == ("POST", "/sandboxes/sb-1/snapshot", None)

    server.answer(200, {"result": "1\n"})
    assert client.run_python("sb-1", "print(1)") == "1\n"
    assert sent(server) == ("POST", "/sandboxes/sb-1/run_python", {"code": "print(1)"})

    for info in ('{"system": "Linux"}', {"system": "Linux"}):
        server.answer(200, {"info": info})
        assert json.loads(client.get_platform_info("sb-1")) == {"system": "Linux"}
    assert sent(server) == ("GET", "/sandboxes/sb-1/platform_info", None)


def test_replies_without_a_body(server: Server, client: HTTPClient) -> None:
    server.answer(204, "")
    client.resume_sandbox("sb-1")
    assert sent(server) == ("POST", "/sandboxes/sb-1/resume", None)
    client.stop_sandbox("sb-1")
    assert sent(server) == ("DELETE", "/sandboxes/sb-1", None)
    client.stop_sandbox("sb-1", cleanup=False)
    assert sent(server) == ("DELETE", "/sandboxes/sb-1?cleanup=false", None)


def test_missing_and_null_members_count_as_empty(server: Server, client: HTTPClient) -> None:
    for reply in ({}, {"stdout": None, "exit_code": None, "memory_percent": None, "info": None, "status": None}):
        server.answer(200, reply)
        assert client.exec_command("sb-1", ["x"]) == ExecResult()
        assert client.get_metrics("sb-1") == MetricsResult()
        assert client.get_status("sb-1") == ""
        assert client.get_platform_info("sb-1") == "{}"


def test_prefix_and_escaped_ids(server: Server) -> None:
    with HTTPClient(address=f"127.0.0.1:{server.server_port}/v1/service/sandbox/") as client:
        client.get_status("sb-1")
        assert server.asked[-1][1] == "/v1/service/sandbox/sandboxes/sb-1"
        client.get_status("../x?y#z")
        assert server.asked[-1][1] == "/v1/service/sandbox/sandboxes/..%2Fx%3Fy%23z"


def test_problem_details(server: Server, client: HTTPClient) -> None:
    server.answer(409, PROBLEM)
    with pytest.raises(SandboxHTTPError) as caught:
        client.exec_command("sb-1", ["x"])
    err = caught.value
    assert not isinstance(err, SandboxNotFoundError)
    assert (err.status_code, err.code, err.detail) == (409, "conflict", "sandbox sb-1 is paused")
    assert (err.remediation, err.request_id) == ("resume it first", "req-7")
    assert str(err) == "HTTP 409: sandbox sb-1 is paused (resume it first)"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("404 page not found\n", "404 page not found"),
        ("größer", "größer"),
        ("", "Not Found"),
        ({"error": "no route"}, "no route"),
        ({"message": "m", "code": 7}, "m"),
        ([1], "[1]"),
        ({}, "{}"),
    ],
)
def test_not_found_with_any_body(server: Server, client: HTTPClient, body: Any, detail: str) -> None:
    server.answer(404, body, X_Request_Id="req-8")
    with pytest.raises(SandboxNotFoundError) as caught:
        client.get_status("sb-1")
    err = caught.value
    assert (err.status_code, err.detail, err.code, err.request_id) == (404, detail, "", "req-8")


@pytest.mark.parametrize("body", ["OK", "", [1], "<html>"])
def test_replies_that_are_not_ours(server: Server, client: HTTPClient, body: Any) -> None:
    server.answer(200, body)
    with pytest.raises(SandboxHTTPError, match="is not .*check that the address") as caught:
        client.get_status("sb-1")
    assert caught.value.status_code == 200
    with pytest.raises(SandboxHTTPError):
        client.start_sandbox("docker", "x")
    server.answer(200, {"id": ""})
    with pytest.raises(SandboxHTTPError, match="has no id"):
        client.start_sandbox("docker", "x")


def test_redirects_are_errors(server: Server, client: HTTPClient) -> None:
    server.answer(302, "", Location="http://elsewhere/")
    with pytest.raises(SandboxHTTPError, match="redirects to http://elsewhere/") as caught:
        client.start_sandbox("docker", "x")
    assert caught.value.status_code == 302
    assert len(server.asked) == 1


def test_timeout(server: Server) -> None:
    server.hold.clear()
    with HTTPClient("127.0.0.1", server.server_port, timeout=0.2) as client:
        with pytest.raises(SandboxTimeoutError, match=r"within 0\.2 s") as caught:
            client.get_status("sb-1")
    assert isinstance(caught.value, requests.Timeout)
    assert isinstance(caught.value, SandboxError)
    assert len(server.asked) == 1


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with HTTPClient("127.0.0.1", unused.getsockname()[1]) as client:
            with pytest.raises(SandboxConnectionError) as caught:
                client.get_status("sb-1")
    assert isinstance(caught.value, requests.ConnectionError)


def test_session_is_used_and_left_open(server: Server) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = "Bearer t"
        closed: List[bool] = []
        session.close = lambda: closed.append(True)  # type: ignore[method-assign]
        with HTTPClient("127.0.0.1", server.server_port, session=session) as client:
            client.get_status("sb-1")
        assert server.asked[-1][2]["Authorization"] == "Bearer t"
        assert not closed
        del session.close


def test_own_session_is_closed(server: Server) -> None:
    client = HTTPClient("127.0.0.1", server.server_port)
    closed: List[bool] = []
    real = client._session.close
    client._session.close = lambda: (closed.append(True), real())[1]  # type: ignore[method-assign,func-returns-value]
    client.close()
    client.close()
    assert closed == [True, True]


BAD_ARGUMENTS: List[Tuple[str, Tuple[Any, ...], type, str]] = [
    ("get_status", ("",), ValueError, "sandbox_id"),
    ("get_status", ("..",), ValueError, "sandbox_id"),
    ("get_status", (None,), TypeError, "sandbox_id"),
    ("exec_command", ("sb-1", b"ls"), TypeError, "command: is bytes"),
    ("exec_command", ("sb-1", ["ls", 1]), TypeError, "element 1 is int"),
    ("start_sandbox", ("docker", "x", None, 512.5), ValueError, "memory_mb"),
    ("start_sandbox", ("docker", "x", None, float("nan")), ValueError, "memory_mb"),
    ("start_sandbox", ("docker", "x", None, 512, float("nan")), ValueError, "cpu_cores"),
    ("start_sandbox", ("docker", "x", None, 512, float("inf")), ValueError, "cpu_cores"),
]


@pytest.mark.parametrize(("method", "arguments", "kind", "message"), BAD_ARGUMENTS)
def test_arguments_no_request_could_carry(
    server: Server, client: HTTPClient, method: str, arguments: Tuple[Any, ...], kind: type, message: str
) -> None:
    with pytest.raises(kind, match=message):
        getattr(client, method)(*arguments)
    assert not server.asked


def test_integral_float_memory(server: Server, client: HTTPClient) -> None:
    server.answer(201, {"id": "sb-1"})
    client.start_sandbox("docker", "x", memory_mb=512.0)  # type: ignore[arg-type]
    assert b'"memory_mb": 512,' in server.asked[-1][3]
