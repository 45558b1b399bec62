"""Which nodes are cordoned, as far as Qinling may know.

Nodes belong to the whole cluster, and an operator need not let Qinling see them
(etc/kubernetes/nodes.yaml). Where it may not, none is taken for cordoned, and a cordoned
node's workers stay until they are evicted.
"""

from collections.abc import Callable, Mapping
from typing import Any

from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.kubernetes.seen import Seen
from qinling.orchestrator.kubernetes.watch import Watcher

_PATH = "/api/v1/nodes"


class Nodes:
    """:param changed: called with a node's name when it is cordoned, or no longer."""

    def __init__(self, client: Client, relist: float, changed: Callable[[str], None]) -> None:
        self._seen = Seen(_is_cordoned, changed, _name)
        self._watcher = Watcher(
            client, _PATH, self._seen, lambda: None, relist, selector="", optional=True
        )

    def start(self) -> None:
        self._watcher.start()

    def stop(self, timeout: float) -> None:
        self._watcher.stop(timeout)

    def is_cordoned(self, name: str) -> bool:
        return bool(self._seen.get(name, name))


def _is_cordoned(item: Mapping[str, Any]) -> bool:
    return bool((item.get("spec") or {}).get("unschedulable"))


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])
