"""What has been seen: the newest of each object, and a word only when it makes a difference."""

from typing import Any

import pytest

from qinling.orchestrator.kubernetes import names, observe
from qinling.orchestrator.kubernetes.seen import Seen
from tests.unit.kubernetes.objects import POOL, Object, pod, waiting


@pytest.fixture
def told() -> list[str]:
    """The pools of which somebody was told that they have changed."""
    return []


@pytest.fixture
def seen(told: list[str]) -> Seen[observe.Pod]:
    return Seen(observe.pod, told.append)


def at(version: int, found: Object, **meta: Any) -> Object:
    found["metadata"] |= {"resourceVersion": str(version)} | meta
    return found


def test_what_is_new_or_different_is_told(seen: Seen[observe.Pod], told: list[str]) -> None:
    seen.put(at(1, pod()))
    seen.put(at(2, pod(**waiting("ContainerCreating"))))
    assert told == [POOL]
    seen.put(at(3, pod(**waiting("ErrImagePull", "not found"))))
    assert told == [POOL] * 2
    assert [one.trouble for one in seen.of(POOL)] == [observe.Trouble.IMAGE]


def test_what_is_older_than_what_is_known_is_dropped(
    seen: Seen[observe.Pod], told: list[str]
) -> None:
    seen.put(at(10, pod(**waiting("ErrImagePull", "not found"))))
    seen.put(at(9, pod()))
    seen.put(at(10, pod()))
    assert [one.trouble for one in seen.of(POOL)] == [observe.Trouble.IMAGE]
    # A version is a number: 100 is newer than 99.
    seen.put(at(100, pod()))
    seen.put(at(99, pod(**waiting("ErrImagePull", "not found"))))
    assert [one.trouble for one in seen.of(POOL)] == [None]


def test_an_object_of_the_same_name_made_anew_counts_whatever_its_version(
    seen: Seen[observe.Pod],
) -> None:
    seen.put(at(10, pod()))
    seen.put(at(3, pod(), uid="another"))
    assert [one.uid for one in seen.of(POOL)] == ["another"]
    # The end of the one before it is no end of this one.
    seen.drop(at(11, pod()))
    assert [one.uid for one in seen.of(POOL)] == ["another"]


def test_what_has_gone_is_told_and_known_no_more(seen: Seen[observe.Pod], told: list[str]) -> None:
    seen.put(at(1, pod()))
    seen.drop(at(2, pod()))
    assert told == [POOL] * 2
    assert (seen.of(POOL), seen.pools()) == ([], [])


def test_what_lost_its_labels_has_gone_from_its_pool(seen: Seen[observe.Pod]) -> None:
    seen.put(at(1, pod()))
    # As the watch tells it: deleted, with the labels that it has now.
    seen.drop(at(2, pod(), labels={}))
    assert seen.pools() == []


def test_a_list_is_all_there_is_even_when_the_cluster_was_put_back(
    seen: Seen[observe.Pod], told: list[str]
) -> None:
    seen.put(at(10, pod("gone")))
    seen.put(at(11, pod("stays", **waiting("ErrImagePull", "not found"))))
    told.clear()
    seen.replace([at(4, pod("stays"))])
    assert [(one.name, one.trouble) for one in seen.of(POOL)] == [("stays", None)]
    assert told == [POOL]
    told.clear()
    seen.replace([at(5, pod("stays"))])
    assert told == []


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {names.RUNTIME: POOL},
        {names.MANAGED_BY: names.MANAGER},
        {names.MANAGED_BY: "helm", names.RUNTIME: POOL},
        {names.MANAGED_BY: names.MANAGER, names.RUNTIME: "not-an-id"},
        {names.MANAGED_BY: names.MANAGER, names.RUNTIME: POOL.upper()},
    ],
    ids=str,
)
def test_what_is_not_qinlings_is_not_seen(
    seen: Seen[observe.Pod], told: list[str], labels: dict[str, str]
) -> None:
    seen.put(at(1, pod(), labels=labels))
    seen.replace([at(1, pod(), labels=labels)])
    assert (seen.pools(), told) == ([], [])
