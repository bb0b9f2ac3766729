"""Snapshot, resume, pausing stop and restore."""

import inspect
import time

import pytest

from conftest import sandbox_id

COUNTER = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.05; done"]


def count(s, sandbox):
    """Return what the counter in the sandbox has come to."""
    for _ in range(50):
        text = s.exec(sandbox, "cat", "/tmp/n").stdout.strip()
        if text:  # not just being written
            return int(text)
        time.sleep(0.02)
    raise AssertionError("the counter writes nothing")


def check_paused(s, sandbox):
    assert s.client.get_status(sandbox) == "paused"
    s.refused("conflict", lambda: s.exec(sandbox, "true"), sandbox_id(sandbox), "paused", "resume")
    if s.has("run_python"):
        s.refused("conflict", lambda: s.client.run_python(sandbox, "print(1)"), "paused", "resume")


def test_snapshot_pauses_and_resume_wakes(subject, kind):
    s = subject
    sandbox = s.start(kind, command=COUNTER)
    snap = s.client.snapshot_sandbox(sandbox)
    assert snap["snapshot_path"]
    check_paused(s, sandbox)
    s.client.resume_sandbox(sandbox)
    first = count(s, sandbox)
    time.sleep(0.3)
    assert count(s, sandbox) > first, "the sandbox's own process does not go on"
    s.client.resume_sandbox(sandbox)  # already awake
    assert s.client.get_status(sandbox) == "running"
    again = s.client.snapshot_sandbox(sandbox)
    assert again["snapshot_path"] != snap["snapshot_path"]
    check_paused(s, sandbox)  # and is stopped while paused


def test_stop_without_cleanup_then_resume(subject, kind):
    s = subject
    method = getattr(s.client, "client", s.client).stop_sandbox
    if "cleanup" not in inspect.signature(method).parameters:
        with pytest.raises(TypeError):
            s.client.stop_sandbox("x", cleanup=False)
        return
    sandbox = s.start(kind, command=COUNTER)
    s.sh(sandbox, "echo kept > /kept.txt")
    s.client.stop_sandbox(sandbox, cleanup=False)
    check_paused(s, sandbox)
    s.client.stop_sandbox(sandbox, cleanup=False)  # says nothing new
    assert s.client.get_status(sandbox) == "paused"
    s.client.resume_sandbox(sandbox)
    assert s.exec(sandbox, "cat", "/kept.txt").stdout == "kept\n"
    first = count(s, sandbox)
    time.sleep(0.3)
    assert count(s, sandbox) > first
    s.client.stop_sandbox(sandbox, cleanup=True)
    s.refused("not_found", lambda: s.client.get_status(sandbox))


@pytest.mark.parametrize("image", ["named", "empty"])
def test_start_from_a_snapshot(http_subject, kind, image):
    s = http_subject
    source = s.start(kind, command=COUNTER)
    s.sh(source, "echo saved > /kept.txt")
    snap = s.client.snapshot_sandbox(source)
    s.client.resume_sandbox(source)
    s.sh(source, "echo later > /kept.txt")

    more = {} if image == "named" else {"image": ""}
    copy = s.start(kind, command=None, **more, **snap)
    assert sandbox_id(copy) != sandbox_id(source)
    assert s.client.get_status(copy) == "running"
    assert s.exec(copy, "cat", "/kept.txt").stdout == "saved\n"
    assert s.exec(source, "cat", "/kept.txt").stdout == "later\n"
    s.client.stop_sandbox(source)
    first = count(s, copy)
    time.sleep(0.3)
    assert count(s, copy) > first, "the saved process does not go on"


@pytest.mark.parametrize(
    "paths",
    [
        {"snapshot_path": "/etc/passwd"},
        {"snapshot_path": "relative"},
        {"snapshot_path": "/"},
        {"snapshot_path": "../../etc"},
        {"mem_file_path": "/etc/passwd"},
    ],
    ids=lambda p: "=".join(*p.items()),
)
def test_paths_that_are_no_snapshot(http_subject, kind, paths):
    got, text = http_subject.failure(lambda: http_subject.start(kind, **paths))
    assert got in ("denied", "invalid"), text
    assert next(iter(paths)) in text
