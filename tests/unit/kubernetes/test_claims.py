"""Claims: which pods are claimed by which requests, which are seen to live, and how they go."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.orchestrator.base import Worker
from qinling.orchestrator.kubernetes import names, observe
from qinling.orchestrator.kubernetes.claims import Claims
from qinling.orchestrator.kubernetes.manifests import Templates
from qinling.orchestrator.kubernetes.seen import Seen
from tests.unit.kubernetes.objects import POOL, Object, deployment, pod

CORDONED = {"cordoned"}
PODS = "/api/v1/namespaces/qinling/pods"
RUNNING = {"name": "worker", "state": {"running": {}}, "restartCount": 0}
READY = {
    "phase": "Running",
    "podIP": "192.0.2.7",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [RUNNING],
}


class Api:
    """A double of the client: it notes what is sent, and refuses what a test says.

    :ivar refused: statuses, by the names of pods.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[Object] = []
        self.refused: dict[str, int] = {}
        self.pods: dict[str, Object] = {}

    def merge(self, path: str, body: Object) -> Object:
        name = self._note("merge", path, body)
        made = self.pods[name]
        meta = {**made["metadata"], "resourceVersion": "60"}
        for field in ("labels", "annotations"):
            meta[field] = made["metadata"].get(field, {}) | body["metadata"][field]
        return made | {"metadata": meta}

    def resize(self, path: str, container: str, resources: Object) -> Object:
        name = self._note("resize", path, resources)
        assert container == "worker"
        return sized(self.pods[name], resources["limits"], version=70)

    def delete(self, path: str, options: Object) -> None:
        self._note("delete", path, options)

    def _note(self, method: str, path: str, body: Object) -> str:
        assert path.startswith(f"{PODS}/")
        name = path.rpartition("/")[2]
        self.calls.append((method, name))
        self.bodies.append(body)
        if name in self.refused:
            raise exceptions.ClusterRefusal("refused", self.refused[name])
        return name


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def seen(api: Api, told: list[str]) -> Callable[..., Seen[observe.Pod]]:
    """What is seen of the pool, with pods put into it."""
    found = Seen(observe.pod, told.append)

    def see(*pods: Object) -> Seen[observe.Pod]:
        for one in pods:
            api.pods[one["metadata"]["name"]] = one
            found.put(one)
        told.clear()
        return found

    return see


@pytest.fixture
def make(
    conf: cfg.ConfigOpts, api: Api, seen: Callable[..., Seen[observe.Pod]]
) -> Callable[..., Claims]:
    """Makes claims on a pool of these pods. Without `owner` there is no Deployment."""
    found = observe.deployment(deployment(Templates(conf)))

    def make(
        *pods: Object, owner: observe.Deployment | None = found, proxied: bool = False
    ) -> Claims:
        return Claims(
            api,  # type: ignore[arg-type]
            PODS,
            seen(*pods),
            lambda _: owner,
            CORDONED.__contains__,
            proxied=proxied,
        )

    return make


def free(name: str, **meta: Any) -> Object:
    """A worker that can be claimed."""
    made = pod(name, **READY)
    made["metadata"] |= meta
    return made


def claimed(name: str, restarts: int = 0, status: Object | None = None, **meta: Any) -> Object:
    """A worker that was claimed when its container had restarted so often."""
    made = free(name, annotations={names.RESTARTS: str(restarts)}, **meta)
    made["metadata"]["labels"][names.STATE] = names.CLAIMED
    made["status"] = made["status"] | (status or {})
    return made


def on(node: str, item: Object) -> Object:
    return item | {"spec": item["spec"] | {"nodeName": node}}


def test_a_cordoned_nodes_workers_leave_once_there_are_others_elsewhere(
    make: Callable[..., Claims], seen: Callable[..., Seen[observe.Pod]]
) -> None:
    claims = make(on("cordoned", claimed("one")), on("cordoned", free("two")))
    # There is no better one, and it serves.
    assert claims.claimed(POOL) == {"uid-of-one": True}
    seen(on("other", free("three")))
    assert claims.claimed(POOL) == {"uid-of-one": False}
    worker = claims.claim(POOL)
    assert worker is not None
    assert worker.id == "uid-of-three"


@pytest.mark.parametrize(
    ("proxied", "address"), [(False, "192.0.2.7:9090"), (True, "pods/one:9090")]
)
def test_a_worker_is_told_by_what_it_is_called_by(
    make: Callable[..., Claims], proxied: bool, address: str
) -> None:
    claimed = make(free("one"), proxied=proxied).claim(POOL)
    assert claimed is not None
    assert claimed.address == address


def sized(item: Object, asked: Object, has: Object | None = None, version: int = 71) -> Object:
    """A pod that is asked to have other limits, and has some; None for none that are known."""
    changed: Object = copy.deepcopy(item)
    changed["metadata"] |= {"resourceVersion": str(version), "generation": 2}
    changed["spec"]["containers"][0]["resources"] = {"limits": asked}
    if has is not None:
        changed["status"]["containerStatuses"][0]["resources"] = {"limits": has}
        changed["status"]["observedGeneration"] = 2
    return changed


WANTED = {"limits": {"memory": "448Mi"}, "requests": {"memory": "128Mi"}}


def test_a_worker_is_resized_by_one_request_and_fits_when_its_pod_says_so(
    make: Callable[..., Claims], api: Api, seen: Callable[..., Seen[observe.Pod]]
) -> None:
    one = claimed("one")
    claims = make(one)
    assert not claims.resize(POOL, "uid-of-one", WANTED)
    assert not claims.resize(POOL, "uid-of-one", WANTED)
    assert (api.calls, api.bodies) == ([("resize", "one")], [WANTED])
    seen(sized(one, WANTED["limits"], {"cpu": "1", **WANTED["limits"]}))
    assert claims.resize(POOL, "uid-of-one", WANTED)
    assert api.calls == [("resize", "one")]


def beside(item: Object, **status: Any) -> Object:
    """A pod into which a webhook has put a container that comes before the worker's."""
    changed: Object = copy.deepcopy(item)
    sidecar = {"name": "a-sidecar", "image": "theirs", "resources": {"limits": {"memory": "1Gi"}}}
    changed["spec"]["containers"].insert(0, sidecar)
    changed["status"]["containerStatuses"].insert(0, sidecar | {"state": {"running": {}}} | status)
    return changed


def test_what_was_put_beside_a_worker_is_not_taken_for_it(
    make: Callable[..., Claims], api: Api, seen: Callable[..., Seen[observe.Pod]]
) -> None:
    old = free("a-old")
    old["spec"] = {"containers": [{"name": "worker", "image": "older"}]}
    one = claimed("one")
    claims = make(beside(one), beside(old), beside(free("new")))
    # Its end and its restarts are not the worker's.
    seen(beside(one, restartCount=1, state=ENDED))
    assert claims.claimed(POOL) == {"uid-of-one": True}
    assert not claims.resize(POOL, "uid-of-one", WANTED)
    seen(beside(sized(one, WANTED["limits"], WANTED["limits"])))
    assert claims.resize(POOL, "uid-of-one", WANTED)
    assert claims.claim(POOL) is not None
    assert api.calls == [("resize", "one"), ("merge", "new")]


@pytest.mark.parametrize("status", [403, 404, 422])
def test_a_worker_whose_resize_is_refused_is_unfit(
    make: Callable[..., Claims], api: Api, status: int
) -> None:
    claims = make(claimed("one"))
    api.refused["one"] = status
    with pytest.raises(exceptions.WorkerUnfit, match=str(status)):
        claims.resize(POOL, "uid-of-one", WANTED)
    with pytest.raises(exceptions.WorkerUnfit, match="gone"):
        claims.resize(POOL, "uid-of-another", WANTED)


@pytest.mark.parametrize("reason", ["Deferred", "Infeasible"])
def test_a_worker_whose_node_has_no_room_is_unfit_once_the_kubelet_has_looked(
    make: Callable[..., Claims], seen: Callable[..., Seen[observe.Pod]], reason: str
) -> None:
    one = claimed("one")
    claims = make(one)
    assert not claims.resize(POOL, "uid-of-one", WANTED)
    told = sized(one, WANTED["limits"], {"memory": "128Mi"})
    condition = {"type": "PodResizePending", "status": "True", "reason": reason, "message": "full"}
    told["status"]["conditions"] = [*told["status"]["conditions"], condition]
    early = copy.deepcopy(told)
    early["status"]["observedGeneration"] = 1
    seen(early)
    assert not claims.resize(POOL, "uid-of-one", WANTED)
    told["metadata"]["resourceVersion"] = "72"
    seen(told)
    with pytest.raises(exceptions.WorkerUnfit, match=f"{reason}: full"):
        claims.resize(POOL, "uid-of-one", WANTED)
    # Kubernetes 1.33 does not say how far the kubelet has looked.
    del told["status"]["observedGeneration"]
    told["metadata"]["resourceVersion"] = "73"
    seen(told)
    with pytest.raises(exceptions.WorkerUnfit, match=f"{reason}: full"):
        claims.resize(POOL, "uid-of-one", WANTED)


def test_a_ready_pod_is_claimed_by_one_guarded_request(
    make: Callable[..., Claims], api: Api
) -> None:
    claims = make(free("one"))
    assert claims.claim(POOL) == Worker("uid-of-one", POOL, "192.0.2.7:9090")
    assert api.calls == [("merge", "one")]
    [body] = api.bodies
    assert body["metadata"]["resourceVersion"] == "50"
    assert body["metadata"]["labels"] == {names.STATE: names.CLAIMED}
    [owner] = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Deployment", f"runtime-{POOL}")
    assert (owner["uid"], owner["controller"]) == ("uid-of-deployment", True)
    # It is nobody's any more before the watch has said so.
    assert claims.claim(POOL) is None
    assert api.calls == [("merge", "one")]
    assert claims.claimed(POOL) == {"uid-of-one": True}


@pytest.mark.parametrize(
    "other",
    [
        claimed("other"),
        free("other", deletionTimestamp="2026-01-31T12:00:00Z"),
        pod("other", **READY | {"conditions": [{"type": "Ready", "status": "False"}]}),
        pod("other", **READY | {"podIP": None}),
    ],
    ids=["claimed", "ending", "not ready", "without an address"],
)
def test_no_other_pod_is_claimed(make: Callable[..., Claims], api: Api, other: Object) -> None:
    assert make(other).claim(POOL) is None
    assert api.calls == []


def test_nothing_is_claimed_of_a_pool_whose_deployment_is_not_there_or_going(
    make: Callable[..., Claims], api: Api, conf: cfg.ConfigOpts
) -> None:
    going = deployment(Templates(conf), deletionTimestamp="2026-01-31T12:00:00Z")
    for owner in (None, observe.deployment(going)):
        assert make(free("one"), owner=owner).claim(POOL) is None
    assert api.calls == []


@pytest.mark.parametrize("status", [404, 409])
def test_who_was_not_the_first_takes_the_next(
    make: Callable[..., Claims], api: Api, status: int
) -> None:
    api.refused["one"] = status
    worker = make(free("one"), free("two")).claim(POOL)
    assert worker is not None
    assert worker.id == "uid-of-two"
    assert api.calls == [("merge", "one"), ("merge", "two")]


def test_who_was_too_late_for_all_is_to_ask_again_as_they_may_be_free_yet(
    make: Callable[..., Claims], api: Api
) -> None:
    api.refused |= {"one": 409, "two": 404}
    claims = make(free("one"), free("two"))
    with pytest.raises(exceptions.PoolBusy):
        claims.claim(POOL)
    api.refused["one"] = 404
    assert claims.claim(POOL) is None


def test_a_refusal_is_told(make: Callable[..., Claims], api: Api) -> None:
    api.refused["one"] = 403
    with pytest.raises(exceptions.ClusterRefusal):
        make(free("one"), free("two")).claim(POOL)
    assert api.calls == [("merge", "one")]


def test_workers_of_the_image_asked_for_last_come_first(
    make: Callable[..., Claims], api: Api
) -> None:
    old = free("a-old", creationTimestamp="2026-01-01T00:00:00Z")
    old["spec"] = {"containers": [{"name": "worker", "image": "older"}]}
    claims = make(old, free("new"))
    assert [claims.claim(POOL) is not None for _ in range(3)] == [True, True, False]
    assert api.calls == [("merge", "new"), ("merge", "a-old")]


def test_claimed_workers_are_told_of_and_those_that_are_ending_as_such(
    make: Callable[..., Claims],
) -> None:
    ending = claimed("ending", deletionTimestamp="2026-01-31T12:00:00Z")
    claims = make(claimed("one"), ending, free("free"), pod("starting"))
    assert claims.claimed(POOL) == {"uid-of-one": True, "uid-of-ending": False}


def test_what_another_engine_has_claimed_a_moment_ago_is_not_taken_for_dead(
    make: Callable[..., Claims],
) -> None:
    claims = make(free("one"), free("two"))
    assert claims.claimed(POOL, {"uid-of-one", "uid-of-gone"}) == {"uid-of-one": True}


ENDED = {"terminated": {"exitCode": 137, "reason": "Error"}}
LOST = {
    "evicted": {"phase": "Failed", "reason": "Evicted", "message": "Usage of EmptyDir"},
    "ended": {"containerStatuses": [RUNNING | {"state": ENDED}]},
    "waiting": {
        "containerStatuses": [RUNNING | {"state": {"waiting": {}}, "lastState": ENDED}],
    },
    "started anew": {"containerStatuses": [RUNNING | {"restartCount": 1, "lastState": ENDED}]},
}


@pytest.mark.parametrize("how", LOST)
def test_a_claimed_worker_that_is_not_what_it_was_is_deleted_and_told_of_no_more(
    make: Callable[..., Claims], api: Api, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    claims = make(claimed("one", status=LOST[how]), claimed("two"))
    assert claims.claimed(POOL, {"uid-of-one", "uid-of-two"}) == {"uid-of-two": True}
    assert api.calls == [("delete", "one")]
    assert api.bodies == [{"preconditions": {"uid": "uid-of-one"}}]
    why = "Evicted: Usage of EmptyDir" if how == "evicted" else "it exited with code 137"
    assert f"Worker uid-of-one, pod one, is lost: {why}" in caplog.text


def test_what_restarted_before_it_was_claimed_is_well(
    make: Callable[..., Claims], api: Api
) -> None:
    status = {"containerStatuses": [RUNNING | {"restartCount": 2, "lastState": ENDED}]}
    claims = make(pod("one", **READY | status))
    assert claims.claim(POOL) is not None
    assert claims.claimed(POOL) == {"uid-of-one": True}
    assert api.calls == [("merge", "one")]


def test_a_claimed_worker_that_is_not_ready_lives(make: Callable[..., Claims]) -> None:
    busy = {"conditions": [{"type": "Ready", "status": "False"}]}
    assert make(claimed("one", status=busy)).claimed(POOL) == {"uid-of-one": True}


@pytest.mark.parametrize("status", [None, 404, 409])
def test_a_worker_is_let_go_by_its_uid_and_is_gone_when_it_is_seen_no_more(
    make: Callable[..., Claims],
    api: Api,
    seen: Callable[..., Seen[observe.Pod]],
    status: int | None,
) -> None:
    one = claimed("one")
    claims = make(one, claimed("two"))
    if status is not None:
        api.refused["one"] = status
    assert not claims.release(POOL, "uid-of-one")
    assert api.calls == [("delete", "one")]
    assert api.bodies == [{"preconditions": {"uid": "uid-of-one"}}]
    ending = claimed("one", resourceVersion="70", deletionTimestamp="2026-01-31T12:00:00Z")
    seen(ending)
    assert not claims.release(POOL, "uid-of-one")
    assert len(api.calls) == 1
    seen().drop(ending)
    assert claims.release(POOL, "uid-of-one")


def test_whoever_waits_is_told_of_what_matters_to_them(
    seen: Callable[..., Seen[observe.Pod]], told: list[str]
) -> None:
    found = seen(pod("one"))
    for step in (
        free("one", resourceVersion="51"),
        claimed("one", resourceVersion="52"),
        claimed("one", resourceVersion="54", deletionTimestamp="2026-01-31T12:00:00Z"),
    ):
        found.put(step)
        assert told == [POOL]
        told.clear()
    found.drop(claimed("one"))
    assert told == [POOL]
