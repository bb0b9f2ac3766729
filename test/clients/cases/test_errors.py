"""Refusals: the right kind, in a sentence that says what to do better."""

import pytest
import requests

from conftest import IMAGE, IMAGE_MISSING, sandbox_id

UNKNOWN = "sb-abcdefghijklmnopqrstuvwxyz"

CALLS = {
    "get_status": (),
    "exec_command": (["true"],),
    "get_metrics": (),
    "snapshot_sandbox": (),
    "resume_sandbox": (),
    "stop_sandbox": (),
    "run_python": ("print(1)",),
    "get_platform_info": (),
}


def test_unknown_id(subject):
    for method, arguments in CALLS.items():
        if subject.has(method):
            call = getattr(subject.client, method)
            subject.refused("not_found", lambda: call(UNKNOWN, *arguments), UNKNOWN, "does not exist")


@pytest.mark.parametrize("odd", ["a b", "a%2Fb", "no/such", "sb-" + "x" * 300, "-x", "ä"])
def test_odd_ids(subject, odd):
    for method, arguments in CALLS.items():
        if subject.has(method):
            call = getattr(subject.client, method)
            got, text = subject.failure(lambda: call(odd, *arguments))
            assert got in ("not_found", "invalid"), f"{method}: {got}: {text}"


BAD_STARTS = {
    "unknown type": ({"kind": "vax"}, "type"),
    "empty image": ({"image": ""}, "image"),
    "blank image": ({"image": "  "}, "image"),
    "malformed image": ({"image": "Not:A:Reference"}, "image"),
    "image with a NUL": ({"image": "alpine\0"}, "image"),
    "negative memory": ({"memory_mb": -1}, "memory_mb"),
    "absurd memory": ({"memory_mb": 1 << 40}, "memory_mb"),
    "too little memory": ({"memory_mb": 1}, "memory_mb"),
    "negative cpu": ({"cpu_cores": -0.5}, "cpu_cores"),
    "tiny cpu": ({"cpu_cores": 0.001}, "cpu_cores"),
    "absurd cpu": ({"cpu_cores": 1e9}, "cpu_cores"),
    "NUL in the command": ({"command": ["sh", "a\0b"]}, "command"),
    "empty program": ({"command": ["", "x"]}, "command"),
}


@pytest.mark.parametrize("what", BAD_STARTS)
def test_bad_start(subject, kind, what):
    arguments, field = BAD_STARTS[what]
    subject.refused("invalid", lambda: subject.start(**{"kind": kind, **arguments}), field)


def test_not_a_number(subject, kind):
    if subject.transport == "http":
        # The JSON of requests has no such number, so it never gets there.
        with pytest.raises((ValueError, requests.RequestException)):
            subject.start(kind, cpu_cores=float("nan"))
        return
    try:
        got, text = subject.failure(lambda: subject.start(kind, cpu_cores=float("nan")))
    except ValueError as err:  # a client that checks
        assert "cpu_cores" in str(err)
        return
    assert got == "invalid", text


def test_image_that_does_not_exist(subject, kind):
    got, text = subject.failure(lambda: subject.start(kind, image=IMAGE_MISSING))
    assert got in ("not_found", "invalid"), text
    assert IMAGE_MISSING.rsplit("/", 1)[1].split(":")[0] in text


def test_program_that_does_not_exist(subject, kind):
    got, text = subject.failure(lambda: subject.start(kind, command=["/no/such/program"]))
    assert got in ("invalid", "not_found"), text
    assert "/no/such/program" in text


def test_firecracker_where_there_is_none(subject, backends):
    if "firecracker" in backends:
        sandbox = subject.start("firecracker", memory_mb=512)
        assert subject.client.get_status(sandbox) == "running"
        return
    got, text = subject.failure(lambda: subject.start("firecracker", memory_mb=512))
    assert got == "unsupported", text
    assert "firecracker" in text


def test_bad_exec(subject, kind):
    s = subject
    sandbox = s.start(kind)
    s.refused("invalid", lambda: s.exec(sandbox), "command")
    s.refused("invalid", lambda: s.exec(sandbox, ""), "command")
    s.refused("invalid", lambda: s.exec(sandbox, "echo", "a\0b"), "command", "NUL")
    s.refused("invalid", lambda: s.exec(sandbox, "echo", *["x" * 1000] * 1100), "command")
    assert s.exec(sandbox, "echo", "alive").stdout == "alive\n"


def test_refusals_leave_the_client_usable(subject, kind):
    s = subject
    for _ in range(20):
        s.refused("not_found", lambda: s.client.get_status(UNKNOWN))
        s.refused("invalid", lambda: s.start(kind, image=""))
    sandbox = s.start(kind)
    assert s.client.get_status(sandbox) == "running"
    assert sandbox_id(sandbox)
    assert IMAGE
