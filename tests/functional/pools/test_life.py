"""A runtime's whole life on a cluster, as its callers see it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qinling.orchestrator.kubernetes import names
from qinling.orchestrator.kubernetes.client import Client
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.real import IMAGE, KUBECONFIG, RealCluster
from tests.fixtures.process import wait_until
from tests.functional.pools.conftest import Object, Site, prepare
from tests.unit import config


def test_a_runtime_becomes_available_with_a_warm_pool_and_is_deleted_with_it(
    any_site: Site,
) -> None:
    runtime = any_site.create(name="one")
    assert runtime["status"] == "creating"
    any_site.client.wait_for(runtime["id"], "available")
    any_site.wait_whole(runtime["id"])
    any_site.delete(runtime["id"])


def test_a_start_on_a_cluster_that_is_well_warns_of_nothing(
    make_site: Callable[..., Site], cluster: Cluster
) -> None:
    site = make_site(start=False)
    # The watches have not seen all there is when the first pools are asked for.
    cluster.delay(1, verb="list", namespace=site.namespace, times=2)
    site.deployment.start()
    site.wait_whole(site.client.create()["id"])
    log = (site.deployment.root / "standalone.log").read_text()
    assert [line for line in log.splitlines() if " WARNING " in line or " ERROR " in line] == []
    # It may not see nodes, which is optional, and does not go on asking.
    nodes = [one for one in cluster.calls if one.resource == "nodes" and site.namespace in one.user]
    assert [(one.verb, one.status) for one in nodes] == [("list", 403)]


def test_an_image_change_rolls_the_pool_over_and_never_empties_it(any_site: Site) -> None:
    runtime = any_site.create()
    any_site.wait_whole(runtime["id"])
    before = any_site.pod_names(runtime["id"])
    assert (
        any_site.client.update(runtime["id"], image=any_site.other_image).json()["status"]
        == "upgrading"
    )

    def over() -> bool:
        assert any_site.client.pool(runtime["id"])["available"] == 2
        return any_site.client.show(runtime["id"])["status"] == "available"

    wait_until(over, 60, "the end of the rollout")
    any_site.wait_whole(runtime["id"], any_site.other_image)
    assert not before & any_site.pod_names(runtime["id"])
    any_site.delete(runtime["id"])


def test_lost_workers_are_replaced_and_the_runtime_stays_available(any_site: Site) -> None:
    runtime = any_site.create()
    any_site.wait_whole(runtime["id"])
    before = any_site.pod_names(runtime["id"])
    for name in before:
        any_site.cluster.client.delete("pods", name, any_site.namespace)

    def replaced() -> bool:
        assert any_site.client.show(runtime["id"])["status"] == "available"
        return len(any_site.pod_names(runtime["id"])) == 2 and not before & any_site.pod_names(
            runtime["id"]
        )

    wait_until(replaced, 60, "two other workers")
    any_site.wait_whole(runtime["id"])
    any_site.delete(runtime["id"])


def test_what_somebody_did_to_a_pool_by_hand_is_put_right(any_site: Site) -> None:
    runtime = any_site.create()
    any_site.wait_whole(runtime["id"])
    name = any_site.deployment_of(runtime["id"])["metadata"]["name"]
    hands = any_site.cluster.client
    hands.patch("deployments", name, {"spec": {"replicas": 5}}, any_site.namespace)
    any_site.wait_whole(runtime["id"])
    found = any_site.deployment_of(runtime["id"])
    found["spec"]["template"]["spec"]["containers"][0]["image"] = "crashing"
    hands.patch(
        "deployments",
        name,
        {"spec": {"template": {"spec": found["spec"]["template"]["spec"]}}},
        any_site.namespace,
    )
    any_site.wait_whole(runtime["id"])
    hands.delete("deployments", name, any_site.namespace)
    wait_until(
        lambda: any_site.client.pool(runtime["id"])["available"] < 2, 60, "the deleted pool noticed"
    )
    any_site.wait_whole(runtime["id"])
    assert any_site.client.show(runtime["id"])["status"] == "available"
    any_site.delete(runtime["id"])


def _container(pod: Object) -> Object:
    container: Object = pod["containers"][0]
    return container


#: What somebody does to a pool's template: other members of unions, and more than was there.
EDITS: dict[str, Callable[[Object], object]] = {
    "a value for valueFrom": lambda pod: _container(pod)["env"].__setitem__(
        0, {"name": "QINLING_WORKER_ID", "value": "mine"}
    ),
    "tcpSocket for httpGet": lambda pod: _container(pod).update(
        readinessProbe={"tcpSocket": {"port": "http"}}
    ),
    "hostPath for emptyDir": lambda pod: pod["volumes"].__setitem__(
        0, {"name": "tmp", "hostPath": {"path": "/var/tmp"}}
    ),
    "a container": lambda pod: pod["containers"].append(_container(pod) | {"name": "more"}),
    "a container before": lambda pod: pod.update(
        initContainers=[{"name": "first", "image": _container(pod)["image"]}]
    ),
    "a volume": lambda pod: pod["volumes"].append({"name": "more", "emptyDir": {}}),
    "a variable": lambda pod: _container(pod)["env"].append({"name": "MORE", "value": "1"}),
    "a command": lambda pod: _container(pod).update(command=["/bin/false"]),
    "the host": lambda pod: pod.update(hostNetwork=True, hostPID=True, nodeName="node1"),
    "an account": lambda pod: pod.update(
        serviceAccountName="default", automountServiceAccountToken=True
    ),
    "names": lambda pod: pod.update(dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]}),
    "a capability": lambda pod: _container(pod)["securityContext"]["capabilities"].update(
        add=["SYS_ADMIN"]
    ),
    "a probe's delay": lambda pod: _container(pod)["livenessProbe"].update(initialDelaySeconds=9),
}


def test_whatever_somebody_puts_into_a_template_is_put_right(any_site: Site) -> None:
    runtime = any_site.create()
    any_site.wait_whole(runtime["id"])
    before = any_site.deployment_of(runtime["id"])
    name, spec = before["metadata"]["name"], before["spec"]
    for what, edit in EDITS.items():
        edited = json.loads(json.dumps(spec))
        edit(edited["template"]["spec"])
        assert edited != spec
        edited["minReadySeconds"] = 1
        any_site.cluster.client.patch("deployments", name, {"spec": edited}, any_site.namespace)
        wait_until(
            lambda: any_site.deployment_of(runtime["id"])["spec"] == spec, 60, f"{what} put right"
        )
    any_site.wait_whole(runtime["id"])
    # An apply, as of another image, is taken from then on.
    any_site.client.update(runtime["id"], image=any_site.other_image)
    any_site.wait_whole(runtime["id"], any_site.other_image)
    any_site.delete(runtime["id"])


def test_a_policy_that_somebody_deleted_or_changed_is_put_right(any_site: Site) -> None:
    runtime = any_site.create()
    any_site.wait_whole(runtime["id"])
    hands = any_site.cluster.client

    def policies() -> list[Object]:
        found = hands.list("networkpolicies", any_site.namespace)
        return [one["spec"] for one in found]

    before = policies()
    assert len(before) == 1
    hands.delete("networkpolicies", names.POLICY, any_site.namespace)
    wait_until(lambda: policies() == before, 60, "the policy made anew")
    open_to_all = {"spec": {"ingress": [{}]}}
    hands.patch("networkpolicies", names.POLICY, open_to_all, any_site.namespace)
    wait_until(lambda: policies() == before, 60, "the policy as it was")
    any_site.delete(runtime["id"])


def test_two_runtimes_know_nothing_of_each_other(any_site: Site) -> None:
    first, second = any_site.create(), any_site.create(image=any_site.other_image)
    any_site.wait_whole(first["id"])
    any_site.wait_whole(second["id"], any_site.other_image)
    any_site.delete(first["id"])
    any_site.wait_whole(second["id"], any_site.other_image)
    any_site.delete(second["id"])


def test_a_pool_without_a_row_is_removed_and_nothing_is_touched_that_is_not_qinlings(
    any_site: Site,
) -> None:
    runtime = any_site.create()
    any_site.wait_whole(runtime["id"])
    found = any_site.deployment_of(runtime["id"])
    orphan = "6f6f6f6f-0000-4000-8000-000000000001"
    hands = any_site.cluster.client
    ours = _copy(found, f"runtime-{orphan}", runtime["id"], orphan)
    renamed = _copy(found, "another-name", runtime["id"], orphan)
    theirs = _copy(found, "somebody-elses", runtime["id"], orphan)
    # Somebody else's, though it looks much like a pool.
    del theirs["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    theirs["spec"]["selector"]["matchLabels"] = {"whose": "theirs"}
    theirs["spec"]["template"]["metadata"]["labels"] = {"whose": "theirs"}
    for copy in (ours, renamed, theirs):
        hands.apply(copy)
    wait_until(
        lambda: (
            {one["metadata"]["name"] for one in any_site.deployments()}
            == {found["metadata"]["name"], "somebody-elses"}
        ),
        60,
        "the orphan's end",
    )
    any_site.wait_whole(runtime["id"])
    hands.delete("deployments", "somebody-elses", any_site.namespace)
    any_site.delete(runtime["id"])


def test_a_cluster_that_the_environment_names_is_prepared_and_left_as_it_was(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KUBECONFIG, str(cluster.kubeconfig()))
    monkeypatch.setenv(IMAGE, "python3")
    with RealCluster(tmp_path) as found:
        namespace, kubeconfig = prepare(found)
        conf = config.options()
        conf.set_override("kubeconfig", str(kubeconfig), "kubernetes")
        path = f"/api/v1/namespaces/{namespace}/pods"
        assert Client(conf, connections=1).get(path)["items"] == []
    wait_until(
        lambda: (
            namespace not in [one["metadata"]["name"] for one in cluster.client.list("namespaces")]
        ),
        30,
        "its namespace gone",
    )


def _copy(found: dict[str, Any], name: str, old: str, new: str) -> dict[str, Any]:
    """Another pool's Deployment, as an engine that knows its row would have made it."""
    meta = {key: found["metadata"][key] for key in ("namespace", "labels")}
    made = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": found["spec"]}
    copy: dict[str, Any] = json.loads(json.dumps(made).replace(old, new))
    copy["metadata"]["name"] = name
    return copy
