"""``qinling-status upgrade check`` on a cluster: what is missing is named before it is missed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.process import free_port
from tests.functional.pools.conftest import ETC, Site, into

STATUS = Path(sys.executable).parent / "qinling-status"


def check(site: Site) -> subprocess.CompletedProcess[str]:
    config = site.deployment.root / "standalone.conf"
    config.write_text(f"{config.read_text()}\n[database]\nconnection = sqlite://\n")
    return subprocess.run(
        [STATUS, "--config-file", config, "upgrade", "check", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def problems(site: Site) -> str:
    """What it says of the cluster."""
    found = json.loads(check(site).stdout)["checks"]
    (orchestrator,) = (one for one in found if one["check"] == "orchestrator")
    return str(orchestrator["details"] or "")


def test_what_the_install_guide_grants_is_enough(
    make_any_site: Callable[..., Site],
) -> None:
    site = make_any_site(start=False)
    assert problems(site) == ""
    # It has looked, and changed nothing.
    assert site.cluster.client.list("networkpolicies", site.namespace) == []


def test_a_namespace_that_is_not_there_is_named(
    cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    # To an account that may do everything everywhere, and to one that is granted what is in it.
    site = make_site(
        start=False,
        kubernetes={"kubeconfig": str(cluster.kubeconfig()), "namespace": "nowhere"},
    )
    assert problems(site) == (
        "There is no namespace nowhere; etc/kubernetes/namespace.yaml makes it."
    )
    site = make_site(start=False, kubernetes={"namespace": "nowhere"})
    assert problems(site) == (
        "Qinling may do nothing in namespace nowhere: it is not there, or "
        "etc/kubernetes/rbac.yaml is not applied in it for this account."
    )


def test_a_namespace_that_is_being_deleted_is_told(
    cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(start=False, kubernetes={"kubeconfig": str(cluster.kubeconfig())})
    stays = {"metadata": {"name": "stays", "finalizers": ["example.org/stays"]}}
    cluster.client.create("serviceaccounts", stays, site.namespace)
    cluster.client.delete("namespaces", site.namespace)
    found = problems(site)
    assert "would refuse the workers' NetworkPolicy (403)" in found
    assert "being terminated" in found
    free = {"metadata": {"finalizers": []}}
    cluster.client.patch("serviceaccounts", "stays", free, site.namespace)


def test_each_missing_permission_is_named(cluster: Cluster, make_site: Callable[..., Site]) -> None:
    site = make_site(start=False)
    documents = list(yaml.safe_load_all((ETC / "rbac.yaml").read_text()))
    role = next(one for one in documents if one["kind"] == "Role")
    role["metadata"]["namespace"] = site.namespace
    role["rules"] = [rule for rule in role["rules"] if "pods/log" not in rule["resources"]]
    role["rules"][0]["verbs"] = ["get", "list", "watch"]
    cluster.client.apply(role)
    done = check(site)
    assert done.returncode == 2
    for words in (
        f"may not create, patch, delete deployments in namespace {site.namespace}",
        "may not get pods/log",
        "etc/kubernetes/rbac.yaml",
    ):
        assert words in done.stdout


def test_what_calls_through_the_api_server_take_is_named(
    cluster: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(start=False, kubernetes={"worker_access": "proxy"})
    assert problems(site) == (
        f"Qinling may not get, create, delete pods/proxy in namespace {site.namespace}; "
        "etc/kubernetes/worker-proxy.yaml grants it."
    )
    for document in yaml.safe_load_all((ETC / "worker-proxy.yaml").read_text()):
        into(document, site.namespace)
        cluster.apply(document)
    assert problems(site) == ""


def test_a_cluster_that_cannot_be_reached_is_named(
    cluster: Cluster, make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(start=False)
    nowhere = tmp_path / "nowhere"
    port = free_port()
    good = cluster.kubeconfig().read_text()
    nowhere.write_text(good.replace(str(cluster.port), str(port)))
    config = site.deployment.root / "standalone.conf"
    config.write_text(
        "\n".join(
            f"kubeconfig = {nowhere}" if line.startswith("kubeconfig = ") else line
            for line in config.read_text().splitlines()
        )
    )
    done = check(site)
    assert done.returncode == 2
    assert f"The cluster does not answer: https://127.0.0.1:{port}" in done.stdout
