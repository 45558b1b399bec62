"""Pools of this host: made as asked, whatever their workers do."""

import os
import signal
import time
from pathlib import Path

import pytest

from qinling import exceptions
from qinling.orchestrator import base
from qinling.orchestrator.local import driver as module
from qinling.orchestrator.local import state
from qinling.orchestrator.local.driver import LocalOrchestrator
from tests.fixtures.process import wait_until
from tests.unit.local.conftest import (
    Make,
    leaders,
    pids,
    remove,
    settle,
    spec,
    workers,
)


def kill(
    orchestrator: LocalOrchestrator, wanted: base.PoolSpec, tmp_path: Path, which: int = 0
) -> base.PoolState:
    """Kill a worker of the pool, the oldest as a rule, and look until that is noticed."""
    victim = workers(tmp_path, wanted.id)[which]
    os.kill(victim["pid"], signal.SIGKILL)
    return settle(
        orchestrator,
        wanted,
        lambda _: victim["id"] not in {entry["id"] for entry in workers(tmp_path, wanted.id)},
    )


def files(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "state").rglob("*") if path.is_file()]


def test_a_pool_comes_up_as_asked_and_goes_without_a_trace(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec(size=2)
    first = orchestrator.apply(wanted)
    assert (first.total, first.available, first.ready, first.failed) == (2, 0, False, False)
    assert settle(orchestrator, wanted) == base.PoolState(total=2, available=2, ready=True)
    assert orchestrator.pools() == [wanted.id]
    assert {entry["pid"] for entry in workers(tmp_path, wanted.id)} == leaders(tmp_path)
    remove(orchestrator, wanted.id, 1)
    assert orchestrator.pools() == []
    assert files(tmp_path) == []
    assert pids(tmp_path) == set()


@pytest.mark.parametrize("bound", [False, True])
def test_a_wrapped_worker_goes_with_all_that_it_wraps(
    make: Make, tmp_path: Path, bound: bool
) -> None:
    orchestrator, wanted = make(bound), spec("wrapped", size=2)
    settle(orchestrator, wanted)
    # The shell, the server and its two zygotes, and where it is bound its guard.
    assert len(pids(tmp_path)) == 2 * (5 if bound else 4)
    remove(orchestrator, wanted.id)
    assert pids(tmp_path) == set()


def test_an_image_that_never_answers_fails_however_long_it_may_take_to(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the defaults have it: the time to come up is longer than the age of use.
    monkeypatch.setattr(module, "_USEFUL_AGE", 0.1)
    orchestrator, wanted = make(startup_timeout=0.5), spec("silent")
    began = time.monotonic()
    seen = settle(orchestrator, wanted, lambda state: state.failed)
    assert time.monotonic() - began >= 3 * 0.5
    assert seen.reason == "the worker was not ready within 0.5 s of its start (it did not answer)"
    assert seen.retry_in is not None


def test_an_image_that_ends_at_once_fails_with_its_last_words(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec("crashing", size=2)
    seen = settle(orchestrator, wanted, lambda state: state.failed)
    assert seen.reason == "the worker exited with code 3: out of luck"
    assert seen.retry_in is not None
    assert 0 < seen.retry_in <= 0.5
    # It goes on trying, each time later.
    settle(orchestrator, wanted, lambda state: (state.retry_in or 0) > 0.5)


def test_a_program_that_is_not_there_fails_at_once_and_is_looked_for_again(make: Make) -> None:
    orchestrator, wanted = make(), spec("missing")
    seen = orchestrator.apply(wanted)
    assert seen.failed
    assert seen.reason == (
        "the command of its image cannot be run: /nonexistent/server: no such program"
    )
    assert seen.retry_in is not None


def test_an_image_of_another_host_fails_at_once(make: Make) -> None:
    seen = make().apply(spec("nowhere"))
    assert seen.failed
    assert seen.reason == "image nowhere is not on this host: [local] images has no such name"


def test_some_workers_that_die_young_do_not_fail_a_pool_of_many(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec("silent", size=12)
    orchestrator.apply(wanted)
    for _ in range(3):
        seen = kill(orchestrator, wanted, tmp_path)
        assert not seen.failed
        assert seen.reason == "the worker was ended by SIGKILL"
    # Nothing is held back.
    assert len(workers(tmp_path, wanted.id)) == 12


def test_a_worker_that_was_of_use_ends_a_row_of_failures(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_USEFUL_AGE", 0.5)
    orchestrator, wanted = make(), spec(size=2)
    # The one of use lives on; then it is the one that ends.
    for next_victim in (0, -1, 0):
        orchestrator.apply(wanted)
        for _ in range(2):
            assert not kill(orchestrator, wanted, tmp_path, which=-1).failed
        settle(orchestrator, wanted)
        born = workers(tmp_path, wanted.id)[-1]["born"]
        wait_until(lambda born=born: time.time() - born > 0.5, 20, "an age of use")  # type: ignore[misc]
        assert not kill(orchestrator, wanted, tmp_path, next_victim).failed


def test_workers_that_come_up_and_die_young_are_started_ever_later(
    make: Make, tmp_path: Path
) -> None:
    orchestrator, wanted = make(), spec(size=2)
    waits = []
    for _ in range(4):
        settle(orchestrator, wanted)
        waits.append(kill(orchestrator, wanted, tmp_path, which=-1).retry_in or 0.0)
    assert waits[:2] == [0.0, 0.0]
    assert 0 < waits[2] <= 0.5 < waits[3] <= 1


def test_a_pool_that_failed_for_days_is_tried_on(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec("silent")
    directory = state.StateDir(str(tmp_path / "state"))
    directory.save(
        state.Pool(wanted.id, 1, "silent", 1, failures=100_000, failed_at=time.time(), reason="x")
    )
    seen = orchestrator.apply(wanted)
    assert seen.failed
    assert seen.retry_in is not None
    assert 59 < seen.retry_in <= 60


def test_the_old_image_stays_until_the_new_one_is_up(make: Make, tmp_path: Path) -> None:
    orchestrator, wanted = make(), spec(size=2)
    settle(orchestrator, wanted)
    old = pids(tmp_path)
    changed = spec("python3:2", size=2, revision=2, id=wanted.id)

    def rolled_over(seen: base.PoolState) -> bool:
        assert seen.available == 2 or old <= pids(tmp_path)
        return seen.ready

    settle(orchestrator, changed, rolled_over)
    assert len(leaders(tmp_path)) == 2
    assert not pids(tmp_path) & old


def test_what_happens_to_the_old_image_says_nothing_of_the_new_one(
    make: Make, tmp_path: Path
) -> None:
    orchestrator, wanted = make(), spec(size=3)
    settle(orchestrator, wanted)
    old = pids(tmp_path)
    changed = spec("silent", size=3, revision=2, id=wanted.id)
    orchestrator.apply(changed)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    seen = settle(orchestrator, changed, lambda _: len(workers(tmp_path, wanted.id)) == 3)
    assert (seen.failed, seen.reason) == (False, None)


def test_what_is_older_than_the_pool_is_refused_with_the_pools_revision(make: Make) -> None:
    orchestrator, wanted = make(), spec("silent", revision=3)
    orchestrator.apply(wanted)
    with pytest.raises(exceptions.StaleRevision) as applied:
        orchestrator.apply(spec("silent", revision=2, id=wanted.id))
    with pytest.raises(exceptions.StaleRevision) as removed:
        orchestrator.remove(wanted.id, 2)
    assert applied.value.revision == removed.value.revision == 3
    assert str(applied.value) == f"Pool {wanted.id} is at revision 3, not 2."


def test_what_cannot_be_written_down_is_not_left_running(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = make(bound=True)

    def full(_: state.Pool) -> None:
        wait_until(lambda: len(pids(tmp_path)) == 4, 20, "two guards and their commands")
        raise exceptions.OrchestratorError("no space left")

    monkeypatch.setattr(orchestrator._state, "save", full)
    with pytest.raises(exceptions.OrchestratorError, match="no space left"):
        orchestrator.apply(spec("silent", size=2))
    wait_until(lambda: pids(tmp_path) == set(), 20, "nothing left")
    assert [name for name in files(tmp_path) if name.endswith(".log")] == []


@pytest.mark.parametrize("image", ["python3", "wrapped"])
def test_workers_outlive_their_engine_and_are_adopted_by_the_next(
    make: Make, tmp_path: Path, image: str
) -> None:
    first, wanted = make(), spec(image, size=2)
    settle(first, wanted)
    alive = pids(tmp_path)
    first.stop()
    second = make()
    settle(second, wanted)
    assert pids(tmp_path) == alive
    remove(second, wanted.id)
    assert pids(tmp_path) == set()


def test_a_wrapper_that_died_while_no_engine_ran_leaves_nothing_behind(
    make: Make, tmp_path: Path
) -> None:
    first, wanted = make(), spec("wrapped")
    settle(first, wanted)
    first.stop()
    left = pids(tmp_path)
    wrapper = workers(tmp_path, wanted.id)[0]["pid"]
    os.kill(wrapper, signal.SIGKILL)
    os.waitpid(wrapper, 0)  # as init does when the engine has ended
    second = make()
    settle(second, wanted)
    assert not pids(tmp_path) & left
    assert len(leaders(tmp_path)) == 1


def test_bound_workers_have_their_grace_and_are_then_killed(make: Make, tmp_path: Path) -> None:
    orchestrator = make(bound=True, shutdown_grace=0.5)
    for image in ("python3", "wrapped", "stubborn"):
        orchestrator.apply(spec(image))
    wait_until(lambda: len(pids(tmp_path)) == 3 + 5 + 3, 20, "all of them")
    began = time.monotonic()
    orchestrator.stop()
    assert pids(tmp_path) == set()
    assert time.monotonic() - began >= 0.5


def test_bound_workers_that_end_in_order_are_waited_for_no_longer_than_that(
    make: Make, tmp_path: Path
) -> None:
    orchestrator, wanted = make(bound=True, shutdown_grace=60), spec(size=2)
    settle(orchestrator, wanted)
    began = time.monotonic()
    orchestrator.stop()
    assert time.monotonic() - began < 10
    assert pids(tmp_path) == set()


def test_an_engine_forgets_what_another_one_has_buried(make: Make, tmp_path: Path) -> None:
    one, other, wanted = make(), make(), spec(size=2)
    settle(one, wanted)
    first = pids(tmp_path)
    kill(other, wanted, tmp_path)
    settle(other, wanted)
    # Once it has seen the end itself, which the other one may have done before.
    wait_until(lambda: one.apply(wanted).ready and known(one) == 2, 20, "only the living known")
    remove(other, wanted.id)
    wait_until(lambda: one.pools() == [] and known(one) == 0, 20, "nobody known")
    assert not pids(tmp_path) & first


def known(orchestrator: LocalOrchestrator) -> int:
    return len(orchestrator._watch._all())
