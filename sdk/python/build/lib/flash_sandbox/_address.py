"""Where a daemon is: host and port, or one address with an optional path prefix."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional
from urllib.parse import urlsplit

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class Endpoint:
    """A parsed address."""

    host: str  # without the brackets of an IPv6 literal
    port: int
    prefix: str = ""  # begins with a slash and ends without one, or is empty
    secure: bool = False  # https

    @property
    def authority(self) -> str:
        """``host:port``, with brackets around an IPv6 literal."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """The URL all routes are appended to; it ends with a slash."""
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.prefix}/"


def resolve(host: Optional[str], port: int, address: Optional[str]) -> Endpoint:
    """Return the endpoint that a client's constructor arguments name.

    *address* wins over *host* and *port*. Raises ValueError when neither is
    given or one can't be read.
    """
    if address is not None:
        return parse(address)
    if host is None:
        raise ValueError("give either host or address")
    if "/" in host:
        raise ValueError(f"host: {host!r} is not a host name; give a URL or a path prefix as address=")
    name = host.strip()
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    if not name:
        raise ValueError("host: is empty")
    if not 0 < port < 65536:
        raise ValueError(f"port: is {port}, it must be between 1 and 65535")
    return Endpoint(name, port)


def parse(address: str) -> Endpoint:
    """Read ``[http[s]://]host[:port][/prefix]``.

    A missing scheme means http, a missing port 80 (443 for https). Trailing
    slashes, a query, a fragment and user names are dropped. Raises ValueError
    for anything else.
    """
    text = address.strip()
    if not text:
        raise ValueError("address: is empty")
    scheme = _SCHEME.match(text)
    if scheme is None:
        text = "http://" + text
    elif scheme.group(1).lower() not in ("http", "https"):
        raise ValueError(f"address: {address!r} begins with {scheme.group(0)}; only http:// and https:// are known")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise ValueError(
            f"address: {address!r} can't be read ({exc}); give host:port, with brackets around an IPv6 literal"
        ) from exc
    if not host:
        raise ValueError(f"address: {address!r} names no host")
    if port == 0:
        raise ValueError(f"address: {address!r} has port 0")
    secure = parts.scheme == "https"
    return Endpoint(host, port or (443 if secure else 80), parts.path.rstrip("/"), secure)
