"""Pools on a cluster: what the engine and the driver cost.

On the tests' own cluster, which runs within the benchmark and whose pods are no processes here; its
own time is taken beside: the same Deployments applied and waited for with no Qinling in between.
And on a real one, where ``QINLING_TEST_KUBECONFIG`` names it.
"""

import contextlib
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qinling.orchestrator.base import PoolSpec
from qinling.orchestrator.kubernetes import names
from qinling.orchestrator.kubernetes.manifests import Templates
from tests.bench import report
from tests.bench.report import Figure
from tests.bench.site import Site, defaults, say
from tests.fixtures.deployment import Distributed, running
from tests.fixtures.kubernetes import Call, Cluster
from tests.fixtures.kubernetes.real import KUBECONFIG, RealCluster
from tests.fixtures.process import Process, wait_until
from tests.functional.pools.conftest import WORKER, prepare
from tests.unit.config import options

_POOLS = 1000
_SIZE = 3
_IMAGE = "python3"
_CREATES = 100
_IDLE = 60.0
_CLAIMS = 40
_REAL = 10
_THREADS = 8
_NAMESPACE = "qinling"
_ETC = Path(__file__).parents[2] / "etc" / "kubernetes"
_WRITES = frozenset({"create", "patch", "update", "delete", "deletecollection"})
_FOLLOWING = frozenset({"list", "watch"})
# What is followed: Deployments, their pods, those of executions, and nodes.
_FOLLOWED = 4
_TICKS = os.sysconf("SC_CLK_TCK")


def kubernetes(site: Site) -> Iterator[Figure]:
    """On the cluster that the environment names, where it does; and on the tests' own."""
    if KUBECONFIG in os.environ:
        yield from _real(site)
    with _cluster(site) as cluster, _installation(site, cluster) as found:
        yield from _creates(found, cluster)
        yield from _idle(found, cluster)
    with _cluster(site) as cluster:
        floor = _apply_alone(cluster)
    with _cluster(site) as cluster, _installation(site, cluster) as found:
        yield from _many(found, cluster, floor)
        yield from _restart(found, cluster)


def claims(site: Site) -> Iterator[Figure]:
    """A function's first execution on the tests' cluster, whose pods are processes this time."""
    with (
        _cluster(site, images={_IMAGE: WORKER}, processes=True) as cluster,
        _installation(site, cluster) as found,
    ):
        yield from _claims(found, cluster)


def _claims(found: Distributed, cluster: Cluster) -> Iterator[Figure]:
    say(f"measuring the first executions of {_CLAIMS} functions on the test cluster")
    client = found.client
    runtime_id = client.create(image=_IMAGE)["id"]
    samples: list[float] = []
    asked: list[float] = []
    own: list[float] = []
    for _ in range(_CLAIMS):
        wait_until(lambda: client.pool(runtime_id)["available"] == _SIZE, 60, "a whole pool")
        function_id = client.create_function(runtime_id, "def main():\n    return 1")["id"]
        before, began = len(cluster.calls), time.monotonic()
        assert client.execute(function_id)["status"] == "success"
        took = time.monotonic() - began
        calls = [call for call in cluster.calls[before:] if _is_of_claim(call)]
        asked.append(len(calls))
        own.append(sum(call.seconds for call in calls) * 1000)
        samples.append(took * 1000 - own[-1])
        client.call("DELETE", f"/v1/functions/{function_id}")
    yield report.at_most("Kubernetes, requests from claim to answer", asked, 6, "")
    note = f"its own time, p50: {report.percentile(own, 50):.1f} ms"
    yield report.at_rank(
        "… claim → answered, beyond the server's own time", samples, 50, 100, "ms", note=note
    )


def _is_of_claim(call: Call) -> bool:
    return (
        "qinling-engine" in call.user
        and call.verb not in _FOLLOWING
        and not call.resource.endswith("/networkpolicies")
    )


def _real(site: Site) -> Iterator[Figure]:
    """Create → available, in turn with the same Deployment and no Qinling in between."""
    root = site.root / "real"
    root.mkdir()
    with RealCluster(root) as cluster:
        namespace, kubeconfig = prepare(cluster)
        more = {
            "orchestrator": {"driver": "kubernetes"},
            "kubernetes": {"kubeconfig": str(kubeconfig), "namespace": namespace},
        }
        found = Distributed(
            root / "qinling", site.mariadb, site.rabbitmq, defaults() | more, "kubernetes"
        )
        with running(found):
            say(f"measuring {_REAL} creates on the cluster of {KUBECONFIG}")
            conf = options()
            conf.set_override("namespace", namespace, group="kubernetes")
            templates = Templates(conf)
            samples, floors = [], []
            for _ in range(_REAL):
                samples.append(_available(found, cluster.image))
                floors.append(_applied(cluster, templates, namespace))
            yield report.against_floor(
                "create → available, real cluster", samples, floors, 1.2, unit="s"
            )


def _available(found: Distributed, image: str) -> float:
    client = found.client
    began = time.monotonic()
    runtime_id = client.create(image=image)["id"]
    wait_until(
        lambda: client.show(runtime_id)["status"] == "available", 300, "available", pause=0.02
    )
    took = time.monotonic() - began
    client.delete(runtime_id)
    client.wait_gone(runtime_id, timeout=120)
    return took


def _applied(cluster: RealCluster, templates: Templates, namespace: str) -> float:
    spec = PoolSpec(str(uuid.uuid4()), cluster.image, _SIZE, True, 1)
    name = names.deployment(spec.id)
    began = time.monotonic()
    cluster.client.apply(templates.deployment(spec, {}))

    def whole() -> bool:
        status = cluster.client.get("deployments", name, namespace).get("status") or {}
        return status.get("availableReplicas") == _SIZE

    wait_until(whole, 300, "the Deployment whole", pause=0.02)
    took = time.monotonic() - began
    cluster.client.delete("deployments", name, namespace)
    left = {"labelSelector": f"{names.RUNTIME}={spec.id}"}
    wait_until(lambda: not cluster.client.list("pods", namespace, **left), 120, "its end")
    return took


@contextlib.contextmanager
def _cluster(
    site: Site, images: dict[str, list[str]] | None = None, *, processes: bool = False
) -> Iterator[Cluster]:
    root = site.root / f"cluster-{uuid.uuid4().hex[:8]}"
    root.mkdir()
    nodes = {"node1": {"cpu": "1000", "memory": "4000Gi", "pods": "10000"}}
    with Cluster(
        root,
        images=images or {_IMAGE: []},
        processes=processes,
        nodes=nodes,
        addresses=10_000,
    ) as cluster:
        for name in ("namespace.yaml", "rbac.yaml"):
            cluster.apply(_ETC / name)
        yield cluster


@contextlib.contextmanager
def _installation(site: Site, cluster: Cluster) -> Iterator[Distributed]:
    kubeconfig = cluster.service_account_kubeconfig("qinling-engine", _NAMESPACE)
    more = {
        "orchestrator": {"driver": "kubernetes"},
        "kubernetes": {"kubeconfig": str(kubeconfig)},
    }
    found = Distributed(
        cluster.root / "qinling", site.mariadb, site.rabbitmq, defaults() | more, "kubernetes"
    )
    with running(found):
        yield found


def _asked(cluster: Cluster, since: int = 0) -> Counter[str]:
    """What the engine asked, by verb, from call number ``since`` on."""
    return Counter(call.verb for call in cluster.calls[since:] if "qinling-engine" in call.user)


class _Ready(threading.Thread):
    """Notes when each Deployment became whole, as a watch of its own tells it."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self.at: dict[str, float] = {}

    def run(self) -> None:
        for event in self._cluster.client.watch("deployments", _NAMESPACE):
            found = event["object"]
            pool_id = names.pool_of(found)
            available = (found.get("status") or {}).get("availableReplicas")
            if pool_id is not None and available == _SIZE:
                self.at.setdefault(pool_id, time.monotonic())


def _creates(found: Distributed, cluster: Cluster) -> Iterator[Figure]:
    say(f"measuring {_CREATES} creates on the test cluster, one after the other")
    ready = _Ready(cluster)
    ready.start()
    client = found.client
    client.wait_for(client.create(image=_IMAGE)["id"], "available")  # the policy, connections
    before = len(cluster.calls)
    lags: list[float] = []
    for _ in range(_CREATES):
        runtime_id = client.create(image=_IMAGE)["id"]
        wait_until(
            lambda: client.show(runtime_id)["status"] == "available",  # noqa: B023
            30,
            "available",
            pause=0.002,
        )
        seen = time.monotonic()
        lags.append((seen - ready.at[runtime_id]) * 1000)
    asked = _asked(cluster, before)
    writes = sum(count for verb, count in asked.items() if verb in _WRITES) / _CREATES
    reads = sum(count for verb, count in asked.items() if verb not in _WRITES | _FOLLOWING)
    note = f"{reads} reads beside in {_CREATES} creates; what was asked: {dict(asked)}"
    yield report.at_most("Kubernetes, writes per create", [writes], 4, "", note=note)
    yield Figure(
        "… pool ready → available",
        "p99 ≤ 200 ms",
        "ms",
        lags,
        judged=report.percentile(lags, 99),
        allowed=200.0,
        note="seen through the REST API, polled every 2 ms",
    )


def _idle(found: Distributed, cluster: Cluster) -> Iterator[Figure]:
    say(f"measuring an idle installation for {_IDLE:.0f} s")
    wait_until(lambda: not _unsettled(found), 60, "everything settled")
    before = len(cluster.calls)
    time.sleep(_IDLE)
    asked = _asked(cluster, before)
    other = sum(count for verb, count in asked.items() if verb not in _FOLLOWING)
    # The slow resync's apply, which may be due in this minute.
    other -= sum(call.resource.endswith("/networkpolicies") for call in cluster.calls[before:])
    # Its lists may be due, too, but each of them once.
    other += max(0, asked["list"] - _FOLLOWED)
    yield report.at_most(
        "… requests per idle hour beside lists, watches and the resync's policy",
        [other * 3600 / _IDLE],
        0,
        "",
        note=f"in {_IDLE:.0f} s: {dict(asked)}",
    )


def _unsettled(found: Distributed) -> int:
    runtimes = found.client.call("GET", "/v1/runtimes").json()["runtimes"]
    return sum(1 for one in runtimes if one["status"] != "available")


def _apply_alone(cluster: Cluster) -> float:
    """Seconds that the cluster itself takes for the pools, asked by as many threads."""
    say(f"measuring {_POOLS} Deployments without Qinling")
    conf = options()
    templates = Templates(conf)
    ready = _Ready(cluster)
    ready.start()
    began = time.monotonic()

    def apply(_number: int) -> None:
        spec = PoolSpec(str(uuid.uuid4()), _IMAGE, _SIZE, True, 1)
        cluster.client.apply(templates.deployment(spec, {}), manager=names.MANAGER)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(apply, range(_POOLS)))
    wait_until(lambda: len(ready.at) == _POOLS, 300, "all Deployments whole", pause=0.1)
    return time.monotonic() - began


def _many(found: Distributed, cluster: Cluster, floor: float) -> Iterator[Figure]:
    say(f"measuring {_POOLS} pools created by one engine")
    before, cpu = len(cluster.calls), _cpu(found.engine)
    began = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda _: found.client.create(image=_IMAGE), range(_POOLS)))
    posted = time.monotonic() - began
    wait_until(lambda: not _unsettled(found), 600, "all pools available", pause=0.5)
    took = time.monotonic() - began
    used = _cpu(found.engine) - cpu
    asked = _asked(cluster, before)
    note = (
        f"{took:.1f} s in all ({posted:.1f} s until the last POST was answered), {floor:.1f} s "
        f"of them the cluster's; engine: {used:.1f} s of processor time; asked: {dict(asked)}"
    )
    yield report.at_most("… 1,000 pools, beyond the cluster", [took - floor], 60, "s", note=note)
    yield report.at_most("… peak memory of the engine", [_peak(found.engine)], 200, "MB")


def _restart(found: Distributed, cluster: Cluster) -> Iterator[Figure]:
    say(f"measuring a restart with {_POOLS} pools")
    samples: list[float] = []
    asked: Counter[str] = Counter()
    for _ in range(3):
        found.engine.terminate(30)
        _forget(found)
        before = len(cluster.calls)
        began = time.monotonic()
        found.engine.start()
        wait_until(lambda: not _rows(found, "settled = 0"), 120, "all rows settled", pause=0.05)
        samples.append(time.monotonic() - began)
        asked = _asked(cluster, before)
    yield report.at_most(
        "… restart with 1,000 pools, from process start",
        samples,
        10,
        "s",
        note=f"asked in the last one: {dict(asked)}",
    )


def _forget(found: Distributed) -> None:
    with contextlib.closing(_connect(found)) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE runtimes SET settled = 0")
        connection.commit()


def _rows(found: Distributed, where: str) -> int:
    with contextlib.closing(_connect(found)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM runtimes WHERE {where}")
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])


def _connect(found: Distributed):  # type: ignore[no-untyped-def]
    return found.mariadb.connect(found.database.rpartition("/")[2].partition("?")[0])


def _cpu(process: Process) -> float:
    """Processor seconds of a process so far (proc_pid_stat(5), fields 14 and 15)."""
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / _TICKS


def _peak(process: Process) -> float:
    """The largest resident set of a process so far, in MB (proc_pid_status(5), VmHWM)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1_000_000
