"""The exceptions.

::

    SandboxError
    ├── SandboxHTTPError               the daemon answered with an error
    │   └── SandboxNotFoundError       ... that there is no such sandbox
    ├── SandboxRPCError                the same over gRPC; also a grpc.RpcError
    │   └── SandboxRPCNotFoundError    also a SandboxNotFoundError
    ├── SandboxConnectionError         no answer came; also a requests.ConnectionError
    └── SandboxTimeoutError            it took too long; also a requests.Timeout

``except SandboxNotFoundError`` and ``except SandboxError`` work for both
clients.
"""

from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple, cast
from urllib.parse import unquote

import grpc
import requests


#: The daemon's words for gRPC's, for answers that carry no finer one.
_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: "invalid",
    grpc.StatusCode.UNAUTHENTICATED: "unauthenticated",
    grpc.StatusCode.PERMISSION_DENIED: "denied",
    grpc.StatusCode.NOT_FOUND: "not_found",
    grpc.StatusCode.ALREADY_EXISTS: "exists",
    grpc.StatusCode.FAILED_PRECONDITION: "conflict",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "exhausted",
    grpc.StatusCode.UNIMPLEMENTED: "unsupported",
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timeout",
    grpc.StatusCode.CANCELLED: "canceled",
}


class SandboxError(Exception):
    """Anything that went wrong between the client and a sandbox."""

    detail: str = ""
    """What went wrong, in a sentence."""
    code: str = ""
    """The daemon's word for the kind of failure, such as ``"conflict"``; empty when it gave none."""
    remediation: str = ""
    """What to do about it; may be empty."""
    request_id: str = ""
    """Finds the request in the daemon's log; may be empty."""


class SandboxHTTPError(SandboxError):
    """The daemon, or something before it, answered with an error."""

    def __init__(
        self,
        status_code: int,
        detail: str,
        *,
        code: str = "",
        remediation: str = "",
        request_id: str = "",
    ) -> None:
        # The two arguments stay in args, so that pickle can make a copy.
        super().__init__(status_code, detail)
        self.status_code = status_code
        self.detail = detail
        self.code = code
        self.remediation = remediation
        self.request_id = request_id

    def __str__(self) -> str:
        return f"HTTP {self.status_code}: {_sentence(self.detail, self.remediation)}"


class SandboxNotFoundError(SandboxHTTPError):
    """There is no such sandbox, or no longer (status 404)."""


class SandboxConnectionError(SandboxError, requests.ConnectionError):
    """The daemon could not be reached, or the connection broke before it answered."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class SandboxTimeoutError(SandboxError, requests.Timeout):
    """No answer came within the client's timeout. The daemon may still be at work."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RPCCode(str):
    """A :attr:`SandboxError.code` that, called, gives the gRPC status code.

    ``err.code == "not_found"`` is how all errors of this package are asked,
    ``err.code() == grpc.StatusCode.NOT_FOUND`` how any grpc.RpcError is.
    """

    status: grpc.StatusCode

    def __new__(cls, text: str, status: grpc.StatusCode) -> RPCCode:
        word = super().__new__(cls, text)
        word.status = status
        return word

    def __call__(self) -> grpc.StatusCode:
        return self.status

    def __reduce__(self) -> Tuple[Any, ...]:
        return (RPCCode, (str(self), self.status))


class SandboxRPCError(SandboxError, grpc.RpcError):
    """A gRPC call failed. The call that failed is ``__cause__``."""

    code: RPCCode

    def __init__(
        self,
        status: grpc.StatusCode,
        detail: str,
        *,
        code: str = "",
        remediation: str = "",
        request_id: str = "",
        details: str = "",
        trailing_metadata: Sequence[Any] = (),
    ) -> None:
        # Not super(): in SandboxRPCNotFoundError that leads to SandboxHTTPError.
        Exception.__init__(self, status, detail)
        self.detail = detail
        self.code = RPCCode(code or _CODES.get(status, "internal"), status)
        self.remediation = remediation
        self.request_id = request_id
        self._details = details or detail
        self._trailing_metadata = tuple(trailing_metadata)

    def details(self) -> str:
        """Return the text that came with the status: detail and remediation in one."""
        return self._details

    def trailing_metadata(self) -> Tuple[Any, ...]:
        """Return the metadata that came with the status."""
        return self._trailing_metadata

    def __str__(self) -> str:
        return f"{self.code.status.name}: {_sentence(self.detail, self.remediation)}"


class SandboxRPCNotFoundError(SandboxRPCError, SandboxNotFoundError):
    """There is no such sandbox, or no longer (status NOT_FOUND)."""

    def __init__(self, status: grpc.StatusCode, detail: str, **more: Any) -> None:
        SandboxRPCError.__init__(self, status, detail, **more)
        self.status_code = 404


def from_response(resp: requests.Response) -> SandboxHTTPError:
    """Make the exception for an HTTP reply that is not a success.

    Problem details (RFC 9457 with the daemon's extra members) are taken apart;
    any other body becomes the detail as it is.
    """
    request_id = resp.headers.get("X-Request-Id", "")
    code = remediation = ""
    detail = resp.text.strip()
    try:
        body = resp.json()
    except ValueError:
        body = None
    if isinstance(body, dict):
        code = _first(body, "code")
        remediation = _first(body, "remediation")
        request_id = _first(body, "request_id") or request_id
        detail = _first(body, "detail", "message", "error", "title") or detail
    if not detail:
        detail = resp.reason or "no reason was given"
    kind = SandboxNotFoundError if resp.status_code == 404 else SandboxHTTPError
    return kind(resp.status_code, detail, code=code, remediation=remediation, request_id=request_id)


def from_rpc_error(err: grpc.RpcError) -> SandboxRPCError:
    """Make the exception for a failed gRPC call.

    The daemon's metadata tells what one status and one text have no room for.
    """
    call = cast(grpc.Call, err)
    status = call.code()
    trailing = tuple(call.trailing_metadata() or ())
    metadata = {str(key): value for key, value in (*(call.initial_metadata() or ()), *trailing)}

    def get(key: str) -> str:
        value = metadata.get(key, "")
        return unquote(value) if isinstance(value, str) else ""

    details = call.details() or "no reason was given"
    kind = SandboxRPCNotFoundError if status is grpc.StatusCode.NOT_FOUND else SandboxRPCError
    return kind(
        status,
        get("fsb-error-message") or details,
        code=get("fsb-error-reason") or get("fsb-error-code"),
        remediation=get("fsb-error-remediation"),
        request_id=get("x-request-id"),
        details=details,
        trailing_metadata=trailing,
    )


def _first(body: Any, *keys: str) -> str:
    for key in keys:
        value = body.get(key)
        if isinstance(value, str) and value:
            return value
    return ""


def _sentence(detail: str, remediation: Optional[str]) -> str:
    if not remediation or remediation in detail:
        return detail
    return f"{detail} ({remediation})"
