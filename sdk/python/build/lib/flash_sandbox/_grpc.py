"""The gRPC client."""

from __future__ import annotations

from typing import Any, Dict, Optional

import grpc

from . import _address
from ._client import Client, Command, argv, checked_id, finite_cores, whole_mb
from ._errors import from_rpc_error
from ._messages import CLASSES, METHODS, SERVICE
from ._types import ExecResult, MetricsResult, SnapshotResult


class SandboxClient(Client):
    """Talks to the daemon over gRPC.

    Args:
        host: Name or IP address of the daemon's machine.
        port: Its gRPC port.
        address: All in one, ``[http[s]://]host[:port][/prefix]``, in place of
            *host* and *port*. The prefix is for reverse proxies that route by
            path. A missing port means 80, not 50051. With ``https://`` in
            front the connection uses TLS (port 443), else it does not.
        timeout: Seconds each call may take; None, the default, sets no limit.

    Failures are :class:`SandboxRPCError`, which is a :class:`SandboxError` and
    a :class:`grpc.RpcError`; for an unknown id the more specific
    :class:`SandboxRPCNotFoundError`, which is a :class:`SandboxNotFoundError`
    as well. Nothing is retried.
    """

    def __init__(
        self,
        host: Optional[str] = "localhost",
        port: int = 50051,
        address: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> None:
        endpoint = _address.resolve(host, port, address)
        self.address = endpoint.authority
        self.timeout = timeout
        if endpoint.secure:
            self._channel = grpc.secure_channel(self.address, grpc.ssl_channel_credentials())
        else:
            self._channel = grpc.insecure_channel(self.address)
        # gRPC has no notion of a path before the service, but the method name
        # is sent as the request's path as it is.
        self._methods: Dict[str, Any] = {
            name: self._channel.unary_unary(
                f"{endpoint.prefix}/{SERVICE}/{name}",
                request_serializer=CLASSES[request].SerializeToString,
                response_deserializer=CLASSES[response].FromString,
            )
            for name, (request, response) in METHODS.items()
        }

    def close(self) -> None:
        self._channel.close()

    def start_sandbox(
        self,
        type: str,
        image: str,
        command: Optional[Command] = None,
        memory_mb: int = 512,
        cpu_cores: float = 1.0,
    ) -> str:
        reply = self._call(
            "StartSandbox",
            type=type,
            image=image,
            command=argv(command),
            memory_mb=whole_mb(memory_mb),
            cpu_cores=finite_cores(cpu_cores),
        )
        return str(reply.id)

    def stop_sandbox(self, sandbox_id: str, cleanup: bool = True) -> None:
        self._call("StopSandbox", id=checked_id(sandbox_id), skip_cleanup=not cleanup)

    def exec_command(self, sandbox_id: str, command: Command) -> ExecResult:
        reply = self._call("ExecCommand", id=checked_id(sandbox_id), command=argv(command))
        return ExecResult(stdout=reply.stdout, stderr=reply.stderr, exit_code=reply.exit_code)

    def get_status(self, sandbox_id: str) -> str:
        return str(self._call("GetStatus", id=checked_id(sandbox_id)).status)

    def get_metrics(self, sandbox_id: str) -> MetricsResult:
        reply = self._call("GetMetrics", id=checked_id(sandbox_id))
        return MetricsResult(
            memory_usage_bytes=reply.memory_usage_bytes,
            memory_limit_bytes=reply.memory_limit_bytes,
            memory_percent=reply.memory_percent,
            cpu_percent=reply.cpu_percent,
            pids_current=reply.pids_current,
            net_rx_bytes=reply.net_rx_bytes,
            net_tx_bytes=reply.net_tx_bytes,
            block_read_bytes=reply.block_read_bytes,
            block_write_bytes=reply.block_write_bytes,
        )

    def snapshot_sandbox(self, sandbox_id: str) -> SnapshotResult:
        reply = self._call("SnapshotSandbox", id=checked_id(sandbox_id))
        return SnapshotResult(snapshot_path=reply.snapshot_path, mem_file_path=reply.mem_file_path)

    def resume_sandbox(self, sandbox_id: str) -> None:
        self._call("ResumeSandbox", id=checked_id(sandbox_id))

    def run_python(self, sandbox_id: str, code: str) -> str:
        return str(self._call("RunPython", id=checked_id(sandbox_id), code=code).result)

    def get_platform_info(self, sandbox_id: str) -> str:
        return str(self._call("GetPlatformInfo", id=checked_id(sandbox_id)).info) or "{}"

    def _call(self, method: str, **fields: Any) -> Any:
        request = CLASSES[METHODS[method][0]](**fields)
        try:
            return self._methods[method](request, timeout=self.timeout)
        except grpc.RpcError as exc:
            raise from_rpc_error(exc) from exc
