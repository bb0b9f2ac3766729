"""From start to stop, by every transport and address."""

import threading
import time

import pytest

from conftest import FOREVER, IMAGE, Subject, sandbox_id


def test_main_job(any_way, kind):
    s = any_way
    sandbox = s.start(kind, cpu_cores=0.5)
    result = s.exec(sandbox, "echo", "hi")
    assert (result.stdout, result.stderr, result.exit_code) == ("hi\n", "", 0)
    assert s.client.get_status(sandbox) == "running"
    if s.has("get_metrics"):
        assert s.client.get_metrics(sandbox).memory_limit_bytes > 0
    snap = s.client.snapshot_sandbox(sandbox)
    assert set(snap) == {"snapshot_path", "mem_file_path"}
    assert snap["snapshot_path"].startswith("/")
    assert s.client.resume_sandbox(sandbox) is None
    assert s.client.get_status(sandbox) == "running"
    assert s.exec(sandbox, "echo", "again").stdout == "again\n"
    assert s.client.stop_sandbox(sandbox) is None
    s.refused("not_found", lambda: s.client.get_status(sandbox), sandbox_id(sandbox))
    s.refused("not_found", lambda: s.client.stop_sandbox(sandbox), sandbox_id(sandbox))


@pytest.mark.parametrize("word", ["", "auto", "any", "GVISOR"])
def test_the_daemon_picks(subject, word):
    sandbox = subject.start(word)
    assert subject.exec(sandbox, "echo", "hi").stdout == "hi\n"


def test_command_that_ends(subject, kind):
    s = subject
    sandbox = s.start(kind, command=["sh", "-c", "exit 7"])
    s.wait_status(sandbox, "stopped")
    s.refused("conflict", lambda: s.exec(sandbox, "true"), sandbox_id(sandbox))
    s.refused("conflict", lambda: s.client.resume_sandbox(sandbox), sandbox_id(sandbox))
    s.client.stop_sandbox(sandbox)


def test_no_command_means_the_images_own(subject, kind):
    # The image's own is a shell. It waits for input that never comes.
    sandbox = subject.start(kind, command=None)
    assert subject.exec(sandbox, "ps").stdout.count("sh") >= 1
    assert subject.client.get_status(sandbox) == "running"


def test_limits_that_are_zero_or_whole_floats(http_subject, kind):
    sandbox = http_subject.start(kind, memory_mb=256.0, cpu_cores=0)
    assert http_subject.exec(sandbox, "true").exit_code == 0


def test_default_limits(subject, kind):
    sandbox = subject.client.start_sandbox(type=kind, image=IMAGE, command=FOREVER)
    subject.made.append(sandbox)
    assert subject.exec(sandbox, "true").exit_code == 0


def test_sandboxes_share_nothing(subject, kind):
    s = subject
    one, two = s.start(kind), s.start(kind)
    assert sandbox_id(one) != sandbox_id(two)
    assert s.sh(one, "echo one > /tmp/mine && cat /tmp/mine").stdout == "one\n"
    assert s.exec(two, "cat", "/tmp/mine").exit_code != 0
    s.client.stop_sandbox(one)
    assert s.exec(two, "echo", "here").stdout == "here\n"


def test_stop_while_a_command_runs(subject, kind):
    s = subject
    sandbox = s.start(kind)
    outcome = []

    def run():
        with Subject(s.transport) as other:
            outcome.append(other.failure(lambda: other.exec(sandbox, "sleep", "300")))

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(0.7)
    assert not outcome
    s.client.stop_sandbox(sandbox)
    thread.join(20)
    assert not thread.is_alive(), "the command's caller still waits"
    assert outcome[0][0] in ("not_found", "conflict"), outcome
    s.refused("not_found", lambda: s.client.get_status(sandbox))


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_threads_share_a_client(transport, kind):
    failed = []

    def run(s, i):
        try:
            sandbox = s.start(kind)
            for n in range(3):
                assert s.exec(sandbox, "echo", f"{i}.{n}").stdout == f"{i}.{n}\n"
            s.client.stop_sandbox(sandbox)
        except BaseException as err:
            failed.append(err)

    with Subject(transport) as s:
        threads = [threading.Thread(target=run, args=(s, i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed, failed
