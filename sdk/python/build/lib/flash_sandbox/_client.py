"""The interface both clients share, and the checks that keep them alike."""

from __future__ import annotations

import abc
import math
from types import TracebackType
from typing import List, Optional, Sequence, Type, TypeVar, Union

from ._types import ExecResult, MetricsResult, SnapshotResult

#: An argument vector, or one string that is run as ``sh -c STRING``.
Command = Union[str, Sequence[str]]

_Self = TypeVar("_Self", bound="Client")


class Client(abc.ABC):
    """The methods of :class:`HTTPClient` and :class:`SandboxClient`.

    Every method raises :class:`SandboxNotFoundError` for an id that no sandbox
    has, other :class:`SandboxError` kinds when the daemon refuses or can't be
    reached, and ValueError or TypeError, before anything is sent, for
    arguments that no request could carry. Clients may be shared by threads.
    """

    @abc.abstractmethod
    def start_sandbox(
        self,
        type: str,
        image: str,
        command: Optional[Command] = None,
        memory_mb: int = 512,
        cpu_cores: float = 1.0,
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
        """

    @abc.abstractmethod
    def stop_sandbox(self, sandbox_id: str, cleanup: bool = True) -> None:
        """Stop a sandbox and remove everything of it.

        With ``cleanup=False`` it is only paused, state and all, and
        :meth:`resume_sandbox` wakes it.
        """

    @abc.abstractmethod
    def exec_command(self, sandbox_id: str, command: Command) -> ExecResult:
        """Run a command in a sandbox and wait for its end.

        Args:
            sandbox_id: The sandbox.
            command: An argument vector, run without a shell; or one string,
                run by the image's ``sh -c``.
        """

    @abc.abstractmethod
    def get_status(self, sandbox_id: str) -> str:
        """Return a sandbox's status: ``"running"``, ``"paused"``, ``"stopped"``, ..."""

    @abc.abstractmethod
    def get_metrics(self, sandbox_id: str) -> MetricsResult:
        """Return a sandbox's use of memory, CPU, processes, network and disk now."""

    @abc.abstractmethod
    def snapshot_sandbox(self, sandbox_id: str) -> SnapshotResult:
        """Save a sandbox's state and leave it paused.

        :meth:`resume_sandbox` wakes it. The paths in the result can be given
        to :meth:`HTTPClient.start_sandbox` to start another one from there.
        """

    @abc.abstractmethod
    def resume_sandbox(self, sandbox_id: str) -> None:
        """Wake a paused sandbox. One that runs is left as it is."""

    @abc.abstractmethod
    def run_python(self, sandbox_id: str, code: str) -> str:
        """Run Python code in a fresh interpreter of the image; return its output.

        The image needs a ``python3`` or a ``python``.
        """

    @abc.abstractmethod
    def get_platform_info(self, sandbox_id: str) -> str:
        """Describe a sandbox from inside, as the text of a JSON object.

        Among its keys are ``system``, ``release``, ``version`` and ``machine``.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the connection. Sandboxes live on. May be called twice."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()


def argv(command: Optional[Command]) -> List[str]:
    """Return *command* as the list of strings the wire carries."""
    if command is None:
        return []
    if isinstance(command, str):
        return ["sh", "-c", command]
    if isinstance(command, (bytes, bytearray)):
        raise TypeError("command: is bytes; give a str or a list of str")
    args = list(command)
    for i, arg in enumerate(args):
        if not isinstance(arg, str):
            raise TypeError(f"command: element {i} is {type(arg).__name__}, not str")
    return args


def checked_id(sandbox_id: str) -> str:
    """Return *sandbox_id* if it can be part of a path at all."""
    if not isinstance(sandbox_id, str):
        raise TypeError(f"sandbox_id: is {type(sandbox_id).__name__}, not str")
    if sandbox_id in ("", ".", ".."):
        raise ValueError(f"sandbox_id: {sandbox_id!r} is no id")
    return sandbox_id


def whole_mb(memory_mb: Union[int, float]) -> int:
    """Return *memory_mb* as an int; 512.0 counts as 512."""
    number = int(memory_mb) if math.isfinite(memory_mb) else None
    if number is None or number != memory_mb:
        raise ValueError(f"memory_mb: is {memory_mb}, give a whole number of MiB")
    return number


def finite_cores(cpu_cores: Union[int, float]) -> float:
    """Return *cpu_cores* as a float; JSON has no word for NaN."""
    number = float(cpu_cores)
    if not math.isfinite(number):
        raise ValueError(f"cpu_cores: is {number}, give a finite number of cores")
    return number
