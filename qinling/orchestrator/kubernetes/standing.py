"""How Qinling stands with the API server: whether that is away, or wants to be left alone.

For the client. Many pools meet the same trouble at once; it is told in the log
once, and a server that names a time in which it wants no requests gets none from
any of them.
"""

import math
import threading
import time

from oslo_log import log

from qinling import exceptions

LOG = log.getLogger(__name__)

# Seconds after which a cause that was not met any more is told again.
_QUIET = 120.0
# The longest time (seconds) that a server is left alone, whatever it says.
_LONGEST = 30.0


class Standing:
    """Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # When each cause was met last.
        self._causes: dict[str, float] = {}
        self._until = float("-inf")

    def check(self) -> None:
        """:raises ClusterAway: the server wants to be left alone."""
        left = self._until - time.monotonic()
        if left > 0:
            raise exceptions.ClusterAway(
                "The cluster cannot answer now: it has asked for a pause", None, math.ceil(left)
            )

    def away(self, error: exceptions.ClusterAway) -> exceptions.ClusterAway:
        """Note a trouble, and tell of it unless that was done just now; returns it."""
        cause, now = str(error).partition(": ")[0], time.monotonic()
        with self._lock:
            told = self._causes.get(cause, float("-inf")) > now - _QUIET
            self._causes[cause] = now
            if error.retry_after:
                self._until = max(self._until, now + min(error.retry_after, _LONGEST))
        if not told:
            LOG.warning("%s", error)
        return error

    def well(self) -> None:
        """All that is on the cluster is followed again."""
        with self._lock:
            was_away = bool(self._causes)
            self._causes.clear()
        if was_away:
            LOG.info("The cluster is followed again.")
