"""The driver: given what was asked for and what is there, these are its calls and its answer."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.orchestrator.kubernetes import names, nodes, pool, runs, wake
from qinling.orchestrator.kubernetes.manifests import Templates
from qinling.orchestrator.kubernetes.pool import KubernetesOrchestrator
from tests.unit.kubernetes.objects import (
    LATE,
    POOL,
    SINCE,
    SPEC,
    Object,
    deployment,
    late,
    pod,
    refused,
    waiting,
)

OF_POOL = f"/apis/apps/v1/namespaces/qinling/deployments/runtime-{POOL}"
OF_SETS = "/apis/apps/v1/namespaces/qinling/replicasets"
OF_POLICY = "/apis/networking.k8s.io/v1/namespaces/qinling/networkpolicies/qinling-workers"


class Api:
    """A double of the client: it notes what is sent, and answers as a test says.

    :ivar errors: raised by the next calls, by method.
    :ivar there: what `get` finds by path.
    :ivar admit: changes what is written, as a mutating webhook does.
    :ivar status: of what was applied.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[Object] = []
        self.errors: dict[str, list[Exception]] = {}
        self.there: dict[str, Object] = {}
        self.admit: Callable[[Object], object] = lambda _: None
        self.status: Object = {}
        self._versions = iter(range(1000, 2000))

    def _note(self, method: str, path: str, body: Object | None = None) -> None:
        self.calls.append((method, path))
        self.bodies.append(body or {})
        if self.errors.get(method):
            raise self.errors[method].pop(0)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        self._note("get", path)
        if path not in self.there:
            raise exceptions.ClusterRefusal("not found", 404)
        return self.there[path]

    def apply(self, path: str, body: Object) -> Object:
        self._note("apply", path, body)
        return self._made(body)

    def merge(self, path: str, body: Object) -> Object:
        self._note("merge", path, body)
        return self._made(body)

    def _made(self, body: Object) -> Object:
        made: Object = json.loads(json.dumps(body))
        self.admit(made)
        made["metadata"] |= {
            "uid": "uid-of-deployment",
            "resourceVersion": str(next(self._versions)),
            "generation": 4,
        }
        made["status"] = self.status
        return made

    def delete(self, path: str, options: Object, query: Mapping[str, str] | None = None) -> None:
        self._note("delete", path, options)

    def text(self, path: str, query: Mapping[str, str]) -> str:
        self._note("text", path)
        return "starting\nout of luck\n"

    def well(self) -> None:
        """Nothing was told of."""

    def server(self) -> str:
        return "the cluster"


class Followed:
    """A double of a watcher: what is seen is what a test has put there."""

    trouble: exceptions.OrchestratorError | None = None


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def templates(conf: cfg.ConfigOpts) -> Templates:
    return Templates(conf)


@pytest.fixture
def make(
    conf: cfg.ConfigOpts, api: Api, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., KubernetesOrchestrator]:
    """Makes drivers that have seen these objects."""
    for module in (pool, runs, nodes):
        monkeypatch.setattr(module, "Watcher", lambda *_, **__: Quiet())

    def make(*seen: Object) -> KubernetesOrchestrator:
        driver = KubernetesOrchestrator(conf)
        driver._client = api  # type: ignore[assignment]
        driver._hints._client = api  # type: ignore[assignment]
        driver._policy._client = api  # type: ignore[assignment]
        driver.start(told.append)
        driver._policy._until = float("inf")
        for item in seen:
            kind = driver._deployments if "template" in item["spec"] else driver._pods
            kind.put(item)  # type: ignore[attr-defined]
        told.clear()
        return driver

    return make


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the driver measures durations with, in a list of one."""
    found = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: found[0])
    return found


class Quiet(Followed):
    def start(self) -> None:
        """It follows nothing."""


def test_a_pool_that_is_not_there_is_created_where_nothing_is(
    make: Callable[..., KubernetesOrchestrator], api: Api
) -> None:
    driver = make()
    driver._policy.doubt()
    state = driver.apply(SPEC)
    assert api.calls == [("apply", OF_POLICY), ("apply", OF_POOL)]
    # No object has this version: had somebody made one meanwhile, it would be a conflict.
    assert api.bodies[1]["metadata"]["resourceVersion"] == "1"
    assert (state.total, state.available, state.ready, state.failed) == (2, 0, False, False)


def test_a_pool_that_is_as_it_should_be_costs_no_call(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make(deployment(templates))
    for _ in range(3):
        assert driver.apply(SPEC).ready
    assert api.calls == []


def test_what_a_server_writes_in_another_way_is_sent_only_once(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make()
    driver.apply(SPEC)
    found = deployment(templates, generation=4, version="1005")
    found["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "1000m"
    driver._deployments.put(found)
    api.calls.clear()
    for _ in range(3):
        driver.apply(SPEC)
    assert api.calls == []


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["spec"].update(replicas=7),
        lambda found: found["spec"]["template"]["spec"]["containers"][0].update(image="other"),
        lambda found: found["spec"]["template"]["spec"].update(automountServiceAccountToken=True),
        lambda found: found["metadata"]["annotations"].pop(names.REVISION),
        lambda found: found["metadata"]["annotations"].pop(names.SINCE),
        lambda found: found["metadata"]["annotations"].update({names.SINCE: "9" * 12}),
        lambda found: found["metadata"]["labels"].pop("app.kubernetes.io/part-of"),
        lambda found: found["spec"].update(paused=True),
    ],
    ids=["replicas", "image", "token", "revision", "since", "far", "label", "paused"],
)
def test_what_was_changed_by_hand_is_put_right(
    make: Callable[..., KubernetesOrchestrator],
    api: Api,
    templates: Templates,
    change: Callable[[Object], object],
) -> None:
    driver = make(deployment(templates))
    driver.apply(SPEC)
    found = deployment(templates, generation=4, version="101")
    change(found)
    driver._deployments.put(found)
    driver.apply(SPEC)
    assert api.calls[-1] == ("apply", OF_POOL)
    assert api.bodies[-1]["metadata"]["resourceVersion"] == "101"
    assert api.bodies[-1]["metadata"]["uid"] == "uid-of-deployment"


SIDECAR = {"name": "sidecar", "image": "theirs"}


def add_sidecar(found: Object) -> None:
    found["spec"]["template"]["spec"]["containers"].append(SIDECAR)


@pytest.mark.parametrize("refused", [False, True], ids=["left", "refused"])
def test_what_an_apply_does_not_put_right_is_replaced(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates, refused: bool
) -> None:
    found = deployment(templates)
    add_sidecar(found)
    found["spec"]["paused"] = True
    driver = make(found)
    if refused:
        union = "spec.template.spec.containers[0].env[0].valueFrom: may not be specified"
        api.errors["apply"] = [exceptions.ClusterRefusal(union, 422)]
    else:
        written = iter([lambda made: (add_sidecar(made), made["spec"].update(paused=True))])
        api.admit = lambda made: next(written, lambda _: None)(made)
    assert driver.apply(SPEC).reason is None
    assert api.calls == [("apply", OF_POOL), ("merge", OF_POOL)]
    sent = api.bodies[-1]
    # Of the version that was seen last.
    assert sent["metadata"]["resourceVersion"] == ("100" if refused else "1000")
    assert sent["spec"]["paused"] is None


def test_what_is_refused_for_another_reason_is_told_with_it(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make(deployment(templates))
    api.errors["apply"] = [exceptions.ClusterRefusal("x is invalid: the first", 422)]
    api.errors["merge"] = [exceptions.ClusterRefusal("x is invalid: the second", 422)]
    assert "the second" in (driver.apply(replace(SPEC, size=3)).reason or "")


def test_what_is_removed_between_two_writes_is_no_refusal(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make(deployment(templates))
    api.errors["apply"] = [exceptions.ClusterRefusal("x is invalid: a union", 422)]
    api.errors["merge"] = [exceptions.ClusterRefusal("not found", 404)]
    with pytest.raises(exceptions.PoolBusy):
        driver.apply(replace(SPEC, size=3))
    assert driver.apply(replace(SPEC, size=3)).reason is None
    # Seen to be gone, it is made anew.
    assert api.bodies[-1]["metadata"].get("uid") is None


def test_a_webhook_that_changes_every_deployment_is_not_fought(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    api.admit = add_sidecar
    driver = make()
    driver.apply(SPEC)
    found = deployment(templates, generation=4, version="2000")
    add_sidecar(found)
    # The one that made it, and one that was started since.
    for engine, calls in ((driver, []), (make(), [("apply", OF_POOL), ("merge", OF_POOL)])):
        engine._deployments.put(found)
        api.calls.clear()
        for _ in range(3):
            engine.apply(SPEC)
        assert api.calls == calls


def test_a_newer_pool_is_told_and_left_alone(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make(deployment(templates, replace(SPEC, revision=6)))
    with pytest.raises(exceptions.StaleRevision) as caught:
        driver.apply(SPEC)
    assert caught.value.revision == 6
    with pytest.raises(exceptions.StaleRevision):
        driver.remove(POOL, 5)
    assert api.calls == []


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ClusterRefusal("the object has been modified", 409),
        exceptions.ClusterRefusal("x is invalid: metadata.uid: field is immutable", 422),
    ],
)
def test_who_was_overtaken_looks_anew_and_tries_again(
    make: Callable[..., KubernetesOrchestrator],
    api: Api,
    templates: Templates,
    error: exceptions.ClusterRefusal,
) -> None:
    driver = make(deployment(templates, replace(SPEC, revision=4)))
    api.errors["apply"] = [exceptions.ClusterAway("lost"), error]
    api.there[OF_POOL] = deployment(templates, replace(SPEC, revision=6), version="200")
    with pytest.raises(exceptions.ClusterAway):
        driver.apply(SPEC)
    with pytest.raises(exceptions.PoolBusy):
        driver.apply(SPEC)
    with pytest.raises(exceptions.StaleRevision):
        driver.apply(SPEC)


def test_what_is_refused_takes_nothing_from_the_workers_that_are_there(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make(deployment(templates))
    api.errors["apply"] = [exceptions.ClusterRefusal("it is not allowed", 403)]
    state = driver.apply(replace(SPEC, image="python3:2", revision=6))
    assert (state.failed, state.available) == (False, 2)
    assert "it is not allowed" in (state.reason or "")


def test_a_copy_of_a_pool_under_another_name_is_not_taken_for_it(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    copy = deployment(templates, replace(SPEC, revision=9), name="a-copy")
    driver = make(copy, deployment(templates))
    assert driver.apply(SPEC).ready
    assert api.calls == []


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_what_the_cluster_refuses_is_told_at_once_and_not_asked_for_all_the_time(
    make: Callable[..., KubernetesOrchestrator], api: Api, now: list[float], status: int
) -> None:
    driver = make()
    api.errors["apply"] = [exceptions.ClusterRefusal("it is not allowed", status)] * 2
    first = driver.apply(SPEC)
    assert first.reason == f"the cluster refuses the pool ({status}): it is not allowed"
    assert driver.apply(SPEC).reason == first.reason
    assert len(api.calls) == 1
    now[0] += first.retry_in or 0
    second = driver.apply(SPEC)
    assert (second.retry_in or 0) > (first.retry_in or 0)
    # Something else is asked for at once.
    driver.apply(replace(SPEC, image="python3:2", revision=6))
    assert len(api.calls) == 3


@pytest.mark.parametrize("there", [True, False], ids=["a pool", "a new one"])
def test_what_is_refused_for_the_whole_deadline_has_failed(
    make: Callable[..., KubernetesOrchestrator],
    api: Api,
    conf: cfg.ConfigOpts,
    templates: Templates,
    now: list[float],
    there: bool,
) -> None:
    driver = make(*([deployment(templates)] if there else []))
    asked = replace(SPEC, image="python3:2", revision=6)
    refusal = exceptions.ClusterRefusal("it is not allowed", 403)
    ends = now[0] + conf.kubernetes.progress_deadline
    while now[0] < ends:
        api.errors["apply"] = [refusal]
        state = driver.apply(asked)
        assert not state.failed
        now[0] += state.retry_in or 0
    api.errors["apply"] = [refusal]
    assert driver.apply(asked).failed
    # Once it is taken, it is a new beginning.
    now[0] += 100
    assert not driver.apply(asked).failed
    assert api.calls[-1] == ("apply", OF_POOL)
    api.errors["apply"] = [refusal]
    driver._deployments.put(deployment(templates, version="3000", generation=9))
    assert not driver.apply(asked).failed


def test_a_policy_that_was_changed_is_applied_though_every_pool_is_whole(
    make: Callable[..., KubernetesOrchestrator],
    api: Api,
    conf: cfg.ConfigOpts,
    templates: Templates,
    now: list[float],
) -> None:
    driver = make(deployment(templates))
    driver._policy.doubt()
    for _ in range(3):
        assert driver.apply(SPEC).ready
    assert api.calls == [("apply", OF_POLICY)]
    # Nobody watches it: each round of the slow resync comes past one that is due.
    now[0] += conf.engine.settled_interval
    for _ in range(3):
        assert driver.apply(SPEC).ready
    assert api.calls == [("apply", OF_POLICY)] * 2


def test_no_worker_is_started_before_the_policy_stands(
    make: Callable[..., KubernetesOrchestrator], api: Api
) -> None:
    driver = make()
    driver._policy.doubt()
    api.errors["apply"] = [exceptions.ClusterRefusal("cannot patch networkpolicies", 403)]
    state = driver.apply(SPEC)
    assert not state.ready
    assert "networkpolicies" in (state.reason or "")
    assert api.calls == [("apply", OF_POLICY)]


def test_an_untrusted_runtime_without_a_class_is_never_sent(
    make: Callable[..., KubernetesOrchestrator], api: Api
) -> None:
    state = make().apply(replace(SPEC, trusted=False))
    assert state.failed
    assert "untrusted_runtime_class" in (state.reason or "")
    assert api.calls == []


def test_while_the_cluster_is_away_nothing_is_sent_and_then_all_that_waited_is_told(
    make: Callable[..., KubernetesOrchestrator], api: Api, told: list[str]
) -> None:
    driver = make()
    driver._following._watchers[0].trouble = exceptions.ClusterAway("the cluster does not answer")  # type: ignore[misc]
    for call in (
        lambda: driver.apply(SPEC),
        lambda: driver.remove(POOL, 5),
        driver.pools,
    ):
        with pytest.raises(exceptions.ClusterAway, match="does not answer"):
            call()
    assert api.calls == []
    driver._following.synced()
    assert told == []
    driver._following._watchers[0].trouble = None  # type: ignore[misc]
    driver._following.synced()
    assert told == [POOL]


def test_a_pool_that_may_create_no_worker_is_woken_now_and_then(
    make: Callable[..., KubernetesOrchestrator],
    api: Api,
    templates: Templates,
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wake.random, "uniform", lambda _, bound: bound)
    full = refused("exceeded quota: q")
    counts: dict[str, Any] = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}
    found = deployment(templates, SPEC, full, counts=counts)
    api.status = found["status"]
    driver = make(found)
    first = driver.apply(SPEC)
    assert first.retry_in == pytest.approx(5.0)
    assert api.calls == []
    now[0] += 5.0
    driver.apply(SPEC)
    assert api.calls == [("apply", OF_POOL)]
    woken = api.bodies[-1]["metadata"]["annotations"][names.WAKE]
    # It is kept from then on: taking it away would be a change, too.
    driver._deployments.put(
        deployment(
            templates,
            SPEC,
            full,
            counts=counts,
            version="2000",
            generation=5,
            carried={names.WAKE: woken},
        )
    )
    assert driver.apply(SPEC).retry_in == pytest.approx(10.0)
    now[0] += 5.0
    driver.apply(SPEC)
    assert len(api.calls) == 1
    now[0] += 5.0
    driver.apply(SPEC)
    assert api.bodies[-1]["metadata"]["annotations"][names.WAKE] != woken


def test_a_pool_that_could_not_be_woken_for_a_conflict_is_woken_at_the_next_try(
    make: Callable[..., KubernetesOrchestrator],
    api: Api,
    templates: Templates,
    now: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wake.random, "uniform", lambda _, bound: bound)
    full = deployment(templates, SPEC, refused("exceeded quota: q"), counts={"replicas": 1})
    driver = make(full)
    driver.apply(SPEC)
    now[0] += 5.0
    api.errors["apply"] = [exceptions.ClusterRefusal("the object has been modified", 409)]
    api.there[OF_POOL] = full
    with pytest.raises(exceptions.PoolBusy):
        driver.apply(SPEC)
    now[0] += 0.2
    driver.apply(SPEC)
    assert [method for method, _ in api.calls] == ["apply", "get", "apply"]


@pytest.mark.parametrize("image", ["python3", "python3:2"], ids=["the same", "another image"])
def test_what_is_asked_for_after_a_failure_gets_new_workers(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates, image: str
) -> None:
    # Another image, too: it may be the one that failed before this one.
    driver = make(deployment(templates, SPEC, LATE, counts={"replicas": 2, "updatedReplicas": 2}))
    driver.apply(replace(SPEC, revision=6, image=image))
    template = api.bodies[-1]["spec"]["template"]
    assert template["metadata"]["annotations"][names.ATTEMPT] == "6"


def test_what_is_gone_back_to_keeps_its_workers(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    counts = {"replicas": 4, "updatedReplicas": 2, "availableReplicas": 2}
    driver = make(deployment(templates, SPEC, LATE, counts=counts))
    before = replace(SPEC, revision=6, image="python3:0")
    driver.apply(before)
    assert (
        api.bodies[-1]["spec"]["template"] == templates.deployment(before, {})["spec"]["template"]
    )


@pytest.mark.parametrize("ahead", [-30, 30], ids=["its clock is behind", "its clock is ahead"])
def test_what_failed_before_is_no_failure_of_what_is_asked_for_now(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates, ahead: int
) -> None:
    # Kubernetes says nothing else of a ReplicaSet that has failed and is taken again.
    failed = late(int(time.time()) - SINCE + ahead)
    counts = {"replicas": 4, "updatedReplicas": 2, "availableReplicas": 2}
    long_ago = {names.SINCE: str(SINCE - 100)}
    driver = make(deployment(templates, SPEC, failed, counts=counts, carried=long_ago))
    assert driver.apply(SPEC).failed
    again = replace(SPEC, revision=6)
    assert not driver.apply(again).failed
    made = api.bodies[-1] | {"status": {"observedGeneration": 4, "conditions": [failed], **counts}}
    made["metadata"] |= {"uid": "uid-of-deployment", "resourceVersion": "2000", "generation": 4}
    # Nor after a restart.
    for anew in (driver, make()):
        anew._deployments.put(made)
        state = anew.apply(again)
        assert (state.ready, state.failed) == (False, False)


@pytest.mark.parametrize("away", [False, True], ids=["followed", "the cluster was away"])
def test_a_pool_of_which_kubernetes_tells_nothing_is_overdue_some_time(
    make: Callable[..., KubernetesOrchestrator],
    conf: cfg.ConfigOpts,
    templates: Templates,
    monkeypatch: pytest.MonkeyPatch,
    away: bool,
) -> None:
    clock = [float(SINCE)]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    deadline = conf.kubernetes.progress_deadline
    counts = {"replicas": 1, "updatedReplicas": 1}
    driver = make(deployment(templates, counts=counts))
    clock[0] += 2 * deadline - 1
    assert not driver.apply(SPEC).failed
    if away:
        # It gets time to tell what came of it meanwhile.
        driver._following.synced()
        clock[0] += deadline - 1
        assert not driver.apply(SPEC).failed
    clock[0] += 1
    assert driver.apply(SPEC).failed
    # As long as this engine has been there, it has been followed.
    assert not make(deployment(templates, counts=counts)).apply(SPEC).failed
    # What is asked for next has a deadline of its own.
    assert not driver.apply(replace(SPEC, revision=6)).failed


def test_a_crash_is_told_with_its_log_which_is_read_once(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    ended = {"terminated": {"exitCode": 3}}
    crashed = pod(**waiting("CrashLoopBackOff", lastState=ended, restartCount=2))
    driver = make(deployment(templates, counts={"replicas": 2, "updatedReplicas": 2}), crashed)
    for _ in range(3):
        assert "starting | out of luck" in (driver.apply(SPEC).reason or "")
    assert api.calls == [("text", "/api/v1/namespaces/qinling/pods/pod-1/log")]


def test_a_pool_is_deleted_with_all_that_is_its_own_and_gone_when_nothing_is_left(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    found = deployment(templates)
    driver = make(found, pod())
    assert driver.remove(POOL, 6) is False
    assert api.calls == [("delete", OF_POOL)]
    assert api.bodies[-1] == {
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": "uid-of-deployment"},
    }
    ending = deployment(templates, version="101", deletionTimestamp="2026-01-31T12:00:00Z")
    driver._deployments.put(ending)
    assert driver.remove(POOL, 6) is False
    assert len(api.calls) == 1
    driver._pods.drop(pod())
    driver._deployments.drop(ending)
    assert driver.remove(POOL, 6) is True
    # What the watch has not seen may be there all the same; and ReplicaSets it never sees.
    assert api.calls[1:] == [("get", OF_POOL), ("delete", OF_SETS)]


def test_a_pool_that_has_gone_unseen_is_gone_when_the_cluster_says_so(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make(deployment(templates))
    api.errors["delete"] = [exceptions.ClusterRefusal("not found", 404)]
    assert driver.remove(POOL, 6) is False
    assert driver.remove(POOL, 6) is True
    assert api.calls == [("delete", OF_POOL), ("get", OF_POOL), ("delete", OF_SETS)]


def test_a_pool_that_has_gone_unseen_is_made_anew(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make(deployment(templates, replace(SPEC, revision=4)))
    api.errors["apply"] = [exceptions.ClusterRefusal("uid mismatch", 409)]
    with pytest.raises(exceptions.PoolBusy):
        driver.apply(SPEC)
    driver.apply(SPEC)
    assert api.calls[-1] == ("apply", OF_POOL)
    assert api.bodies[-1]["metadata"]["resourceVersion"] == "1"


def test_a_pool_that_the_watch_has_not_seen_yet_is_deleted_too(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    api.there[OF_POOL] = deployment(templates)
    assert make().remove(POOL, 6) is False
    assert api.calls == [("get", OF_POOL), ("delete", OF_POOL)]


def test_somebody_elses_deployment_under_that_name_is_left_alone(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    api.there[OF_POOL] = deployment(templates, labels={"app": "theirs"})
    with pytest.raises(exceptions.ClusterRefusal, match="does not carry Qinling's labels"):
        make().remove(POOL, 6)
    assert ("delete", OF_POOL) not in api.calls


def test_a_pool_is_gone_when_no_deployment_of_any_name_is_left(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    copied = deployment(templates, name="a-copy", uid="uid-of-copy")
    driver = make(copied)
    assert driver.pools() == [POOL]
    assert driver.remove(POOL, 6) is False
    assert api.calls == [("get", OF_POOL), ("delete", f"{OF_POOL.rpartition('/')[0]}/a-copy")]
    assert api.bodies[-1]["preconditions"] == {"uid": "uid-of-copy"}
    driver._deployments.drop(copied)
    assert driver.remove(POOL, 6) is True


@pytest.mark.parametrize("status", [404, 409])
def test_a_deployment_that_has_gone_or_was_made_anew_is_not_waited_for(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates, status: int
) -> None:
    driver = make(deployment(templates, name="a-copy", uid="uid-of-copy"))
    api.errors["delete"] = [exceptions.ClusterRefusal("not that one", status)]
    assert driver.remove(POOL, 6) is False
    assert driver.remove(POOL, 6) is True


def test_a_worker_that_is_over_is_deleted_and_told_until_the_pool_is_whole(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    half = deployment(templates, counts={"replicas": 2, "availableReplicas": 1})
    evicted = pod(phase="Failed", reason="Evicted", message="low on memory")
    older = pod("pod-0", phase="Failed", reason="Evicted", message="of another image")
    older["metadata"]["annotations"][names.CONFIGURATION] = "another"
    driver = make(half, evicted, older)
    assert driver.apply(SPEC).reason == "a worker was lost: Evicted: low on memory"
    paths = {path.rpartition("/")[2] for _, path in api.calls}
    assert (paths, api.calls[0][0]) == ({"pod-1", "pod-0"}, "delete")
    assert {"uid": "uid-of-pod-1"} in [body["preconditions"] for body in api.bodies]
    for one in (evicted, older):
        driver._pods.drop(one)
    assert "low on memory" in (driver.apply(SPEC).reason or "")
    driver._deployments.put(deployment(templates, version="101"))
    assert driver.apply(SPEC).ready
    driver._deployments.put(half | {"metadata": half["metadata"] | {"resourceVersion": "102"}})
    assert driver.apply(SPEC).reason is None
    assert len(api.calls) == 2


def test_a_lost_worker_is_told_though_its_deployment_was_written_to_before_it_was_seen_there(
    make: Callable[..., KubernetesOrchestrator], templates: Templates
) -> None:
    driver = make(deployment(templates), pod(phase="Failed", reason="Evicted", message="full"))
    assert driver.apply(SPEC).ready
    driver._deployments.put(deployment(templates, version="101"))
    assert driver.apply(SPEC).ready
    half = {"replicas": 2, "availableReplicas": 1}
    driver._deployments.put(deployment(templates, version="102", counts=half))
    assert driver.apply(SPEC).reason == "a worker was lost: Evicted: full"


def test_a_lost_worker_that_was_made_good_before_it_was_known_is_no_reason_later(
    make: Callable[..., KubernetesOrchestrator], templates: Templates, now: list[float]
) -> None:
    lost = pod(phase="Failed", reason="Evicted", message="full")
    driver = make(deployment(templates), lost)
    assert driver.apply(SPEC).ready
    driver._pods.drop(lost)
    now[0] += 11
    half = {"replicas": 2, "availableReplicas": 1}
    driver._deployments.put(deployment(templates, version="101", counts=half))
    assert driver.apply(SPEC).reason is None


def test_workers_that_lost_their_deployment_are_removed_with_what_keeps_them(
    make: Callable[..., KubernetesOrchestrator], api: Api
) -> None:
    driver = make(pod())
    assert driver.pools() == [POOL]
    assert driver.remove(POOL, None) is False
    assert [path.rpartition("/")[2] for method, path in api.calls if method == "delete"] == [
        "replicasets",
        "pods",
    ]
    driver._pods.drop(pod())
    assert driver.remove(POOL, None) is True


def test_nothing_is_kept_of_a_pool_that_another_engine_has_removed(
    make: Callable[..., KubernetesOrchestrator],
    api: Api,
    templates: Templates,
    now: list[float],
) -> None:
    driver = make()
    crashed = pod(**waiting("CrashLoopBackOff", lastState={"terminated": {"exitCode": 3}}))
    full = deployment(templates, SPEC, refused("exceeded quota: q"), counts={}, version="2000")
    driver.apply(SPEC)
    driver._deployments.put(full)
    driver._pods.put(crashed)
    driver.apply(SPEC)
    assert driver.pools() == [POOL]
    assert (POOL in driver._applied, POOL in driver._hints._pools) == (True, True)
    driver._deployments.drop(full)
    driver._pods.drop(crashed)
    assert driver.pools() == []
    assert (driver._applied, driver._hints._pools, driver._waker._pools) == ({}, {}, {})
    # One that is refused has nothing there, and is asked for again and again.
    api.errors["apply"] = [exceptions.ClusterRefusal("it is not allowed", 403)]
    driver.apply(SPEC)
    driver.pools()
    assert POOL in driver._refused
    now[0] += 100
    driver.pools()
    assert driver._refused == {}


def test_another_engine_with_another_configuration_is_not_fought(
    make: Callable[..., KubernetesOrchestrator],
    api: Api,
    conf: cfg.ConfigOpts,
    templates: Templates,
) -> None:
    driver = make()
    driver.apply(SPEC)
    conf.set_override("worker_memory", 96, group="kubernetes")
    theirs = deployment(Templates(conf), generation=5, version="1500")
    conf.clear_override("worker_memory", group="kubernetes")
    driver._deployments.put(theirs)
    api.calls.clear()
    for _ in range(3):
        assert driver.apply(SPEC).ready
    assert api.calls == []


def test_a_pool_that_was_put_back_with_its_cluster_is_no_other_engines(
    make: Callable[..., KubernetesOrchestrator], api: Api, templates: Templates
) -> None:
    driver = make()
    driver.apply(SPEC)
    older = replace(SPEC, image="python3:0", revision=4)
    driver._deployments.replace([deployment(templates, older, generation=2, version="7")])
    driver.apply(SPEC)
    assert api.calls[-1] == ("apply", OF_POOL)
    assert api.bodies[-1]["metadata"]["resourceVersion"] == "7"
