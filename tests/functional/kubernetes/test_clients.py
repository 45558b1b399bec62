"""Real clients are served: the official Python library, and the server as a program."""

import sys
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import kubernetes.watch
import pytest
import urllib3
import yaml

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.certificates import encoded
from tests.fixtures.process import Process, free_port
from tests.functional.kubernetes.objects import NAMESPACE, deployment, wait_for_available

_CHECKOUT = Path(__file__).parents[3]


@pytest.fixture(params=["token", "certificate"])
def library(cluster: Cluster, request: pytest.FixtureRequest) -> Any:
    path = (
        cluster.kubeconfig()
        if request.param == "token"
        else cluster.client_certificate_kubeconfig()
    )
    with kubernetes.config.new_client_from_config(str(path)) as found:
        yield found


def test_the_official_library_works_with_it(cluster: Cluster, library: Any) -> None:
    apps = kubernetes.client.AppsV1Api(library)
    made = apps.patch_namespaced_deployment(
        "r1",
        NAMESPACE,
        deployment("r1"),
        field_manager="library",
        force=True,
        _content_type="application/apply-patch+yaml",
    )
    wait_for_available(cluster, "r1")
    assert made.metadata.generation == 1
    core = kubernetes.client.CoreV1Api(library)
    page = core.list_namespaced_pod(NAMESPACE, label_selector="pool=r1", limit=1)
    assert page.metadata._continue
    watch = kubernetes.watch.Watch()
    for event in watch.stream(
        core.list_namespaced_pod,
        NAMESPACE,
        allow_watch_bookmarks=True,
        timeout_seconds=5,
    ):
        if event["type"] == "ADDED":
            assert event["object"].status.phase == "Running"
        else:
            break
    with pytest.raises(kubernetes.client.ApiException) as raised:
        core.read_namespaced_pod("absent", NAMESPACE)
    assert raised.value.status == 404
    assert kubernetes.client.VersionApi(library).get_code().minor == "36"


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.fixtures.kubernetes",
        "--port",
        str(free_port()),
        "--dir",
        str(tmp_path),
    ]
    with Process(command, tmp_path / "log", cwd=_CHECKOUT) as process:
        config = process.wait_for_line(r"^(/.+\.yaml)$").group(1)
        with kubernetes.config.new_client_from_config(config) as library:
            nodes = kubernetes.client.CoreV1Api(library).list_node()
        assert [node.metadata.name for node in nodes.items] == ["node1"]
        assert process.terminate() == 0


@pytest.mark.parametrize("kind", ["server", "client"])
def test_certificates_are_verified(cluster: Cluster, tmp_path: Path, kind: str) -> None:
    with Cluster(tmp_path / "other", processes=False) as other:
        config = yaml.safe_load(other.client_certificate_kubeconfig().read_text())
    server = config["clusters"][0]["cluster"]
    server["server"] = cluster.url
    if kind == "client":
        server["certificate-authority-data"] = encoded(cluster.authority)
    with kubernetes.config.new_client_from_config_dict(config) as library:
        core = kubernetes.client.CoreV1Api(library)
        with pytest.raises(urllib3.exceptions.MaxRetryError, match="SSL"):
            core.list_node()
