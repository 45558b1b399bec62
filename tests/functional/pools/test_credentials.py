"""How Qinling proves who it is: certificates and plugins, renewed, hanging and failing."""

import base64
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from kubernetes.config import incluster_config

from qinling import exceptions
from qinling.orchestrator.base import PoolSpec
from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.kubernetes.pool import KubernetesOrchestrator
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.process import find_processes, wait_until
from tests.functional.pools.conftest import ETC, prepare
from tests.unit.config import options

Object = dict[str, Any]


def ask(client: Client, cluster: Cluster) -> str:
    """Ask something, and return who the cluster took that for."""
    client.get("/version")
    return next(call.user for call in reversed(cluster.calls) if call.path == "/version")


def make_client(**chosen: Any) -> Client:
    conf = options()
    for name, value in chosen.items():
        conf.set_override(name, str(value) if isinstance(value, Path) else value, "kubernetes")
    return Client(conf, connections=2)


def parts(kubeconfig: Path) -> tuple[Object, Object, Object]:
    """A kubeconfig, its cluster and its user."""
    config = yaml.safe_load(kubeconfig.read_text())
    return config, config["clusters"][0]["cluster"], config["users"][0]["user"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go in this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_certificates_in_a_kubeconfig_leave_no_file_behind(cluster: Cluster, folder: Path) -> None:
    client = make_client(kubeconfig=cluster.client_certificate_kubeconfig("one"))
    assert ask(client, cluster) == "one"
    assert list(folder.iterdir()) == []


def write_pair(cluster: Cluster, user: str, certificate: Path, key: Path) -> None:
    """The files of a client certificate, renewed in place."""
    *_, found = parts(cluster.client_certificate_kubeconfig(user))
    for path, name in ((certificate, "client-certificate-data"), (key, "client-key-data")):
        new = path.with_suffix(".new")
        new.write_bytes(base64.b64decode(found[name]))
        new.rename(path)


@pytest.mark.parametrize("by", ["url", "kubeconfig"])
def test_a_client_certificate_that_is_renewed_is_used_from_then_on(
    cluster: Cluster, tmp_path: Path, by: str
) -> None:
    certificate, key = tmp_path / "client.crt", tmp_path / "client.key"
    write_pair(cluster, "before", certificate, key)
    if by == "url":
        client = make_client(
            url=cluster.url,
            ca_file=cluster.authority,
            client_cert_file=certificate,
            client_key_file=key,
        )
    else:
        config, there, user = parts(cluster.client_certificate_kubeconfig("before"))
        user.clear()
        # Paths count from the kubeconfig on.
        user |= {"client-certificate": "client.crt", "client-key": "client.key"}
        del there["certificate-authority-data"]
        shutil.copy(cluster.authority, tmp_path / "ca.crt")
        there["certificate-authority"] = "ca.crt"
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        client = make_client(kubeconfig=tmp_path / "config")
    assert ask(client, cluster) == "before"
    write_pair(cluster, "after", certificate, key)
    assert ask(client, cluster) == "after"


def test_a_certificate_of_another_key_is_told_until_the_right_one_is_there(
    cluster: Cluster, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "client.crt", tmp_path / "client.key"
    write_pair(cluster, "one", certificate, key)
    write_pair(cluster, "another", tmp_path / "other.crt", key)
    client = make_client(
        url=cluster.url,
        ca_file=cluster.authority,
        client_cert_file=certificate,
        client_key_file=key,
    )
    with pytest.raises(exceptions.ClusterAway, match=r" \[kubernetes\] url: the client certific"):
        client.get("/version")
    write_pair(cluster, "another", certificate, key)
    assert ask(client, cluster) == "another"


@pytest.fixture
def mounted(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pod of the control plane finds: where the cluster is, and its service account."""
    monkeypatch.setenv(incluster_config.SERVICE_HOST_ENV_NAME, "127.0.0.1")
    monkeypatch.setenv(incluster_config.SERVICE_PORT_ENV_NAME, str(cluster.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    shutil.copy(cluster.authority, tmp_path / "ca.crt")
    (tmp_path / "namespace").write_text("openstack")
    return tmp_path


def test_an_engine_in_the_cluster_keeps_pools_with_the_account_of_its_pod(
    cluster: Cluster, mounted: Path
) -> None:
    namespace, _ = prepare(cluster)
    account, binding = yaml.safe_load_all((ETC / "engine-in-cluster.yaml").read_text())
    cluster.namespace(account["metadata"]["namespace"])
    cluster.apply(account)
    binding["metadata"]["namespace"] = namespace
    cluster.apply(binding)
    name, home = account["metadata"]["name"], account["metadata"]["namespace"]
    first = cluster.service_account_token(name, home)
    (mounted / "token").write_text(first)
    conf = options()
    conf.set_override("namespace", namespace, "kubernetes")
    driver = KubernetesOrchestrator(conf)
    driver.start(lambda _: None)
    try:
        spec = PoolSpec(str(uuid4()), "python3", 1, True, 1)
        wait_until(lambda: _is_ready(driver, spec), 30, "the pool")
        # The kubelet renews it in its time.
        cluster.revoke(first)
        (mounted / "token").write_text(cluster.service_account_token(name, home))
        wait_until(lambda: _is_gone(driver, spec), 30, "its removal")
    finally:
        driver.stop()


def _is_ready(driver: KubernetesOrchestrator, spec: PoolSpec) -> bool:
    with contextlib.suppress(exceptions.PoolBusy, exceptions.ClusterAway):
        return driver.apply(spec).ready
    return False


def _is_gone(driver: KubernetesOrchestrator, spec: PoolSpec) -> bool:
    with contextlib.suppress(exceptions.PoolBusy, exceptions.ClusterAway):
        return driver.remove(spec.id, 1)
    return False


def test_an_engine_does_not_run_among_the_workers(cluster: Cluster, mounted: Path) -> None:
    (mounted / "token").write_text(cluster.token())
    (mounted / "namespace").write_text("qinling\n")
    with pytest.raises(exceptions.ClusterAway, match="namespace qinling is for workers"):
        make_client().get("/version")


@pytest.fixture
def with_plugin(cluster: Cluster, tmp_path: Path) -> Callable[..., Client]:
    """Makes clients of a kubeconfig with a credential plugin, a line of Python."""

    def make(program: str, **more: Any) -> Client:
        config, _, user = parts(cluster.kubeconfig())
        user.clear()
        user["exec"] = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": ["-c", program],
            "interactiveMode": "Never",
        } | more
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(config))
        return make_client(kubeconfig=path, request_timeout=1.0)

    return make


def credential(ends: str | None = None, **status: str) -> str:
    """A program that answers with a credential."""
    if ends is not None:
        status["expirationTimestamp"] = ends
    answer = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": status,
    }
    return f"print({json.dumps(answer)!r})"


def test_a_plugin_gives_a_token_once_until_it_ends(
    cluster: Cluster, with_plugin: Callable[..., Client], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    note = f"open({str(runs)!r}, 'a').write('x');"
    client = with_plugin(
        note + credential(token=cluster.token("plugin"), ends="2999-01-01T00:00:00Z")
    )
    assert [ask(client, cluster) for _ in range(3)] == ["plugin"] * 3
    assert runs.read_text() == "x"
    client = with_plugin(
        note + credential(token=cluster.token("plugin"), ends="2026-01-01T00:00:00Z")
    )
    assert [ask(client, cluster) for _ in range(2)] == ["plugin"] * 2
    assert runs.read_text() == "xxx"


def test_a_plugin_gives_a_certificate_and_is_told_of_its_cluster(
    cluster: Cluster, with_plugin: Callable[..., Client], folder: Path
) -> None:
    *_, user = parts(cluster.client_certificate_kubeconfig("certified"))
    certificate, key = (
        base64.b64decode(user[f"client-{name}-data"]).decode() for name in ("certificate", "key")
    )
    check = (
        "import json, os;"
        "asked = json.loads(os.environ['KUBERNETES_EXEC_INFO'])['spec'];"
        f"assert asked['cluster']['server'] == {cluster.url!r};"
        "assert asked['interactive'] is False;"
        "assert os.environ['MORE'] == 'less';"
    )
    client = with_plugin(
        check + credential(clientCertificateData=certificate, clientKeyData=key),
        provideClusterInfo=True,
        env=[{"name": "MORE", "value": "less"}],
    )
    assert ask(client, cluster) == "certified"
    assert list(folder.iterdir()) == []


def test_a_plugin_that_hangs_is_ended_with_all_that_it_started_and_told(
    with_plugin: Callable[..., Client], tmp_path: Path
) -> None:
    sleep = f"import subprocess; subprocess.run(['/bin/sh', '-c', 'sleep 600; : {tmp_path}'])"
    with pytest.raises(exceptions.ClusterAway, match=r"python\S* did not end within 1 s$") as told:
        with_plugin(sleep).get("/version")
    assert ": [kubernetes] kubeconfig " in str(told.value)
    wait_until(lambda: find_processes(str(tmp_path)) == [], 10, "nothing of it left")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import sys; sys.exit('log in\\nfirst')", "ended with code 1: log in first"),
        ("import sys; sys.exit(7)", "ended with code 7: it does not say why"),
        ("print('hidden')", "did not answer with a credential of client.authentication.k8s.io/v1"),
        (credential(), "did not answer with a credential of client.authentication.k8s.io/v1"),
    ],
)
def test_a_plugin_that_fails_is_told_in_one_line(
    with_plugin: Callable[..., Client], program: str, words: str
) -> None:
    with pytest.raises(exceptions.ClusterAway) as told:
        with_plugin(program).get("/version")
    assert str(told.value).endswith(words)
    assert "\n" not in str(told.value)
    assert "hidden" not in str(told.value)


def test_a_plugin_that_is_not_there_is_told(with_plugin: Callable[..., Client]) -> None:
    client = with_plugin("", command="/nonexistent/plugin")
    with pytest.raises(
        exceptions.ClusterAway, match="/nonexistent/plugin cannot be run: No such file"
    ):
        client.get("/version")
