"""The keyed work queue of an engine. It knows no noun.

A key is (kind, id). Each key is with at most one thread at a time; adding a
key that waits already changes nothing but its turn, and adding one that is
being worked on brings it back once afterwards. A key whose work raised comes
back later and later, with jitter; success forgets that.
"""

import heapq
import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from oslo_log import log

from qinling import context, exceptions

LOG = log.getLogger(__name__)

# Seconds before a key whose work failed is tried again, and the longest such pause.
_BACKOFF = 0.2
_MAX_BACKOFF = 60.0
# A pool is busy for milliseconds: so many tries in a row, a tenth of a second
# apart, are no failure.
_BUSY_TRIES = 50


class Key(NamedTuple):
    kind: str
    id: str


# Looks at one id; returns the seconds after which to look again, None for "when told".
Reconcile = Callable[[str], float | None]


@dataclass(slots=True)
class _Slot:
    """A key that waits or is worked on. ``turn`` names its valid heap entry."""

    due: float
    turn: int
    active: bool = False
    again: float | None = None
    failures: int = 0
    busy: int = 0
    asked_by: context.RequestContext | None = None


class Reconciler:
    """Runs ``reconciles[key.kind](key.id)`` for each key that was added."""

    def __init__(self, reconciles: Mapping[str, Reconcile], threads: int) -> None:
        self._reconciles = reconciles
        self._condition = threading.Condition()
        self._slots: dict[Key, _Slot] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._turns = itertools.count()
        # Who of the threads waits for the time of the heap's first.
        self._timed: object | None = None
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"reconcile-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """End after the work at hand, waiting at most ``timeout`` seconds for it."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def add(self, key: Key, asked_by: context.RequestContext | None = None) -> None:
        """Look at ``key`` now: something about it changed. Safe from any thread."""
        with self._condition:
            slot = self._slots.get(key)
            if slot is not None:
                slot.asked_by = asked_by or slot.asked_by
            self._schedule(key, 0.0, asked_by)

    def offer(self, key: Key) -> None:
        """Look at ``key`` unless that is due anyway: a resync came past it."""
        with self._condition:
            if key not in self._slots:
                self._schedule(key, 0.0)

    def look(self, key: Key) -> None:
        """As ``offer``, but in the thread that calls, which has nothing to do meanwhile."""
        with self._condition:
            if key in self._slots:
                return
            slot = self._slots[key] = _Slot(time.monotonic(), -1, active=True)
        self._work(key, slot)

    def _schedule(
        self, key: Key, delay: float, asked_by: context.RequestContext | None = None
    ) -> None:
        due = time.monotonic() + delay
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(due, -1, asked_by=asked_by)
        elif slot.active:
            slot.again = due if slot.again is None else min(due, slot.again)
            return
        elif slot.turn >= 0 and slot.due <= due:
            return
        slot.due, slot.turn = due, next(self._turns)
        heapq.heappush(self._heap, (due, slot.turn, key))
        if self._heap[0][1] == slot.turn:
            # It comes first: whoever is told waits for this one now.
            self._timed = None
            self._condition.notify()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            key, slot = taken
            self._work(key, slot)

    def _take(self) -> tuple[Key, _Slot] | None:
        """The next key that is due, waiting for it; None at the end.

        Only one of the threads that wait does so with a timeout, the others until they are told:
        a time that comes wakes one thread and not all of them.
        """
        with self._condition:
            while not self._stopping:
                pause = self._until_due()
                if pause is not None and pause <= 0:
                    key = heapq.heappop(self._heap)[2]
                    slot = self._slots[key]
                    slot.active, slot.turn = True, -1
                    if self._heap:
                        self._condition.notify()
                    return key, slot
                if pause is None or self._timed:
                    self._condition.wait()
                    continue
                self._timed = mine = object()
                self._condition.wait(pause)
                if self._timed is mine:
                    self._timed = None
            return None

    def _until_due(self) -> float | None:
        """Seconds until the first of the heap is due, None while nothing waits."""
        while self._heap:
            due, turn, key = self._heap[0]
            slot = self._slots.get(key)
            if slot is not None and slot.turn == turn and not slot.active:
                return due - time.monotonic()
            heapq.heappop(self._heap)  # a turn that was brought forward
        return None

    def _work(self, key: Key, slot: _Slot) -> None:
        asked_by, slot.asked_by = slot.asked_by, None
        if asked_by is not None:
            asked_by.update_store()
        else:
            context.clear()
        pause: float | None
        try:
            pause = self._reconciles[key.kind](key.id)
            failed, slot.busy = False, 0
        except exceptions.PoolBusy as error:
            pause, failed = random.uniform(0.05, 0.15), False  # nosec B311
            slot.busy += 1
            if slot.busy > _BUSY_TRIES:
                pause = _backoff(slot.busy - _BUSY_TRIES)
                self._tell(key, error, pause)
        except Exception as error:
            # Not all at once who were refused with the same words.
            pause, failed = _asked_for(error) + _backoff(slot.failures), True
            self._tell(key, error, pause)
        with self._condition:
            slot.active = False
            slot.failures = slot.failures + 1 if failed else 0
            again, slot.again = slot.again, None
            if again is not None and not failed:
                pause = 0.0
            if pause is None:
                del self._slots[key]
            else:
                self._schedule(key, pause)

    def _tell(self, key: Key, error: Exception, pause: float) -> None:
        """Known troubles in a line; what nobody expected with its traceback."""
        words = "Looking at %s %s failed; again in %.1f s: %s"
        if isinstance(error, exceptions.ClusterAway):
            LOG.debug(words, key.kind, key.id, pause, error)
        elif isinstance(error, exceptions.QinlingError):
            LOG.warning(words, key.kind, key.id, pause, error)
        else:
            LOG.error(words, key.kind, key.id, pause, error, exc_info=error)


def _backoff(failures: int) -> float:
    """Full-jitter exponential back-off, never under half of its bound."""
    bound = min(_BACKOFF * 2.0 ** min(failures, 20), _MAX_BACKOFF)
    return random.uniform(bound / 2, bound)  # nosec B311


def _asked_for(error: Exception) -> float:
    """Seconds for which whoever refused wants to be left alone."""
    asked = error.retry_after if isinstance(error, exceptions.OrchestratorError) else None
    return min(float(asked or 0), _MAX_BACKOFF)
