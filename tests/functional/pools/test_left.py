"""The driver alone, with no engine that would make anew what was deleted."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from qinling.orchestrator.base import PoolSpec
from qinling.orchestrator.kubernetes import names
from qinling.orchestrator.kubernetes.pool import KubernetesOrchestrator
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.real import RealCluster
from tests.fixtures.process import wait_until
from tests.functional.pools.conftest import Object, prepare
from tests.unit import config


@pytest.fixture
def namespace(any_cluster: Cluster | RealCluster) -> tuple[str, str]:
    found, kubeconfig = prepare(any_cluster)
    return found, str(kubeconfig)


@pytest.fixture
def driver(namespace: tuple[str, str]) -> Iterator[KubernetesOrchestrator]:
    conf = config.options()
    for name, value in zip(("namespace", "kubeconfig"), namespace, strict=True):
        conf.set_override(name, value, group="kubernetes")
    found = KubernetesOrchestrator(conf)
    found.start(lambda _: None)
    watchers = found._following._watchers
    wait_until(lambda: all(one.trouble is None for one in watchers), 30, "the watches")
    yield found
    found.stop()


@pytest.mark.parametrize("how", ["Foreground", "Background", "Orphan"])
def test_claimed_workers_go_with_their_pool_however_its_deployment_was_deleted(
    any_cluster: Cluster | RealCluster,
    driver: KubernetesOrchestrator,
    namespace: tuple[str, str],
    how: str,
) -> None:
    inside, _ = namespace
    cluster = any_cluster
    spec = PoolSpec(str(uuid4()), getattr(cluster, "image", "python3"), 2, True, 1)
    wait_until(lambda: driver.apply(spec).ready, 60, "the pool")
    found = [wait_until(lambda: driver.claim(spec.id), 30, "a worker") for _ in range(3)]
    assert driver.claimed(spec.id) == {worker.id: True for worker in found if worker is not None}
    if how != "Foreground":
        name = names.deployment(spec.id)
        cluster.client.delete("deployments", name, inside, propagationPolicy=how)
    wait_until(lambda: driver.remove(spec.id, 1), 60, "its removal")
    assert driver.claimed(spec.id) == {}
    for kind in ("pods", "replicasets", "deployments"):
        assert cluster.client.list(kind, inside) == []


def test_a_replica_set_that_lost_its_deployment_before_it_had_a_worker_is_removed(
    any_cluster: Cluster | RealCluster,
    driver: KubernetesOrchestrator,
    namespace: tuple[str, str],
) -> None:
    inside, _ = namespace
    cluster = any_cluster
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    cluster.client.create("resourcequotas", quota, inside)
    spec = PoolSpec(str(uuid4()), "python3", 2, True, 1)
    driver.apply(spec)

    def sets() -> list[Object]:
        return cluster.client.list("replicasets", inside)

    wait_until(lambda: len(sets()) == 1, 30, "its ReplicaSet")
    # As kubectl delete --cascade=orphan does it.
    name = names.deployment(spec.id)
    cluster.client.delete("deployments", name, inside, propagationPolicy="Orphan")
    wait_until(lambda: list(driver.pools()) == [], 30, "nothing of it seen any more")
    assert len(sets()) == 1
    wait_until(lambda: driver.remove(spec.id, 1), 30, "its removal")
    assert sets() == []
