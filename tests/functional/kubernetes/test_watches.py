"""Lists and watches of the test server: versions, selections, pages, and what is too old."""

from contextlib import closing

import pytest

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.kubernetes.client import Client, Refused, path_of
from tests.fixtures.process import wait_until
from tests.functional.kubernetes.objects import (
    NAMESPACE,
    Object,
    deployment,
    pods,
    wait_for_available,
)


def _quota(name: str, labels: dict[str, str] | None = None) -> Object:
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"hard": {"pods": "9"}}}


def _version(cluster: Cluster) -> str:
    found = cluster.client.ask("GET", path_of("resourcequotas", NAMESPACE))
    return str(found["metadata"]["resourceVersion"])


def _told(cluster: Cluster, plural: str = "resourcequotas", **query: str) -> list[Object]:
    """What a watch tells until it has no more to tell, which a bookmark says."""
    events = []
    query["allowWatchBookmarks"] = "true"
    with closing(cluster.client.watch(plural, NAMESPACE, **query)) as watch:
        for event in watch:
            if event["type"] != "BOOKMARK":
                events.append(event)
            elif "annotations" not in event["object"]["metadata"]:
                break
    return events


def _names(events: list[Object]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"]["name"]) for event in events]


def test_a_watch_begins_with_what_is_there_or_with_what_came_after(cluster: Cluster) -> None:
    cluster.client.create("resourcequotas", _quota("old"), NAMESPACE)
    wait_until(
        lambda: cluster.client.get("resourcequotas", "old", NAMESPACE)["status"].get("hard"),
        5,
        "a counted quota",
    )
    version = _version(cluster)
    cluster.client.create("resourcequotas", _quota("new"), NAMESPACE)
    cluster.client.delete("resourcequotas", "old", NAMESPACE)
    assert _names(_told(cluster))[0] == ("ADDED", "new")
    since = _names(_told(cluster, resourceVersion=version))
    assert since[0] == ("ADDED", "new")
    assert ("DELETED", "old") in since


def test_the_first_watch_of_a_kind_resumes_from_what_was_listed(cluster: Cluster) -> None:
    version = _version(cluster)
    cluster.client.create("serviceaccounts", {"metadata": {"name": "other"}}, NAMESPACE)
    cluster.client.create("resourcequotas", _quota("q"), NAMESPACE)
    assert _names(_told(cluster, resourceVersion=version))[0] == ("ADDED", "q")


def test_what_leaves_a_selection_is_told_as_deleted(cluster: Cluster) -> None:
    cluster.client.create("resourcequotas", _quota("q", {"color": "red"}), NAMESPACE)
    version = _version(cluster)
    paint = {"metadata": {"labels": {"color": "blue"}}}
    cluster.client.patch("resourcequotas", "q", paint, NAMESPACE)
    red = _told(cluster, resourceVersion=version, labelSelector="color=red")
    blue = _told(cluster, resourceVersion=version, labelSelector="color in (blue, green)")
    assert _names(red)[-1] == ("DELETED", "q")
    assert red[-1]["object"]["metadata"]["labels"] == {"color": "red"}
    assert _names(blue)[0] == ("ADDED", "q")


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("", {"a", "b", "c"}),
        ("x=1", {"a"}),
        ("x==1", {"a"}),
        ("x!=1", {"b", "c"}),
        ("x in (1,2)", {"a", "b"}),
        ("x notin (1)", {"b", "c"}),
        ("x", {"a", "b"}),
        ("!x", {"c"}),
        ("x,y=z", {"b"}),
    ],
)
def test_labels_select(cluster: Cluster, selector: str, names: set[str]) -> None:
    for name, labels in {"a": {"x": "1"}, "b": {"x": "2", "y": "z"}, "c": {}}.items():
        cluster.client.create("resourcequotas", _quota(name, labels), NAMESPACE)
    found = cluster.client.list("resourcequotas", NAMESPACE, labelSelector=selector)
    assert {quota["metadata"]["name"] for quota in found} == names


def test_fields_select(cluster: Cluster) -> None:
    cluster.apply(deployment("r1"))
    wait_for_available(cluster, "r1")
    name = pods(cluster, "r1")[0]["metadata"]["name"]
    for selector, count in {
        f"metadata.name={name}": 1,
        f"metadata.name!={name}": 1,
        "status.phase=Running": 2,
        "status.phase=Pending": 0,
        f"spec.nodeName=node1,metadata.namespace={NAMESPACE}": 2,
    }.items():
        found = cluster.client.list("pods", NAMESPACE, fieldSelector=selector)
        assert len(found) == count, selector
    with pytest.raises(Refused) as refused:
        cluster.client.list("deployments", NAMESPACE, fieldSelector="spec.replicas=2")
    assert refused.value.status == 400


def test_bookmarks_bring_a_watch_up_to_date(cluster: Cluster) -> None:
    cluster.client.create("resourcequotas", _quota("q"), NAMESPACE)
    version = _version(cluster)
    cluster.apply(deployment("r1"))
    wait_for_available(cluster, "r1")
    query = {"resourceVersion": version, "allowWatchBookmarks": "true"}
    with closing(cluster.client.watch("resourcequotas", NAMESPACE, **query)) as watch:
        mark = next(event["object"] for event in watch if event["type"] == "BOOKMARK")
    assert int(mark["metadata"]["resourceVersion"]) > int(version)


@pytest.mark.parametrize("how", ["compact", "restart"])
def test_a_version_that_was_forgotten_is_gone(cluster: Cluster, how: str) -> None:
    version = _version(cluster)
    cluster.client.create("resourcequotas", _quota("q"), NAMESPACE)
    getattr(cluster, how)()
    (told,) = _told(cluster, resourceVersion=version)
    assert (told["type"], told["object"]["code"]) == ("ERROR", 410)
    assert told["object"]["reason"] == "Expired"
    assert _names(_told(cluster, resourceVersion=_version(cluster))) == []


def test_pages_of_one_list_show_one_version(cluster: Cluster) -> None:
    for name in "abcde":
        cluster.client.create("resourcequotas", _quota(name), NAMESPACE)
    path = path_of("resourcequotas", NAMESPACE)
    first = cluster.client.ask("GET", path, query={"limit": 2})
    cluster.client.delete("resourcequotas", "d", NAMESPACE)
    rest, page = [], first
    while token := page["metadata"].get("continue"):
        page = cluster.client.ask("GET", path, query={"limit": 2, "continue": token})
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        rest += page["items"]
    assert [quota["metadata"]["name"] for quota in first["items"] + rest] == list("abcde")
    assert first["metadata"]["remainingItemCount"] == 3


def test_a_page_that_was_forgotten_is_gone(cluster: Cluster) -> None:
    for name in "ab":
        cluster.client.create("resourcequotas", _quota(name), NAMESPACE)
    path = path_of("resourcequotas", NAMESPACE)
    token = cluster.client.ask("GET", path, query={"limit": 1})["metadata"]["continue"]
    cluster.compact()
    status, body = cluster.client.request("GET", path, query={"limit": 1, "continue": token})
    assert (status, body["reason"]) == (410, "Expired")


def test_a_restored_server_is_at_its_old_version(cluster: Cluster) -> None:
    cluster.client.create("resourcequotas", _quota("old"), NAMESPACE)
    snapshot, version = cluster.snapshot(), _version(cluster)
    cluster.client.create("resourcequotas", _quota("new"), NAMESPACE)
    ahead = _version(cluster)
    cluster.restart(snapshot)
    assert [quota["metadata"]["name"] for quota in cluster.client.list("resourcequotas")] == ["old"]
    assert int(version) <= int(_version(cluster)) < int(ahead)
    status, body = cluster.client.request(
        "GET", path_of("resourcequotas", NAMESPACE), query={"resourceVersion": "1000000"}
    )
    assert (status, body["reason"]) == (504, "Timeout")
    # A watch that is ahead is not refused: it waits in silence.
    assert _told(cluster, resourceVersion="1000000") == []


def test_a_watch_of_one_namespace_tells_of_no_other(cluster: Cluster) -> None:
    cluster.namespace("other")
    cluster.client.create("resourcequotas", _quota("q"), "other")
    assert _names(_told(cluster)) == []


def test_a_client_without_a_token_learns_nothing(cluster: Cluster) -> None:
    with Client(cluster.port, cluster.authority) as stranger:
        for path in ("/version", path_of("pods", NAMESPACE)):
            assert stranger.request("GET", path)[0] == 401
