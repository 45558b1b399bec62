"""One worker process: started with nothing but its own, ended by its lifeline, known for sure."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qinling import exceptions
from qinling.orchestrator.local import process
from tests.fixtures.process import wait_until
from tests.unit.local.conftest import SLEEPER, Start, count_files, log_of

UID_BASE = 1879048192
USERS = process.Users(UID_BASE, (), 150)


def health(started: process.Started) -> dict[str, Any]:
    """What the worker answers; it may still be starting, its port listens already."""
    url = f"http://127.0.0.1:{started.entry.port}/healthz"
    with urllib.request.urlopen(url, timeout=20) as answer:
        return dict(json.load(answer))


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def is_open(pidfd: int | None) -> bool:
    if pidfd is not None:
        os.close(pidfd)
    return pidfd is not None


def status(pid: int, field: str) -> list[str]:
    """A line of /proc/PID/status, in words."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.split()
    raise AssertionError(f"no line {field}")


def test_a_worker_answers_with_the_id_it_was_given(start: Start) -> None:
    started = start()
    answer = health(started)
    assert answer["worker_id"] == started.entry.id
    assert answer["status"] == "ready"


def test_a_lifeline_without_a_byte_ends_the_worker(start: Start) -> None:
    started = start()
    health(started)
    started.abandon()
    assert started.popen.wait(20) == 0
    assert not listens(started.entry.port)


def test_an_owner_that_dies_ends_the_worker_even_while_it_is_starting(start: Start) -> None:
    started = start()
    started.abandon()
    assert started.popen.wait(20) == 0


def test_a_worker_that_was_released_lives_on(start: Start) -> None:
    started, other = start(), start()
    started.release()
    # It has had its lifeline's end as long as the other one, which was ended by its own.
    other.abandon()
    other.popen.wait(20)
    assert health(started)["worker_id"] == started.entry.id
    assert started.popen.poll() is None


def test_releasing_a_worker_that_has_ended_is_no_error(start: Start) -> None:
    started = start(("/bin/true",))
    started.popen.wait(20)
    started.release()
    started.abandon()


def test_exactly_the_process_of_an_entry_is_opened(start: Start) -> None:
    entry = start(SLEEPER).entry
    assert is_open(process.open_pidfd(entry))


@pytest.mark.parametrize(
    "change",
    [
        {"started": 1},
        {"boot": "0f0e0d0c-0b0a-0908-0706-050403020100"},
        {"boot": ""},
        {"pid": 2**22 + 1},
    ],
    ids=["another start time", "another boot", "no boot", "no process"],
)
def test_a_process_that_only_has_the_pid_of_an_entry_is_not_opened(
    start: Start, change: dict[str, Any]
) -> None:
    entry = start(SLEEPER).entry
    before = count_files()
    assert process.open_pidfd(replace(entry, **change)) is None
    wait_until(lambda: count_files() == before, 20, "no file left open")


def test_a_process_that_has_ended_is_not_opened_before_or_after_it_was_waited_for(
    start: Start,
) -> None:
    started = start(SLEEPER)
    started.popen.kill()
    wait_until(lambda: status(started.entry.pid, "State")[0] == "Z", 20, "a zombie")
    # Its pid is nobody else's yet.
    assert process.start_time(started.entry.pid) == started.entry.started
    assert process.open_pidfd(started.entry) is None
    started.popen.wait(20)
    assert process.start_time(started.entry.pid) is None
    assert process.open_pidfd(started.entry) is None


def test_a_name_with_brackets_and_blanks_does_not_shift_the_start_time(
    start: Start, tmp_path: Path
) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    entry = start((str(odd), "600")).entry
    wait_until(lambda: "a) R" in Path(f"/proc/{entry.pid}/comm").read_text(), 20, "its name")
    assert process.start_time(entry.pid) == entry.started


def test_a_signal_goes_to_the_process_and_to_nobody_once_it_has_ended(start: Start) -> None:
    started = start(SLEEPER)
    pidfd = process.open_pidfd(started.entry)
    assert pidfd is not None
    try:
        process.send(pidfd, signal.SIGTERM)
        assert started.popen.wait(20) == -signal.SIGTERM
        process.send(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def open_files(proc: Path) -> set[str]:
    """What a process has open: a path, or what kind of thing else."""
    found = set()
    for entry in (proc / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(entry.readlink()).partition(":")[0])
    return found


def test_a_worker_gets_nothing_of_the_engine_but_its_own(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OS_PASSWORD", "secret")
    inherited = (tmp_path / "secret").open("w")
    os.set_inheritable(inherited.fileno(), True)
    with inherited:
        pid = start(SLEEPER).entry.pid
    proc = Path(f"/proc/{pid}")
    # Until its exec the child is a copy of this process.
    wait_until(
        lambda: (proc / "comm").read_text() == "sleep\n" and (proc / "environ").read_text(),
        20,
        "the worker's program",
    )
    names = {line.partition("=")[0] for line in (proc / "environ").read_text().split("\0") if line}
    assert names == {
        "PATH",
        "LANG",
        "TMPDIR",
        "QINLING_WORKER_ID",
        "QINLING_WORKER_LISTEN_FD",
        "QINLING_WORKER_LIFELINE_FD",
    }
    own = {"/dev/null", "pipe", "socket", str(next(tmp_path.glob("*.log")))}
    # While it is loaded its libraries are open, too.
    wait_until(lambda: open_files(proc) == own, 20, f"exactly {own} open")
    assert (proc / "cwd").readlink() == Path("/")
    assert os.getsid(pid) == pid


def has_the_limits(pid: int) -> bool:
    return resource.prlimit(pid, resource.RLIMIT_NOFILE) == (1024, 1024) and resource.prlimit(
        pid, resource.RLIMIT_CORE
    ) == (0, 0)


def test_a_worker_has_the_limits_of_the_contract(start: Start) -> None:
    pid = start(SLEEPER).entry.pid
    # It may take them on itself, on the way to its program.
    wait_until(lambda: has_the_limits(pid), 20, "the limits")


def test_what_a_worker_prints_is_in_its_log(start: Start, tmp_path: Path) -> None:
    start(("/bin/sh", "-c", "echo out; echo err >&2")).popen.wait(20)
    [log] = tmp_path.glob("*.log")
    assert log.read_text() == "out\nerr\n"


@pytest.mark.parametrize("command", ["/nonexistent/server", "{here}/not-executable", "/"])
def test_a_program_that_cannot_be_run_is_named_and_leaves_nothing(
    start: Start, tmp_path: Path, command: str
) -> None:
    (tmp_path / "not-executable").touch(mode=0o644)
    command = command.format(here=tmp_path)
    before = count_files()
    with pytest.raises(exceptions.OrchestratorError, match=f"cannot be run: {command}: "):
        start((command,))
    # Other tests' servers may have files of their own open, for a moment.
    wait_until(lambda: count_files() == before, 20, "no file left open")


def test_each_worker_has_a_user_id_of_its_own_where_that_can_be_given(start: Start) -> None:
    if os.geteuid() != 0:
        with pytest.raises(exceptions.OrchestratorError, match="cannot be run"):
            start(SLEEPER, USERS)
        return
    one, other = start(SLEEPER, USERS), start(SLEEPER, USERS)
    for started in (one, other):
        limits = Path(f"/proc/{started.entry.pid}/limits")
        wait_until(
            lambda limits=limits: re.search(  # type: ignore[misc]
                r"^Max open files +1024 +1024 ", limits.read_text(), re.MULTILINE
            ),
            20,
            "the limits",
        )
        own = str(UID_BASE + started.entry.port)
        assert status(started.entry.pid, "Uid") == [own] * 4
        assert status(started.entry.pid, "Gid") == [own] * 4
        assert status(started.entry.pid, "Groups") == []
    assert one.entry.port != other.entry.port


def test_a_user_id_that_is_taken_is_given_to_nobody(start: Start) -> None:
    if os.geteuid() != 0:
        return  # such workers are refused, which the test above has
    asked: list[int] = []

    class FirstTwo:
        def __contains__(self, uid: object) -> bool:
            assert isinstance(uid, int)
            asked.append(uid)
            return len(asked) <= 2

    entry = start(SLEEPER, process.Users(UID_BASE, FirstTwo(), 150)).entry
    assert len(set(asked)) == 3
    assert entry.uid == asked[2] == UID_BASE + entry.port


def test_a_worker_with_a_user_id_of_its_own_is_told_how_many_processes_it_may_have(
    start: Start, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        return
    started = start(("/usr/bin/env",), USERS)
    started.popen.wait(20)
    assert "QINLING_WORKER_MAX_PROCESSES=150\n" in log_of(tmp_path, started)


def test_what_another_user_cannot_read_is_not_run_as_another_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    code = tmp_path / "worker"
    code.mkdir(mode=0o700)
    command = (sys.executable, "-I", "-S", str(code))
    assert not process.runs_as_other(command, UID_BASE)
    assert not process.runs_as_other(("/nonexistent/python", str(code)), UID_BASE)
