"""When to wake a ReplicaSet that may create no pod.

It tries again at gaps that double, up to minutes, long after a quota was
raised. A change of its Deployment's annotations makes it try at once. That is a
write, so pools take turns; and as soon as one of them gets its pods, what kept
the others from it may be gone too.
"""

import threading
import time

from qinling.orchestrator import base

# Seconds between two wakings of one pool, and of any two pools.
_EVERY = 5.0
_SPACING = 0.2


class Waker:
    """:param notify: called with the pools to be looked at again."""

    def __init__(self, notify: base.Notify) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        # When each pool that may create no pod is to be woken next.
        self._due: dict[str, float] = {}
        self._last = 0.0

    def is_due(self, pool_id: str) -> bool:
        """Whether to wake a pool now; then its turn is taken."""
        now = time.monotonic()
        with self._lock:
            if self._due.get(pool_id, now + _EVERY) > now or self._last + _SPACING > now:
                return False
            self._due[pool_id] = now + _EVERY
            self._last = now
            return True

    def look(self, pool_id: str, cannot_create: bool) -> float | None:
        """Note how a pool is; seconds until it is to be looked at, None for when told."""
        now = time.monotonic()
        with self._lock:
            if cannot_create:
                due = self._due.setdefault(pool_id, now + _EVERY)
                return max(due - now, _SPACING)
            if self._due.pop(pool_id, None) is None:
                return None
            others = list(self._due)
            self._due = dict.fromkeys(others, now)
        for other in others:
            self._notify(other)
        return None
