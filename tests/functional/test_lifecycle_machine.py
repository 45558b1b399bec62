"""Random lives of runtimes on an installation whose parts die at random.

Whatever was asked for and whatever died in between: once the parts run again every row settles, an
available runtime has exactly its workers, a deleted one has none, and nothing is left over.
"""

import os
import random
import signal
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.fixtures.deployment import Distributed
from tests.fixtures.process import wait_until

SIZE = 2  # the pools' size, in tests.fixtures.deployment
IMAGES = st.sampled_from(["python3", "python3:2", "openstackqinling/python3-runtime", "crashing"])
SETTLED = ("available", "error")


class Lifecycle(RuleBasedStateMachine):
    """One example: a run of random steps, then everything must settle."""

    installation: Distributed
    runtimes: Bundle[str] = Bundle("runtimes")

    def __init__(self) -> None:
        super().__init__()
        self.client = self.installation.client
        self.deleted: set[str] = set()
        self.alive: set[str] = set()

    @rule(target=runtimes, image=IMAGES)
    def create(self, image: str) -> str:
        runtime_id: str = self.client.create(image=image)["id"]
        self.alive.add(runtime_id)
        return runtime_id

    @rule(runtime_id=runtimes, image=IMAGES)
    def change_image(self, runtime_id: str, image: str) -> None:
        # 409 while it is on its way, which is fine at any time.
        assert self.client.update(runtime_id, image=image).status_code in (200, 409)

    @rule(runtime_id=consumes(runtimes))
    def delete(self, runtime_id: str) -> None:
        self.client.delete(runtime_id)
        self.alive.discard(runtime_id)
        self.deleted.add(runtime_id)

    @rule(seed=st.integers(0, 1000))
    def kill_a_worker(self, seed: int) -> None:
        pids = sorted(self.installation.worker_pids())
        if pids:
            with_luck = random.Random(seed).choice(pids)
            try:
                os.kill(with_luck, signal.SIGKILL)
            except ProcessLookupError:
                return

    @rule()
    def kill_the_engine(self) -> None:
        if self.installation.engine.running:
            self.installation.engine.kill()

    @rule()
    def start_the_engine(self) -> None:
        if not self.installation.engine.running:
            self.installation.engine.start()

    @rule(runtime_id=runtimes)
    def wait_a_while(self, runtime_id: str) -> None:
        """Let one settle, if there is somebody to settle it."""
        if self.installation.engine.running:
            wait_until(lambda: self.client.show(runtime_id)["status"] in SETTLED, 30, runtime_id)

    @rule()
    def lose_casts(self) -> None:
        """What is sent from here on until the end is sent to nobody."""
        if self.installation.rabbitmq.running:
            self.installation.rabbitmq.pause()

    @invariant()
    def every_row_is_shown(self) -> None:
        answer = self.client.call("GET", "/v1/runtimes")
        assert answer.status_code == 200
        assert {row["id"] for row in answer.json()["runtimes"]} >= self.alive

    def teardown(self) -> None:
        self.installation.rabbitmq.heal()
        self.start_the_engine()
        for runtime_id in self.deleted:
            self.client.wait_gone(runtime_id, timeout=30)
        wait_until(self.is_settled, 40, "every runtime settled with exactly its workers")
        for runtime_id in self.alive:
            self.client.delete(runtime_id)
        for runtime_id in self.alive:
            self.client.wait_gone(runtime_id, timeout=30)
        self.installation.wait_for_workers(0)
        pools = Path(self.installation.state_dir) / "pools"
        wait_until(lambda: not list(pools.iterdir()), 10, "no pool's file left over")

    def is_settled(self) -> bool:
        rows = self.client.call("GET", "/v1/runtimes").json()["runtimes"]
        if any(row["status"] not in SETTLED for row in rows):
            return False
        available = [row["id"] for row in rows if row["status"] == "available"]
        whole = all(
            self.client.pool(runtime_id) == {"total": SIZE, "available": SIZE}
            for runtime_id in available
        )
        # A runtime in error is tried again now and then, by workers that come and go.
        crashing = sum(row["status"] == "error" for row in rows)
        workers = len(self.installation.worker_pids())
        wanted = SIZE * len(available)
        return whole and wanted <= workers <= wanted + SIZE * crashing


def test_whatever_dies_every_runtime_settles_and_nothing_is_orphaned(
    distributed: Distributed,
) -> None:
    Lifecycle.installation = distributed
    run_state_machine_as_test(
        Lifecycle,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            database=None,
            print_blob=True,
            # Shrinking would take an hour of restarts; the failing steps are printed anyway.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
