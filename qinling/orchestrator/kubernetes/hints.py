"""More words on why a worker does not come up: the end of its log, or an event.

Asked for one pod of a pool at a time, once for each crash, and kept until the
pod is gone.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from oslo_log import log

from qinling import exceptions
from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.kubernetes.observe import Pod, Trouble

LOG = log.getLogger(__name__)

# Lines and bytes of a log.
_LINES = 3
_BYTES = 1024
# Seconds that a pod may be starting before its events are asked for, and between two such looks.
_SLOW = 20.0
_EVENTS_EVERY = 60.0


@dataclass(slots=True)
class _Known:
    """What was found out about one pod."""

    since: float
    asked: float = float("-inf")
    restarts: int = -1
    words: str = ""


class Hints:
    """:param namespace: of the pods."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._path = f"/api/v1/namespaces/{namespace}"
        self._lock = threading.Lock()
        self._pools: dict[str, dict[str, _Known]] = {}

    def of(self, pool_id: str, pods: Sequence[Pod]) -> dict[str, str]:
        """Words by pod uid.

        :param pods: those of the pool that are not ready; the others are forgotten.
        """
        now = time.monotonic()
        with self._lock:
            if not pods:
                self._pools.pop(pool_id, None)
                return {}
            before = self._pools.get(pool_id, {})
            known = {one.uid: before.get(one.uid) or _Known(since=now) for one in pods}
            self._pools[pool_id] = known
        newest = max(pods, key=lambda one: (one.created, one.name))
        entry = known[newest.uid]
        if newest.trouble is Trouble.CRASH:
            if entry.restarts != newest.restarts:
                entry.restarts = newest.restarts
                entry.words = self._log(newest) or entry.words
        elif newest.trouble is None and now - entry.since >= _SLOW:
            if now - entry.asked >= _EVENTS_EVERY:
                entry.asked = now
                entry.words = self._event(newest)
        elif newest.trouble is None:
            entry.words = ""
        return {uid: each.words for uid, each in known.items() if each.words}

    def forget(self, pool_id: str) -> None:
        with self._lock:
            self._pools.pop(pool_id, None)

    def _log(self, pod: Pod) -> str:
        """The last lines of the run that crashed."""
        query = {"tailLines": str(_LINES), "limitBytes": str(_BYTES)}
        try:
            text = self._client.text(
                f"{self._path}/pods/{pod.name}/log",
                query | {"previous": "true"} if pod.restarts else query,
            )
        except exceptions.OrchestratorError as error:
            LOG.debug("The log of pod %s cannot be read: %s", pod.name, error)
            return ""
        return " | ".join(line.strip() for line in text.splitlines() if line.strip())

    def _event(self, pod: Pod) -> str:
        """The last warning about a pod that does not get on."""
        query = {
            "fieldSelector": f"involvedObject.uid={pod.uid},type=Warning",
            "limit": "50",
        }
        try:
            events = self._client.get(f"{self._path}/events", query).get("items") or []
        except exceptions.OrchestratorError as error:
            LOG.debug("The events of pod %s cannot be read: %s", pod.name, error)
            return ""
        if not events:
            return ""
        last = max(events, key=lambda event: str(event.get("lastTimestamp") or ""))
        return f"{last.get('reason')}: {last.get('message')}"
