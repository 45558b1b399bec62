"""Executions on a cluster: all that holds on one host, and what only a cluster does to workers."""

import concurrent.futures
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from qinling.orchestrator.kubernetes import names
from tests.fixtures.deployment import Deployment, Distributed, Standalone
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.process import Process, wait_until
from tests.functional.pools.conftest import CLOCK, ETC, IMAGES, Object, Site, is_ready
from tests.functional.test_executions import *  # noqa: F403
from tests.functional.test_executions import GREETER, output

pytestmark = pytest.mark.usefixtures("permitted")

CLAIMED = f"{names.STATE}={names.CLAIMED}"


@pytest.fixture(scope="module")
def deployment(site: Site) -> Deployment:
    return site.deployment


@pytest.fixture
def function_id(site: Site, runtime_id: str) -> str:
    """A function with one worker."""
    made: str = site.client.create_function(runtime_id, GREETER, timeout=30)["id"]
    assert output(site.client.execute(made)) == "hello world"
    return made


def claimed(site: Site, runtime_id: str) -> dict[str, Object]:
    """The pods of a runtime that were claimed, by uid: a worker's id."""
    selector = f"{names.RUNTIME}={runtime_id},{CLAIMED}"
    found = site.cluster.client.list("pods", site.namespace, labelSelector=selector)
    return {pod["metadata"]["uid"]: pod for pod in found}


def pod_of(site: Site, runtime_id: str, function_id: str) -> Object:
    """The pod of a function's only worker."""
    [worker_id] = site.client.workers(function_id)
    return claimed(site, runtime_id)[worker_id]


def wait_replaced(site: Site, runtime_id: str, function_id: str, before: Object) -> Object:
    """Wait until there is another worker, for which nobody asked, and the old pod is gone."""
    uid = before["metadata"]["uid"]

    def replaced() -> bool:
        workers = site.client.workers(function_id)
        return len(workers) == 1 and workers != [uid] and uid not in claimed(site, runtime_id)

    wait_until(replaced, 30, "another worker")
    assert output(site.client.execute(function_id)) == "hello world"
    return pod_of(site, runtime_id, function_id)


def test_a_claim_is_one_request_and_the_pool_refills(
    site: Site, cluster: Cluster, runtime_id: str
) -> None:
    # No worker that somebody has let go of before is ending still.
    wait_until(
        lambda: len(site.pods(runtime_id)) == 2 + len(claimed(site, runtime_id)), 60, "a whole pool"
    )
    function = site.client.create_function(runtime_id, GREETER)
    before = len(cluster.calls)
    assert output(site.client.execute(function["id"])) == "hello world"
    pod = pod_of(site, runtime_id, function["id"])
    [owner] = pod["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Deployment", names.deployment(runtime_id))
    assert owner["controller"] is True
    # 3 executions of 32 MiB, the import's 256, and what a worker has before, its /tmp included.
    wanted = {"cpu": "100m", "memory": "736Mi"}

    def fits() -> bool:
        [state] = pod_of(site, runtime_id, function["id"])["status"]["containerStatuses"]
        has = state["resources"]
        return has["limits"] == wanted and has["requests"]["memory"] == "128Mi"

    wait_until(fits, 20, "its pod resized")
    user = f"system:serviceaccount:{site.namespace}:qinling-engine"
    asked = [
        (call.verb, call.resource, call.status)
        for call in cluster.calls[before:]
        if call.user == user and call.name == pod["metadata"]["name"]
    ]
    assert asked == [
        ("patch", "pods", 200),
        ("patch", "pods/resize", 200),
        ("patch", "pods/resize", 200),
    ]

    def refilled() -> bool:
        free = [one for one in site.pods(runtime_id) if one["metadata"]["uid"] not in workers]
        return site.client.pool(runtime_id)["available"] == 2 and sum(map(is_ready, free)) == 2

    workers = claimed(site, runtime_id)
    wait_until(refilled, 30, "two free workers")


def test_a_claimed_pod_that_somebody_deletes_ends_its_work_and_is_replaced_meanwhile(
    site: Site, runtime_id: str, function_id: str
) -> None:
    pod = pod_of(site, runtime_id, function_id)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(site.client.execute, function_id, input='{"sleep": 5}')
        path = f"/v1/executions?function_id={function_id}&status=running"
        wait_until(lambda: site.client.call("GET", path).json()["executions"], 20, "its begin")
        site.cluster.client.delete("pods", pod["metadata"]["name"], site.namespace)
        wait_until(
            lambda: pod["metadata"]["uid"] not in site.client.workers(function_id), 20, "it noticed"
        )
        assert output(site.client.execute(function_id)) == "hello world"
        assert not call.done()
        assert output(call.result()) == "hello world"
    wait_replaced(site, runtime_id, function_id, pod)


def test_an_idle_claimed_pod_goes_with_a_drain_of_its_node_and_is_replaced(
    site: Site, runtime_id: str, function_id: str
) -> None:
    pod = pod_of(site, runtime_id, function_id)
    name = pod["metadata"]["name"]
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": site.namespace},
    }
    site.cluster.client.create(f"pods/{name}/eviction", eviction, site.namespace)
    wait_replaced(site, runtime_id, function_id, pod)


def test_a_claimed_pod_whose_node_took_its_room_is_deleted_and_replaced(
    site: Site, cluster: Cluster, runtime_id: str, function_id: str
) -> None:
    pod = pod_of(site, runtime_id, function_id)
    cluster.evict(
        pod["metadata"]["name"],
        site.namespace,
        'Usage of EmptyDir volume "tmp" exceeds the limit "64Mi". ',
    )
    wait_replaced(site, runtime_id, function_id, pod)
    words = f"Worker {pod['metadata']['uid']}, pod {pod['metadata']['name']}, is lost: Evicted"
    assert words in log_of(site)


def test_a_claimed_pod_whose_container_was_killed_is_empty_then_and_is_replaced(
    site: Site, cluster: Cluster, runtime_id: str, function_id: str
) -> None:
    pod = pod_of(site, runtime_id, function_id)
    cluster.kill_container(pod["metadata"]["name"], site.namespace, out_of_memory=True)
    wait_replaced(site, runtime_id, function_id, pod)


def test_the_image_of_a_runtime_stays_while_functions_have_workers_of_it(site: Site) -> None:
    runtime = site.create()
    site.wait_whole(runtime["id"])
    function = site.client.create_function(runtime["id"], GREETER)
    site.client.execute(function["id"])
    answer = site.client.update(runtime["id"], image=site.other_image)
    assert answer.status_code == 403
    assert function["id"] in answer.json()["faultstring"]
    assert site.client.call("POST", f"/v1/functions/{function['id']}/detach").status_code == 202
    wait_until(lambda: not claimed(site, runtime["id"]), 30, "its pod gone")
    assert site.client.update(runtime["id"], image=site.other_image).status_code == 200
    site.wait_whole(runtime["id"], site.other_image)
    assert output(site.client.execute(function["id"])) == "hello world"
    assert site.client.call("DELETE", f"/v1/functions/{function['id']}").status_code == 204
    wait_until(lambda: not claimed(site, runtime["id"]), 30, "its pod gone with the function")
    site.delete(runtime["id"])


def test_a_deleted_function_takes_its_pods_with_it(
    site: Site, runtime_id: str, function_id: str
) -> None:
    client = site.client
    client.call("POST", f"/v1/functions/{function_id}/scale_up", json={"count": 2})
    wait_until(lambda: len(client.workers(function_id)) == 3, 30, "three workers")
    workers = set(client.workers(function_id))
    assert client.call("DELETE", f"/v1/functions/{function_id}").status_code == 204
    wait_until(lambda: not workers & claimed(site, runtime_id).keys(), 30, "its pods gone")


def test_an_engine_that_was_away_goes_on_with_the_claimed_pods(
    site: Site, cluster: Cluster, runtime_id: str, function_id: str
) -> None:
    """They are the functions' still, and what happened to them meanwhile is seen."""
    other = site.client.create_function(runtime_id, GREETER)["id"]
    site.client.execute(other)
    before, lost = (pod_of(site, runtime_id, each) for each in (function_id, other))
    engine = engine_of(site)
    engine.kill()
    cluster.kill_container(lost["metadata"]["name"], site.namespace)
    engine.wait()
    site.deployment.start() if isinstance(site.deployment, Standalone) else engine.start()
    wait_replaced(site, runtime_id, other, lost)
    assert site.client.workers(function_id) == [before["metadata"]["uid"]]
    assert output(site.client.execute(function_id)) == "hello world"
    assert pod_of(site, runtime_id, function_id)["metadata"]["uid"] == before["metadata"]["uid"]


@pytest.mark.parametrize("site", ["distributed"], indirect=True)
def test_two_engines_claim_no_worker_twice_and_none_too_many(
    site: Site, cluster: Cluster, runtime_id: str
) -> None:
    client = site.client
    assert isinstance(site.deployment, Distributed)
    with site.deployment.second_engine() as second:
        second.wait_for_line("The engine is running", timeout=30)
        # Each watches workers, and runs of images.
        wait_until(lambda: cluster.watches.count("pods") >= 4, 30, "both engines watching")
        before = claimed(site, runtime_id).keys()
        made = [client.create_function(runtime_id, GREETER)["id"] for _ in range(3)]
        for function_id in made:
            client.call("POST", f"/v1/functions/{function_id}/scale_up", json={"count": 2})

        def workers() -> list[str]:
            return [worker for function_id in made for worker in client.workers(function_id)]

        # More than the pool has at a time, so that both wait for what it refills.
        def settled() -> bool:
            there = workers()
            return len(there) == 6 and claimed(site, runtime_id).keys() - before == set(there)

        wait_until(settled, 60, "as many workers as are wanted, and none of nobody's")
        assert {output(client.execute(function_id)) for function_id in made} == {"hello world"}


def test_a_cordoned_nodes_worker_is_replaced_by_one_elsewhere(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    nodes = {name: {"cpu": "2", "memory": "4Gi", "pods": "20"} for name in ("one", "two")}
    with Cluster(tmp_path / "own", images=IMAGES, clock=CLOCK, backoff=0.05, nodes=nodes) as own:
        site = make_site(on=own)
        for document in yaml.safe_load_all((ETC / "nodes.yaml").read_text()):
            for subject in document.get("subjects", []):
                subject["namespace"] = site.namespace
            own.apply(document)
        runtime = site.create()
        site.wait_whole(runtime["id"])
        function_id = site.client.create_function(runtime["id"], GREETER)["id"]
        site.client.execute(function_id)
        before = pod_of(site, runtime["id"], function_id)
        own.cordon(before["spec"]["nodeName"])
        after = wait_replaced(site, runtime["id"], function_id, before)
        assert after["spec"]["nodeName"] != before["spec"]["nodeName"]
        site.deployment.close()


def test_a_function_for_whose_memory_no_node_has_room_is_told_so(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    nodes = {"small": {"cpu": "2", "memory": "300Mi", "pods": "10"}}
    with Cluster(tmp_path / "own", images=IMAGES, clock=CLOCK, backoff=0.05, nodes=nodes) as own:
        site = make_site(on=own, execution={"start_timeout": "5"})
        runtime = site.create()
        site.wait_whole(runtime["id"])
        client = site.client
        function = client.create_function(runtime["id"], GREETER, memory_size=134217728)
        execution = client.execute(function["id"])
        assert execution["status"] == "error"
        assert "resize its pod (403): pods" in output(execution), execution
        assert "node didn't have enough allocatable resources: memory" in output(execution)
        # What it cannot have, a smaller one can.
        function = client.create_function(runtime["id"], GREETER)
        assert client.execute(function["id"])["status"] == "success"
        site.deployment.close()


def engine_of(site: Site) -> Process:
    if isinstance(site.deployment, Distributed):
        return site.deployment.engine
    assert isinstance(site.deployment, Standalone)
    return site.deployment.process


def log_of(site: Site) -> str:
    return engine_of(site).log()
