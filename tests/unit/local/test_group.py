"""Who belongs to a worker, and who only looks as if."""

import os
import signal
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qinling.orchestrator.local import group, process
from qinling.orchestrator.local.state import WorkerEntry
from tests.fixtures.process import wait_until
from tests.unit.local.conftest import SLEEPER, UNMARKED, WRAPPER, Start, count_files, pids

UID_BASE = 1879048192
OTHER_ID = "7b0c7b52-3a55-4b0d-8e43-6a3d3a3b5a5e"
USERS = process.Users(UID_BASE, (), 150)


def count(entry: WorkerEntry, which: Callable[[WorkerEntry], list[int]] = group.members) -> int:
    """How many processes of a worker live."""
    descriptors = which(entry)
    for descriptor in descriptors:
        os.close(descriptor)
    return len(descriptors)


def started_pair(start: Start, *options: Any) -> process.Started:
    """A wrapper and what it wraps."""
    started = start(*options)
    wait_until(lambda: count(started.entry) == 2, 20, "both")
    wait_until(lambda: b"sleep" in _commands(started.entry), 20, "the wrapped program")
    return started


def _commands(entry: WorkerEntry) -> bytes:
    held = group.members(entry)
    text = b""
    for descriptor in held:
        info = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        pid = info.partition("Pid:")[2].split()[0]
        text += Path(f"/proc/{pid}/comm").read_bytes()
        os.close(descriptor)
    return text


def orphaned(started: process.Started) -> WorkerEntry:
    """Kill the leader and wait for it, as init does with an earlier engine's children."""
    started.popen.kill()
    started.popen.wait(20)
    return started.entry


def test_what_a_worker_starts_belongs_to_it(start: Start) -> None:
    before = count_files()
    assert count(started_pair(start, WRAPPER).entry) == 2
    wait_until(lambda: count_files() == before + 1, 20, "nothing but the lifeline open")


def test_a_worker_that_has_ended_has_nobody(start: Start) -> None:
    started = start(SLEEPER)
    assert count(started.entry) == 1
    started.popen.kill()
    wait_until(lambda: count(started.entry) == 0, 20, "the end")
    started.popen.wait(20)
    assert count(started.entry) == 0


@pytest.mark.parametrize("command", [WRAPPER, UNMARKED], ids=["marked", "unmarked"])
def test_who_outlives_the_leader_belongs_to_it_as_long_as_nobody_waited_for_it(
    start: Start, command: tuple[str, ...]
) -> None:
    started = started_pair(start, command)
    started.popen.kill()
    wait_until(lambda: count(started.entry) == 1, 20, "the leader's end")
    assert count(started.entry) == 1


def test_who_outlives_the_leader_is_known_by_the_workers_mark_afterwards(
    start: Start, tmp_path: Path
) -> None:
    entry = orphaned(started_pair(start, WRAPPER))
    assert count(entry) == 1
    # A stranger in a session of the same number, as it may be after that was used again.
    assert count(replace(entry, id=str(uuid.uuid4()))) == 0
    for descriptor in group.members(entry):
        process.send(descriptor, signal.SIGKILL)
        os.close(descriptor)
    wait_until(lambda: count(entry) == 0, 20, "the end")
    assert pids(tmp_path) == set()


def test_who_cannot_be_proved_to_be_a_workers_is_left_alone(start: Start) -> None:
    assert count(orphaned(started_pair(start, UNMARKED))) == 0


def test_a_user_id_of_its_own_is_a_mark_that_nobody_can_take_off(start: Start) -> None:
    if os.geteuid() != 0:
        return  # such workers are refused, which test_process.py has
    entry = orphaned(started_pair(start, UNMARKED, USERS))
    assert count(entry) == 1
    assert count(replace(entry, uid=UID_BASE)) == 0


def test_who_has_left_the_session_is_known_by_the_mark(start: Start) -> None:
    # Where workers have no user id of their own, this mark can be taken off.
    is_root = os.geteuid() == 0
    leaves = f"setsid {'env -i' if is_root else ''} /bin/sleep 600 & exec /bin/sleep 600"
    started = start(("/bin/sh", "-c", leaves), USERS if is_root else None)
    wait_until(lambda: count(started.entry, group.strays) == 1, 20, "who has left")
    wait_until(lambda: count(started.entry) == 1, 20, "who has not")
    assert count(started.entry, group.everybody) == 2
    stranger = replace(started.entry, id=str(uuid.uuid4()), uid=UID_BASE if is_root else None)
    assert count(stranger, group.strays) == 0
    entry = orphaned(started)
    assert count(entry) == 0
    group.kill(entry)
    wait_until(lambda: count(entry, group.strays) == 0, 20, "the end")


def test_a_worker_is_told_to_end_by_its_group_and_killed_by_its_session(start: Start) -> None:
    # A shell in which jobs have groups of their own.
    inner = "/bin/sh -c 'sleep 600; echo ended' & exec /bin/sleep 600"
    entry = start(("/bin/bash", "-c", f"set -m; {inner}")).entry
    wait_until(lambda: _commands(entry).count(b"sleep") == 2, 20, "both")
    group.terminate(entry)
    wait_until(lambda: count(entry) == 2, 20, "the leader's end")
    assert _commands(entry).count(b"sleep") == 1
    group.kill(entry)
    wait_until(lambda: count(entry) == 0, 20, "the end")


@pytest.mark.parametrize(
    "change",
    [
        {"started": 1, "id": OTHER_ID},
        {"boot": "0f0e0d0c-0b0a-0908-0706-050403020100"},
        {"pid": 2**22 + 1},
    ],
    ids=["the pid used again", "another boot", "no such session"],
)
def test_a_session_that_only_has_the_number_is_nobodys(
    start: Start, change: dict[str, Any]
) -> None:
    entry = started_pair(start, WRAPPER).entry
    before = count_files()
    assert group.members(replace(entry, **change)) == []
    wait_until(lambda: count_files() == before, 20, "no file left open")
