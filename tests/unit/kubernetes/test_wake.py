"""When pools that may create no pod are woken: seldom while nothing changes, then all at once."""

import itertools

import pytest

from qinling.orchestrator.kubernetes import wake
from qinling.orchestrator.kubernetes.wake import Waker

QUOTA = "the quota of the namespace is used up: exceeded quota: used: pods="
CLASS = "the cluster lacks what isolates untrusted workers: not found"


class Pools:
    """Pools that may create no pod, a clock, and who looks at which pool when.

    :ivar room: for how many pools there is room now.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, causes: dict[str, str]) -> None:
        self.now = 1000.0
        monkeypatch.setattr(wake.time, "monotonic", lambda: self.now)
        self.waker = Waker(lambda pool_id: self.due.update({pool_id: self.now}))
        self.causes = causes
        self.due = dict.fromkeys(causes, self.now)
        self.room = 0
        self.writes: list[tuple[float, str]] = []

    def run(self, seconds: float) -> None:
        """Look at each pool when it is due, as the engine does, for so long."""
        end = self.now + seconds
        while (following := min(self.due.items(), key=lambda one: one[1], default=None)) and (
            following[1] <= end
        ):
            self.now = max(self.now, following[1])
            self._look(following[0])
        self.now = end

    def _look(self, pool_id: str) -> None:
        if pool_id in self.causes and self.waker.is_due(pool_id):
            self.writes.append((self.now, pool_id))
            self.waker.woken(pool_id)
            if self.room and self.causes[pool_id].startswith(QUOTA):
                self.room -= 1
                del self.causes[pool_id]
        # A write takes its time.
        self.now += 0.01
        pause = self.waker.look(pool_id, self.causes.get(pool_id))
        if pause is None:
            del self.due[pool_id]
        else:
            self.due[pool_id] = self.now + pause


@pytest.mark.parametrize(
    ("count", "bounds"),
    # Of few one comes every few seconds, all the same; of many each comes seldom.
    [(1, [5, 10, 10, 10, 10]), (3, [5, 10, 20, 30, 30]), (9, [5, 10, 20, 40, 60, 60])],
)
def test_pools_that_are_told_the_same_are_woken_at_doubling_gaps(
    monkeypatch: pytest.MonkeyPatch, count: int, bounds: list[int]
) -> None:
    pools = Pools(monkeypatch, {str(number): QUOTA for number in range(count)} | {"c": CLASS})
    pools.run(600)
    for pool_id in map(str, range(count)):
        times = [1000.0, *(at for at, woken in pools.writes if woken == pool_id)]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        for gap, bound in zip(gaps, bounds, strict=False):
            # The turns of the others may come in between.
            assert bound / 2 <= gap <= bound + 0.2 * count + 0.2
    # Something has changed: it may be worth while again.
    pools.causes["0"] = f"{QUOTA}1"
    pools.due["0"] = pools.now
    pools.writes.clear()
    pools.run(6)
    assert "0" in {pool_id for _, pool_id in pools.writes}


def test_pools_that_come_due_together_are_woken_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools = Pools(monkeypatch, {str(number): QUOTA for number in range(50)})
    pools.run(20)
    times = [at for at, _ in pools.writes]
    assert {pool_id for _, pool_id in pools.writes} == set(pools.causes)
    assert all(after - before > 0.19 for before, after in itertools.pairwise(times))


def test_when_the_cause_has_gone_each_pool_that_heals_calls_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each was told another number, and some wait for something else.
    pools = Pools(
        monkeypatch,
        {f"q{number}": f"{QUOTA}{number}" for number in range(50)}
        | {f"c{number}": CLASS for number in range(50)},
    )
    pools.run(600)
    pools.writes.clear()
    pools.room = 50
    began = pools.now
    pools.run(10)
    healed = [at for at, pool_id in pools.writes if pool_id.startswith("q")]
    assert len(healed) == 50
    # One of them was woken in its turn; the others came within a second of it.
    assert healed[-1] - healed[0] < 1.5
    assert pools.now - began <= 10


def test_room_for_one_costs_no_more_than_a_few_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = Pools(monkeypatch, {str(number): QUOTA for number in range(100)})
    pools.run(600)
    quiet = len(pools.writes)
    pools.run(60)
    usual = len(pools.writes) - quiet
    pools.room = 5
    pools.run(60)
    assert len(pools.causes) == 95
    assert len(pools.writes) - quiet - usual <= usual + 5 * 3


def test_a_pool_that_is_removed_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = Pools(monkeypatch, {str(number): QUOTA for number in range(9)})
    pools.run(600)
    pools.writes.clear()
    pools.waker.gone("another")
    pools.run(0.1)
    assert len(pools.writes) == 3
