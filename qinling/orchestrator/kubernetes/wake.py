"""When to wake a ReplicaSet that may create no pod.

It tries again at gaps that double, up to minutes, long after a quota was
raised. A change of its Deployment's annotations makes it try at once. That is a
write, so pools take turns, and each is woken less and less often while it is
told the same, as long as one of those that are told so comes every few seconds.
For as soon as one of them gets its pods, what kept the others from theirs may be
gone too: it calls a few of them, and each of those a few more. So a cause that
has gone is gone for all of them after a few rounds, and room for one pool more
costs a few writes, however many wait.
"""

import random
import threading
import time
from dataclasses import dataclass

from qinling.orchestrator import base

# Seconds within which a pool is woken for the first time, and the longest such bound; each is twice
# the last. Pools come at a random moment of its second half: of many, one is soon the next.
_FIRST = 5.0
_LONGEST = 60.0
# Seconds within which one of the pools that wait for the same is woken, while they are few.
_ONE_OF_THEM = 10.0
# Seconds between the wakings of any two pools which nothing but their time calls.
_SPACING = 0.2
# Pools that one which has got its pods calls.
_CALLED = 3


@dataclass(slots=True)
class _Refused:
    """A pool that may create no pod: why, since when it is not woken, and when it will be."""

    cause: str
    since: float
    bound: float
    due: float
    called: bool = False


def _refused(cause: str, now: float, bound: float) -> _Refused:
    return _Refused(cause, now, bound, now + random.uniform(bound / 2, bound))  # nosec B311


class Waker:
    """:param notify: called with the pools to be looked at again."""

    def __init__(self, notify: base.Notify) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._pools: dict[str, _Refused] = {}
        self._last = float("-inf")

    def is_due(self, pool_id: str) -> bool:
        """Whether to wake a pool now."""
        now = time.monotonic()
        with self._lock:
            refused = self._pools.get(pool_id)
            if refused is None or refused.called:
                return refused is not None
            if refused.due > now or self._last + _SPACING > now:
                return False
            self._last = now
            return True

    def woken(self, pool_id: str) -> None:
        """Its Deployment has changed; if that does not help, the next time is later."""
        with self._lock:
            if (refused := self._pools.get(pool_id)) is not None:
                kind = _kind(refused.cause)
                alike = sum(_kind(other.cause) == kind for other in self._pools.values())
                bound = min(refused.bound * 2, _ONE_OF_THEM * alike, _LONGEST)
                self._pools[pool_id] = _refused(refused.cause, time.monotonic(), bound)

    def look(self, pool_id: str, cause: str | None) -> float | None:
        """Note why a pool may create no pod, None for one that may.

        Returns the seconds until it is to be looked at, None for when told.
        """
        now = time.monotonic()
        with self._lock:
            if cause is not None:
                refused = self._pools.get(pool_id)
                if refused is None or refused.cause != cause:
                    refused = self._pools[pool_id] = _refused(cause, now, _FIRST)
                if refused.called:
                    return 0.0
                # Those that are due go one after the other.
                turn = sum(other.due < refused.due for other in self._pools.values())
                return max(refused.due - now, _SPACING * (1 + turn))
            healed = self._pools.pop(pool_id, None)
            called = [] if healed is None else self._call(healed.cause)
        for other in called:
            self._notify(other)
        return None

    def gone(self, pool_id: str) -> None:
        """A pool was removed; what it had may be what others lack."""
        with self._lock:
            self._pools.pop(pool_id, None)
            called = self._call("")
        for other in called:
            self._notify(other)

    def _call(self, cause: str) -> list[str]:
        """The pools to be woken next: of this kind of cause first, and who waits longest."""
        kind = _kind(cause)
        waiting = sorted(
            (_kind(refused.cause) != kind, refused.since, pool_id)
            for pool_id, refused in self._pools.items()
            if not refused.called
        )
        called = [pool_id for *_, pool_id in waiting[:_CALLED]]
        for pool_id in called:
            self._pools[pool_id].called = True
        return called


def _kind(cause: str) -> str:
    """What a cause is about, without the numbers that tell how far it has got."""
    return cause.partition(":")[0]
