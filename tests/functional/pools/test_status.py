"""``qinling-status upgrade check`` on a cluster: what is missing is named before it is missed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.process import free_port
from tests.functional.pools.conftest import ETC, Site

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


def test_what_the_install_guide_grants_is_enough(make_site: Callable[..., Site]) -> None:
    found = check(make_site(start=False)).stdout
    assert '"orchestrator"' in found.lower()
    assert "Qinling may not" not in found


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
    assert f"The cluster at https://127.0.0.1:{port} does not answer" in done.stdout
