"""What breaks, and what is well again afterwards: real processes, killed for real."""

import os
import signal
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.deployment import Distributed, Standalone, measured
from tests.fixtures.process import Process, wait_until

CRASHPOINT = Path(__file__).parents[1] / "fixtures" / "crashpoint"
POOL = {"total": 2, "available": 2}


class CrashingEngine(Process):
    """An engine that sends itself a signal at the n-th touch of a pool after it was armed."""

    def __init__(self, installation: Distributed, signal_name: str) -> None:
        engine = installation.program("qinling-engine", f"-{signal_name}")
        super().__init__(engine.command, engine.log_path)
        self._armed = installation.root / "armed"
        self.env = {
            **os.environ,
            "PYTHONPATH": str(CRASHPOINT),
            "QINLING_TEST_CRASHPOINT": (
                f"{signal_name}:{self._armed}:{installation.state_dir}/pools/"
            ),
        }

    def arm(self, number: int) -> None:
        draft = self._armed.with_suffix(".draft")
        draft.write_text(str(number))
        draft.rename(self._armed)


def is_whole(installation: Distributed | Standalone, runtime_id: str, image: str) -> bool:
    """Whether a runtime is settled and has exactly its workers, with nobody beside them."""
    client = installation.client
    shown = client.show(runtime_id)
    return (
        shown["status"] == "available"
        and shown["image"] == image
        and client.pool(runtime_id) == POOL
        and len(installation.worker_pids()) == 2
    )


def wait_whole(installation: Distributed | Standalone, runtime_id: str, image: str) -> None:
    wait_until(
        lambda: is_whole(installation, runtime_id, image),
        60,
        f"runtime {runtime_id} whole with {image}",
    )


def crash_everywhere(
    installation: Distributed, ask: Callable[[], None], well: Callable[[], None]
) -> int:
    """Kill an engine at its 1st, 2nd, … touch of a pool while it does what `ask` asks for.

    Started again after each kill, it must make everything `well`. Ends when it needed no more
    touches than it was given; returns how often it was killed.
    """
    with CrashingEngine(installation, "SIGKILL") as engine:
        for number in range(1, 100):
            engine.arm(number)
            ask()
            if not wait_for_crash_or_end(installation, engine):
                return number - 1
            engine.start()
            well()
    raise AssertionError("an engine was killed at each of 99 touches")


def wait_for_crash_or_end(installation: Distributed, engine: Process) -> bool:
    """Whether an engine was killed before it had settled everything."""
    wait_until(lambda: not engine.running or _settled(installation), 60, "crash or end")
    return not engine.running


def _settled(installation: Distributed) -> bool:
    answer = installation.client.call("GET", "/v1/runtimes").json()["runtimes"]
    return all(runtime["status"] == "available" for runtime in answer)


def test_an_engine_killed_at_any_touch_of_a_create_leaves_nothing_undone(
    engineless: Distributed,
) -> None:
    client = engineless.client
    created: list[str] = []

    def well() -> None:
        wait_whole(engineless, created[-1], "python3")
        client.delete(created[-1])
        client.wait_gone(created[-1])
        engineless.wait_for_workers(0)

    killed = crash_everywhere(engineless, lambda: created.append(client.create()["id"]), well)
    assert killed >= 5


def test_an_engine_killed_at_any_touch_of_an_update_leaves_nothing_undone(
    engineless: Distributed,
) -> None:
    client = engineless.client
    engineless.engine.start()
    runtime_id = client.create()["id"]
    wait_whole(engineless, runtime_id, "python3")
    engineless.engine.kill()
    images = ["python3:0"]

    def ask() -> None:
        images.append(f"python3:{len(images)}")
        assert client.update(runtime_id, image=images[-1]).status_code == 200

    killed = crash_everywhere(
        engineless, ask, lambda: wait_whole(engineless, runtime_id, images[-1])
    )
    assert killed >= 5


def test_an_engine_killed_at_any_touch_of_a_delete_leaves_nothing_behind(
    engineless: Distributed,
) -> None:
    client = engineless.client
    deleted: list[str] = []

    def well() -> None:
        if deleted:
            client.wait_gone(deleted[-1])
            engineless.wait_for_workers(0)
        deleted.append(client.create()["id"])
        wait_whole(engineless, deleted[-1], "python3")

    engineless.engine.start()
    well()
    engineless.engine.kill()
    killed = crash_everywhere(engineless, lambda: client.delete(deleted[-1]), well)
    assert killed >= 3


def test_workers_live_on_while_the_engine_is_restarted_and_are_adopted(
    distributed: Distributed,
) -> None:
    client = distributed.client
    runtime_id = client.create()["id"]
    wait_whole(distributed, runtime_id, "python3")
    workers = distributed.worker_pids()
    for end in (distributed.engine.terminate, distributed.engine.kill):
        end()
        assert distributed.worker_pids() == workers
        distributed.engine.start()
        distributed.engine.wait_for_line("The engine is running", timeout=30)
        # It knows them: one that dies is replaced, the other stays.
        victim = min(workers)
        os.kill(victim, signal.SIGKILL)
        left = workers - {victim}
        workers = replaced(distributed, victim, left)
        wait_whole(distributed, runtime_id, "python3")


def replaced(installation: Distributed, victim: int, left: set[int]) -> set[int]:
    """Wait until a killed worker has a successor beside those left, and return all."""

    def done() -> bool:
        pids = installation.worker_pids()
        return victim not in pids and left < pids and len(pids) == len(left) + 1

    wait_until(done, 60, "the killed worker's successor beside the others")
    return installation.worker_pids()


def test_two_engines_share_the_work_and_double_nothing(distributed: Distributed) -> None:
    client = distributed.client
    second = distributed.second_engine()
    with second:
        second.wait_for_line("The engine is running", timeout=30)
        ids = [client.create()["id"] for _ in range(8)]
        for runtime_id in ids:
            client.wait_for(runtime_id, "available", timeout=40)
        distributed.wait_for_workers(16)
        for runtime_id in ids[:4]:
            assert client.update(runtime_id, image="python3:2").status_code == 200
        for runtime_id in ids[4:]:
            client.delete(runtime_id)
        distributed.engine.kill()
        for runtime_id in ids[:4]:
            client.wait_for(runtime_id, "available", timeout=40)
        for runtime_id in ids[4:]:
            client.wait_gone(runtime_id)
        distributed.wait_for_workers(8)


def test_an_engine_that_slept_through_an_image_change_does_not_bring_the_old_image_back(
    engineless: Distributed,
) -> None:
    client = engineless.client
    # It stops with the first revision's row in its hand, just before it takes the pool's lock.
    sleeper = CrashingEngine(engineless, "SIGSTOP")
    sleeper.arm(2)
    with sleeper:
        sleeper.wait_for_line("The engine is running", timeout=30)
        runtime_id = client.create()["id"]
        wait_until(lambda: asleep(sleeper), 60, "the engine asleep")
        engineless.engine.start()
        wait_whole(engineless, runtime_id, "python3")
        assert client.update(runtime_id, image="python3:new").status_code == 200
        wait_whole(engineless, runtime_id, "python3:new")
        workers = engineless.worker_pids()
        sleeper.resume()
        sleeper.wait_for_line("was changed meanwhile", timeout=20)
        wait_whole(engineless, runtime_id, "python3:new")
        assert engineless.worker_pids() == workers


def asleep(process: Process) -> bool:
    """Whether a process was stopped by SIGSTOP."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def post_latency(installation: Distributed) -> float:
    """Median seconds of a POST whose image needs no process."""
    client = installation.client
    return statistics.median(measured(lambda: client.create(image="absent")) for _ in range(30))


@pytest.mark.parametrize("away", ["closed", "unanswered"])
def test_a_bus_that_is_away_costs_no_caller_time_and_no_runtime(
    distributed: Distributed, away: str
) -> None:
    client = distributed.client
    usual = post_latency(distributed)
    broker = distributed.rabbitmq
    broker.kill() if away == "closed" else broker.pause()
    assert post_latency(distributed) < usual * 2 + 0.01
    runtime_id = client.create()["id"]
    # The resync sees what the message could not say.
    client.wait_for(runtime_id, "available")
    broker.heal()
    later = client.create()["id"]
    client.wait_for(later, "available")
    assert client.pool(later) == POOL


def test_casts_flow_again_after_the_bus_was_restarted(
    tmp_path: Path, distributed: Distributed
) -> None:
    distributed.engine.terminate()
    # Without a resync that could do it, only a cast makes the engine look.
    config = distributed.root / "castonly.conf"
    config.write_text(
        distributed.config.read_text().replace(
            "unsettled_interval = 0.5", "unsettled_interval = 600"
        )
    )
    with distributed.program("qinling-engine", "-castonly", config) as engine:
        engine.wait_for_line("The engine is running", timeout=30)
        distributed.rabbitmq.restart()

        def cast_arrives() -> bool:
            runtime_id = distributed.client.create(image="absent")["id"]
            with_it = wait_for_error(distributed, runtime_id)
            distributed.client.delete(runtime_id)
            return with_it

        wait_until(cast_arrives, 60, "a cast that arrives")


def wait_for_error(installation: Distributed, runtime_id: str) -> bool:
    """Whether a runtime of an absent image was looked at within two seconds."""
    try:
        installation.client.wait_for(runtime_id, "error", timeout=2)
    except AssertionError:
        return False
    return True


def test_a_database_restart_is_told_as_503_and_loses_no_row(distributed: Distributed) -> None:
    client = distributed.client
    runtime_id = client.create()["id"]
    wait_whole(distributed, runtime_id, "python3")
    workers = distributed.worker_pids()
    distributed.mariadb.kill()
    for method, path, body in (
        ("GET", f"/v1/runtimes/{runtime_id}", None),
        ("GET", "/v1/runtimes", None),
        ("POST", "/v1/runtimes", {"image": "python3"}),
        ("PUT", f"/v1/runtimes/{runtime_id}", {"name": "x"}),
        ("DELETE", f"/v1/runtimes/{runtime_id}", None),
        ("GET", "/healthcheck", None),
    ):
        answer = client.call(method, path, json=body)
        assert answer.status_code == 503, (method, path, answer.text)
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["faultcode"] == "Server"
    distributed.mariadb.start()
    assert client.show(runtime_id)["status"] == "available"
    # The engine is well again too, and nothing happened to the pool.
    assert distributed.worker_pids() == workers
    os.kill(min(workers), signal.SIGKILL)
    wait_whole(distributed, runtime_id, "python3")
    client.delete(runtime_id)
    client.wait_gone(runtime_id)


def test_workers_never_outlive_standalone_which_keeps_its_runtimes(standalone: Standalone) -> None:
    client = standalone.client
    runtime_id = client.create(name="kept")["id"]
    wait_whole(standalone, runtime_id, "python3")
    for end in (standalone.process.kill, standalone.process.terminate):
        end()
        standalone.wait_for_workers(0, timeout=5)
        standalone.start()
        wait_whole(standalone, runtime_id, "python3")
        assert client.show(runtime_id)["name"] == "kept"


@pytest.mark.parametrize("image", ["silent", "wrapped", "stubborn"])
def test_no_command_outlives_standalone_whatever_it_minds(
    standalone: Standalone, image: str
) -> None:
    standalone.client.create(image=image)
    # Each worker is its guard, a command and, but for the first, what that has started.
    count = 4 if image == "silent" else 6
    for end in (standalone.process.kill, standalone.process.terminate):
        wait_until(
            lambda: len(standalone.worker_processes()) == count, 60, f"exactly {count} processes"
        )
        end()
        if end == standalone.process.kill:
            standalone.wait_for_workers(0, timeout=5)
        assert standalone.worker_processes() == set()
        standalone.start()


def test_a_state_directory_that_cannot_be_written_to_is_told_and_heals(
    distributed: Distributed,
) -> None:
    client = distributed.client
    pools = distributed.state_dir / "pools"
    away = distributed.state_dir / "pools.away"
    pools.rename(away)
    # Root writes where permissions forbid it, but not below a file.
    pools.write_text("")
    runtime_id = client.create()["id"]

    def told() -> bool:
        reason = client.show(runtime_id)["status_reason"]
        return reason is not None and f"{pools}" in reason and "Not a directory" in reason

    wait_until(told, 60, "the reason in the runtime")
    assert client.show(runtime_id)["status"] == "creating"
    assert distributed.worker_pids() == set()
    pools.unlink()
    away.rename(pools)
    wait_whole(distributed, runtime_id, "python3")
    assert client.show(runtime_id)["status_reason"] is None


def test_a_pool_without_a_runtime_is_removed_after_its_grace(distributed: Distributed) -> None:
    client = distributed.client
    runtime_id = client.create()["id"]
    wait_whole(distributed, runtime_id, "python3")
    name = distributed.database.rpartition("/")[2].partition("?")[0]
    distributed.mariadb.execute(f"DELETE FROM {name}.runtimes WHERE id = '{runtime_id}'")
    distributed.engine.wait_for_line(
        f"Pool {runtime_id} has no runtime in the database; it is removed in 2 s"
    )
    distributed.wait_for_workers(0)
    wait_until(lambda: not list((distributed.state_dir / "pools").iterdir()), 10, "no file left")
