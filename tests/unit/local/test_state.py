"""What this host knows of its pools: on disk, whole, and one at a time."""

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from qinling import exceptions
from qinling.orchestrator.local import state as module
from qinling.orchestrator.local.state import Pool, StateDir, WorkerEntry
from tests.fixtures.process import wait_until

ID = "3c1cbbbf-1c32-4c45-b7a6-d7ccd7f5dbbb"
WORKER = WorkerEntry(
    id="7b0c7b52-3a55-4b0d-8e43-6a3d3a3b5a5e",
    image="python3",
    pid=4711,
    started=1234567,
    boot="0f0e0d0c-0b0a-0908-0706-050403020100",
    port=40001,
    born=1769860800.25,
    folder="/tmp/qinling-7b0c7b52-3a55-4b0d-8e43-6a3d3a3b5a5e",
)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(str(tmp_path / "state"))
    state.prepare()
    return state


def pool(revision: int = 1) -> Pool:
    return Pool(
        id=ID,
        revision=revision,
        image="python3",
        size=2,
        failures=3,
        failed_at=1769860801.5,
        reason="ünlucky",
        workers=[WORKER, replace(WORKER, id="5a52b1f1-3f5e-4c59-9d86-6c8c1b1f5a52", retiring=True)],
    )


def files(state: StateDir) -> set[str]:
    return {path.name for path in state.path.rglob("*") if path.is_file()}


def test_a_pool_is_read_back_as_it_was_saved(state: StateDir) -> None:
    saved = pool()
    state.save(saved)
    assert state.load(ID) == saved
    assert StateDir(str(state.path)).load(ID) == saved
    assert state.ids() == [ID]


def test_a_pool_that_was_never_saved_or_is_deleted_is_none(state: StateDir) -> None:
    assert state.load(ID) is None
    state.save(pool())
    state.delete(ID)
    assert state.load(ID) is None
    assert state.ids() == []
    assert files(state) == set()
    state.delete(ID)


def test_nobody_but_the_owner_reads_the_folder(state: StateDir) -> None:
    for folder in (state.path, state.pools, state.logs):
        assert folder.stat().st_mode & 0o077 == 0


#: Saves revision 2 over what is there, and is gone between writing the draft and the rename.
CRASH = """
import os, pathlib, sys
from qinling.orchestrator.local import state
pathlib.Path.rename = lambda *_: os._exit(9)
found = state.StateDir(sys.argv[1])
pool = found.load(sys.argv[2])
pool.revision = 2
found.save(pool)
"""


def test_a_crash_between_write_and_rename_leaves_what_was_there(state: StateDir) -> None:
    state.save(pool(revision=1))
    crashed = subprocess.run(
        [sys.executable, "-c", CRASH, state.path, ID], check=False, capture_output=True
    )
    assert crashed.returncode == 9, crashed.stderr
    # The draft is there, and nobody takes it for a pool.
    assert len(files(state)) == 2
    assert state.load(ID) == pool(revision=1)
    assert state.ids() == [ID]
    state.save(pool(revision=3))
    assert state.load(ID) == pool(revision=3)


def test_a_save_that_fails_leaves_what_was_there_and_no_draft(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.save(pool(revision=1))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(exceptions.OrchestratorError) as caught:
        state.save(pool(revision=2))
    assert "cannot write the state of pools: [local] state_dir: " in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert state.load(ID) == pool(revision=1)
    assert files(state) == {f"{ID}.json"}


def test_a_reader_sees_a_pool_as_one_save_left_it(state: StateDir) -> None:
    state.save(pool(revision=0))
    done = threading.Event()
    torn: list[Pool | None] = []

    def read() -> None:
        while not done.is_set():
            found = state.load(ID)
            if found is None or found.size != found.revision % 7:
                torn.append(found)

    first = pool(revision=0)
    first.size = 0
    state.save(first)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for revision in range(200):
            changed = pool(revision=revision)
            changed.size = revision % 7
            changed.reason = "x" * revision * 50
            state.save(changed)
    finally:
        done.set()
        reader.join(20)
    assert torn == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 512,
        b"{",
        b"[]",
        b"{}",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b'{"id": "a", "workers": null}',
        b'{"id": "a", "workers": [{}]}',
        b'{"id": "a", "workers": [], "unknown": 1}',
        b'{"workers": []}',
    ],
)
def test_a_damaged_file_is_told_with_its_path_and_what_to_do(
    state: StateDir, content: bytes
) -> None:
    path = state.pools / f"{ID}.json"
    path.write_bytes(content)
    with pytest.raises(exceptions.OrchestratorError) as caught:
        state.load(ID)
    assert str(path) in str(caught.value)
    assert "delete it" in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../../x", "/etc/passwd", "a", f"{ID}/../x", f"{ID}\n", f"{ID}.json"]
)
def test_an_id_that_is_no_uuid_never_becomes_a_path(state: StateDir, name: str) -> None:
    for use in (
        lambda: state.load(name),
        lambda: state.save(Pool(name)),
        lambda: state.delete(name),
        lambda: state.log(name),
        lambda: contextlib.ExitStack().enter_context(state.locked(name)),
    ):
        with pytest.raises(ValueError, match="UUID"):
            use()
    assert files(state) == set()


def test_files_that_are_no_pools_are_left_alone(state: StateDir) -> None:
    state.save(pool())
    (state.pools / "notes.json").write_text("{}")
    (state.pools / f"{ID}.json.bak").write_text("{}")
    assert state.ids() == [ID]


def test_a_lock_is_held_by_one_thread_at_a_time(state: StateDir) -> None:
    with (
        state.locked(ID),
        pytest.raises(exceptions.PoolBusy, match=ID),
        state.locked(ID),
    ):
        raise AssertionError("it was given twice")
    with state.locked(ID), state.locked(str(uuid.uuid4())):
        pass


def test_a_lock_is_held_by_one_process_at_a_time_and_ends_with_it(
    state: StateDir, tmp_path: Path
) -> None:
    hold = (
        "import sys, time; from qinling.orchestrator.local import state\n"
        "with state.StateDir(sys.argv[1]).locked(sys.argv[2]):\n"
        "    open(sys.argv[3], 'w').close(); time.sleep(600)"
    )
    mark = tmp_path / "held"
    holder = subprocess.Popen([sys.executable, "-c", hold, state.path, ID, mark])
    try:
        wait_until(mark.exists, 20, "the other process's lock")
        with pytest.raises(exceptions.PoolBusy), state.locked(ID):
            raise AssertionError("it was given twice")
    finally:
        holder.kill()
        holder.wait(20)
    with state.locked(ID):
        pass


def test_a_lock_whose_file_was_deleted_before_it_was_taken_is_taken_anew(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, deleted = fcntl.flock, []

    def delete_first(file: int, operation: int) -> None:
        if not deleted:
            deleted.append(file)
            state.delete(ID)  # as whoever held the lock just then did
        flock(file, operation)

    monkeypatch.setattr(module.fcntl, "flock", delete_first)
    with state.locked(ID):
        # Whoever comes now opens the file that is there, and finds it held.
        with pytest.raises(exceptions.PoolBusy), state.locked(ID):
            raise AssertionError("it was given twice")
        assert files(state) == {f"{ID}.lock"}


def test_an_error_of_who_holds_a_lock_is_not_told_as_one_of_the_lock(state: StateDir) -> None:
    with pytest.raises(PermissionError, match="something else"), state.locked(ID):
        raise PermissionError(1, "something else")


def test_a_folder_that_cannot_be_made_is_told_with_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(exceptions.StartupError) as caught:
        StateDir(str(tmp_path / "file" / "state")).prepare()
    assert "[local] state_dir" in str(caught.value)
    assert "Not a directory" in str(caught.value)


def test_a_folder_on_a_full_disk_is_told_with_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(exceptions.StartupError, match="No space left on device"):
        StateDir(str(tmp_path / "state")).prepare()
    assert files(StateDir(str(tmp_path / "state"))) == set()
