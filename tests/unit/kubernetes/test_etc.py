"""The files in etc/kubernetes/: what an operator applies is what the driver needs."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from oslo_config import cfg

from qinling.orchestrator.kubernetes import check
from qinling.orchestrator.kubernetes.manifests import Templates

ETC = Path(__file__).parents[3] / "etc" / "kubernetes"


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ETC / name).read_text()))


def test_every_file_is_valid() -> None:
    found = [document for path in ETC.glob("*.yaml") for document in documents(path.name)]
    assert len(found) >= 5
    for document in found:
        kubernetes_validate.validate(document, "1.36", strict=True)


def test_the_role_grants_what_the_driver_says_that_it_needs_and_no_more() -> None:
    for file, permissions in (
        ("rbac.yaml", check.PERMISSIONS),
        ("worker-proxy.yaml", check.PROXY_PERMISSIONS),
    ):
        (role,) = (one for one in documents(file) if one["kind"] == "Role")
        granted = {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        needed = {
            (group, resource, verb) for group, resource, verbs in permissions for verb in verbs
        }
        assert granted == needed


def test_an_engine_in_the_cluster_is_where_workers_may_be_called_from(
    conf: cfg.ConfigOpts,
) -> None:
    (role,) = (one for one in documents("rbac.yaml") if one["kind"] == "Role")
    account, binding = documents("engine-in-cluster.yaml")
    (subject,) = binding["subjects"]
    assert account["metadata"] == {key: subject[key] for key in ("name", "namespace")}
    assert account["metadata"]["namespace"] == conf.kubernetes.control_plane_namespace
    assert binding["metadata"]["namespace"] == role["metadata"]["namespace"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_the_namespace_admits_only_restricted_pods() -> None:
    (namespace,) = documents("namespace.yaml")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_policy_is_what_the_engine_applies_by_default(conf: cfg.ConfigOpts) -> None:
    assert documents("networkpolicy.yaml") == [Templates(conf).network_policy()]
