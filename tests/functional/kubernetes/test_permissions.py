"""RBAC: what is not granted is refused, in the words of the real server."""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.client import Client, Refused
from tests.functional.kubernetes.objects import NAMESPACE, deployment

_RBAC = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: engine, namespace: pools}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: engine, namespace: pools}
rules:
- {apiGroups: [apps], resources: [deployments], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [pods/proxy], verbs: [get], resourceNames: [known]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: engine, namespace: pools}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: engine}
subjects: [{kind: ServiceAccount, name: engine, namespace: pools}]
"""


@pytest.fixture
def engine(cluster: Cluster, tmp_path: Path) -> Any:
    """A client with the rights above."""
    manifest = tmp_path / "rbac.yaml"
    manifest.write_text(_RBAC)
    cluster.apply(manifest)
    token = cluster.service_account_token("engine", NAMESPACE)
    with Client(cluster.port, cluster.authority, token) as client:
        yield client


def test_what_is_granted_is_allowed_there_alone(cluster: Cluster, engine: Client) -> None:
    assert engine.list("deployments", NAMESPACE) == []
    with pytest.raises(Refused) as refused:
        engine.list("deployments")
    assert refused.value.body["message"] == (
        'deployments.apps is forbidden: User "system:serviceaccount:pools:engine" cannot list '
        'resource "deployments" in API group "apps" at the cluster scope'
    )
    with pytest.raises(Refused, match="cannot delete resource"):
        engine.delete("deployments", "r1", NAMESPACE)


def test_an_apply_that_creates_needs_both(cluster: Cluster, engine: Client) -> None:
    with pytest.raises(Refused, match="cannot create resource"):
        engine.apply(deployment("r1"))
    cluster.apply(deployment("r1"))
    assert engine.apply(deployment("r1", 3))["spec"]["replicas"] == 3


def test_a_subresource_is_granted_by_itself_and_by_name(engine: Client) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/%s:80/proxy/"
    assert engine.request("GET", path % "known")[0] == 404
    status, body = engine.request("GET", path % "other")
    assert status == 403
    assert 'cannot get resource "pods/proxy"' in body["message"]
    assert engine.request("POST", path % "known")[0] == 403


@pytest.mark.parametrize(
    ("attributes", "allowed"),
    [
        ({"verb": "patch", "group": "apps", "resource": "deployments"}, True),
        ({"verb": "create", "group": "apps", "resource": "deployments"}, False),
        ({"verb": "get", "resource": "pods", "subresource": "proxy", "name": "known"}, True),
        ({"verb": "get", "resource": "pods", "subresource": "proxy"}, False),
    ],
)
def test_one_may_ask_about_oneself(
    engine: Client, attributes: dict[str, str], allowed: bool
) -> None:
    review = engine.create(
        "selfsubjectaccessreviews",
        {"spec": {"resourceAttributes": {"namespace": NAMESPACE, **attributes}}},
    )
    assert review["status"]["allowed"] is allowed


def test_a_revoked_token_is_good_for_nothing(cluster: Cluster) -> None:
    token = cluster.token("somebody", ["system:masters"])
    with Client(cluster.port, cluster.authority, token) as client:
        assert client.list("pods") == []
        cluster.revoke(token)
        status, body = client.request("GET", "/api/v1/pods")
    assert (status, body["reason"]) == (401, "Unauthorized")
