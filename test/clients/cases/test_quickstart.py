"""The two quick starts of the README, as they stand there.

The code is taken from sdk/python/README.md, whose quick starts are those of the
published package. It is executed without a change; only the classes it imports
are given the address of the daemon under test in place of the default ports.

Three things the published clients or the daemon lack are dealt with openly:

* HTTPClient 0.1.1 has no run_python and no get_platform_info, though its own
  README uses them. For it the paragraphs with these calls are left out, and
  the test checks that it is these two and no others.
* The gRPC quick start wants a Firecracker sandbox. Where the daemon has no such
  backend the test checks that it is refused in clear words, and hands the
  rest of the code a gVisor sandbox instead.
* The quick starts name backends. Where FSB_TEST_TYPES lacks one of them, one
  that is listed takes its name's place in the code.
"""

import re

import flash_sandbox
import grpc
import pytest

from conftest import GRPC, HTTP, README, TYPES

HTTP_CODE, GRPC_CODE = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[:2]
CALL = re.compile(r"\bclient\.(\w+)\(")


def test_the_readme_has_the_quick_starts():
    compile(HTTP_CODE, "HTTP quick start", "exec")
    compile(GRPC_CODE, "gRPC quick start", "exec")
    assert 'client = HTTPClient(host="localhost", port=8080)' in HTTP_CODE
    assert 'client = SandboxClient(host="localhost", port=50051)' in GRPC_CODE
    common = {"start_sandbox", "exec_command", "get_status", "snapshot_sandbox", "resume_sandbox", "stop_sandbox", "close"}
    assert set(CALL.findall(GRPC_CODE)) == common
    assert set(CALL.findall(HTTP_CODE)) == common | {"get_metrics", "run_python", "get_platform_info"}


def run(monkeypatch, capsys, code, name, replacement):
    monkeypatch.setattr(flash_sandbox, name, replacement)
    exec(compile(code, "quick start", "exec"), {"__name__": "__main__"})
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("kind", TYPES)
def test_http(monkeypatch, capsys, kind):
    class Client(flash_sandbox.HTTPClient):
        def __init__(self, host, port):
            assert (host, port) == ("localhost", 8080)
            super().__init__(address=HTTP["plain"])

    code = HTTP_CODE if kind == "docker" else HTTP_CODE.replace('type="docker"', f'type="{kind}"')
    paragraphs, lacking = [], set()
    for paragraph in code.split("\n\n"):
        missing = {m for m in CALL.findall(paragraph) if not hasattr(Client, m)}
        lacking |= missing
        if not missing:
            paragraphs.append(paragraph)
    published_first = not hasattr(flash_sandbox, "Sandbox") and not hasattr(flash_sandbox, "SandboxError")
    assert lacking == ({"run_python", "get_platform_info"} if published_first else set())

    out = run(monkeypatch, capsys, "\n\n".join(paragraphs), "HTTPClient", Client)
    told = dict(line.split(": ", 1) for line in out)
    assert told["Sandbox ID"]
    assert told["Output"] == "Hello from HTTP!"
    assert told["Exit code"] == "0"
    assert told["Status"] == "running"
    usage, limit = told["Memory"].split(" / ")
    assert 0 < int(usage) < int(limit) == 128 << 20
    assert re.fullmatch(r"[0-9.]+%", told["CPU"])
    assert told["Snapshot"].startswith("/")
    if not lacking:
        assert told["Python Output"] == "Hello Python in Sandbox"
        assert "Linux" in told["Platform Info"]


def test_grpc(monkeypatch, capsys, backends):
    refusals = []

    class Client(flash_sandbox.SandboxClient):
        def __init__(self, host, port):
            assert (host, port) == ("localhost", 50051)
            super().__init__(address=GRPC["plain"])

        def start_sandbox(self, type, **more):
            if type != "firecracker" or type in backends:
                return super().start_sandbox(type=type, **more)
            with pytest.raises(grpc.RpcError) as caught:
                super().start_sandbox(type=type, **more)
            refusals.append((caught.value.code(), caught.value.details()))
            return super().start_sandbox(type=stand_in, **more)

    stand_in = "gvisor" if "gvisor" in TYPES else TYPES[0]
    code = GRPC_CODE
    for named in ("docker", "gvisor"):
        if named not in TYPES:
            code = code.replace(f'type="{named}"', f'type="{TYPES[0]}"')
    out = run(monkeypatch, capsys, code, "SandboxClient", Client)

    if "firecracker" not in backends:
        ((status, text),) = refusals
        assert status == grpc.StatusCode.UNIMPLEMENTED
        assert "firecracker" in text
        assert len(text.split()) > 5, text
    told = dict(line.split(": ", 1) for line in out)
    ids = {told["Docker Sandbox ID"], told["Firecracker Sandbox ID"], told["gVisor Sandbox ID"]}
    assert len(ids) == 3
    assert told["Firecracker Status"] == "running"
    assert "snapshot_path" in told["Snapshot Data"]
    assert told["gVisor Output"] == "Hello from gVisor!"
    assert told["gVisor Exit Code"] == "0"
