"""What has been seen on the cluster, by pool. Filled by watches and by Qinling's own writes."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qinling.orchestrator.kubernetes import names

Object = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    uid: str
    version: int
    value: T


class Seen(Generic[T]):
    """Objects of one kind, each as what ``read`` makes of it.

    :param changed: called with a pool's id when a value is not equal to the
        one before it, or is gone. Called without any lock held.
    """

    def __init__(self, read: Callable[[Object], T], changed: Callable[[str], None]) -> None:
        self._read = read
        self._changed = changed
        self._lock = threading.Lock()
        self._pools: dict[str, dict[str, _Entry[T]]] = {}

    def put(self, item: Object) -> None:
        """See an object; one older than what is known under its name is dropped.

        Versions of one kind can be compared as numbers since Kubernetes 1.35
        (KEP-5504), and etcd has always made them so.
        """
        if (pool_id := names.pool_of(item)) is not None:
            meta = item["metadata"]
            entry = _Entry(meta["uid"], int(meta["resourceVersion"]), self._read(item))
            with self._lock:
                entries = self._pools.setdefault(pool_id, {})
                old = entries.get(meta["name"])
                if old is not None and old.uid == entry.uid and old.version >= entry.version:
                    return
                entries[meta["name"]] = entry
            if old is None or old.value != entry.value:
                self._changed(pool_id)

    def drop(self, item: Object) -> None:
        """See that an object is gone, or is no longer one of ours."""
        meta = item["metadata"]
        with self._lock:
            gone = [
                (pool_id, entries)
                for pool_id, entries in self._candidates(item)
                if meta["name"] in entries and entries[meta["name"]].uid == meta["uid"]
            ]
            for pool_id, entries in gone:
                del entries[meta["name"]]
                if not entries:
                    del self._pools[pool_id]
        for pool_id, _ in gone:
            self._changed(pool_id)

    def replace(self, items: Iterable[Object]) -> None:
        """See all there is: whatever else was known is gone, however new it was."""
        fresh: dict[str, dict[str, _Entry[T]]] = {}
        for item in items:
            if (pool_id := names.pool_of(item)) is not None:
                meta = item["metadata"]
                fresh.setdefault(pool_id, {})[meta["name"]] = _Entry(
                    meta["uid"], int(meta["resourceVersion"]), self._read(item)
                )
        with self._lock:
            old, self._pools = self._pools, fresh
            changed = [
                pool_id
                for pool_id in old.keys() | fresh.keys()
                if _values(old.get(pool_id, {})) != _values(fresh.get(pool_id, {}))
            ]
        for pool_id in changed:
            self._changed(pool_id)

    def get(self, pool_id: str, name: str) -> T | None:
        """What a pool has under a name."""
        with self._lock:
            entry = self._pools.get(pool_id, {}).get(name)
        return None if entry is None else entry.value

    def of(self, pool_id: str) -> list[T]:
        """What a pool has."""
        with self._lock:
            return [entry.value for entry in self._pools.get(pool_id, {}).values()]

    def pools(self) -> list[str]:
        """Ids of the pools that have anything."""
        with self._lock:
            return list(self._pools)

    def _candidates(self, item: Object) -> list[tuple[str, dict[str, _Entry[T]]]]:
        """Where an object may be: its labels may have been taken away by hand."""
        pool_id = names.pool_of(item)
        if pool_id in self._pools:
            return [(pool_id, self._pools[pool_id])]
        return list(self._pools.items())


def _values(entries: Mapping[str, _Entry[T]]) -> dict[str, T]:
    return {name: entry.value for name, entry in entries.items()}
