"""Engines that slept: what they had in their hands is old when they wake."""

from pathlib import Path

import pytest

from tests.fixtures.deployment import Distributed
from tests.fixtures.process import wait_until
from tests.functional.test_faults import CrashingEngine, asleep, wait_whole


@pytest.mark.parametrize("touch", [1, 2])
def test_an_engine_that_slept_through_a_delete_does_not_bring_the_pool_back(
    engineless: Distributed, touch: int
) -> None:
    client = engineless.client
    # It stops with the row in its hand, just before it makes the pool.
    sleeper = CrashingEngine(engineless, "SIGSTOP")
    sleeper.arm(touch)
    with sleeper:
        sleeper.wait_for_line("The engine is running", timeout=30)
        runtime_id = client.create()["id"]
        wait_until(lambda: asleep(sleeper), 20, "the engine asleep")
        engineless.engine.start()
        wait_whole(engineless, runtime_id, "python3")
        client.delete(runtime_id)
        client.wait_gone(runtime_id)
        engineless.engine.kill()
        sleeper.resume()
        sleeper.wait_for_line("was deleted meanwhile", timeout=20)
        engineless.wait_for_workers(0)
        pools = engineless.state_dir / "pools"
        # The orphan sweep would take its grace and as long again as between two sweeps.
        wait_until(lambda: not list(pools.iterdir()), 2, "no pool left")


def test_an_engine_whose_host_was_replaced_while_it_slept_touches_nothing_and_ends(
    engineless: Distributed, tmp_path: Path
) -> None:
    client = engineless.client
    there = tmp_path / "that-host"
    config = engineless.write_config(
        "that-host.conf",
        {
            "DEFAULT": {"transport_url": engineless.bus, "debug": "true"},
            "database": {"connection": engineless.database},
            "engine": {"host": "that-host"},
            "local": {"state_dir": str(there)},
        },
    )
    replaced = engineless.engine
    replaced.start()
    replaced.wait_for_line("The engine is running", timeout=30)
    replaced.pause()
    successor = engineless.program("qinling-engine", "-that-host", config)

    def takes_over() -> bool:
        # Refused for as long as the lease of the engine that sleeps holds.
        successor.start()
        wait_until(
            lambda: not successor.running or "The engine is running" in successor.log(),
            30,
            "an engine that runs or is refused",
        )
        return successor.running

    try:
        wait_until(takes_over, 60, "the lease of the engine that sleeps lapsed", pause=0.5)
        runtime_id = client.create()["id"]
        client.wait_for(runtime_id, "available")
        pool = there / "pools" / f"{runtime_id}.json"
        assert pool.exists()
        replaced.resume()
        assert replaced.wait(30) == 1
        assert "that-host" in replaced.log_tail()
        assert not list((engineless.state_dir / "pools").iterdir())
        client.delete(runtime_id)
        client.wait_gone(runtime_id)
        assert not pool.exists()
    finally:
        successor.close()
