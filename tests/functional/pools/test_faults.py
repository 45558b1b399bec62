"""What breaks between Qinling and its cluster, and what is well again afterwards."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qinling import exceptions
from qinling.orchestrator.kubernetes import names
from qinling.orchestrator.kubernetes.client import Client
from tests.fixtures.deployment import Distributed, running
from tests.fixtures.kubernetes import Cluster
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import Process, free_port, wait_until
from tests.fixtures.rabbitmq import RabbitMQ
from tests.functional.pools.conftest import CLOCK, IMAGES, Site, options, prepare
from tests.unit import config

ENGINE = "qinling-engine"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this module's own, for what no other test should notice."""
    root = tmp_path_factory.mktemp("broken")
    with Cluster(root, images=IMAGES, clock=CLOCK, backoff=0.05) as found:
        yield found


@pytest.fixture
def engines(
    tmp_path: Path, broken: Cluster, mariadb: MariaDB, rabbitmq: RabbitMQ
) -> Iterator[Site]:
    """API and engine as processes, for one test alone."""
    mariadb.heal()
    rabbitmq.heal()
    namespace, kubeconfig = prepare(broken)
    more = {"kubernetes": {"request_timeout": "2"}}
    found = Distributed(tmp_path, mariadb, rabbitmq, options(namespace, kubeconfig, more))
    with running(found):
        yield Site(found, broken, namespace)


def user_of(site: Site) -> str:
    """Who the engine is on the cluster."""
    return f"system:serviceaccount:{site.namespace}:{ENGINE}"


def live(site: Site) -> None:
    """A whole life: create, another image, delete."""
    runtime = site.client.create()
    site.wait_whole(runtime["id"], timeout=60)
    assert site.client.update(runtime["id"], image="python3:2").status_code == 200
    site.wait_whole(runtime["id"], "python3:2", timeout=60)
    site.client.delete(runtime["id"])
    site.client.wait_gone(runtime["id"], timeout=60)
    assert site.deployments() == []


@pytest.mark.parametrize("verb", ["patch", "delete", "get", "list", "watch"])
def test_a_server_that_is_busy_or_fails_costs_a_delay(
    broken: Cluster, make_site: Callable[..., Site], verb: str
) -> None:
    site = make_site(broken, start=verb not in ("list", "watch"))
    for number, status in enumerate((429, 500, 503)):
        broken.answer(status, skip=number, verb=verb, user=user_of(site), retry_after=1)
    if verb in ("list", "watch"):
        site.deployment.start()
    live(site)


@pytest.mark.parametrize("verb", ["patch", "delete", "list", "watch"])
@pytest.mark.parametrize("effect", [False, True], ids=["before", "after"])
def test_an_answer_that_is_cut_off_is_asked_for_again_and_nothing_is_done_twice(
    broken: Cluster, make_site: Callable[..., Site], verb: str, effect: bool
) -> None:
    site = make_site(broken, start=verb not in ("list", "watch"))
    broken.cut(effect=effect, times=2, verb=verb, user=user_of(site))
    if verb in ("list", "watch"):
        site.deployment.start()
    live(site)


@pytest.mark.parametrize("verb", ["patch", "delete", "list"])
def test_a_server_that_never_answers_costs_its_timeout(
    broken: Cluster, make_site: Callable[..., Site], verb: str
) -> None:
    site = make_site(broken, start=verb != "list", kubernetes={"request_timeout": "1"})
    broken.hang(times=1, verb=verb, user=user_of(site))
    if verb == "list":
        site.deployment.start()
    live(site)


@pytest.mark.parametrize("verb", ["patch", "delete"])
def test_a_conflict_at_every_write_is_looked_at_anew(
    broken: Cluster, make_site: Callable[..., Site], verb: str
) -> None:
    site = make_site(broken)
    for skip in (0, 1, 2):
        broken.answer(409, skip=skip, verb=verb, user=user_of(site))
    live(site)


def test_watches_that_are_cut_in_the_middle_of_a_line_are_resumed(
    broken: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(broken)
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    lists = _count(broken, site, "list")
    for _ in range(3):
        wait_until(lambda: len(broken.watches) >= 2, 60, "two watches")
        assert broken.cut_watches() >= 2
    (lost, *_) = site.pod_names(runtime["id"])
    broken.client.delete("pods", lost, site.namespace)
    site.wait_whole(runtime["id"])
    # From where they were, without a list.
    assert _count(broken, site, "list") <= lists + 2
    site.delete(runtime["id"])


def _count(cluster: Cluster, site: Site, verb: str) -> int:
    return sum(
        1
        for call in cluster.calls
        if call.verb == verb and call.namespace == site.namespace and ENGINE in call.user
    )


def test_history_that_the_server_has_forgotten_is_listed_anew(
    broken: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(broken)
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    broken.compact()
    broken.cut_watches()
    (lost, *_) = site.pod_names(runtime["id"])
    broken.client.delete("pods", lost, site.namespace)
    site.wait_whole(runtime["id"])
    site.delete(runtime["id"])


@pytest.mark.parametrize("resource", ["pods", "deployments"])
def test_an_event_that_is_lost_costs_a_delay(
    broken: Cluster, make_site: Callable[..., Site], resource: str
) -> None:
    site = make_site(broken)
    broken.lose_event(times=6, resource=resource, namespace=site.namespace)
    live(site)


def test_a_cluster_that_is_away_is_told_and_all_goes_on_when_it_is_back(
    broken: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(broken)
    runtime, gone, stays = (site.client.create() for _ in range(3))
    for one in (runtime, gone, stays):
        site.wait_whole(one["id"])
    broken.stop()
    try:
        assert site.client.update(runtime["id"], image="python3:2").status_code == 200
        site.client.delete(gone["id"])
        new = site.client.create()
        site.wait_reason(new["id"], "does not answer")
        assert site.client.show(stays["id"])["status"] == "available"
        assert site.client.show(runtime["id"])["status"] == "upgrading"
    finally:
        broken.start()
    site.wait_whole(runtime["id"], "python3:2", timeout=60)
    site.wait_whole(new["id"], timeout=60)
    site.wait_whole(stays["id"], timeout=60)
    site.client.wait_gone(gone["id"], timeout=60)
    wait_until(lambda: site.client.show(new["id"])["status_reason"] is None, 60, "the reason gone")
    file = site.deployment.root / "standalone.log"
    wait_until(lambda: "The cluster is followed again" in file.read_text(), 60, "that it is told")
    log = file.read_text()
    told = [line for line in log.splitlines() if " WARNING " in line or " ERROR " in line]
    # Once, and not for each pool.
    assert sum("The cluster does not answer" in line for line in told) == 1
    assert len(told) <= 3
    assert log.count("The cluster is followed again") == 1
    for one in (runtime, new, stays):
        site.delete(one["id"])


def test_a_cluster_that_was_put_back_is_made_as_the_rows_say(
    broken: Cluster, make_site: Callable[..., Site]
) -> None:
    site = make_site(broken)
    kept, dropped = site.client.create(), site.client.create()
    site.wait_whole(kept["id"])
    site.wait_whole(dropped["id"])
    old = broken.snapshot()
    assert site.client.update(kept["id"], image="python3:2").status_code == 200
    site.wait_whole(kept["id"], "python3:2")
    site.delete(dropped["id"])
    new = site.client.create()
    site.wait_whole(new["id"])
    broken.restart(old)
    site.wait_whole(kept["id"], "python3:2", timeout=60)
    site.wait_whole(new["id"], timeout=60)

    def agrees() -> bool:
        pools = {names.pool_of(one) for one in site.deployments()}
        return pools == {kept["id"], new["id"]}

    # The pool of the runtime that is deleted was there again: it has no row.
    wait_until(agrees, 60, "exactly the pools that have a row")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_engine_killed_at_any_call_leaves_nothing_undone_and_nothing_behind(
    engines: Site, broken: Cluster, moment: str
) -> None:
    installation = engines.deployment
    assert isinstance(installation, Distributed)
    kill = Killer(broken, engines.namespace, moment)
    calls = 0
    for ask in ("create", "update", "delete"):
        for number in range(1, 30):
            runtime_id = _made(engines, ask)
            kill.at(number, installation.engine)
            image = _ask(engines, ask, runtime_id)
            crashed = _crashed_or_settled(engines, installation.engine)
            kill.disarm()
            if crashed:
                installation.engine.start()
            runtime_id = runtime_id or _only(engines)
            if ask != "delete":
                engines.wait_whole(runtime_id, image, timeout=60)
                engines.client.delete(runtime_id)
            engines.client.wait_gone(runtime_id, timeout=60)
            wait_until(lambda: engines.deployments() == [], 60, "no Deployment left")
            if not crashed:
                break
            calls += 1
        else:
            raise AssertionError("an engine was killed at each of 29 calls")
    assert calls >= 3


class Killer:
    """Kills an engine at its n-th writing or single call to the cluster."""

    def __init__(self, cluster: Cluster, namespace: str, moment: str) -> None:
        self._namespace = namespace
        self._moment = moment
        self._left = 0
        self._engine: Process | None = None
        self._lock = threading.Lock()
        cluster.on_request(self._look)

    def at(self, number: int, engine: Process) -> None:
        with self._lock:
            self._left, self._engine = number, engine

    def disarm(self) -> None:
        with self._lock:
            self._left, self._engine = 0, None

    def _look(self, call: Any, moment: Any) -> None:
        if call.namespace != self._namespace or ENGINE not in call.user or moment != self._moment:
            return
        if call.verb in ("watch", "list"):
            return
        with self._lock:
            self._left -= 1
            if self._left == 0 and self._engine is not None:
                self._engine.kill()


def _made(site: Site, ask: str) -> str:
    """What the question is about; a runtime that is to be created is not there yet."""
    if ask == "create":
        return ""
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    return str(runtime["id"])


def _ask(site: Site, ask: str, runtime_id: str) -> str:
    if ask == "create":
        site.client.create()
    elif ask == "update":
        assert site.client.update(runtime_id, image="python3:2").status_code == 200
        return "python3:2"
    else:
        site.client.delete(runtime_id)
    return "python3"


def _only(site: Site) -> str:
    (runtime,) = site.client.call("GET", "/v1/runtimes").json()["runtimes"]
    return str(runtime["id"])


def _crashed_or_settled(site: Site, engine: Process) -> bool:
    def over() -> bool:
        shown = site.client.call("GET", "/v1/runtimes").json()["runtimes"]
        return not engine.running or all(one["status"] == "available" for one in shown)

    wait_until(over, 60, "crash or end", pause=0.05)
    return not engine.running


def test_two_engines_share_the_work_and_double_nothing(engines: Site) -> None:
    installation = engines.deployment
    assert isinstance(installation, Distributed)
    with installation.second_engine() as second:
        second.wait_for_line("The engine is running", timeout=60)
        ids = [engines.client.create()["id"] for _ in range(6)]
        for runtime_id in ids:
            engines.wait_whole(runtime_id, timeout=60)
        for runtime_id in ids[:3]:
            assert engines.client.update(runtime_id, image="python3:2").status_code == 200
        for runtime_id in ids[3:]:
            engines.client.delete(runtime_id)
        installation.engine.kill()
        for runtime_id in ids[:3]:
            engines.wait_whole(runtime_id, "python3:2", timeout=60)
        for runtime_id in ids[3:]:
            engines.client.wait_gone(runtime_id, timeout=60)
        assert len(engines.deployments()) == 3


def test_an_engine_that_slept_with_an_old_image_in_its_hand_does_not_put_it_back(
    engines: Site, broken: Cluster
) -> None:
    installation = engines.deployment
    assert isinstance(installation, Distributed)
    runtime = engines.client.create()
    engines.wait_whole(runtime["id"])
    asleep = threading.Event()
    sleeper = installation.engine

    def sleep(call: Any, moment: Any) -> None:
        # Its request is on its way; it is served when it wakes, long after others have been.
        if (
            call.verb == "patch"
            and call.namespace == engines.namespace
            and moment == "before"
            and not asleep.is_set()
        ):
            asleep.set()
            sleeper.pause()
            woken.wait(60)

    woken = threading.Event()
    broken.on_request(sleep)
    assert engines.client.update(runtime["id"], image="nowhere/old:1").status_code == 200
    assert asleep.wait(20)
    with installation.second_engine() as second:
        second.wait_for_line("The engine is running", timeout=60)
        # The upgrade that sleeps is rolled back, and another one follows.
        engines.client.wait_for(runtime["id"], "available", timeout=60)
        engines.wait_whole(runtime["id"], timeout=60)
        assert engines.client.update(runtime["id"], image="python3:2").status_code == 200
        engines.wait_whole(runtime["id"], "python3:2", timeout=60)
        before = engines.pod_names(runtime["id"])
        woken.set()
        sleeper.resume()
        wait_until(lambda: _conflicts(engines) == 1, 30, "the old patch refused")
        engines.wait_whole(runtime["id"], "python3:2")
        assert engines.pod_names(runtime["id"]) == before


def _conflicts(site: Site) -> int:
    return sum(
        1
        for call in site.cluster.calls
        if call.namespace == site.namespace and call.verb == "patch" and call.status == 409
    )


def test_a_server_that_asks_for_a_pause_gets_it_from_all(broken: Cluster) -> None:
    conf = config.options()
    conf.set_override("kubeconfig", str(broken.kubeconfig("hurried")), "kubernetes")
    client = Client(conf, connections=2)
    broken.answer(429, path="/version", user="hurried", retry_after=20)
    for path in ("/version", "/version", "/api/v1/namespaces/default/pods"):
        with pytest.raises(exceptions.ClusterAway) as told:
            client.get(path)
        assert 1 <= (told.value.retry_after or 0) <= 20
    assert [call.path for call in broken.calls if call.user == "hurried"] == ["/version"]


def test_a_server_that_is_gone_without_a_word_is_noticed_within_a_minute_or_so(
    broken: Cluster,
) -> None:
    conf = config.options()
    conf.set_override("kubeconfig", str(broken.kubeconfig()), "kubernetes")
    with Client(conf, connections=1).watch("/api/v1/namespaces/default/pods", {}, 5) as watch:
        connection = watch._answer.connection
        assert connection is not None
        assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, gap, tries = (
            connection.sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
    assert idle + gap * tries <= 60


# Where the cluster is


@pytest.mark.parametrize("fault", ["missing", "malformed", "nowhere", "expired", "insecure"])
def test_a_kubeconfig_that_is_of_no_use_is_told_and_the_service_goes_on_and_heals(
    broken: Cluster, make_site: Callable[..., Site], tmp_path: Path, fault: str
) -> None:
    path = tmp_path / "kubeconfig"
    site = make_site(broken, start=False, kubernetes={"kubeconfig": str(path)})
    good = broken.service_account_kubeconfig(ENGINE, site.namespace).read_text()
    bad = {
        "malformed": "apiVersion: v1\nclusters: [",
        "nowhere": good.replace(str(broken.port), str(free_port())),
        "expired": good.replace("token: ", "token: expired"),
        "insecure": _insecure(good),
    }
    words = {
        "missing": str(path),
        "malformed": str(path),
        "nowhere": "does not answer",
        "expired": "401",
        "insecure": "insecure-skip-tls-verify",
    }
    if fault != "missing":
        path.write_text(bad[fault])
    site.deployment.start()
    runtime = site.client.create()
    shown = site.wait_reason(runtime["id"], words[fault])
    assert shown["status"] == "creating"
    assert "\n" not in shown["status_reason"]
    assert "token" not in shown["status_reason"].replace("credentials", "")
    path.write_text(good)
    site.wait_whole(runtime["id"], timeout=60)


def _insecure(good: str) -> str:
    lines = [line for line in good.splitlines() if "certificate-authority-data" not in line]
    at = next(n for n, line in enumerate(lines) if "server:" in line)
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines.insert(at, f"{indent}insecure-skip-tls-verify: true")
    return "\n".join(lines) + "\n"


def test_a_token_that_is_revoked_and_replaced_costs_a_delay(
    broken: Cluster, make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(broken, start=False)
    first = broken.token(user_of(site))
    token = tmp_path / "token"
    token.write_text(first)
    config = site.deployment.root / "standalone.conf"
    config.write_text(
        config.read_text()
        .replace("kubeconfig = ", "# ")
        .replace(
            "[kubernetes]",
            f"[kubernetes]\nurl = {broken.url}\nca_file = {broken.authority}\ntoken_file = {token}",
        )
    )
    site.deployment.start()
    runtime = site.client.create()
    site.wait_whole(runtime["id"])
    broken.revoke(first)
    broken.cut_watches()
    assert site.client.update(runtime["id"], image="python3:2").status_code == 200
    site.wait_reason(runtime["id"], "401", timeout=60)
    token.write_text(broken.token(user_of(site)))
    site.wait_whole(runtime["id"], "python3:2", timeout=60)
