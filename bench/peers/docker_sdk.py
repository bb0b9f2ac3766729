"""Drives Docker through its SDK for Python, for the benchmark.

Reads requests from stdin and writes answers to stdout, one JSON object a line.
Requests are served by a pool of threads, so answers may come in any order; the
"id" of a request is in its answer. Ends at the end of stdin.

    {"id": 1, "op": "create", "image": "...", "command": ["sleep", "60"], "memory_mb": 512}
    {"id": 1, "box": "4f1c..."}
    {"id": 2, "op": "exec", "box": "4f1c...", "command": ["echo", "hi"]}
    {"id": 2, "stdout": "hi\\n", "stderr": "", "code": 0}
    {"id": 3, "op": "delete", "box": "4f1c..."}
    {"id": 3}
    {"id": 3, "error": "..."}

usage: docker_sdk.py DOCKER_HOST THREADS
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker


class Driver:
    def __init__(self, host: str, threads: int) -> None:
        self.client = docker.DockerClient(base_url=host, max_pool_size=threads, timeout=60)
        self.containers: dict[str, Any] = {}
        self.lock = threading.Lock()

    def serve(self, line: str) -> None:
        request = json.loads(line)
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            answer.update(getattr(self, "op_" + request["op"])(request))
        except Exception as e:  # the benchmark counts it as a failure
            answer["error"] = f"{type(e).__name__}: {e}"
        self.answer(answer)

    def answer(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer) + "\n"
        with self.lock:
            sys.stdout.write(text)
            sys.stdout.flush()

    def op_ping(self, request: dict[str, Any]) -> dict[str, Any]:
        self.client.ping()
        return {"version": docker.__version__}

    def op_create(self, request: dict[str, Any]) -> dict[str, Any]:
        container = self.client.containers.run(
            request["image"],
            request["command"],
            detach=True,
            network_mode="none",
            mem_limit=f"{request['memory_mb']}m",
        )
        self.containers[container.id] = container
        return {"box": container.id}

    def op_exec(self, request: dict[str, Any]) -> dict[str, Any]:
        code, (stdout, stderr) = self.containers[request["box"]].exec_run(request["command"], demux=True)
        return {
            "stdout": (stdout or b"").decode("utf-8", "replace"),
            "stderr": (stderr or b"").decode("utf-8", "replace"),
            "code": code,
        }

    def op_delete(self, request: dict[str, Any]) -> dict[str, Any]:
        self.containers.pop(request["box"]).remove(force=True)
        return {}


def main() -> None:
    threads = int(sys.argv[2])
    driver = Driver(sys.argv[1], threads)
    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin:
            pool.submit(driver.serve, line)


if __name__ == "__main__":
    main()
