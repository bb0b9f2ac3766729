"""What the clients return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, NoReturn, Tuple, Type


@dataclass(frozen=True)
class ExecResult:
    """How a command went.

    A command that ran and failed is a result, not an exception: 127 stands for
    "not found" and 126 for "not executable", with the text in ``stderr``.
    Bytes that are not UTF-8 arrive as U+FFFD. Very long output is cut in the
    middle by the daemon, with a line there that says so.
    """

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class MetricsResult:
    """Resource use of one sandbox at one moment.

    A number the backend can't tell is 0. The network and block counters count
    from the start of the sandbox.
    """

    memory_usage_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_percent: float = 0.0
    """Share of the limit in use, 0 to 100."""
    cpu_percent: float = 0.0
    """100 is one core kept busy."""
    pids_current: int = 0
    net_rx_bytes: int = 0
    net_tx_bytes: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0


@dataclass(frozen=True, eq=False)
class SnapshotResult(Dict[str, str]):
    """Where a snapshot lies, in paths of the daemon's machine.

    It is a frozen dataclass and a read-only dict with the same two names, so
    ``snap.snapshot_path``, ``snap["snapshot_path"]`` and ``json.dumps(snap)``
    all work.
    """

    snapshot_path: str = ""
    mem_file_path: str = ""
    """Empty when the backend saves no memory."""

    def __post_init__(self) -> None:
        super().update(snapshot_path=self.snapshot_path, mem_file_path=self.mem_file_path)

    def __hash__(self) -> int:  # type: ignore[override]
        return hash((self.snapshot_path, self.mem_file_path))

    def __reduce__(self) -> Tuple[Type[SnapshotResult], Tuple[str, str]]:
        return (SnapshotResult, (self.snapshot_path, self.mem_file_path))

    def _read_only(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError("a SnapshotResult can't be changed; dict(snap) gives a copy that can")

    __setitem__ = __delitem__ = __ior__ = _read_only
    clear = pop = popitem = setdefault = update = _read_only
