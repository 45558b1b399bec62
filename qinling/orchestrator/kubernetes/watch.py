"""Following one kind of object on the cluster, for all pools together.

A list in pages, then a watch from its version on, which is resumed where it
was cut. A version that the server has forgotten (410), or does not know yet
because it was put back to an older state, means a new list. So does the end of
a watch that has lasted as long as the slow resync: an event that was lost costs
that much at most.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from oslo_log import log

from qinling import exceptions
from qinling.orchestrator.kubernetes import names
from qinling.orchestrator.kubernetes.client import Client, Watch
from qinling.orchestrator.kubernetes.seen import Seen

LOG = log.getLogger(__name__)

Object = Mapping[str, Any]

# Objects of one page of a list.
_PAGE = 500
# Seconds before a cluster that does not answer is asked again, and the longest pause.
_BACKOFF = 0.2
_MAX_BACKOFF = 30.0
# A watch that lasted so long (seconds) was well.
_LASTING = 5.0
# One that ended sooner (seconds), and brought nothing, is a server that is going.
_SHORT = 1.0
_FORBIDDEN, _GONE, _TIMEOUT = 403, 410, 504
# Failures in a row after which everything is listed anew.
_PATIENCE = 5


class Watcher:
    """A thread that keeps a ``Seen`` as the cluster is.

    :param path: of the list. :param synced: called when all that is there is
        known, and again after each time that it was not. :param relist: seconds
        after which everything is listed anew, at most. :param selector: of labels.
        :param optional: Qinling need not be allowed to see it. That is no trouble then,
        nothing is known, and it is asked for again no sooner than all is listed anew.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        seen: Seen[Any],
        synced: Callable[[], None],
        relist: float,
        selector: str = names.SELECTOR,
        *,
        optional: bool = False,
    ) -> None:
        self._selector = selector
        self._optional = optional
        self._client = client
        self._path = path
        self._seen = seen
        self._synced = synced
        self._relist = relist
        self._version: str | None = None
        # Until the first list nobody knows of any trouble: whoever asks is to ask again.
        self._trouble: exceptions.OrchestratorError | None
        self._trouble = exceptions.PoolBusy(f"{path} has not been listed yet")
        self._failures = 0
        # Whether the last watch, or list, came to no good end.
        self._cut = False
        # Seconds for which the server wants to be left alone, or has nothing for Qinling.
        self._asked_for = 0.0
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        self._stopping.set()
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        self._thread.join(timeout)

    @property
    def trouble(self) -> exceptions.OrchestratorError | None:
        """Why what has been seen may be old, to be raised; None while it is followed."""
        return self._trouble

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._asked_for = 0.0
            trouble = self._step()
            if trouble is None or self._stopping.is_set():
                continue
            self._cut = True
            # A watch that is cut once, or forgotten, is no trouble yet.
            if self._failures or self._trouble is not None:
                self._trouble = exceptions.ClusterAway(trouble)
            bound = min(_BACKOFF * 2.0 ** min(self._failures, 20), _MAX_BACKOFF)
            pause = random.uniform(bound / 2, bound)  # nosec B311
            self._stopping.wait(max(pause, self._asked_for))
            self._failures += 1

    def _step(self) -> str | None:
        """List where that is due, and follow one watch to its end; what went wrong."""
        try:
            if self._version is None:
                self._list()
            self._follow()
        except exceptions.ClusterRefusal as error:
            self._version = None
            if error.status == _GONE:
                return f"What happened meanwhile is forgotten, and is listed anew: {self._path}"
            if error.status == _FORBIDDEN and self._optional:
                self._seen.replace(())
                self._asked_for = self._relist
                if not self._failures:
                    LOG.info("%s is not followed, which is not granted: %s", self._path, error)
                return f"It is not granted to follow {self._path}"
            said = f"The cluster cannot be watched ({error.status}): {self._path}: {error}"
            return str(self._client.away(said))
        except exceptions.ClusterAway as error:
            self._asked_for = min(error.retry_after or 0, _MAX_BACKOFF)
            if error.status == _TIMEOUT or (error.status and self._failures >= _PATIENCE):
                # It may be that it does not know the version: it was put back to an older state.
                self._version = None
            return str(error)
        except Exception as error:
            LOG.exception("The watch of %s begins anew", self._path)
            self._version = None
            # Not its text, which may quote anything.
            return f"The cluster cannot be watched: {self._path}: {type(error).__name__}"
        return None

    def _list(self) -> None:
        self._seen.replace(self._all())

    def _all(self) -> Iterator[Object]:
        """All there is, page by page; afterwards its version is known."""
        query = {"labelSelector": self._selector, "limit": str(_PAGE)}
        while True:
            page = self._client.get(self._path, query)
            yield from page.get("items") or []
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        self._version = page["metadata"]["resourceVersion"]

    def _follow(self) -> None:
        query = {
            "labelSelector": self._selector,
            "resourceVersion": str(self._version),
            "allowWatchBookmarks": "true",
        }
        # Spread, so that the watches of many engines do not end together.
        seconds = max(1, int(self._relist * random.uniform(0.5, 1.0)))  # nosec B311
        began = time.monotonic()
        with self._client.watch(self._path, query, seconds) as watch:
            with self._lock:
                self._watch = watch
            if self._stopping.is_set():
                return
            if self._trouble is not None:
                self._trouble = None
                self._synced()
            elif self._cut:
                # It was away too shortly for a trouble here, but others may have met it.
                self._client.well()
            self._cut = False
            try:
                brought = False
                for event in watch:
                    self._take(event["type"], event["object"])
                    brought = True
            finally:
                with self._lock:
                    self._watch = None
                if time.monotonic() - began > _LASTING:
                    self._failures = 0
            lasted = time.monotonic() - began
            if lasted >= seconds - 1:
                self._version = None
            elif lasted < _SHORT and not brought and not self._stopping.is_set():
                raise self._client.away(f"A watch ended at once: {self._path}")

    def _take(self, kind: str, item: Object) -> None:
        if kind == "ERROR":
            raise exceptions.ClusterRefusal(str(item.get("message")), int(item.get("code") or 0))
        if kind == "DELETED":
            self._seen.drop(item)
        elif kind != "BOOKMARK":
            self._seen.put(item)
        self._version = item["metadata"]["resourceVersion"]
