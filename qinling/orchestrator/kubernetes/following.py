"""Whether what has been seen of the cluster is how it is, and who waits for that."""

import threading
import time
from collections.abc import Callable, Sequence

from qinling.orchestrator import base
from qinling.orchestrator.kubernetes.watch import Watcher


class Following:
    """All that is followed for pools. Nobody relies on what is seen while a watcher is in trouble.

    :ivar since: when all of it was out of sight last (seconds since 1970).
    :param back: called when it has come into sight again.
    """

    def __init__(self, notify: base.Notify, back: Callable[[], None]) -> None:
        self.since = time.time()
        self._notify = notify
        self._back = back
        self._watchers: Sequence[Watcher] = ()
        # Pools that were asked for meanwhile.
        self._waiting: set[str] = set()
        self._lock = threading.Lock()

    def start(self, *watchers: Watcher) -> None:
        """:param watchers: each calls ``synced``."""
        self._watchers = watchers
        for watcher in watchers:
            watcher.start()

    def stop(self, timeout: float) -> None:
        for watcher in self._watchers:
            watcher.stop(timeout)

    def check(self, pool_id: str | None) -> None:
        """:raises ClusterAway, PoolBusy: what has been seen may be old."""
        # Before the look at the watches, so that their next word reaches whoever is refused here.
        self._note(pool_id, waits=True)
        for watcher in self._watchers:
            trouble = watcher.trouble
            if trouble is not None:
                # Another one for each thread: what is raised keeps the way that it took.
                raise type(trouble)(str(trouble))
        self._note(pool_id, waits=False)

    def synced(self) -> None:
        """One of the watchers is out of its trouble."""
        if any(watcher.trouble is not None for watcher in self._watchers):
            return
        self._back()
        self.since = time.time()
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for pool_id in waiting:
            self._notify(pool_id)

    def _note(self, pool_id: str | None, waits: bool) -> None:
        if pool_id is not None:
            with self._lock:
                (self._waiting.add if waits else self._waiting.discard)(pool_id)
