"""What has been seen on the cluster, by pool. Filled by watches and by Qinling's own writes."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qinling.orchestrator.kubernetes import names

Object = Mapping[str, Any]
T = TypeVar("T")

# Ends that are remembered: an answer that is later than so many of them is no longer under way.
_ENDS = 1000


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    uid: str
    version: int
    value: T


class Seen(Generic[T]):
    """Objects of one kind, each as what ``read`` makes of it.

    :param changed: called with a pool's id when a value is not equal to the
        one before it, or is gone. Called without any lock held.
    :param owner: whose an object is: in the place of a pool it may be something else.
    """

    def __init__(
        self,
        read: Callable[[Object], T],
        changed: Callable[[str], None],
        owner: Callable[[Object], str | None] = names.pool_of,
    ) -> None:
        self._read = read
        self._changed = changed
        self._owner = owner
        self._lock = threading.Lock()
        self._pools: dict[str, dict[str, _Entry[T]]] = {}
        # The pool that has each name, which no two objects of a namespace have.
        self._homes: dict[str, str] = {}
        # The versions at which objects ended, by uid: an answer to a write of before comes late.
        self._ends: dict[str, int] = {}

    def put(self, item: Object) -> None:
        """See an object; one older than what is known of it, or than its end, is dropped.

        Versions of one kind can be compared as numbers since Kubernetes 1.35
        (KEP-5504), and etcd has always made them so.
        """
        if (pool_id := self._owner(item)) is None:
            return
        name, entry = self._entry(item)
        with self._lock:
            home = self._homes.get(name)
            old = None if home is None else self._pools[home][name]
            if old is not None and old.uid == entry.uid and old.version >= entry.version:
                return
            if self._ends.get(entry.uid, -1) >= entry.version:
                return
            if home is not None and home != pool_id:
                # Its labels were changed by hand.
                self._remove(home, name)
            self._pools.setdefault(pool_id, {})[name] = entry
            self._homes[name] = pool_id
        if home is not None and home != pool_id:
            self._changed(home)
        if home != pool_id or old is None or old.value != entry.value:
            self._changed(pool_id)

    def drop(self, item: Object) -> None:
        """See that an object is gone, or is no longer one of ours."""
        meta = item["metadata"]
        with self._lock:
            self._ends[meta["uid"]] = int(meta["resourceVersion"])
            if len(self._ends) > _ENDS:
                del self._ends[next(iter(self._ends))]
        self.forget(meta["name"], meta["uid"])

    def forget(self, name: str, uid: str) -> None:
        """An object that was known is not there, says the cluster."""
        with self._lock:
            home = self._homes.get(name)
            # The end of one before it is no end of what has its name now.
            if home is None or self._pools[home][name].uid != uid:
                return
            self._remove(home, name)
        self._changed(home)

    def replace(self, items: Iterable[Object]) -> None:
        """See all there is: whatever else was known is gone, however new it was.

        Each item is read as it comes, so that no more than the small values are
        kept of them; should the items end in an error, nothing has changed.
        """
        fresh: dict[str, dict[str, _Entry[T]]] = {}
        for item in items:
            if (pool_id := self._owner(item)) is not None:
                name, entry = self._entry(item)
                fresh.setdefault(pool_id, {})[name] = entry
        homes = {name: pool_id for pool_id, entries in fresh.items() for name in entries}
        with self._lock:
            old, self._pools, self._homes = self._pools, fresh, homes
            # Where a cluster was put back, what ended later lives.
            self._ends.clear()
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

    def _entry(self, item: Object) -> tuple[str, _Entry[T]]:
        meta = item["metadata"]
        return meta["name"], _Entry(meta["uid"], int(meta["resourceVersion"]), self._read(item))

    def _remove(self, pool_id: str, name: str) -> None:
        del self._homes[name]
        entries = self._pools[pool_id]
        del entries[name]
        if not entries:
            del self._pools[pool_id]


def _values(entries: Mapping[str, _Entry[T]]) -> dict[str, T]:
    return {name: entry.value for name, entry in entries.items()}
