"""Lists: read page by page, and what they say counts when the last page is there."""

from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from qinling import exceptions
from qinling.orchestrator.kubernetes import observe
from qinling.orchestrator.kubernetes.nodes import Nodes
from qinling.orchestrator.kubernetes.seen import Seen
from qinling.orchestrator.kubernetes.watch import Watcher
from tests.unit.kubernetes.objects import POOL, Object, pod


class Api:
    """A double of the client, which answers a list in pages of one."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.read: list[str] = []
        self.read_before_each: list[list[str]] = []
        self.shown_before_each: list[int] = []
        self.seen: Seen[observe.Pod]

    def get(self, path: str, query: Mapping[str, str]) -> Object:
        self.read_before_each.append(list(self.read))
        self.shown_before_each.append(len(self.seen.of(POOL)))
        number = int(query.get("continue", "0"))
        more: dict[str, Any] = {"continue": str(number + 1)} if self._names[number + 1 :] else {}
        return {"metadata": {"resourceVersion": "60"} | more, "items": [pod(self._names[number])]}


def test_a_list_is_read_page_by_page_and_counts_as_a_whole(conf: cfg.ConfigOpts) -> None:
    api = Api(["a", "b", "c"])

    def read(item: Object) -> observe.Pod:
        api.read.append(item["metadata"]["name"])
        return observe.pod(item)

    api.seen = Seen(read, lambda _: None)  # type: ignore[arg-type]
    watcher = Watcher(api, "/pods", api.seen, lambda: None, 600)  # type: ignore[arg-type]
    watcher._list()
    # No page is kept until the others are there.
    assert api.read_before_each == [[], ["a"], ["a", "b"]]
    assert api.shown_before_each == [0, 0, 0]
    assert sorted(one.name for one in api.seen.of(POOL)) == ["a", "b", "c"]
    assert watcher._version == "60"


def test_nodes_that_may_not_be_seen_any_more_are_taken_for_cordoned_no_longer() -> None:
    class Refusing:
        def get(self, path: str, query: Mapping[str, str]) -> Object:
            raise exceptions.ClusterRefusal("nodes is forbidden", 403)

    changed: list[str] = []
    nodes = Nodes(Refusing(), 600, changed.append)  # type: ignore[arg-type]
    meta = {"name": "node1", "uid": "n", "resourceVersion": "5"}
    nodes._seen.put({"metadata": meta, "spec": {"unschedulable": True}})
    assert nodes.is_cordoned("node1")
    assert nodes._watcher._step() is not None
    assert not nodes.is_cordoned("node1")
    assert changed == ["node1", "node1"]
    # It is asked again as late as everything would be listed anew.
    assert nodes._watcher._asked_for == 600
