"""Where the control plane has no route to pods: workers are called through the API server.

The pods of these tests could be called at their addresses, too: that nobody does is seen in what
the API server was asked.
"""

import concurrent.futures
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from qinling import exceptions
from qinling.orchestrator.kubernetes.proxy import Proxy
from qinling.orchestrator.routes import Request
from tests.fixtures.deployment import Distributed, running
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.faults import Call
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import free_port, wait_until
from tests.fixtures.rabbitmq import RabbitMQ
from tests.functional.pools.conftest import ETC, Object, Site, into, options, prepare
from tests.functional.pools.test_executions import claimed, pod_of, wait_replaced
from tests.functional.test_executions import GREETER, output
from tests.unit import config

FILE = "worker-proxy.yaml"


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, mariadb: MariaDB, rabbitmq: RabbitMQ
) -> Iterator[Site]:
    """An installation whose API and engine have an account each, as the install guide says."""
    root = tmp_path_factory.mktemp("proxy")
    namespace, kubeconfig = prepare(cluster, FILE)
    chosen = options(namespace, kubeconfig, {"kubernetes": {"worker_access": "proxy"}})
    found = Distributed(root, mariadb, rabbitmq, chosen, vhost="kubernetes")
    of_api = root / "api.conf"
    of_api.touch(mode=0o600)
    accounts = str(kubeconfig), str(cluster.service_account_kubeconfig("qinling-api", namespace))
    of_api.write_text(found.config.read_text().replace(*accounts))
    found.api = found.program("qinling-api", config=of_api)
    with running(found):
        yield Site(found, cluster, namespace)


@pytest.fixture(scope="module")
def runtime_id(site: Site) -> Iterator[str]:
    runtime = site.create()
    site.wait_whole(runtime["id"])
    yield runtime["id"]
    functions = site.client.call("GET", f"/v1/functions?runtime_id={runtime['id']}").json()
    for function in functions["functions"]:
        assert site.client.call("DELETE", f"/v1/functions/{function['id']}").status_code == 204
    site.delete(runtime["id"])


@pytest.fixture
def function_id(site: Site, runtime_id: str) -> str:
    """A function with one worker."""
    made: str = site.client.create_function(runtime_id, GREETER, timeout=30)["id"]
    assert output(site.client.execute(made)) == "hello world"
    return made


def asked_of(site: Site, pod: Object) -> list[tuple[str, str, str, int | None]]:
    """What a worker was asked through the API server: by whom, how, for what, and the answer."""
    name = f"{pod['metadata']['name']}:9090"
    return [
        (call.user.rpartition("-")[2], call.method, call.path.partition("/proxy")[2], call.status)
        for call in site.cluster.calls
        if (call.resource, call.name) == ("pods/proxy", name)
    ]


def test_workers_are_called_through_the_api_server_alone(
    site: Site, runtime_id: str, function_id: str
) -> None:
    client = site.client
    execution = client.execute(function_id, sync=False, input='{"name": "Ada"}')
    assert output(client.wait_ended(execution["id"])) == "hello Ada"
    assert "greeting Ada" in client.log(execution["id"])
    pod = pod_of(site, runtime_id, function_id)
    asked = [
        ("engine", "GET", "/healthz", 200),
        ("engine", "POST", "/specialize", 200),
        ("api", "POST", "/execute", 200),
        ("engine", "POST", "/execute", 200),
    ]
    wait_until(lambda: asked_of(site, pod) == asked, 10, f"{asked} in {asked_of(site, pod)}")
    detached = client.call("POST", f"/v1/functions/{function_id}/detach")
    assert detached.status_code == 202
    wait_until(lambda: pod["metadata"]["uid"] not in claimed(site, runtime_id), 30, "its pod gone")
    assert output(client.execute(function_id)) == "hello world"


def test_an_execution_that_is_deleted_is_stopped_where_it_runs(site: Site, runtime_id: str) -> None:
    client = site.client
    function_id = client.create_function(runtime_id, GREETER, entry="main.late", timeout=50)["id"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.execute, function_id)
        wait_until(lambda: client.workers(function_id), 20, "its worker")
        pod = pod_of(site, runtime_id, function_id)
        wait_until(lambda: len(asked_of(site, pod)) == 2, 20, "the function in it")
        path = f"/v1/executions?function_id={function_id}"
        [execution] = client.call("GET", path).json()["executions"]

        def stopped() -> bool:
            client.call("DELETE", f"/v1/executions/{execution['id']}")
            return call.done()

        wait_until(stopped, 20, "its end", pause=0.2)
        assert "cancelled" in output(call.result())
    asked = [(who, method, path) for who, method, path, _ in asked_of(site, pod)]
    assert ("api", "DELETE", f"/executions/{execution['id']}") in asked


def test_a_result_is_asked_for_by_id_when_the_engine_that_wanted_it_is_gone(
    site: Site, runtime_id: str, function_id: str
) -> None:
    assert isinstance(site.deployment, Distributed)
    client, engine = site.client, site.deployment.engine
    sent = threading.Event()

    def note(call: Call, _: object) -> None:
        if call.namespace == site.namespace and call.path.endswith("/execute"):
            sent.set()

    site.cluster.on_request(note)
    execution = client.execute(function_id, sync=False, input='{"sleep": 2}')
    assert sent.wait(20)
    engine.kill()
    engine.start()
    assert output(client.wait_ended(execution["id"])) == "hello world"
    *_, last = asked_of(site, pod_of(site, runtime_id, function_id))
    assert last == ("engine", "GET", f"/executions/{execution['id']}", 200)


def test_what_a_broken_connection_has_done_is_asked_for_by_id_and_not_done_again(
    site: Site, runtime_id: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    source = f"def main():\n    with open({str(runs)!r}, 'a') as file:\n        file.write('x')\n"
    function_id = site.client.create_function(runtime_id, source)["id"]
    assert site.client.execute(function_id)["status"] == "success"
    site.cluster.cut(effect=True, resource="pods/proxy", verb="create", namespace=site.namespace)
    execution = site.client.execute(function_id)
    assert execution["status"] == "success"
    assert runs.read_text() == "xx"
    *_, last = asked_of(site, pod_of(site, runtime_id, function_id))
    assert last == ("api", "GET", f"/executions/{execution['id']}", 200)


def test_a_worker_that_started_anew_has_run_nothing_and_is_replaced(
    site: Site, runtime_id: str, function_id: str
) -> None:
    pod = pod_of(site, runtime_id, function_id)
    site.cluster.kill_container(pod["metadata"]["name"], site.namespace)
    assert output(site.client.execute(function_id)) == "hello world"
    wait_replaced(site, runtime_id, function_id, pod)


def test_a_cluster_that_is_busy_is_asked_again_when_it_says(
    site: Site, runtime_id: str, function_id: str
) -> None:
    busy = {"resource": "pods/proxy", "verb": "create", "namespace": site.namespace}
    site.cluster.answer(429, times=2, retry_after=1, **busy)
    began = time.monotonic()
    assert output(site.client.execute(function_id)) == "hello world"
    assert time.monotonic() - began >= 2
    asked = asked_of(site, pod_of(site, runtime_id, function_id))[-3:]
    assert asked == [("api", "POST", "/execute", status) for status in (429, 429, 200)]


def test_credentials_that_are_renewed_are_used_from_then_on(
    site: Site, cluster: Cluster, runtime_id: str, function_id: str
) -> None:
    cluster.revoke(_token(cluster.service_account_kubeconfig("qinling-api", site.namespace)))
    name = pod_of(site, runtime_id, function_id)["metadata"]["name"]
    path = f"/api/v1/namespaces/{site.namespace}/pods/{name}:9090/proxy/execute"

    def refused() -> set[tuple[str, int | None]]:
        return {(call.path, call.status) for call in cluster.calls}

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(site.client.execute, function_id)
        wait_until(lambda: (path, 401) in refused(), 20, "the old ones refused")
        cluster.service_account_kubeconfig("qinling-api", site.namespace)
        assert output(call.result()) == "hello world"


def _token(kubeconfig: Path) -> str:
    [entry] = yaml.safe_load(kubeconfig.read_text())["users"]
    return str(entry["user"]["token"])


@pytest.mark.parametrize("trouble", ["nobody", "somebody else"])
def test_a_server_that_is_not_reached_has_handed_nothing_on(
    cluster: Cluster, tmp_path: Path, trouble: str
) -> None:
    conf = config.options()
    url, authority = cluster.url, cluster.authority
    if trouble == "nobody":
        url = f"https://127.0.0.1:{free_port()}"
    else:
        with Cluster(tmp_path, processes=False) as another:
            authority = another.authority
    conf.set_override("url", url, "kubernetes")
    conf.set_override("ca_file", str(authority), "kubernetes")
    route = Proxy(conf).to("pods/one:9090")
    assert route is not None
    with pytest.raises(exceptions.ClusterAway, match=f"The cluster does not answer: {url}"):
        route.send(Request("GET", "/healthz", b"", {}, 5.0), 1000)


def test_a_package_that_is_found_damaged_on_its_way_is_not_handed_on(cluster: Cluster) -> None:
    conf = config.options()
    conf.set_override("kubeconfig", str(cluster.kubeconfig()), "kubernetes")
    route = Proxy(conf).to("pods/nobody:9090")
    assert route is not None

    def package() -> Iterator[bytes]:
        yield b"first"
        raise exceptions.PackageLost("digest", "is damaged")

    headers = {"Content-Length": "10"}
    with pytest.raises(exceptions.PackageLost):
        route.send(Request("POST", "/specialize", package(), headers, 5.0), 1000)
    # The connection is not used again, in whose middle it is.
    with pytest.raises(exceptions.WorkerGone):
        route.judge(route.send(Request("GET", "/healthz", b"", {}, 5.0), 1000))
    asked = [call.method for call in cluster.calls if "/nobody:9090/" in call.path]
    assert asked == ["GET"]


def test_a_right_that_the_api_has_not_is_told_once_for_each_execution(
    site: Site, runtime_id: str, function_id: str
) -> None:
    documents = yaml.safe_load_all((ETC / FILE).read_text())
    binding = next(one for one in documents if one["kind"] == "RoleBinding")
    into(binding, site.namespace)
    cluster, pod = site.cluster, pod_of(site, runtime_id, function_id)
    cluster.apply(
        binding | {"subjects": [one for one in binding["subjects"] if "engine" in one["name"]]}
    )
    execution = site.client.execute(function_id)
    assert execution["status"] == "error"
    assert "may not call workers through the cluster's API server" in output(execution)
    # Who may not is the operator's matter.
    assert "qinling-api" not in output(execution)
    assert isinstance(site.deployment, Distributed)
    assert f"etc/kubernetes/{FILE} grants it: pods" in site.deployment.api.log()
    refused = ("api", "POST", "/execute", 403)
    assert asked_of(site, pod).count(refused) == 1
    cluster.apply(binding)
    assert output(site.client.execute(function_id)) == "hello world"
    # It was no fault of the worker's.
    assert pod_of(site, runtime_id, function_id)["metadata"]["uid"] == pod["metadata"]["uid"]
