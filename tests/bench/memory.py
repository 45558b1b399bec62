"""An orchestrator that is nowhere but in memory, for figures about the engine alone."""

import threading
from collections import Counter
from collections.abc import Collection, Mapping

from qinling import exceptions
from qinling.orchestrator import base


class NoRuns:
    """No function is an image here."""

    def ids(self) -> list[str]:
        return []


class MemoryOrchestrator:
    """Implements ``base.Orchestrator``: a pool is ready as soon as it was asked for, and says so.

    :param complete: pools that it was never asked for are there, whole, as after a restart of the
        engine, and so are claimed workers; otherwise there is nothing at first.
    """

    one_host = False
    runs = NoRuns()

    def __init__(self, *, complete: bool = False) -> None:
        self._complete = complete
        self._lock = threading.Lock()
        self._specs: dict[str, base.PoolSpec] = {}
        #: How often each pool was looked at.
        self.looks: Counter[str] = Counter()

    def start(self, notify: base.Notify) -> None:
        self._notify = notify

    def stop(self) -> None:
        return

    def apply(self, spec: base.PoolSpec) -> base.PoolState:
        with self._lock:
            self.looks[spec.id] += 1
            known = self._specs.get(spec.id)
            if known is not None and known.revision > spec.revision:
                raise exceptions.StaleRevision(
                    f"Pool {spec.id} is at revision {known.revision}, not {spec.revision}.",
                    revision=known.revision,
                )
            self._specs[spec.id] = spec
            ready = known == spec or (known is None and self._complete)
        if not ready:
            # The workers come up meanwhile: this caller still sees none.
            self._notify(spec.id)
        return base.PoolState(spec.size, spec.size if ready else 0, ready=ready)

    def remove(self, pool_id: str, revision: int | None) -> bool:
        with self._lock:
            self.looks[pool_id] += 1
            self._specs.pop(pool_id, None)
        return True

    def pools(self) -> list[str]:
        with self._lock:
            return list(self._specs)

    def claim(self, _pool_id: str) -> base.Worker | None:
        raise AssertionError("no function wants a worker here")

    def claimed(self, _pool_id: str, known: Collection[str] = ()) -> Mapping[str, bool]:
        return dict.fromkeys(known, True) if self._complete else {}

    def release(self, _pool_id: str, _worker_id: str) -> bool:
        raise AssertionError("no function has a worker here")
