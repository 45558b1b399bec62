"""Claimed workers: out of the pool for good, kept through restarts, ended when they are let go."""

import json
from pathlib import Path

from tests.fixtures.process import wait_until
from tests.unit.local.conftest import Make, leaders, remove, settle, spec, workers


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
