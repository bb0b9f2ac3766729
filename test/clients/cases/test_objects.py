"""The objects of later versions: Sandbox and AsyncSandbox, over each transport."""

import asyncio

import flash_sandbox
import grpc
import pytest
from flash_sandbox import AsyncHTTPClient, AsyncSandbox, HTTPClient, Sandbox, SandboxClient

from conftest import FOREVER, GRPC, HTTP, IMAGE

WAYS = [(HTTPClient, HTTP, way) for way in HTTP] + [(SandboxClient, GRPC, way) for way in GRPC]


def arguments(kind):
    return {"type": kind, "image": IMAGE, "command": FOREVER, "memory_mb": 128, "cpu_cores": 0.5}


@pytest.mark.parametrize(("client_class", "table", "way"), WAYS, ids=lambda v: getattr(v, "__name__", v if isinstance(v, str) else ""))
def test_sandbox(client_class, table, way, kind):
    with client_class(address=table[way]) as client:
        with Sandbox.create(client, **arguments(kind)) as sandbox:
            assert sandbox.get_status() == "running"
            result = sandbox.exec_command(["sh", "-c", "echo out; echo err >&2; exit 3"])
            assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)
            assert result.elapsed_ms > 0
            assert sandbox.run_python("print(6*7)") == "42\n"
            assert sandbox.get_platform_info()["system"] == "Linux"
            if hasattr(client, "get_metrics"):
                assert sandbox.get_metrics().memory_limit_bytes == 128 << 20
            assert sandbox.snapshot()["snapshot_path"]
            assert sandbox.get_status() == "paused"
            sandbox.resume()
            sandbox.stop(cleanup=False)
            assert sandbox.get_status() == "paused"
            sandbox.resume()
            assert client.get_status(sandbox) == client.get_status(sandbox.id) == "running"
        with pytest.raises((flash_sandbox.SandboxNotFoundError, grpc.RpcError)) as caught:
            sandbox.get_status()
        assert sandbox.id in str(caught.value)


@pytest.mark.parametrize("way", HTTP)
def test_async_sandbox(way, kind):
    async def main():
        async with AsyncHTTPClient(address=HTTP[way]) as client:
            async with await AsyncSandbox.create(client, **arguments(kind)) as sandbox:
                assert await sandbox.get_status() == "running"
                result = await sandbox.exec_command(["echo", "hi"])
                assert (result.stdout, result.exit_code) == ("hi\n", 0)
                assert await sandbox.run_python("print(6*7)") == "42\n"
                assert (await sandbox.get_platform_info())["system"] == "Linux"
                assert (await sandbox.get_metrics()).memory_limit_bytes == 128 << 20
                assert (await sandbox.snapshot())["snapshot_path"]
                assert await sandbox.get_status() == "paused"
                await sandbox.resume()
                await sandbox.stop(cleanup=False)
                assert await sandbox.get_status() == "paused"
                await sandbox.resume()
            with pytest.raises(flash_sandbox.SandboxNotFoundError):
                await sandbox.get_status()

    asyncio.run(main())


def test_many_at_once(kind):
    async def one(client, i):
        async with await AsyncSandbox.create(client, **arguments(kind)) as sandbox:
            results = await asyncio.gather(*(sandbox.exec_command(["echo", f"{i}.{n}"]) for n in range(4)))
            return [r.stdout for r in results]

    async def main():
        async with AsyncHTTPClient(address=HTTP["plain"]) as client:
            return await asyncio.gather(*(one(client, i) for i in range(4)))

    assert asyncio.run(main()) == [[f"{i}.{n}\n" for n in range(4)] for i in range(4)]
