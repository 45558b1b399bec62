"""Installations whose pools are on a Kubernetes cluster."""

import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import qinling
from qinling.orchestrator.kubernetes import names
from tests.fixtures.deployment import Deployment, Distributed, Standalone, running
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.real import KUBECONFIG, RealCluster
from tests.fixtures.process import wait_until

ETC = Path(__file__).parents[3] / "etc" / "kubernetes"
WORKER = [sys.executable, "-I", "-S", str(Path(qinling.__file__).parent / "worker")]

#: Images of the test cluster; any other cannot be pulled.
IMAGES: dict[str, list[str]] = {
    "python3": WORKER,
    "python3:2": WORKER,
    "crashing": ["/bin/sh", "-c", "echo starting; echo out of luck >&2; exit 3"],
    "deaf": ["/bin/sleep", "1000"],
    "tool": ["/usr/bin/env"],
}

#: Manifests count seconds; those of the tests' cluster are shorter.
CLOCK = 0.2
#: Seconds of such a manifest: 2 for a test.
PROGRESS_DEADLINE = 10

Object = dict[str, Any]


class Site:
    """An installation and its namespace on a cluster.

    :ivar image: an image of workers.
    """

    def __init__(self, deployment: Deployment, cluster: Any, namespace: str) -> None:
        self.deployment = deployment
        self.client = deployment.client
        self.cluster = cluster
        self.namespace = namespace
        self.image = getattr(cluster, "image", "python3")

    @property
    def other_image(self) -> str:
        """Another image of workers."""
        return str(getattr(self.cluster, "other_image", "python3:2"))

    def create(self, **body: Any) -> Object:
        """A runtime of `image`, unless the body says otherwise."""
        return self.client.create(**{"image": self.image} | body)

    def deployments(self) -> list[Object]:
        return self.cluster.client.list("deployments", self.namespace)

    def deployment_of(self, runtime_id: str) -> Object:
        return self.cluster.client.get("deployments", names.deployment(runtime_id), self.namespace)

    def pods(self, runtime_id: str) -> list[Object]:
        """The pods of a pool that are not ending."""
        found = self.cluster.client.list(
            "pods", self.namespace, labelSelector=f"{names.RUNTIME}={runtime_id}"
        )
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def pod_names(self, runtime_id: str) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods(runtime_id)}

    def wait_whole(self, runtime_id: str, image: str | None = None, timeout: float = 60) -> None:
        """Wait until a runtime is available with a pool of this image alone, all ready."""
        image = image or self.image

        def whole() -> bool:
            shown = self.client.show(runtime_id)
            pods = self.pods(runtime_id)
            return (
                shown["status"] == "available"
                and shown["image"] == image
                and self.client.pool(runtime_id) == {"total": 2, "available": 2}
                and len(pods) == 2
                and all(is_ready(pod) and image_of(pod) == image for pod in pods)
            )

        wait_until(whole, timeout, f"runtime {runtime_id} whole with {image}", pause=0.05)

    def wait_reason(self, runtime_id: str, *words: str, timeout: float = 60) -> Object:
        """Wait until `status_reason` has these words."""
        shown: Object = {}

        def told() -> bool:
            shown.update(self.client.show(runtime_id))
            return all(word in (shown["status_reason"] or "") for word in words)

        wait_until(told, timeout, f"{words} in the reason of {shown}", pause=0.05)
        return shown

    def delete(self, runtime_id: str) -> None:
        """Delete a runtime and see that nothing is left of it."""
        self.client.delete(runtime_id)
        self.client.wait_gone(runtime_id)
        left = {"labelSelector": f"{names.RUNTIME}={runtime_id}"}
        for kind in ("deployments", "replicasets", "pods"):
            assert self.cluster.client.list(kind, self.namespace, **left) == []


def is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def image_of(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that tests share; each site has a namespace of its own."""
    root = tmp_path_factory.mktemp("cluster")
    with Cluster(root, images=IMAGES, clock=CLOCK, backoff=0.05) as found:
        yield found
        found.check()


@pytest.fixture(scope="session")
def any_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster | RealCluster]:
    """The cluster that the environment names, or else the tests' own."""
    if KUBECONFIG not in os.environ:
        yield request.getfixturevalue("cluster")
        return
    with RealCluster(tmp_path_factory.mktemp("real")) as found:
        yield found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on any cluster."""
    for item in items:
        if any(name.startswith("any_") for name in getattr(item, "fixturenames", ())):
            item.add_marker("any_cluster")


_numbers = itertools.count(1)


def prepare(cluster: Cluster | RealCluster, *more: str) -> tuple[str, Path]:
    """A namespace as the install guide makes it, and the engine's kubeconfig there.

    :param more: files that are applied besides.
    """
    namespace = f"qinling-test-{os.getpid()}-{next(_numbers)}"
    for file in ("namespace.yaml", "rbac.yaml", *more):
        for document in yaml.safe_load_all((ETC / file).read_text()):
            into(document, namespace)
            cluster.apply(document)
    return namespace, cluster.service_account_kubeconfig("qinling-engine", namespace)


def into(document: Object, namespace: str) -> None:
    """Put what is meant for the namespace `qinling` into another one."""
    if document["kind"] == "Namespace":
        document["metadata"]["name"] = namespace
    else:
        document["metadata"]["namespace"] = namespace
    for subject in document.get("subjects", []):
        subject["namespace"] = namespace


Options = Mapping[str, Mapping[str, str]]


def options(
    namespace: str, kubeconfig: Path, more: Options | None = None
) -> dict[str, dict[str, str]]:
    """A configuration with the driver for Kubernetes."""
    found: dict[str, dict[str, str]] = {
        "orchestrator": {"driver": "kubernetes"},
        "kubernetes": {
            "kubeconfig": str(kubeconfig),
            "namespace": namespace,
            "progress_deadline": str(PROGRESS_DEADLINE),
            "request_timeout": "5",
        },
    }
    for group, values in (more or {}).items():
        found.setdefault(group, {}).update(values)
    return found


KINDS = ["standalone", "distributed"]


@pytest.fixture(scope="module", params=KINDS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cluster: Cluster
) -> Iterator[Site]:
    """A running installation of each kind in turn, that the tests of a module share."""
    with installed(request, tmp_path_factory.mktemp(request.param), cluster) as found:
        yield found


@pytest.fixture(scope="module")
def permitted(site: Site, cluster: Cluster) -> Iterator[None]:
    """Nothing that the engine asks for meanwhile is beyond its rights."""
    before = len(cluster.calls)
    yield
    refused = [
        (call.verb, call.resource)
        for call in cluster.calls[before:]
        if call.status == 403 and call.namespace == site.namespace
    ]
    assert refused == []


@pytest.fixture(scope="module", params=KINDS)
def any_site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    any_cluster: Cluster | RealCluster,
) -> Iterator[Site]:
    """The same on whatever cluster there is."""
    with installed(request, tmp_path_factory.mktemp(request.param), any_cluster) as found:
        yield found


@contextlib.contextmanager
def installed(
    request: pytest.FixtureRequest, root: Path, cluster: Cluster | RealCluster
) -> Iterator[Site]:
    """An installation of the kind that the fixture asks for."""
    namespace, kubeconfig = prepare(cluster)
    chosen = options(namespace, kubeconfig, _patience(cluster))
    found: Deployment
    if request.param == "standalone":
        found = Standalone(root, chosen)
    else:
        found = Distributed(
            root,
            request.getfixturevalue("mariadb"),
            request.getfixturevalue("rabbitmq"),
            chosen,
            vhost="kubernetes",
        )
    with running(found):
        yield Site(found, cluster, namespace)


def _patience(cluster: Cluster | RealCluster) -> Options:
    """What others' clusters need, whose images are pulled and whose seconds are whole ones."""
    return {} if isinstance(cluster, Cluster) else {"kubernetes": {"progress_deadline": "60"}}


@pytest.fixture
def make_site(tmp_path: Path, cluster: Cluster) -> Iterator[Callable[..., Site]]:
    """Makes installations in one process for one test alone, with options of its own."""
    with _making(tmp_path, cluster) as make:
        yield make


@pytest.fixture
def make_any_site(
    tmp_path: Path, any_cluster: Cluster | RealCluster
) -> Iterator[Callable[..., Site]]:
    """The same on whatever cluster there is."""
    with _making(tmp_path, any_cluster) as make:
        yield make


@contextlib.contextmanager
def _making(root: Path, cluster: Cluster | RealCluster) -> Iterator[Callable[..., Site]]:
    made: list[Standalone] = []

    def make(
        on: Cluster | RealCluster = cluster, start: bool = True, **groups: Mapping[str, str]
    ) -> Site:
        namespace, kubeconfig = prepare(on)
        groups = {"kubernetes": {}} | groups
        groups["kubernetes"] = _patience(on).get("kubernetes", {}) | groups["kubernetes"]
        found = Standalone(root / namespace, options(namespace, kubeconfig, groups))
        made.append(found)
        if start:
            found.start()
        return Site(found, on, namespace)

    yield make
    for found in made:
        found.close()
