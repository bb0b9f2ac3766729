"""Commands, Python code, platform information and metrics."""

import json
import re
import time

import flash_sandbox
import pytest
import requests

from conftest import HTTP, IMAGE_BARE, Subject, sandbox_id


def test_results(subject, kind):
    s = subject
    sandbox = s.start(kind)

    def run(*command):
        r = s.exec(sandbox, *command)
        return r.stdout, r.stderr, r.exit_code

    assert run("sh", "-c", "echo out; echo err >&2; exit 43") == ("out\n", "err\n", 43)
    assert run("true") == ("", "", 0)
    assert run("printf", "%s|", "a b", "", "$HOME", "'", "*") == ("a b||$HOME|'|*|", "", 0)
    assert run("printf", "grüße 🙂") == ("grüße 🙂", "", 0)
    assert run("printf", r"a\377b\000c") == ("a\ufffdb\x00c", "", 0)
    assert run("sh", "-c", "kill -9 $$")[2] == 137
    assert run("sh", "-c", "cat; echo end") == ("end\n", "", 0)  # there is no stdin to wait for

    stdout, stderr, code = run("no-such-program", "x")
    assert (stdout, code) == ("", 127)
    assert stderr.strip()
    stdout, stderr, code = run("/etc/passwd")
    assert (stdout, code) == ("", 126)
    assert stderr.strip()


def test_commands_see_one_another(subject, kind):
    s = subject
    sandbox = s.start(kind)
    assert s.sh(sandbox, "echo kept > /kept.txt").exit_code == 0
    assert s.exec(sandbox, "cat", "/kept.txt").stdout == "kept\n"
    assert s.sh(sandbox, "cd /tmp; export X=1").exit_code == 0
    assert s.sh(sandbox, 'pwd; echo "$X"').stdout == "/\n\n"  # but no shell lives on
    assert "tail -f /dev/null" in s.exec(sandbox, "ps").stdout


def test_caller_that_gives_up(kind):
    with Subject("http") as s:
        sandbox = s.start(kind)
        with flash_sandbox.HTTPClient(address=HTTP["plain"], timeout=1) as impatient:
            with pytest.raises(requests.Timeout):
                impatient.exec_command(sandbox, ["sleep", "4321"])
        deadline = time.monotonic() + 15
        while "sleep 4321" in s.exec(sandbox, "ps").stdout:
            assert time.monotonic() < deadline, "the command goes on, though nobody waits for it"
            time.sleep(0.1)
        assert s.client.get_status(sandbox) == "running"


def test_string_command_runs_in_a_shell(http_subject, kind):
    # These clients send what they are given, so the daemon sees a JSON string.
    sandbox = http_subject.start(kind)
    result = http_subject.client.exec_command(sandbox, "echo $((1+1)) | tr 2 3")
    assert (result.stdout, result.exit_code) == ("3\n", 0)


def test_big_output(subject, kind):
    s = subject
    sandbox = s.start(kind)
    result = s.sh(sandbox, "head -c 1000000 /dev/zero | tr '\\0' x; head -c 500000 /dev/zero | tr '\\0' y >&2")
    assert (result.stdout, result.stderr) == ("x" * 1000000, "y" * 500000)

    # Beyond the limit the middle goes, and says so. The gRPC clients take no
    # reply over 4 MiB, even if every byte becomes three.
    script = r"echo HEAD; head -c 30000000 /dev/zero | tr '\0' '\377'; echo; echo TAIL"
    result = s.sh(sandbox, f"({script}); ({script}) >&2")
    assert result.exit_code == 0
    for text in (result.stdout, result.stderr):
        assert text.startswith("HEAD\n\ufffd")
        assert text.endswith("\ufffd\nTAIL\n")
        assert re.search(r"\n\[\.\.\. \d+ bytes (dropped|cut) here.*\]\n", text)
    if s.transport == "grpc":
        assert len((result.stdout + result.stderr).encode()) < 4 << 20


def test_run_python(subject, kind):
    s = subject
    if not s.has("run_python"):
        assert (s.transport, type(s.client).__name__) == ("http", "HTTPClient")
        return
    sandbox = s.start(kind)
    python = s.client.run_python
    assert python(sandbox, "print('Hello Python in Sandbox')") == "Hello Python in Sandbox\n"
    assert python(sandbox, "") == ""
    assert python(sandbox, "for i in range(3):\n    print(i, end=' ')\nprint('ä\\n\"$HOME\"')\n") == '0 1 2 ä\n"$HOME"\n'
    assert python(sandbox, "import sys; print(sys.argv, __name__)") == "['-c'] __main__\n"
    failed = python(sandbox, "print('before')\n1/0")
    assert failed.startswith("before\n")
    assert "ZeroDivisionError" in failed
    assert "SyntaxError" in python(sandbox, "print(")
    python(sandbox, "x = 1")
    assert "NameError" in python(sandbox, "print(x)")
    s.refused("invalid", lambda: python(sandbox, "print(1)\0"), "code")

    bare = s.start(kind, image=IMAGE_BARE)
    s.refused("unsupported", lambda: python(bare, "print(1)"), "Python", IMAGE_BARE)
    assert s.exec(bare, "echo", "alive").stdout == "alive\n"


def test_platform_info(subject, kind):
    s = subject
    if not s.has("get_platform_info"):
        assert (s.transport, type(s.client).__name__) == ("http", "HTTPClient")
        return
    sandbox = s.start(kind)
    info = s.client.get_platform_info(sandbox)
    if isinstance(info, str):
        info = json.loads(info)
    assert info["system"] == "Linux"
    assert info["backend"] == kind
    assert info["sandbox_id"] == sandbox_id(sandbox)
    assert info["release"] == s.exec(sandbox, "uname", "-r").stdout.strip()
    assert info["machine"] == s.exec(sandbox, "uname", "-m").stdout.strip()


def test_metrics(subject, kind):
    s = subject
    if not s.has("get_metrics"):
        assert s.transport == "grpc"
        return
    sandbox = s.start(kind, memory_mb=256)
    before = s.client.get_metrics(sandbox)
    assert before.memory_limit_bytes == 256 << 20
    assert 0 < before.memory_usage_bytes < 256 << 20
    assert before.memory_percent == pytest.approx(100 * before.memory_usage_bytes / (256 << 20), abs=0.1)
    assert before.pids_current >= 1
    assert before.cpu_percent >= 0
    for field in ("net_rx_bytes", "net_tx_bytes", "block_read_bytes", "block_write_bytes"):
        assert getattr(before, field) >= 0
    # Twenty more processes that stay, one of which holds 64 MiB.
    script = "head -c 67108864 /dev/zero | tail & for i in $(seq 18); do sleep 60 >/dev/null 2>&1 & done; sleep 0.5"
    assert s.sh(sandbox, f"({script}) >/dev/null 2>&1").exit_code == 0
    assert s.client.get_metrics(sandbox).pids_current >= before.pids_current + 18
