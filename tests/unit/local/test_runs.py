"""Runs of images on this host, with real processes."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator

import pytest

from qinling import exceptions
from qinling.orchestrator import base
from qinling.orchestrator.local import runs as module
from qinling.orchestrator.local.images import Images
from qinling.orchestrator.local.runs import Runs
from tests.fixtures.process import find_processes, wait_until

MEMORY = 64 * 1024**2
UID_BASE = 1879048192


@pytest.fixture
def make_runs(tmp_path: pathlib.Path) -> Iterator[Callable[..., Runs]]:
    made: list[Runs] = []

    def make(bound: bool = False) -> Runs:
        runs = Runs(tmp_path, Images(["tool=/usr/bin/env", "gone=/no/such"]), 1000, 100, bound)
        runs.start(None)
        made.append(runs)
        return runs

    yield make
    for run_id in [folder.name for folder in tmp_path.iterdir()]:
        for runs in made:
            runs.remove(run_id)


def spec(*arguments: str, image: str = "tool", lifetime: float = 60) -> base.RunSpec:
    return base.RunSpec(
        id=str(uuid.uuid4()),
        function_id=str(uuid.uuid4()),
        image=image,
        arguments=arguments,
        cpu=100,
        memory=MEMORY,
        lifetime=lifetime,
    )


def end_of(runs: Runs, run: base.RunSpec) -> base.RunEnd:
    state = runs.wait(run.id, 30, for_end=True)
    assert state is not None
    assert state.end is not None
    return state.end


def test_a_run_ends_as_its_program_does_and_is_there_until_it_is_removed(
    make_runs: Callable[..., Runs],
) -> None:
    runs = make_runs()
    run = spec("sh", "-c", "echo out; echo err >&2; exit 4")
    assert not runs.find(run.id)
    runs.begin(run)
    assert runs.find(run.id)
    end = end_of(make_runs(), run)
    assert (end.code, end.exhausted) == (4, False)
    assert runs.log(run.id, 100) == b"out\nerr\n"
    assert runs.ids() == [run.id]
    runs.remove(run.id)
    assert runs.ids() == []
    assert runs.wait(run.id, 0, for_end=True) is None


def test_a_run_that_is_begun_twice_runs_once(
    make_runs: Callable[..., Runs], tmp_path: pathlib.Path
) -> None:
    runs, note = make_runs(), tmp_path.with_suffix(".note")
    run = spec("sh", "-c", f"echo run >> {note}")
    for each in (runs, make_runs(), runs):
        each.begin(run)
        end_of(each, run)
    assert note.read_text() == "run\n"


@pytest.mark.parametrize(
    "script",
    [
        "import time; x = b'x' * (150 << 20); time.sleep(30)",
        "import os, time\nfor _ in range(200): os.fork() or time.sleep(30)\ntime.sleep(30)",
        "import os; os.kill(os.getpid(), 9)",
    ],
)
def test_a_run_that_takes_too_much_is_ended_with_all_that_it_has_started(
    make_runs: Callable[..., Runs], script: str
) -> None:
    runs, mark = make_runs(), str(uuid.uuid4())
    run = spec("python3", "-c", script, mark)
    runs.begin(run)
    assert end_of(runs, run).exhausted
    wait_until(lambda: not find_processes(mark), 10, "all ended")


@pytest.mark.parametrize("how", ["removed", "its engine ends", "nobody looks"])
def test_a_run_is_ended_with_what_has_left_its_session(
    make_runs: Callable[..., Runs], how: str
) -> None:
    runs, mark = make_runs(bound=True), str(uuid.uuid4())
    run = spec(
        *("sh", "-c", f"setsid sleep 60 # {mark}\nsleep 60 # {mark}\n:"),
        lifetime=1 if how == "nobody looks" else 60,
    )
    runs.begin(run)
    wait_until(lambda: find_processes(mark), 10, "its begin")
    if how == "removed":
        runs.remove(run.id)
    elif how == "its engine ends":
        runs.let_end()
    if how != "removed":
        assert end_of(runs, run).code is None
    wait_until(lambda: not find_processes(mark), 10, "all ended")


def test_a_run_never_has_the_user_id_of_a_worker(make_runs: Callable[..., Runs]) -> None:
    """What is left of a worker is ended by its user id."""
    runs = make_runs()
    if os.geteuid() != 0:
        return  # nobody has one of his own
    runs.start(UID_BASE)
    run = spec("id", "-u")
    runs.begin(run)
    assert end_of(runs, run).code == 0
    assert UID_BASE + 65536 < int(runs.log(run.id, 100)) < UID_BASE + 2 * 65536


def test_a_run_whose_runner_was_killed_is_lost(make_runs: Callable[..., Runs]) -> None:
    runs = make_runs()
    run = spec("sleep", "0.5")
    runs.begin(run)
    runs.wait(run.id, 10, for_end=False)
    [runner] = find_processes(run.id)
    os.kill(runner, signal.SIGKILL)
    end = end_of(runs, run)
    assert (end.code, end.reason) == (None, "its process was lost")


@pytest.mark.parametrize("image", ["python3", "nowhere", "gone"])
def test_an_image_that_this_host_cannot_run_is_refused(
    make_runs: Callable[..., Runs], image: str
) -> None:
    with pytest.raises(exceptions.RunRefused):
        make_runs().begin(spec(image=image))
    assert make_runs().ids() == []


def test_a_log_has_no_more_than_is_kept(make_runs: Callable[..., Runs]) -> None:
    runs = make_runs()
    run = spec("sh", "-c", "yes | head -c 1000000")
    runs.begin(run)
    assert end_of(runs, run).code == 0
    assert len(runs.log(run.id, 10_000)) == 1000


def test_a_run_that_begins_while_it_is_removed_does_not_go_on(
    make_runs: Callable[..., Runs], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runner comes to its begin after it was looked for, and before its folder has gone."""
    gate = tmp_path.with_suffix(".gate")
    os.mkfifo(gate)
    waits = ("sh", "-c", f'read word < {gate}; exec "$@"', "sh")
    monkeypatch.setattr(module, "_RUNNER", (*waits, *module._RUNNER))
    runs, mark = make_runs(), str(uuid.uuid4())
    run = spec("sh", "-c", f"sleep 60 # {mark}\n:")
    runs.begin(run)
    remove = shutil.rmtree

    def removal(folder: pathlib.Path, **options: bool) -> None:
        gate.write_text("go\n")
        wait_until(
            lambda: find_processes(mark) or not find_processes(run.id), 20, "a begin, or not"
        )
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", removal)
    runs.remove(run.id)
    monkeypatch.undo()
    assert not find_processes(mark)
    assert runs.ids() == []


def test_a_removal_that_was_cut_off_is_to_be_done_again(
    make_runs: Callable[..., Runs], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_runs()
    run = spec("true")
    runs.begin(run)
    end_of(runs, run)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **_options: None)
    runs.remove(run.id)
    monkeypatch.undo()
    assert runs.ids() == [run.id]
    make_runs().remove(run.id)
    assert list(tmp_path.iterdir()) == []


def test_a_runs_files_are_removed_by_its_own_user(tmp_path: pathlib.Path) -> None:
    """Nothing of what it has left there, links least of all, is followed by another's rights."""
    if os.geteuid() != 0:
        return  # nobody has one of his own
    script = 'cd "$TMPDIR"; mkdir a; ln -s /etc a/link; touch a/b; chmod 0 a; echo "$TMPDIR"'
    said = {
        "command": ["/bin/sh", "-c", script],
        "memory": MEMORY,
        "processes": 100,
        "lifetime": 60,
        "log": 1000,
        "uid_base": UID_BASE,
        "bound": None,
    }
    # An engine needs no right to what is another's.
    rights = "--bounding-set=-chown,-dac_override,-dac_read_search,-fowner"
    subprocess.run(
        ["setpriv", rights, *module._RUNNER, tmp_path],
        input=json.dumps(said).encode(),
        check=True,
        timeout=60,
    )
    assert json.loads((tmp_path / "end.json").read_text())["code"] == 0
    assert not pathlib.Path((tmp_path / "log").read_text().strip()).parent.exists()
