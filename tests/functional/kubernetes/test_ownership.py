"""Server-side apply: who owns what, conflicts, and what an apply takes away."""

import pytest

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.client import Refused
from tests.functional.kubernetes.objects import NAMESPACE, Object, container_of, deployment


def _apply(cluster: Cluster, found: Object, manager: str = "one", *, force: bool = False) -> Object:
    return cluster.client.apply(found, manager=manager, force=force)


def _only(found: Object, **spec: object) -> Object:
    """A body that says nothing else of the object."""
    return {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "metadata": {"name": found["metadata"]["name"], "namespace": NAMESPACE},
        "spec": spec,
    }


def _env(cluster: Cluster) -> dict[str, str]:
    found = cluster.client.get("deployments", "r1", NAMESPACE)
    return {variable["name"]: variable["value"] for variable in container_of(found).get("env", ())}


def test_the_same_apply_writes_nothing(cluster: Cluster) -> None:
    first = _apply(cluster, deployment("r1", 0))
    again = _apply(cluster, deployment("r1", 0))
    assert first["metadata"]["generation"] == again["metadata"]["generation"] == 1


def test_another_manager_shares_what_it_agrees_with(cluster: Cluster) -> None:
    _apply(cluster, deployment("r1", 2))
    _apply(cluster, _only(deployment("r1"), replicas=2), "two")
    # Both own it now: one may leave, and it stays; neither may change it alone.
    with pytest.raises(Refused) as refused:
        _apply(cluster, _only(deployment("r1"), replicas=3), "two")
    assert refused.value.body["details"]["causes"][0]["field"] == ".spec.replicas"
    mine = deployment("r1")
    del mine["spec"]["replicas"]
    assert _apply(cluster, mine)["spec"]["replicas"] == 2


def test_force_takes_a_field_from_its_owner(cluster: Cluster) -> None:
    _apply(cluster, deployment("r1", 2))
    _apply(cluster, _only(deployment("r1"), replicas=3), "two", force=True)
    mine = deployment("r1", 2)
    with pytest.raises(Refused) as refused:
        _apply(cluster, mine)
    assert refused.value.body["message"].startswith("Apply failed with 1 conflict")
    assert refused.value.status == 409


def test_items_of_keyed_lists_have_owners_of_their_own(cluster: Cluster) -> None:
    mine = deployment("r1", 0)
    container_of(mine)["env"] = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    _apply(cluster, mine)
    template = {"spec": {"containers": [{"name": "worker", "env": [{"name": "C", "value": "3"}]}]}}
    _apply(cluster, _only(mine, template=template), "two")
    assert _env(cluster) == {"A": "1", "B": "2", "C": "3"}
    container_of(mine)["env"] = [{"name": "A", "value": "1"}]
    _apply(cluster, mine)
    assert _env(cluster) == {"A": "1", "C": "3"}


def test_what_is_no_longer_applied_goes_with_its_defaults(cluster: Cluster) -> None:
    mine = deployment("r1", 0)
    container_of(mine)["readinessProbe"] = {"httpGet": {"port": 9090}}
    probe = container_of(_apply(cluster, mine))["readinessProbe"]
    assert (probe["failureThreshold"], probe["httpGet"]["path"]) == (3, "/")
    del container_of(mine)["readinessProbe"]
    assert "readinessProbe" not in container_of(_apply(cluster, mine))


def test_a_change_by_hand_takes_the_field(cluster: Cluster) -> None:
    _apply(cluster, deployment("r1", 2))
    cluster.client.patch("deployments/scale", "r1", {"spec": {"replicas": 5}}, NAMESPACE)
    with pytest.raises(Refused, match="by-hand"):
        _apply(cluster, deployment("r1", 2))
    assert _apply(cluster, deployment("r1", 2), force=True)["spec"]["replicas"] == 2


def test_an_unknown_field_is_no_configuration(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="field not declared in schema"):
        _apply(cluster, deployment("r1", 2, replica=3))


def test_an_apply_needs_a_manager(cluster: Cluster) -> None:
    with pytest.raises(Refused, match="fieldManager"):
        _apply(cluster, deployment("r1"), "")


def test_a_wrong_type_is_refused(cluster: Cluster) -> None:
    with pytest.raises(Refused) as refused:
        _apply(cluster, deployment("r1", size="two"))  # type: ignore[arg-type]
    assert refused.value.status == 400


def test_two_members_of_a_union_are_refused_whoever_put_them_there(cluster: Cluster) -> None:
    mine = deployment("r1", 0)
    container = container_of(mine)
    reference = {"fieldRef": {"fieldPath": "metadata.uid"}}
    container["env"] = [{"name": "A", "valueFrom": reference}]
    container["readinessProbe"] = {"httpGet": {"port": 80}}
    mine["spec"]["template"]["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    made = _apply(cluster, mine)
    edited = made["spec"]["template"]["spec"]
    container_of(made)["env"] = [{"name": "A", "value": "1"}]
    container_of(made)["readinessProbe"] = {"exec": {"command": ["true"]}}
    edited["volumes"] = [{"name": "tmp", "hostPath": {"path": "/tmp"}}]
    cluster.client.patch("deployments", "r1", {"spec": {"template": {"spec": edited}}}, NAMESPACE)
    with pytest.raises(Refused) as refused:
        _apply(cluster, mine, force=True)
    assert refused.value.status == 422
    assert {
        cause["field"].removeprefix("spec.template.spec."): cause["message"]
        for cause in refused.value.body["details"]["causes"]
    } == {
        "volumes[0].hostPath": "Forbidden: may not specify more than 1 volume type",
        "containers[0].env[0].valueFrom": 'Invalid value: "": may not be specified when `value` '
        "is not empty",
        "containers[0].readinessProbe.httpGet": "Forbidden: may not specify more than 1 handler "
        "type",
    }
    # A merge patch replaces lists, and a null is nothing.
    pod = mine["spec"]["template"]["spec"]
    pod["containers"][0]["command"] = None
    merged = cluster.client.patch(
        "deployments", "r1", {"spec": {"template": {"spec": pod}}}, NAMESPACE
    )
    found = container_of(merged)
    assert [list(one) for one in found["env"]] == [["name", "valueFrom"]]
    assert "exec" not in found["readinessProbe"]
    assert "command" not in found
