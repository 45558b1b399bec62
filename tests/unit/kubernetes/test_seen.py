"""What has been seen: the newest of each object, and a word only when it makes a difference."""

from collections.abc import Iterator
from typing import Any

import pytest

from qinling import exceptions
from qinling.orchestrator.kubernetes import names, observe
from qinling.orchestrator.kubernetes import seen as seen_module
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


def test_an_answer_that_comes_after_the_end_brings_nothing_back(
    seen: Seen[observe.Pod], told: list[str]
) -> None:
    seen.put(at(1, pod()))
    seen.drop(at(5, pod()))
    told.clear()
    seen.put(at(4, pod()))
    assert (seen.pools(), told) == ([], [])
    # Though nothing had been seen of it before its end.
    seen.drop(at(9, pod("other")))
    seen.put(at(8, pod("other")))
    assert (seen.pools(), told) == ([], [])
    # Its labels were taken away, and put back.
    seen.put(at(6, pod()))
    assert [one.name for one in seen.of(POOL)] == ["pod-1"]


def test_ends_are_remembered_until_there_are_many_or_all_is_listed(
    seen: Seen[observe.Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_module, "_ENDS", 2)
    for number in range(3):
        seen.drop(at(5, pod(f"pod-{number}")))
    for number in range(3):
        seen.put(at(4, pod(f"pod-{number}")))
    assert [one.name for one in seen.of(POOL)] == ["pod-0"]
    # A cluster that was put back has what ended later.
    seen.replace([])
    seen.put(at(4, pod("pod-2")))
    assert [one.name for one in seen.of(POOL)] == ["pod-2"]


def test_what_the_cluster_says_is_not_there_is_known_no_more(
    seen: Seen[observe.Pod], told: list[str]
) -> None:
    seen.put(at(1, pod()))
    told.clear()
    seen.forget("pod-1", "another")
    seen.forget("pod-2", "uid-of-pod-1")
    assert (seen.pools(), told) == ([POOL], [])
    seen.forget("pod-1", "uid-of-pod-1")
    assert (seen.pools(), told) == ([], [POOL])


def test_what_is_relabelled_goes_from_one_pool_to_the_other(
    seen: Seen[observe.Pod], told: list[str]
) -> None:
    other = "6f6f6f6f-0000-4000-8000-000000000001"
    seen.put(at(1, pod()))
    told.clear()
    seen.put(at(2, pod(), labels=names.COMMON | names.pod_selector(other)))
    assert (seen.of(POOL), [one.name for one in seen.of(other)]) == ([], ["pod-1"])
    assert told == [POOL, other]
    # What is told late of it is no news, in whatever pool it was.
    seen.put(at(1, pod()))
    assert seen.pools() == [other]
    seen.drop(at(3, pod()))
    assert seen.pools() == []


def test_a_list_that_ends_in_an_error_changes_nothing(
    seen: Seen[observe.Pod], told: list[str]
) -> None:
    seen.put(at(1, pod()))
    told.clear()

    def pages() -> Iterator[Object]:
        yield at(2, pod("other"))
        raise exceptions.ClusterAway("cut")

    with pytest.raises(exceptions.ClusterAway):
        seen.replace(pages())
    assert ([one.name for one in seen.of(POOL)], told) == (["pod-1"], [])


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
