"""Workers that were lost soon after they were claimed, and how long their function then waits.

A function can end its own worker, at its import or whenever it likes. It gets
another one, but not worker after worker of the pool that others need too: after
some losses in a row the next claim waits, twice as long each time. Kept by each
engine for itself: with several of them it costs a pool that many times as much,
and no more.
"""

import threading
import time
from dataclasses import dataclass

#: A worker that has lived so long (seconds) was of use.
USEFUL_AGE = 10.0
# Losses in a row that cost no wait; the first wait and the longest one (seconds). No longer, as
# it may have been the host's doing, and a function is to be served again soon after that.
_FREE = 3
_PAUSE = 0.5
_MAX_PAUSE = 5.0
_MAX_DOUBLINGS = 4

# A function at a revision: new code starts anew.
Revision = tuple[str, int]


@dataclass(slots=True)
class _Row:
    """Losses in a row; ``until``: when the next claim is due, on the monotonic clock."""

    count: int = 0
    until: float = 0.0


class Losses:
    """Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[Revision, _Row] = {}

    def count(self, which: Revision) -> float:
        """A worker was lost; seconds until the next one may be claimed."""
        now = time.monotonic()
        with self._lock:
            # Those whose last worker has been of use, or was wanted no more.
            for each, row in list(self._rows.items()):
                if now - row.until > USEFUL_AGE:
                    del self._rows[each]
            row = self._rows.setdefault(which, _Row())
            row.count += 1
            pause = 0.0
            if row.count > _FREE:
                doublings = min(row.count - _FREE - 1, _MAX_DOUBLINGS)
                pause = min(_PAUSE * 2.0**doublings, _MAX_PAUSE)
            row.until = now + pause
            return pause

    def wait(self, which: Revision) -> float:
        """Seconds until a worker may be claimed; 0 for now."""
        with self._lock:
            row = self._rows.get(which)
            return 0.0 if row is None else max(0.0, row.until - time.monotonic())
