"""The HTTP client."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, NoReturn, Optional
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter

from . import _address
from ._client import Client, Command, argv, checked_id, finite_cores, whole_mb
from ._errors import SandboxConnectionError, SandboxHTTPError, SandboxTimeoutError, from_response
from ._types import ExecResult, MetricsResult, SnapshotResult

_POOL_SIZE = 64


class HTTPClient(Client):
    """Talks to the daemon over HTTP with JSON.

    Args:
        host: Name or IP address of the daemon's machine.
        port: Its HTTP port.
        address: All in one, ``[http[s]://]host[:port][/prefix]``, in place of
            *host* and *port*. The prefix is for reverse proxies that route by
            path. A missing port means 80 (443 for https), not 8080.
        timeout: Seconds to wait for the connection, and between any two
            pieces of the reply; None waits for ever. Starting a sandbox whose
            image must be pulled first may need more than the default.
        session: A :class:`requests.Session` to use, with your own TLS,
            retries or headers. It stays yours: :meth:`close` leaves it open.

    Failures are :class:`SandboxHTTPError` (with ``status_code`` and
    ``detail``), :class:`SandboxNotFoundError`,
    :class:`SandboxConnectionError` and :class:`SandboxTimeoutError`.
    Nothing is retried.
    """

    def __init__(
        self,
        host: Optional[str] = "localhost",
        port: int = 8080,
        address: Optional[str] = None,
        timeout: Optional[float] = 30.0,
        session: Optional[requests.Session] = None,
    ) -> None:
        self._base_url = _address.resolve(host, port, address).base_url
        self.timeout = timeout
        self._owns_session = session is None
        self._session = _new_session() if session is None else session

    def close(self) -> None:
        if self._owns_session:
            self._session.close()

    def start_sandbox(
        self,
        type: str,
        image: str,
        command: Optional[Command] = None,
        memory_mb: int = 512,
        cpu_cores: float = 1.0,
        kernel_image: Optional[str] = None,
        initrd_path: Optional[str] = None,
        snapshot_path: Optional[str] = None,
        mem_file_path: Optional[str] = None,
    ) -> str:
        """Start a sandbox and return its id once it takes commands.

        Args:
            type: The backend, such as ``"gvisor"`` or ``"docker"``; ``""`` or
                ``"auto"`` lets the daemon choose.
            image: An image reference such as ``"alpine:latest"``. The first
                use of an image pulls it, which takes its time.
            command: What runs in the sandbox, in place of the image's own
                command. When it ends, the sandbox is ``"stopped"``.
            memory_mb: Memory limit in MiB; 0 means the daemon's default.
            cpu_cores: Limit in cores; 0 means none.
            kernel_image: Path of the guest kernel (Firecracker only).
            initrd_path: Path of its initrd (Firecracker only).
            snapshot_path: Start from this snapshot, as
                :meth:`snapshot_sandbox` returned it; *image* may be ``""``.
            mem_file_path: The memory that belongs to the snapshot.
        """
        body: Dict[str, Any] = {
            "type": type,
            "image": image,
            "command": argv(command),
            "memory_mb": whole_mb(memory_mb),
            "cpu_cores": finite_cores(cpu_cores),
        }
        optional = {
            "kernel_image": kernel_image,
            "initrd_path": initrd_path,
            "snapshot_path": snapshot_path,
            "mem_file_path": mem_file_path,
        }
        body.update((key, value) for key, value in optional.items() if value is not None)
        resp = self._send("POST", "sandboxes", body)
        sandbox_id = _object(resp).get("id")
        if not isinstance(sandbox_id, str) or not sandbox_id:
            _not_ours(resp, "has no id in it")
        return sandbox_id

    def stop_sandbox(self, sandbox_id: str, cleanup: bool = True) -> None:
        query = {} if cleanup else {"cleanup": "false"}
        self._send("DELETE", _route(sandbox_id), query=query)

    def exec_command(self, sandbox_id: str, command: Command) -> ExecResult:
        data = _object(self._send("POST", _route(sandbox_id, "exec"), {"command": argv(command)}))
        return ExecResult(
            stdout=data.get("stdout") or "",
            stderr=data.get("stderr") or "",
            exit_code=int(data.get("exit_code") or 0),
        )

    def get_status(self, sandbox_id: str) -> str:
        return _text(self._send("GET", _route(sandbox_id)), "status")

    def get_metrics(self, sandbox_id: str) -> MetricsResult:
        data = _object(self._send("GET", _route(sandbox_id, "metrics")))
        return MetricsResult(
            memory_usage_bytes=int(data.get("memory_usage_bytes") or 0),
            memory_limit_bytes=int(data.get("memory_limit_bytes") or 0),
            memory_percent=float(data.get("memory_percent") or 0),
            cpu_percent=float(data.get("cpu_percent") or 0),
            pids_current=int(data.get("pids_current") or 0),
            net_rx_bytes=int(data.get("net_rx_bytes") or 0),
            net_tx_bytes=int(data.get("net_tx_bytes") or 0),
            block_read_bytes=int(data.get("block_read_bytes") or 0),
            block_write_bytes=int(data.get("block_write_bytes") or 0),
        )

    def snapshot_sandbox(self, sandbox_id: str) -> SnapshotResult:
        data = _object(self._send("POST", _route(sandbox_id, "snapshot")))
        return SnapshotResult(
            snapshot_path=data.get("snapshot_path") or "",
            mem_file_path=data.get("mem_file_path") or "",
        )

    def resume_sandbox(self, sandbox_id: str) -> None:
        self._send("POST", _route(sandbox_id, "resume"))

    def run_python(self, sandbox_id: str, code: str) -> str:
        return _text(self._send("POST", _route(sandbox_id, "run_python"), {"code": code}), "result")

    def get_platform_info(self, sandbox_id: str) -> str:
        info = _object(self._send("GET", _route(sandbox_id, "platform_info"))).get("info") or "{}"
        return info if isinstance(info, str) else json.dumps(info)

    def _send(
        self,
        method: str,
        route: str,
        body: Optional[Mapping[str, Any]] = None,
        query: Optional[Mapping[str, str]] = None,
    ) -> requests.Response:
        try:
            resp = self._session.request(
                method,
                self._base_url + route,
                json=body,
                params=query,
                timeout=self.timeout,
                # Following one would turn a POST into a GET.
                allow_redirects=False,
            )
        except requests.Timeout as exc:
            raise SandboxTimeoutError(f"no answer from {self._base_url} within {self.timeout} s") from exc
        except requests.ConnectionError as exc:
            raise SandboxConnectionError(f"no answer from {self._base_url}: {exc}") from exc
        if 300 <= resp.status_code < 400:
            target = resp.headers.get("Location", "somewhere else")
            raise SandboxHTTPError(
                resp.status_code,
                f"{self._base_url} redirects to {target}",
                remediation="give the address the daemon is really at",
            )
        if not 200 <= resp.status_code < 300:
            raise from_response(resp)
        return resp


def _new_session() -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_POOL_SIZE)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _route(sandbox_id: str, action: str = "") -> str:
    route = "sandboxes/" + quote(checked_id(sandbox_id), safe="")
    return f"{route}/{action}" if action else route


def _object(resp: requests.Response) -> Dict[str, Any]:
    try:
        data = resp.json()
    except ValueError:
        _not_ours(resp, "is not JSON")
    if not isinstance(data, dict):
        _not_ours(resp, "is not a JSON object")
    return data


def _text(resp: requests.Response, key: str) -> str:
    value = _object(resp).get(key) or ""
    return value if isinstance(value, str) else str(value)


def _not_ours(resp: requests.Response, what: str) -> NoReturn:
    raise SandboxHTTPError(
        resp.status_code,
        f"the reply of {resp.url} {what}: {resp.text.strip()[:200]!r}",
        remediation="check that the address is that of a Flash Sandbox daemon",
    )
