"""Pods of the test server are real processes: probed, restarted, logged, ended."""

import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.client import Refused, path_of
from tests.fixtures.process import find_processes, wait_until
from tests.functional.kubernetes.objects import (
    NAMESPACE,
    Object,
    container_of,
    deployment,
    pods,
    wait_for_available,
)

_WORKER = Path(__file__).parents[3] / "qinling" / "worker"
_DEAF = """\
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
_IMAGES = {
    "worker:1": [sys.executable, "-I", "-S", str(_WORKER)],
    "crash:1": [sys.executable, "-I", "-S", "-c", "print('no luck'); raise SystemExit(3)"],
    "deaf:1": [sys.executable, "-I", "-S", "-c", _DEAF],
}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, images=_IMAGES, clock=0.1, backoff=0.02, addresses=5) as found:
        found.namespace(NAMESPACE)
        yield found
        found.check()
    # What a killed container has started of its own sees that, and ends.
    wait_until(lambda: find_processes(str(tmp_path)) == [], 10, "nothing of it left")


def _pool(name: str, size: int = 1, image: str = "worker:1") -> Object:
    """A pool of Qinling's own workers."""
    found = deployment(name, size, image)
    container = container_of(found)
    container["env"] = [
        {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for variable, path in {
            "QINLING_WORKER_ID": "metadata.uid",
            "QINLING_WORKER_HOST": "status.podIP",
        }.items()
    ]
    probe = {"httpGet": {"path": "/healthz", "port": 9090}, "periodSeconds": 1}
    container["readinessProbe"] = probe
    return found


def _wait_for(cluster: Cluster, name: str, what: str, look: Callable[[Object], Any]) -> Object:
    """The first pod of a pool that is as wanted."""

    def find() -> Object | None:
        return next((pod for pod in pods(cluster, name) if look(pod)), None)

    return wait_until(find, 10, what) or {}


_NEW: Object = {"state": {}, "lastState": {}, "restartCount": 0}


def _container(pod: Object) -> Object:
    found: Object = pod["status"].get("containerStatuses", [_NEW])[0]
    return found


def _ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", ())
    return ("Ready", "True") in {(found["type"], found["status"]) for found in conditions}


def test_a_worker_is_who_its_pod_is(cluster: Cluster) -> None:
    cluster.apply(_pool("r1", 3))
    wait_for_available(cluster, "r1", 3)
    found = pods(cluster, "r1")
    addresses = {pod["status"]["podIP"] for pod in found}
    assert len(addresses) == 3
    for pod in found:
        url = f"http://{pod['status']['podIP']}:9090/healthz"
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert pod["metadata"]["uid"] in answer.read().decode()


def test_addresses_come_back(cluster: Cluster) -> None:
    cluster.apply(_pool("r1", 3))
    wait_for_available(cluster, "r1", 3)
    before = {pod["status"]["podIP"] for pod in pods(cluster, "r1")}
    for pod in pods(cluster, "r1"):
        cluster.client.delete("pods", pod["metadata"]["name"], NAMESPACE)

    def look() -> bool:
        now = {pod["status"].get("podIP") for pod in pods(cluster, "r1") if _ready(pod)}
        return len(now) == 3 and bool(now & before)

    wait_until(look, 10, "an old address in new hands")


def test_a_worker_that_stands_still_is_not_ready(cluster: Cluster) -> None:
    pool = _pool("r1")
    container_of(pool)["readinessProbe"]["failureThreshold"] = 1
    cluster.apply(pool)
    wait_for_available(cluster, "r1", 1)
    pod = pods(cluster, "r1")[0]
    process = cluster.process(pod["metadata"]["name"], NAMESPACE)
    process.pause()
    _wait_for(cluster, "r1", "an unready pod", lambda pod: not _ready(pod))
    process.resume()
    _wait_for(cluster, "r1", "a ready pod", _ready)


def test_a_crash_loop_is_told_with_its_last_words(cluster: Cluster) -> None:
    cluster.apply(_pool("r1", image="crash:1"))
    pod = _wait_for(
        cluster,
        "r1",
        "a crash loop",
        lambda pod: _container(pod)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff",
    )
    assert _container(pod)["lastState"]["terminated"]["exitCode"] == 3
    path = path_of("pods/log", NAMESPACE, pod["metadata"]["name"])
    query = {"previous": "true", "tailLines": 5, "limitBytes": 100}
    assert cluster.client.ask("GET", path, query=query) == "no luck\n"


def test_a_killed_container_starts_again(cluster: Cluster) -> None:
    cluster.apply(_pool("r1"))
    wait_for_available(cluster, "r1", 1)
    name = pods(cluster, "r1")[0]["metadata"]["name"]
    cluster.kill_container(name, NAMESPACE, out_of_memory=True)
    pod = _wait_for(
        cluster,
        "r1",
        "a restarted container",
        lambda pod: _container(pod)["restartCount"] == 1 and _ready(pod),
    )
    terminated = _container(pod)["lastState"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (137, "OOMKilled")


def test_a_container_that_does_not_live_is_restarted(cluster: Cluster) -> None:
    pool = _pool("r1")
    container_of(pool)["livenessProbe"] = {
        "httpGet": {"path": "/absent", "port": 9090},
        "periodSeconds": 1,
    }
    cluster.apply(pool)
    _wait_for(cluster, "r1", "a restart", lambda pod: _container(pod)["restartCount"] > 0)


def test_a_container_is_ready_as_soon_as_it_has_started(cluster: Cluster) -> None:
    pool = _pool("r1")
    container = container_of(pool)
    container["startupProbe"] = {**container["readinessProbe"], "failureThreshold": 60}
    # Ten minutes of this cluster's clock are one; the test does not wait for that.
    container["readinessProbe"]["periodSeconds"] = 600
    cluster.apply(pool)
    wait_for_available(cluster, "r1", 1)
    assert _container(pods(cluster, "r1")[0])["started"] is True


def test_a_container_that_does_not_start_is_not_ready_and_begins_anew(cluster: Cluster) -> None:
    pool = _pool("r1")
    probe = {"httpGet": {"path": "/absent", "port": 9090}, "periodSeconds": 1}
    container_of(pool)["startupProbe"] = {**probe, "failureThreshold": 5}
    # It would end the container before that if it were made already.
    container_of(pool)["livenessProbe"] = {**probe, "failureThreshold": 1}
    cluster.apply(pool)
    pod = _wait_for(cluster, "r1", "a restart", lambda pod: _container(pod)["restartCount"] > 0)
    assert not _ready(pod)
    events = cluster.client.list("events", NAMESPACE)
    told = [event["message"] for event in events]
    assert any(message.startswith("Startup probe failed: ") for message in told)
    assert "Container worker failed startup probe, will be restarted" in told
    assert not any("iveness" in message for message in told)


def test_an_image_that_appears_is_pulled(cluster: Cluster) -> None:
    cluster.apply(_pool("r1", image="worker:2"))
    pod = _wait_for(
        cluster,
        "r1",
        "a pull that failed",
        lambda pod: _container(pod)["state"].get("waiting", {}).get("reason") == "ImagePullBackOff",
    )
    with pytest.raises(Refused, match="trying and failing to pull image"):
        cluster.client.ask("GET", path_of("pods/log", NAMESPACE, pod["metadata"]["name"]))
    cluster.images["worker:2"] = _IMAGES["worker:1"]
    wait_for_available(cluster, "r1", 1)


def test_a_deaf_process_is_killed_when_its_grace_is_over(cluster: Cluster) -> None:
    pool = _pool("r1", image="deaf:1")
    del container_of(pool)["readinessProbe"]
    pool["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 3
    cluster.apply(pool)
    wait_for_available(cluster, "r1", 1)
    name = pods(cluster, "r1")[0]["metadata"]["name"]
    log = path_of("pods/log", NAMESPACE, name)
    wait_until(lambda: "deaf" in cluster.client.ask("GET", log), 10, "a deaf process")
    query = {"fieldSelector": f"metadata.name={name}"}
    with closing(cluster.client.watch("pods", NAMESPACE, **query)) as watch:
        next(watch)
        cluster.client.delete("pods", name, NAMESPACE)
        last = next(event for event in watch if event["type"] == "DELETED")["object"]
    assert last["status"]["phase"] == "Failed"
    assert _container(last)["state"]["terminated"]["exitCode"] == 128 + signal.SIGKILL


def test_a_namespace_ends_with_all_that_is_in_it(cluster: Cluster) -> None:
    cluster.apply(_pool("r1", 2))
    wait_for_available(cluster, "r1", 2)
    process = cluster.process(pods(cluster, "r1")[0]["metadata"]["name"], NAMESPACE)
    held = {"metadata": {"name": "q", "finalizers": ["example.org/held"]}, "spec": {}}
    cluster.client.create("resourcequotas", held, NAMESPACE)
    ended = cluster.client.delete("namespaces", NAMESPACE)
    assert ended["status"]["phase"] == "Terminating"
    for plural in ("pods", "replicasets", "deployments", "events"):
        wait_until(lambda plural=plural: not cluster.client.list(plural, NAMESPACE), 10, "an end")
    assert not process.running
    assert cluster.client.get("namespaces", NAMESPACE)["status"]["phase"] == "Terminating"
    cluster.client.patch("resourcequotas", "q", {"metadata": {"finalizers": None}}, NAMESPACE)
    wait_until(lambda: cluster.client.list("namespaces")[2:] == [], 10, "the namespace's end")


@pytest.mark.parametrize(
    ("cpu", "why"), [("64", "1 Insufficient cpu"), ("10m", "1 node(s) were unschedulable")]
)
def test_a_pod_without_a_node_waits_and_says_why(cluster: Cluster, cpu: str, why: str) -> None:
    cluster.cordon("node1", cordoned=cpu == "10m")
    pool = _pool("r1")
    container_of(pool)["resources"] = {"requests": {"cpu": cpu}}
    cluster.apply(pool)
    pod = _wait_for(
        cluster, "r1", "an unschedulable pod", lambda pod: pod["status"].get("conditions")
    )
    (condition,) = pod["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("PodScheduled", "Unschedulable")
    assert condition["message"].startswith(f"0/1 nodes are available: {why}. ")
    if cpu == "10m":
        cluster.cordon("node1", cordoned=False)
        wait_for_available(cluster, "r1", 1)


def test_a_restored_cluster_runs_what_it_then_should(cluster: Cluster) -> None:
    cluster.apply(_pool("old"))
    wait_for_available(cluster, "old", 1)
    snapshot = cluster.snapshot()
    cluster.apply(_pool("new"))
    wait_for_available(cluster, "new", 1)
    cluster.client.delete("deployments", "old", NAMESPACE)
    wait_until(lambda: not pods(cluster, "old"), 10, "the end of the old pool")
    cluster.restart(snapshot)
    assert pods(cluster, "new") == []
    wait_for_available(cluster, "old", 1)
