"""The faults that a test may ask of the test server do what they say."""

import http.client
import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures.kubernetes import Call, Cluster, Cut
from tests.fixtures.kubernetes.client import Refused, path_of
from tests.fixtures.process import wait_until
from tests.functional.kubernetes.objects import NAMESPACE, Object

_DROPPED = (http.client.HTTPException, OSError)


def _quota(name: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"hard": {"pods": "9"}}}


def _names(cluster: Cluster) -> list[str]:
    found = cluster.client.list("resourcequotas", NAMESPACE)
    return [quota["metadata"]["name"] for quota in found]


def _create(cluster: Cluster, name: str) -> tuple[int, Object]:
    return cluster.client.request("POST", path_of("resourcequotas", NAMESPACE), _quota(name))


def test_errors_are_answered_as_often_as_asked(cluster: Cluster) -> None:
    cluster.answer(503, times=2, verb="create", resource="resourcequotas")
    cluster.answer(429, retry_after=7, skip=1, verb="create", namespace=NAMESPACE)
    assert [_create(cluster, "q")[0] for _ in range(4)] == [503, 503, 201, 429]
    assert _names(cluster) == ["q"]


def test_too_many_requests_say_when_to_come_again(cluster: Cluster) -> None:
    cluster.answer(429, retry_after=7)
    with closing(cluster.client.connection()) as connection:
        connection.request("GET", "/version", headers=cluster.client.headers())
        answer = connection.getresponse()
        body = json.loads(answer.read())
    assert (answer.status, answer.getheader("Retry-After")) == (429, "7")
    assert body["details"]["retryAfterSeconds"] == 7


def test_a_cut_comes_before_or_after_the_effect(cluster: Cluster) -> None:
    cluster.client.close()
    cluster.cut(effect=False, verb="create")
    with pytest.raises(_DROPPED):
        _create(cluster, "before")
    assert _names(cluster) == []
    cluster.client.close()
    cluster.cut(effect=True, verb="create")
    with pytest.raises(_DROPPED):
        _create(cluster, "after")
    assert _names(cluster) == ["after"]


def test_a_hanging_request_ends_with_the_server(cluster: Cluster) -> None:
    cluster.hang(verb="list", resource="pods")
    with closing(cluster.client.connection(timeout=0.2)) as connection:
        connection.request("GET", path_of("pods"), headers=cluster.client.headers())
        with pytest.raises(TimeoutError):
            connection.getresponse()
    cluster.restart()
    assert cluster.client.list("pods") == []


def test_a_healed_server_does_what_it_is_asked(cluster: Cluster) -> None:
    cluster.hang(times=2, verb="create")
    cluster.answer(503, times=9, verb="create")
    with closing(cluster.client.connection()) as connection:
        path = path_of("resourcequotas", NAMESPACE)
        body = json.dumps(_quota("held"))
        connection.request("POST", path, body, cluster.client.headers())
        wait_until(lambda: cluster.held == 1, 5, "a hanging request")
        cluster.heal()
        with pytest.raises(_DROPPED):
            connection.getresponse()
    assert _create(cluster, "free")[0] == 201
    assert _names(cluster) == ["free"]


def test_a_listener_sees_each_request_and_may_end_it(cluster: Cluster) -> None:
    seen = []

    def listen(call: Call, moment: str) -> None:
        if call.verb == "create":
            seen.append((moment, call.resource, call.user))
            if len(seen) == 1:
                raise Cut

    cluster.on_request(listen)
    cluster.client.close()
    with pytest.raises(_DROPPED):
        _create(cluster, "first")
    assert _create(cluster, "second")[0] == 201
    who = "resourcequotas", "kubernetes-admin"
    assert seen == [("before", *who), ("before", *who), ("after", *who)]
    assert _names(cluster) == ["second"]


def test_watches_are_cut_in_the_middle_of_a_line(cluster: Cluster) -> None:
    with closing(cluster.client.watch("pods", NAMESPACE, allowWatchBookmarks="true")) as watch:
        next(watch)
        wait_until(lambda: cluster.watches == ["pods"], 5, "an open watch")
        assert cluster.cut_watches("deployments") == 0
        assert cluster.cut_watches() == 1
        with pytest.raises((*_DROPPED, json.JSONDecodeError)):
            list(watch)
    wait_until(lambda: cluster.watches == [], 5, "the watch's end")


def test_a_lost_event_is_never_told(cluster: Cluster) -> None:
    cluster.lose_event(resource="resourcequotas", name="a", type="ADDED")
    query = {"allowWatchBookmarks": "true"}
    with closing(cluster.client.watch("resourcequotas", NAMESPACE, **query)) as watch:
        next(watch)
        for name in "ab":
            _create(cluster, name)
        added = next(event for event in watch if event["type"] == "ADDED")
    assert added["object"]["metadata"]["name"] == "b"
    assert _names(cluster) == ["a", "b"]


def test_a_restart_keeps_everything(cluster: Cluster) -> None:
    _create(cluster, "q")
    before = cluster.client.get("resourcequotas", "q", NAMESPACE)["metadata"]["uid"]
    cluster.stop()
    with pytest.raises(ConnectionRefusedError):
        cluster.client.connection().connect()
    cluster.start()
    assert cluster.client.get("resourcequotas", "q", NAMESPACE)["metadata"]["uid"] == before


def test_a_cluster_that_never_ran_can_be_closed(tmp_path: Path) -> None:
    Cluster(tmp_path).close()


def test_requests_are_logged_with_who_asked_for_what(cluster: Cluster) -> None:
    with pytest.raises(Refused):
        cluster.client.get("deployments", "absent", NAMESPACE)
    call = cluster.calls[-1]
    assert (call.user, call.verb, call.resource) == ("kubernetes-admin", "get", "apps/deployments")
    assert (call.namespace, call.name, call.status) == (NAMESPACE, "absent", 404)
    assert 0 <= call.seconds < 1


def test_an_unknown_parameter_is_refused_and_complained_of(cluster: Cluster) -> None:
    path = path_of("pods", NAMESPACE)
    assert cluster.client.request("GET", path, query={"labelselector": "x"})[0] == 400
    with pytest.raises(AssertionError, match="labelselector"):
        cluster.check()
    cluster.faults.complaints.clear()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/apis/batch/v1/namespaces/pools/jobs", 404),
        ("GET", "/api/v1/namespaces/pools/secrets", 404),
        ("GET", "/api/v1/namespaces/pools/pods/x/exec", 404),
        ("PUT", "/api/v1/namespaces/pools/pods", 405),
        ("POST", "/api/v1/pods", 405),
        ("POST", "/apis/apps/v1/namespaces/pools/replicasets", 405),
        ("DELETE", "/version", 404),
        ("PATCH", "/apis/apps/v1/namespaces/pools/deployments/absent", 415),
    ],
)
def test_what_is_not_served_is_refused(
    cluster: Cluster, method: str, path: str, status: int
) -> None:
    assert cluster.client.request(method, path, {})[0] == status
