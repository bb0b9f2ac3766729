"""Client for Flash Sandbox.

:class:`HTTPClient` and :class:`SandboxClient` (gRPC) have the same methods, so
code written for one runs with the other::

    from flash_sandbox import HTTPClient

    with HTTPClient(host="localhost", port=8080) as client:
        sandbox_id = client.start_sandbox(type="gvisor", image="alpine:latest", command=["sleep", "600"])
        print(client.exec_command(sandbox_id, ["echo", "hi"]).stdout)
        client.stop_sandbox(sandbox_id)

Everything that goes wrong at the far end is a :class:`SandboxError`. Modules
whose names begin with an underscore are not part of the interface.
"""

from ._errors import (
    SandboxConnectionError,
    SandboxError,
    SandboxHTTPError,
    SandboxNotFoundError,
    SandboxRPCError,
    SandboxRPCNotFoundError,
    SandboxTimeoutError,
)
from ._grpc import SandboxClient
from ._http import HTTPClient
from ._types import ExecResult, MetricsResult, SnapshotResult

__all__ = [
    "ExecResult",
    "HTTPClient",
    "MetricsResult",
    "SandboxClient",
    "SandboxConnectionError",
    "SandboxError",
    "SandboxHTTPError",
    "SandboxNotFoundError",
    "SandboxRPCError",
    "SandboxRPCNotFoundError",
    "SandboxTimeoutError",
    "SnapshotResult",
]
