"""Why a pool is not as it should be: told in the runtime, and taken back when it is over."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.process import wait_until
from tests.functional.pools.conftest import CLOCK, ETC, IMAGES, Object, Site, is_ready

QUOTA: Object = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "pods"},
    "spec": {"hard": {"pods": "2"}},
}


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster for one test alone, with the gaps between retries as long as they really are."""
    with Cluster(tmp_path / "cluster", images=IMAGES, clock=CLOCK, backoff=1.0) as found:
        yield found
        found.check()


def test_a_quota_is_named_and_the_pool_refills_at_once_when_it_is_raised(
    own_cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(own_cluster)
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    own_cluster.client.create("resourcequotas", QUOTA, site.namespace)
    (lost, *_) = site.pod_names(runtime["id"])
    tight = {"spec": {"hard": {"pods": "1"}}}
    own_cluster.client.patch("resourcequotas", "pods", tight, site.namespace)
    own_cluster.client.delete("pods", lost, site.namespace)
    shown = site.wait_reason(runtime["id"], "quota", "exceeded quota: pods", "limited: pods=1")
    assert shown["status"] == "available"
    assert site.client.pool(runtime["id"]) == {"total": 2, "available": 1}
    # The ReplicaSet has been refused for so long by now that its next try is far away.
    wait_until(lambda: _refusals(site) >= 6, 60, "a ReplicaSet that was refused often")
    own_cluster.client.delete("resourcequotas", "pods", site.namespace)
    site.wait_whole(runtime["id"], timeout=15)
    wait_until(
        lambda: site.client.show(runtime["id"])["status_reason"] is None, 10, "the reason gone"
    )


def _refusals(site: Site) -> int:
    events = site.cluster.client.list("events", site.namespace)
    return sum(event.get("count", 1) for event in events if event["reason"] == "FailedCreate")


def test_a_new_pool_over_its_quota_ends_in_error_and_heals(
    make_any_site: Callable[..., Site],
) -> None:
    site = make_any_site()
    cluster = site.cluster
    cluster.client.create(
        "resourcequotas", QUOTA | {"spec": {"hard": {"pods": "1"}}}, site.namespace
    )
    runtime = site.create()
    shown = site.client.wait_for(runtime["id"], "error", timeout=300)
    assert "the quota of the namespace is used up" in shown["status_reason"]
    cluster.client.delete("resourcequotas", "pods", site.namespace)
    shown = site.client.wait_for(runtime["id"], "available")
    assert shown["status_reason"] is None


def test_many_pools_over_a_quota_refill_soon_after_it_is_raised_at_a_write_each(
    tmp_path: Path, make_site: Callable[..., Site]
) -> None:
    # ReplicaSets that were refused try again after minutes, unless they are woken.
    with Cluster(tmp_path / "cluster", processes=False, clock=CLOCK, backoff=10000) as cluster:
        site = make_site(cluster, kubernetes={"progress_deadline": "600"})
        none = QUOTA | {"spec": {"hard": {"pods": "0"}}}
        cluster.client.create("resourcequotas", none, site.namespace)
        ids = [site.client.create()["id"] for _ in range(50)]
        for runtime_id in ids:
            site.wait_reason(runtime_id, "exceeded quota: pods")
        cluster.client.delete("resourcequotas", "pods", site.namespace)
        before = _writes(site)
        for runtime_id in ids:
            site.client.wait_for(runtime_id, "available", timeout=15)
        # Those whose turn had come just then are woken twice at most.
        assert _writes(site) - before <= 60


def _writes(site: Site) -> int:
    return sum(
        call.verb == "patch" and "qinling-engine" in call.user and call.namespace == site.namespace
        for call in site.cluster.calls
    )


def test_an_untrusted_runtime_without_a_runtime_class_ends_in_error_at_once(
    make_any_site: Callable[..., Site],
) -> None:
    site = make_any_site()
    runtime = site.create(trusted=False)
    shown = site.client.wait_for(runtime["id"], "error", timeout=30)
    assert "untrusted_runtime_class" in shown["status_reason"]
    assert site.deployments() == []
    site.delete(runtime["id"])


def test_a_runtime_class_that_the_cluster_lacks_is_named_and_used_when_it_is_there(
    cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(kubernetes={"untrusted_runtime_class": "gvisor"})
    runtime = site.client.create(trusted=False)
    site.wait_reason(runtime["id"], 'RuntimeClass "gvisor" not found')
    cluster.client.create("runtimeclasses", {"metadata": {"name": "gvisor"}, "handler": "runsc"})
    site.wait_whole(runtime["id"])
    (pod, _) = site.pods(runtime["id"])
    assert pod["spec"]["runtimeClassName"] == "gvisor"
    cluster.client.delete("runtimeclasses", "gvisor")


def test_a_cluster_without_room_is_told_so(
    own_cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(own_cluster)
    own_cluster.cordon("node1")
    runtime = site.client.create()
    site.wait_reason(runtime["id"], "no node has room", "0/1 nodes are available")
    own_cluster.cordon("node1", cordoned=False)
    site.wait_whole(runtime["id"])
    wait_until(
        lambda: site.client.show(runtime["id"])["status_reason"] is None, 10, "the reason gone"
    )


def test_a_crash_loop_is_told_with_its_code_and_the_end_of_its_log_at_once(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(kubernetes={"progress_deadline": "600"})
    runtime = site.client.create(image="crashing")
    shown = site.wait_reason(runtime["id"], "exited with code 3", "out of luck", timeout=30)
    # Long before the deadline.
    assert shown["status"] == "creating"


def test_an_image_that_cannot_be_pulled_is_told_at_once(
    make_any_site: Callable[..., Site],
) -> None:
    site = make_any_site(kubernetes={"progress_deadline": "600"})
    runtime = site.client.create(image="nowhere/to/be:found")
    shown = site.wait_reason(
        runtime["id"], "image nowhere/to/be:found cannot be pulled", timeout=30
    )
    assert shown["status"] == "creating"


def test_a_pod_security_that_refuses_the_workers_is_named_and_taken_back(
    own_cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(own_cluster, kubernetes={"progress_deadline": "600"})

    def sidecar(pod: Object) -> None:
        pod["spec"]["containers"].append({"name": "proxy", "image": "mesh:1"})

    own_cluster.inject(site.namespace, sidecar)
    runtime = site.client.create()
    shown = site.wait_reason(
        runtime["id"], "the pod security of the namespace refuses the workers", '"proxy" must set'
    )
    assert shown["status"] == "creating"
    own_cluster.inject(site.namespace, None)
    site.wait_whole(runtime["id"])
    assert site.client.show(runtime["id"])["status_reason"] is None


def test_what_only_an_event_explains_is_told(
    tmp_path: Path, make_site: Callable[..., Site]
) -> None:
    with Cluster(tmp_path / "cluster", images=IMAGES, user_namespaces=False) as cluster:
        site = make_site(
            cluster, kubernetes={"user_namespaces": "true", "progress_deadline": "600"}
        )
        runtime = site.client.create()
        shown = site.wait_reason(
            runtime["id"],
            "a worker cannot be started: FailedCreatePodSandBox",
            "runtime does not support user namespaces",
        )
        assert shown["status"] == "creating"
        site.delete(runtime["id"])


def test_an_evicted_worker_is_told_while_another_one_is_not_there_yet(
    own_cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(own_cluster, kubernetes={"progress_deadline": "600"})
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    # What comes in its place takes its time.
    own_cluster.images["python3"] = IMAGES["deaf"]
    (lost, *_) = site.pod_names(runtime["id"])
    full = 'Usage of EmptyDir volume "tmp" exceeds the limit "64Mi". '
    # The engine sees the end of the worker before the Deployment's controller does.
    own_cluster.pause_controllers()
    own_cluster.evict(lost, site.namespace, full)
    wait_until(lambda: lost not in site.pod_names(runtime["id"]), 60, "the lost worker gone")
    own_cluster.pause_controllers(False)
    shown = site.wait_reason(runtime["id"], "a worker was lost: Evicted", full.strip())
    assert shown["status"] == "available"
    assert site.client.pool(runtime["id"]) == {"total": 2, "available": 1}
    own_cluster.images["python3"] = IMAGES["python3"]
    (late,) = (pod for pod in site.pods(runtime["id"]) if _is_starting(pod))
    own_cluster.client.delete("pods", late["metadata"]["name"], site.namespace)
    wait_until(
        lambda: site.client.pool(runtime["id"]) == {"total": 2, "available": 2}, 60, "a whole pool"
    )
    wait_until(
        lambda: site.client.show(runtime["id"])["status_reason"] is None, 10, "the reason gone"
    )


def _is_starting(pod: Object) -> bool:
    return pod["status"]["phase"] != "Failed" and not is_ready(pod)


def _role(site: Site) -> Object:
    """What the engine may do."""
    documents = yaml.safe_load_all((ETC / "rbac.yaml").read_text())
    role: Object = next(one for one in documents if one["kind"] == "Role")
    role["metadata"]["namespace"] = site.namespace
    return role


def test_a_missing_permission_is_named_with_its_verb_and_heals(
    make_any_site: Callable[..., Site],
) -> None:
    site = make_any_site(start=False)
    cluster = site.cluster
    role = _role(site)
    less = {
        **role,
        "rules": [rule for rule in role["rules"] if "deployments" not in rule["resources"]],
    }
    cluster.client.apply(less)
    site.deployment.start()
    runtime = site.create()
    shown = site.wait_reason(
        runtime["id"], "403", 'cannot list resource "deployments"', "qinling-engine"
    )
    assert shown["status"] == "creating"
    cluster.client.apply(role)
    site.wait_whole(runtime["id"], timeout=60)


def test_a_moments_refusal_costs_a_delay_and_a_lasting_one_the_upgrade(
    cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site()
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    role = _role(site)
    less = {
        **role,
        "rules": [
            {**rule, "verbs": [verb for verb in rule["verbs"] if verb != "patch"]}
            for rule in role["rules"]
        ],
    }
    cluster.client.apply(less)
    assert site.client.update(runtime["id"], image="python3:2").status_code == 200
    shown = site.wait_reason(runtime["id"], "403", 'cannot patch resource "deployments"')
    assert (shown["status"], shown["image"]) == ("upgrading", "python3:2")
    cluster.client.apply(role)
    site.wait_whole(runtime["id"], "python3:2")
    cluster.client.apply(less)
    assert site.client.update(runtime["id"], image="python3").status_code == 200
    shown = site.client.wait_for(runtime["id"], "available")
    assert shown["image"] == "python3:2"
    cluster.client.apply(role)
    # Going back is refused, too: until then its own reason hides that of the rollback.
    site.wait_reason(runtime["id"], "rolled back", "403", "cannot patch")
    site.wait_whole(runtime["id"], "python3:2")


def test_an_upgrade_that_nobody_on_the_cluster_acts_on_ends_all_the_same(
    own_cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(own_cluster)
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    own_cluster.pause_controllers()
    assert site.client.update(runtime["id"], image="python3:2").status_code == 200
    shown = site.wait_reason(runtime["id"], "rolled back", "does its controller manager run")
    assert (shown["status"], shown["image"]) == ("available", "python3")
    own_cluster.pause_controllers(False)
    site.wait_whole(runtime["id"])


def test_a_namespace_that_is_being_deleted_is_told_and_filled_again_when_it_is_made_anew(
    cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    # The engine's own permissions would go with the namespace.
    site = make_site(kubernetes={"kubeconfig": str(cluster.kubeconfig())})
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    # Something of somebody's keeps the namespace from going.
    stays = {"metadata": {"name": "stays", "finalizers": ["example.org/stays"]}}
    cluster.client.create("serviceaccounts", stays, site.namespace)
    cluster.client.delete("namespaces", site.namespace)
    shown = site.wait_reason(runtime["id"], "403", "being terminated", timeout=30)
    assert shown["status"] == "available"
    free = {"metadata": {"finalizers": []}}
    cluster.client.patch("serviceaccounts", "stays", free, site.namespace)
    site.wait_reason(runtime["id"], "404", timeout=30)
    cluster.namespace(site.namespace)
    site.wait_whole(runtime["id"], timeout=30)
