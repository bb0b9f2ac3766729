"""The quick start, step by step, with the time each step takes.

Usage: quickstart.py ADDRESS IMAGE
"""

import json
import sys
import time
from typing import Callable, TypeVar

from flash_sandbox import HTTPClient

T = TypeVar("T")


def step(name: str, call: Callable[[], T], show: Callable[[T], object] = lambda _: "") -> T:
    began = time.perf_counter()
    result = call()
    took = (time.perf_counter() - began) * 1000
    print(f"{name:46} {took:8.1f} ms   {show(result)}".rstrip(), flush=True)
    return result


def main(address: str, image: str) -> None:
    client = HTTPClient(address=address, timeout=600)
    sid = step(
        "start_sandbox (image pulled and unpacked)",
        lambda: client.start_sandbox(
            type="auto", image=image, command=["tail", "-f", "/dev/null"], memory_mb=256, cpu_cores=1.0
        ),
        str,
    )
    warm = step(
        "start_sandbox once more (image cached)",
        lambda: client.start_sandbox(
            type="auto", image=image, command=["tail", "-f", "/dev/null"], memory_mb=256, cpu_cores=1.0
        ),
        str,
    )
    client.stop_sandbox(warm)
    step(
        "exec_command",
        lambda: client.exec_command(sid, ["echo", "Hello from HTTP!"]),
        lambda r: f"{r.stdout.strip()!r}, exit code {r.exit_code}",
    )
    step("get_status", lambda: client.get_status(sid), str)
    step(
        "get_metrics",
        lambda: client.get_metrics(sid),
        lambda m: f"memory {m.memory_usage_bytes} of {m.memory_limit_bytes}, cpu {m.cpu_percent:.1f} %",
    )
    step("run_python", lambda: client.run_python(sid, "print('Hello Python in Sandbox')"), lambda o: repr(o.strip()))
    step(
        "get_platform_info",
        lambda: client.get_platform_info(sid),
        lambda i: "{backend}, {system} {release}, Python {python}".format(**json.loads(i)),
    )
    client.exec_command(sid, ["sh", "-c", "echo saved > /tmp/note"])
    snap = step("snapshot_sandbox", lambda: client.snapshot_sandbox(sid), lambda s: s["snapshot_path"].split("/")[-3])
    step("resume_sandbox", lambda: client.resume_sandbox(sid))
    copy = step(
        "start_sandbox from the snapshot",
        lambda: client.start_sandbox(
            type="", image="", snapshot_path=snap["snapshot_path"], mem_file_path=snap["mem_file_path"],
            memory_mb=256, cpu_cores=1.0,
        ),
        str,
    )
    step("its file", lambda: client.exec_command(copy, ["cat", "/tmp/note"]), lambda r: repr(r.stdout.strip()))
    step("stop_sandbox", lambda: (client.stop_sandbox(sid), client.stop_sandbox(copy)))
    client.close()
    print("\nThis was a real daemon and a real image. The README says what to do next.")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
