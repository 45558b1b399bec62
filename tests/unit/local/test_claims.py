"""Claimed workers: out of the pool for good, kept through restarts, ended when they are let go."""

import http.client
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.execution.keys import Keys
from qinling.execution.worker import WorkerClient
from qinling.orchestrator.routes import Direct
from tests.fixtures.process import wait_until
from tests.fixtures.worker import LIMITS, MB, pack
from tests.unit.local.conftest import Make, leaders, pids, remove, settle, spec, workers


def test_a_claimed_worker_leaves_its_pool_which_refills(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec(size=2)
    settle(orchestrator, wanted)
    before = {entry["id"]: entry["port"] for entry in workers(tmp_path, wanted.id)}
    claimed = orchestrator.claim(wanted.id)
    assert claimed is not None
    assert claimed.address == f"127.0.0.1:{before[claimed.id]}"
    assert orchestrator.claimed(wanted.id) == {claimed.id: True}
    settle(orchestrator, wanted)
    there = {entry["id"] for entry in workers(tmp_path, wanted.id)}
    assert claimed.id not in there
    assert len(there) == 2
    assert len(leaders(tmp_path)) == 3


def test_whoever_refills_a_pool_is_told_of_each_claim(make: Make) -> None:
    orchestrator, wanted = make(), spec(size=2)
    settle(orchestrator, wanted)
    told: list[str] = []
    orchestrator._watch._notify = told.append
    for number in (1, 2):
        assert orchestrator.claim(wanted.id) is not None
        wait_until(lambda: told == [wanted.id] * number, 20, "word of a claim")  # noqa: B023


def test_a_pool_without_a_worker_that_is_ready_gives_none(make: Make) -> None:
    orchestrator, wanted = make(), spec("silent")
    assert orchestrator.claim(wanted.id) is None
    orchestrator.apply(wanted)
    assert orchestrator.claim(wanted.id) is None
    assert orchestrator.claimed(wanted.id) == {}


def test_a_worker_of_an_old_image_is_not_given_away(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec("python3:1")
    settle(orchestrator, wanted)
    orchestrator.apply(spec("silent", id=wanted.id, revision=2))
    assert orchestrator.claim(wanted.id) is None
    assert len(workers(tmp_path, wanted.id)) == 2


def test_a_claimed_worker_is_known_after_a_restart_and_ends_when_it_is_let_go(
    make: Make, tmp_path: Path
) -> None:
    first, wanted = make(), spec()
    settle(first, wanted)
    claimed = first.claim(wanted.id)
    assert claimed is not None
    settle(first, wanted)
    first.stop()
    second = make()
    assert second.claimed(wanted.id) == {claimed.id: True}
    assert second.release(wanted.id, claimed.id) is False
    assert second.claimed(wanted.id).get(claimed.id) is not True
    wait_until(lambda: second.release(wanted.id, claimed.id), 20, "its end")
    assert second.claimed(wanted.id) == {}
    assert len(leaders(tmp_path)) == 1


def test_a_pool_takes_its_claimed_workers_along(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec()
    settle(orchestrator, wanted)
    assert orchestrator.claim(wanted.id) is not None
    settle(orchestrator, wanted)
    remove(orchestrator, wanted.id, 1)
    assert leaders(tmp_path) == set()


def test_whoever_finds_a_worker_that_failed_counts_it(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec("crashing")
    orchestrator.apply(wanted)

    def found() -> bool:
        assert orchestrator.claim(wanted.id) is None
        return not workers(tmp_path, wanted.id)

    wait_until(found, 20, "the worker's end")
    pool = json.loads((tmp_path / "state" / "pools" / f"{wanted.id}.json").read_text())
    assert (pool["failures"], "exited with code 3" in pool["reason"]) == (1, True)


@pytest.mark.parametrize("image", ["python3", "nodejs"])
def test_a_worker_takes_a_function_from_nobody_but_the_engine_that_started_it(
    make: Make, conf: cfg.ConfigOpts, image: str
) -> None:
    keys = Keys(conf)
    orchestrator, wanted = make(key_digest=keys.digest), spec(image)
    settle(orchestrator, wanted)
    claimed = orchestrator.claim(wanted.id)
    assert claimed is not None
    function = {"function_id": str(uuid.uuid4()), "entry": "main.main"}
    function |= LIMITS | {"memory_size": 64 * MB}
    package = pack({"main.py": "main = id", "main.js": "exports.main = () => 7"})

    def load(key: bytes) -> None:
        with closing(WorkerClient(claimed.id, Direct(claimed.address), key, 1)) as client:
            client.load(client.meet(), function, [package], len(package), 20)

    # Other functions on this host reach it, too, and it tells everybody who it is.
    with pytest.raises(exceptions.WorkerLost, match="401: 'this is not the key of this worker'"):
        load(bytes(32))
    host, _, port = claimed.address.rpartition(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=20)) as connection:
        connection.request("POST", "/drain")
        assert connection.getresponse().status == 401
    load(keys.make(claimed.id))


def test_workers_that_take_no_key_of_this_engine_are_replaced_before_one_is_claimed(
    make: Make, tmp_path: Path
) -> None:
    wanted = spec(size=2)
    settle(make(), wanted)
    engine = make(key_digest=lambda worker_id: f"digest of {worker_id}")
    before = {entry["id"] for entry in workers(tmp_path, wanted.id)}
    assert engine.claim(wanted.id) is None
    settle(engine, wanted)
    claimed = engine.claim(wanted.id)
    assert claimed is not None
    assert claimed.id not in before
    wait_until(lambda: len(leaders(tmp_path)) == 2, 20, "the end of the old ones")


#: Runs a program, and leaves another one, which has nothing to do with it any more.
FUNCTIONS = {
    "python3": {
        "main.py": """
import subprocess
def main():
    subprocess.run("setsid sleep 600 > /dev/null 2>&1 &", shell=True)
    print("begun")
    return subprocess.run(["sleep", "1"]).returncode
"""
    },
    "nodejs": {
        "main.js": """
const { spawnSync } = require('child_process')
exports.main = () => {
  spawnSync('sh', ['-c', 'setsid sleep 600 > /dev/null 2>&1 &'])
  console.log('begun')
  return spawnSync('sleep', ['1']).status
}
"""
    },
}


@pytest.mark.parametrize("image", FUNCTIONS)
@pytest.mark.parametrize("bound", [False, True])
def test_what_runs_in_a_worker_that_is_let_go_ends_and_nothing_is_left(
    make: Make, tmp_path: Path, image: str, bound: bool
) -> None:
    orchestrator, wanted = make(bound), spec(image)
    settle(orchestrator, wanted)
    claimed = orchestrator.claim(wanted.id)
    assert claimed is not None
    function = {"function_id": str(uuid.uuid4()), "entry": "main.main"}
    loader = WorkerClient(claimed.id, Direct(claimed.address), bytes(32), 1)
    limits = LIMITS | {"memory_size": 64 * MB}
    boot_id = loader.meet()
    package = pack(FUNCTIONS[image])
    loader.load(boot_id, function | limits, [package], len(package), 20)
    client = WorkerClient(claimed.id, Direct(claimed.address), bytes(32), 1, boot_id)
    execution_id = str(uuid.uuid4())
    with closing(loader), closing(client), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.execute, execution_id, None, 20)
        wait_until(lambda: b"sleep\x00600" in commands(claimed.id), 20, "what it leaves")
        assert orchestrator.release(wanted.id, claimed.id) is False
        outcome = asked.result()
    assert (outcome.status, outcome.output, outcome.log) == ("success", 0, "begun\n")
    wait_until(lambda: orchestrator.release(wanted.id, claimed.id), 20, "its end")
    assert commands(claimed.id) == b""
    remove(orchestrator, wanted.id)
    assert pids(tmp_path) == set()


def commands(worker_id: str) -> bytes:
    """The command lines of all processes that bear a worker's id in their environment."""
    found = b""
    mark = f"QINLING_WORKER_ID={worker_id}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found += (folder / "cmdline").read_bytes()
    return found
