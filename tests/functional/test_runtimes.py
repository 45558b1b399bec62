"""A runtime's life as its callers see it, on every kind of installation."""

import os
import signal

from tests.fixtures.deployment import Deployment
from tests.fixtures.process import wait_until


def test_a_runtime_becomes_available_with_a_warm_pool_and_is_deleted_with_it(
    deployment: Deployment,
) -> None:
    client = deployment.client
    before = deployment.worker_pids()
    runtime = client.create(name="one", description="first")
    assert runtime["status"] == "creating"
    assert runtime["updated_at"] is None
    shown = client.wait_for(runtime["id"], "available")
    assert shown["updated_at"] is not None
    assert client.pool(runtime["id"]) == {"total": 2, "available": 2}
    assert len(deployment.worker_pids() - before) == 2
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])
    assert deployment.worker_pids() <= before


def test_an_image_change_rolls_the_pool_over(deployment: Deployment) -> None:
    client = deployment.client
    runtime = client.create()
    client.wait_for(runtime["id"], "available")
    before = deployment.worker_pids()
    changed = client.update(runtime["id"], image="python3:2")
    assert changed.status_code == 200
    assert changed.json()["status"] == "upgrading"
    assert changed.json()["image"] == "python3:2"
    client.wait_for(runtime["id"], "available")
    wait_until(
        lambda: client.pool(runtime["id"]) == {"total": 2, "available": 2}, 10, "the new pool"
    )
    assert len(before - deployment.worker_pids()) == 2
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


def test_an_image_that_does_not_come_up_is_rolled_back_with_the_reason(
    deployment: Deployment,
) -> None:
    client = deployment.client
    runtime = client.create()
    client.wait_for(runtime["id"], "available")
    before = deployment.worker_pids()
    assert client.update(runtime["id"], image="crashing").json()["image"] == "crashing"
    shown = client.wait_for(runtime["id"], "available")
    assert shown["image"] == "python3"
    assert "crashing" in shown["status_reason"]
    assert "exited with code 3: out of luck" in shown["status_reason"]
    # The old workers were there all the time.
    assert before <= deployment.worker_pids()
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


def test_an_image_that_this_host_does_not_have_is_an_error_that_says_so_and_heals(
    deployment: Deployment,
) -> None:
    client = deployment.client
    runtime = client.create(image="nowhere/to/be:found")
    shown = client.wait_for(runtime["id"], "error")
    assert "nowhere/to/be:found is not on this host" in shown["status_reason"]
    assert client.update(runtime["id"], image="missing").json()["status"] == "upgrading"
    shown = client.wait_for(runtime["id"], "error")
    assert "cannot be run: /nonexistent/server: no such program" in shown["status_reason"]
    assert client.update(runtime["id"], image="python3").status_code == 200
    assert client.wait_for(runtime["id"], "available")["status_reason"] is None
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


def test_the_image_cannot_change_while_the_runtime_is_on_its_way(deployment: Deployment) -> None:
    client = deployment.client
    runtime = client.create(image="silent")
    refused = client.update(runtime["id"], image="python3")
    assert refused.status_code == 409
    assert "image: " in refused.json()["faultstring"]
    # Its name can.
    assert client.update(runtime["id"], name="patience").json()["name"] == "patience"
    client.delete(runtime["id"])
    assert client.update(runtime["id"], image="python3").status_code in (404, 409)
    client.wait_gone(runtime["id"])


def test_killed_workers_are_replaced_and_the_runtime_stays_available(
    deployment: Deployment,
) -> None:
    client = deployment.client
    before = deployment.worker_pids()
    runtime = client.create()
    client.wait_for(runtime["id"], "available")
    killed = deployment.worker_pids() - before
    for pid in killed:
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        assert client.show(runtime["id"])["status"] == "available"
        alive = deployment.worker_pids() - before
        return len(alive) == 2 and not alive & killed

    wait_until(replaced, 10, "two new workers")
    wait_until(lambda: client.pool(runtime["id"])["available"] == 2, 10, "a whole pool")
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


def test_a_worker_that_hangs_is_replaced(deployment: Deployment) -> None:
    client = deployment.client
    before = deployment.worker_pids()
    runtime = client.create()
    client.wait_for(runtime["id"], "available")
    hanging = (deployment.worker_pids() - before).pop()
    os.kill(hanging, signal.SIGSTOP)
    wait_until(lambda: hanging not in deployment.worker_pids(), 30, "the hanging worker's end")
    wait_until(lambda: len(deployment.worker_pids() - before) == 2, 10, "its replacement")
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


def test_deleting_twice_is_the_same_as_once(deployment: Deployment) -> None:
    client = deployment.client
    runtime = client.create()
    client.delete(runtime["id"])
    again = client.call("DELETE", f"/v1/runtimes/{runtime['id']}")
    assert again.status_code in (204, 404)
    client.wait_gone(runtime["id"])
