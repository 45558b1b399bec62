"""Workers as they are observed: up, well, told to end, gone."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qinling.orchestrator.local import guard, process
from qinling.orchestrator.local import watch as module
from qinling.orchestrator.local.state import WorkerEntry
from qinling.orchestrator.local.watch import End, Health, Watch
from tests.fixtures.process import wait_until
from tests.unit.local.conftest import (
    SLEEPER,
    STUBBORN,
    UNMARKED,
    WRAPPER,
    Start,
    log_of,
    open_files,
    pids,
)

POOL = "3c1cbbbf-1c32-4c45-b7a6-d7ccd7f5dbbb"
OTHER_POOL = "4d2dccc0-2d43-4d56-8c5b-9d7d2d2c6b6f"

#: Serves on the socket that it inherited; the script says how.
SERVER = (sys.executable, "-I", "-S", "-c")
UNWELL_AT_FIRST = """
import json, os, socket
listener = socket.socket(fileno=int(os.environ["QINLING_WORKER_LISTEN_FD"]))
body = json.dumps({"worker_id": os.environ["QINLING_WORKER_ID"], "status": "ready"})
for status in ("503 Not Yet", "503 Not Yet", *["200 OK"] * 1000):
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(f"HTTP/1.0 {status}\\r\\n\\r\\n{body}".encode())
    connection.close()
"""
DEAF = ("/bin/bash", "-c", "exec {QINLING_WORKER_LISTEN_FD}>&-; exec sleep 600")

Make = Callable[..., Watch]


@pytest.fixture
def events() -> list[str]:
    """The pools of which something changed."""
    return []


@pytest.fixture
def make(events: list[str], start: Start) -> Iterator[Make]:
    """Makes a watch; it is stopped before the workers are ended."""
    made: list[Watch] = []

    def make(startup: float = 20, grace: float = 20, probe: float = 20) -> Watch:
        made.append(Watch(events.append, startup, grace, probe))
        return made[-1]

    yield make
    for watch in made:
        watch.stop()


def wait_for(watch: Watch, entry: WorkerEntry, health: Health) -> None:
    wait_until(lambda: watch.track(POOL, entry) is health, 20, f"{health}")


def end_of(watch: Watch, entry: WorkerEntry) -> End | None:
    wait_for(watch, entry, Health.GONE)
    return watch.forget(POOL, entry.id)


def stubborn(start: Start, tmp_path: Path) -> process.Started:
    started = start(STUBBORN)
    wait_until(lambda: log_of(tmp_path, started), 20, "that it minds no signal")
    wait_until(lambda: len(pids(tmp_path)) == 2, 20, "both of it")
    return started


def adopted(start: Start, command: tuple[str, ...], count: int, tmp_path: Path) -> process.Started:
    """A worker that runs; the test is to watch it as one that an earlier engine started."""
    started = start(command)
    wait_until(lambda: len(pids(tmp_path)) == count, 20, "all of it")
    return started


def test_a_worker_is_ready_once_it_has_answered(
    make: Make, start: Start, events: list[str]
) -> None:
    watch, started = make(), start()
    assert watch.track(POOL, started.entry, started) is Health.STARTING
    wait_for(watch, started.entry, Health.READY)
    assert events == [POOL]


def test_a_worker_that_an_earlier_engine_started_is_adopted(make: Make, start: Start) -> None:
    watch, started = make(), start()
    wait_for(watch, started.entry, Health.READY)
    started.kill()
    assert end_of(watch, started.entry) == End("the worker ended", came_up=True)


def test_a_worker_that_is_not_ready_yet_is_asked_again(make: Make, start: Start) -> None:
    watch, started = make(), start((*SERVER, UNWELL_AT_FIRST))
    watch.track(POOL, started.entry, started)
    wait_for(watch, started.entry, Health.READY)


@pytest.mark.parametrize(
    ("command", "startup", "trouble"),
    [
        (SLEEPER, 0.5, "it did not answer"),
        (DEAF, 0.5, "it has closed its socket"),
        ((*SERVER, UNWELL_AT_FIRST.replace("200 OK", "503 Never")), 2, "it answered 503"),
    ],
)
def test_a_worker_has_all_its_time_to_come_up_and_the_cause_is_told(
    make: Make, start: Start, command: tuple[str, ...], startup: float, trouble: str
) -> None:
    watch = make(startup=startup)
    began = time.monotonic()
    started = start(command)
    watch.track(POOL, started.entry, started)
    assert end_of(watch, started.entry) == End(
        f"the worker was not ready within {startup} s of its start ({trouble})", came_up=False
    )
    assert time.monotonic() - began >= startup


def test_a_process_that_answers_as_another_worker_is_never_ready(make: Make, start: Start) -> None:
    watch, started = make(startup=0.5), start()
    entry = replace(started.entry, id=OTHER_POOL)
    assert watch.track(POOL, entry) is Health.STARTING
    end = end_of(watch, entry)
    assert end is not None
    assert f"it answered as worker {started.entry.id}" in end.reason


def test_a_worker_that_hangs_is_killed_and_the_log_names_its_pool(
    make: Make, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PROBE_TIMEOUT", 0.1)
    watch, started = make(probe=0.1), start()
    watch.track(POOL, started.entry, started)
    wait_for(watch, started.entry, Health.READY)
    with caplog.at_level(logging.WARNING):
        os.kill(started.entry.pid, signal.SIGSTOP)
        end = end_of(watch, started.entry)
    assert end == End("the worker was not well 3 times in a row (it did not answer)", came_up=True)
    [line] = [record.getMessage() for record in caplog.records if record.name == module.__name__]
    assert line.startswith(f"Worker {started.entry.id} of pool {POOL} was not well 3 times")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "the worker exited with code 3"),
        ("kill -KILL $$", "the worker was ended by SIGKILL"),
        ("kill -40 $$", "the worker was ended by signal 40"),
    ],
)
def test_how_a_worker_ended_is_told(make: Make, start: Start, script: str, reason: str) -> None:
    watch, started = make(), start(("/bin/sh", "-c", script))
    watch.track(POOL, started.entry, started)
    assert end_of(watch, started.entry) == End(reason, came_up=False)
    assert started.popen.returncode is not None  # nobody's zombie


def test_a_worker_that_was_told_to_end_does_and_has_no_reason(
    make: Make, start: Start, events: list[str]
) -> None:
    watch, started = make(), start()
    watch.track(POOL, started.entry, started)
    wait_for(watch, started.entry, Health.READY)
    watch.retire(POOL, started.entry)
    watch.retire(POOL, started.entry)
    assert end_of(watch, started.entry) is None
    assert started.popen.returncode == 0
    assert events == [POOL, POOL]


@pytest.mark.parametrize("own", [True, False], ids=["own", "adopted"])
@pytest.mark.parametrize("command", [WRAPPER, UNMARKED], ids=["marked", "unmarked"])
def test_what_a_worker_wraps_is_told_to_end_too(
    make: Make, start: Start, tmp_path: Path, own: bool, command: tuple[str, ...]
) -> None:
    watch, started = make(), adopted(start, command, 2, tmp_path)
    watch.track(POOL, started.entry, started if own else None)
    watch.retire(POOL, started.entry)
    wait_for(watch, started.entry, Health.GONE)
    assert pids(tmp_path) == set()


@pytest.mark.parametrize("own", [True, False], ids=["own", "adopted"])
def test_a_worker_that_does_not_mind_is_killed_after_its_grace_and_not_before(
    make: Make,
    start: Start,
    tmp_path: Path,
    own: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch, started = make(grace=0.5), stubborn(start, tmp_path)
    watch.track(POOL, started.entry, started if own else None)
    began = time.monotonic()
    watch.retire(POOL, started.entry)
    wait_for(watch, started.entry, Health.GONE)
    assert time.monotonic() - began >= 0.5
    assert pids(tmp_path) == set()
    assert f"of pool {POOL} did not end within 0.5 s; it is killed." in caplog.messages[-1]


def test_what_is_left_of_a_worker_that_was_told_to_end_has_its_grace(
    make: Make, start: Start, tmp_path: Path
) -> None:
    # The leader ends at the signal, what it has started takes its time.
    script = "(trap '' TERM; echo slow; /bin/sleep 0.6; echo done) & wait"
    watch, started = make(), start(("/bin/sh", "-c", script))
    wait_until(lambda: log_of(tmp_path, started), 20, "that it minds no signal")
    watch.track(POOL, started.entry, started)
    watch.retire(POOL, started.entry)
    wait_for(watch, started.entry, Health.GONE)
    assert log_of(tmp_path, started).splitlines()[-1] == "done"


@pytest.mark.parametrize(
    ("command", "own"),
    [(STUBBORN, True), (UNMARKED, True), (STUBBORN, False)],
    ids=["own", "own, unmarked", "adopted"],
)
def test_what_a_worker_leaves_behind_that_died_is_killed(
    make: Make, start: Start, tmp_path: Path, command: tuple[str, ...], own: bool
) -> None:
    watch, started = make(), adopted(start, command, 2, tmp_path)
    watch.track(POOL, started.entry, started if own else None)
    started.popen.send_signal(signal.SIGKILL)
    if not own:
        started.popen.wait(20)
    end = end_of(watch, started.entry)
    assert end == End("the worker was ended by SIGKILL" if own else "the worker ended", False)
    assert pids(tmp_path) == set()


def test_a_worker_leaves_no_process_that_has_left_it_and_no_file(
    make: Make, start: Start, tmp_path: Path
) -> None:
    users = process.Users(1879048192, (), 150) if os.geteuid() == 0 else None
    leaves = "mkdir -p $TMPDIR/a/b; chmod 0 $TMPDIR/a; setsid /bin/sleep 600 & exec /bin/sleep 600"
    watch, started = make(), start(("/bin/sh", "-c", leaves), users)
    folder = Path(started.entry.folder)
    assert (folder / "files").stat().st_mode & 0o777 == 0o700
    wait_until(lambda: len(pids(tmp_path)) == 2, 20, "both of it")
    watch.track(POOL, started.entry, started)
    watch.retire(POOL, started.entry)
    wait_for(watch, started.entry, Health.GONE)
    assert pids(tmp_path) == set()
    assert not folder.exists()


def test_the_files_of_a_worker_that_ended_while_no_engine_ran_are_removed(
    make: Make, start: Start
) -> None:
    started = start(SLEEPER)
    started.popen.kill()
    started.popen.wait(20)
    watch = make()
    assert watch.track(POOL, started.entry) is Health.STARTING
    assert end_of(watch, started.entry) is None
    assert not Path(started.entry.folder).exists()


def test_a_worker_that_dies_as_it_is_told_to_end_leaves_nothing_either(
    make: Make, start: Start, tmp_path: Path
) -> None:
    watch, started = make(grace=0.3), stubborn(start, tmp_path)
    watch.track(POOL, started.entry, started)
    started.popen.send_signal(signal.SIGKILL)
    watch.retire(POOL, started.entry)
    wait_for(watch, started.entry, Health.GONE)
    assert pids(tmp_path) == set()


def test_what_a_worker_left_behind_while_no_engine_ran_is_killed(
    make: Make, start: Start, tmp_path: Path
) -> None:
    started = stubborn(start, tmp_path)
    started.popen.kill()
    started.popen.wait(20)
    assert len(pids(tmp_path)) == 1
    watch = make()
    assert watch.track(POOL, started.entry) is Health.STARTING
    wait_for(watch, started.entry, Health.GONE)
    assert pids(tmp_path) == set()


def test_a_worker_of_which_nothing_is_left_is_gone_at_once(make: Make, start: Start) -> None:
    started = start(SLEEPER)
    started.kill()
    watch = make()
    before = open_files()
    assert watch.track(POOL, started.entry) is Health.GONE
    assert watch.forget(POOL, started.entry.id) is None
    assert open_files() <= before


def test_what_another_engine_has_buried_is_forgotten_and_nothing_else(
    make: Make, start: Start
) -> None:
    watch = make()
    buried, known, alive, elsewhere = (start(SLEEPER) for _ in range(4))
    for started in (buried, known, alive):
        watch.track(POOL, started.entry, started)
    watch.track(OTHER_POOL, elsewhere.entry, elsewhere)
    for started in (buried, known, elsewhere):
        started.popen.send_signal(signal.SIGKILL)
    wait_for(watch, buried.entry, Health.GONE)
    wait_for(watch, known.entry, Health.GONE)
    wait_until(
        lambda: watch.track(OTHER_POOL, elsewhere.entry) is Health.GONE, 20, "the other's end"
    )
    watch.forget_others(POOL, {known.entry.id})
    assert watch.forget(POOL, buried.entry.id) is None
    assert watch.track(POOL, alive.entry) is Health.STARTING
    assert watch.forget(POOL, known.entry.id) is not None
    watch.forget_other_pools({POOL})
    assert watch.forget(OTHER_POOL, elsewhere.entry.id) is None


def test_all_workers_end_together(make: Make, start: Start, tmp_path: Path) -> None:
    watch = make(grace=0.5)
    workers = [stubborn(start, tmp_path), start(SLEEPER), start()]
    for started in workers:
        watch.track(POOL, started.entry, started)
    assert not watch.end_all(0.1)
    assert watch.end_all(20)
    assert pids(tmp_path) == set()
    assert all(started.popen.returncode is not None for started in workers)


def test_a_watch_that_stops_leaves_workers_alone_but_for_those_that_are_bound_to_it(
    make: Make, start: Start, events: list[str]
) -> None:
    before = open_files()
    watch = Watch(events.append, 20, 20, 20)
    free, bound = start(), start(SLEEPER, guarded=guard.BOUND)
    free.release()
    for started in (free, bound):
        watch.track(POOL, started.entry, started)
    watch.stop()
    assert open_files() <= before
    assert bound.popen.wait(20) == -signal.SIGKILL
    assert free.popen.poll() is None
