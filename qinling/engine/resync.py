"""What makes a lost message cost a delay and nothing else.

Walks the unsettled rows often, each settled one once in a longer while, and
looks for pools that have no row. Each engine does it for itself.
"""

import datetime as dt
import threading
import time

from oslo_config import cfg
from oslo_log import log
from oslo_utils import timeutils

from qinling import context, exceptions
from qinling.db import api as db_api
from qinling.db import demands, executions, runtimes, workers
from qinling.engine import claims, images
from qinling.engine.reconciler import Key, Reconciler
from qinling.engine.runtimes import KIND
from qinling.execution.lease import Lease
from qinling.orchestrator import base

LOG = log.getLogger(__name__)

# Rows read at a time.
_PAGE = 500
# The settled rows are walked in steps of this many seconds.
_STEP = 5.0


class Resync:
    """Threads that offer keys to a reconciler."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        orchestrator: base.Orchestrator,
        reconciler: Reconciler,
        loads: Reconciler,
        lease: Lease,
    ) -> None:
        self._options = conf.engine
        self._db = db
        self._orchestrator = orchestrator
        self._reconciler = reconciler
        self._loads = loads
        self._lease = lease
        self._longest = conf.resource_limits.max_timeout + conf.execution.start_timeout
        self._stopping = threading.Event()
        self._orphans: dict[str, float] = {}
        self._walked = ""
        self._round_ends = 0.0
        self._threads = [
            threading.Thread(target=self._repeat, args=(work, pause), name=name, daemon=True)
            for name, work, pause in (
                ("unsettled", self._unsettled, self._options.unsettled_interval),
                ("settled", self._settled, min(_STEP, self._options.settled_interval / 10)),
                ("runs", self._runs, self._options.unsettled_interval),
                ("idle", self._idle, self._options.function_service_expiration / 10),
                ("orphans", self.sweep, max(1.0, self._options.orphan_grace / 10)),
            )
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=5)

    def _repeat(self, work, pause: float) -> None:  # type: ignore[no-untyped-def]
        while True:
            context.clear()
            try:
                work()
            except exceptions.ClusterAway:
                pass  # it is told, and this goes on later
            except exceptions.QinlingError as error:
                LOG.warning("The resync goes on later: %s", error)
            except Exception:
                LOG.exception("The resync goes on later")
            if self._stopping.wait(pause):
                return

    def _unsettled(self) -> None:
        after = ""
        while ids := self._db.read(runtimes.ids, settled=False, after=after, limit=_PAGE):
            for runtime_id in ids:
                self._reconciler.offer(Key(KIND, runtime_id))
            # Its pool may never be whole: its workers are looked after all the same.
            for runtime_id in self._db.read(workers.runtimes, ids):
                self._reconciler.offer(Key(claims.KIND, runtime_id))
            after = ids[-1]
        for runtime_id in {
            *self._db.read(demands.runtimes),
            *self._db.read(workers.runtimes_to_look_at),
        }:
            self._reconciler.offer(Key(claims.KIND, runtime_id))
        for worker_id in self._db.read(workers.loading):
            self._loads.offer(Key(claims.LOAD, worker_id))

    def _runs(self) -> None:
        """Offer the runs of images that no execution is under way for."""
        try:
            there = list(self._orchestrator.runs.ids())
        except exceptions.OrchestratorError as error:
            LOG.debug("The runs of images are looked at later: %s", error)
            return
        for start in range(0, len(there), _PAGE):
            ids = there[start : start + _PAGE]
            for run_id in {*ids} - self._db.read(executions.running, ids):
                self._reconciler.offer(Key(images.KIND, run_id))

    def _settled(self) -> None:
        """One step: as many rows as let the round end in time."""
        now = time.monotonic()
        if not self._walked:
            self._round_ends = now + self._options.settled_interval
        pause = min(_STEP, self._options.settled_interval / 10)
        steps = max(1.0, (self._round_ends - now) / pause)
        total = self._db.read(runtimes.count, settled=True, after=self._walked)
        ids = self._db.read(
            runtimes.ids, settled=True, after=self._walked, limit=int(total / steps) + 1
        )
        for runtime_id in ids:
            # One after the other: side by side, Python's threads make each cost thrice as much.
            self._reconciler.look(Key(KIND, runtime_id))
        # Most runtimes have no worker out; what their pools have lost, events tell.
        for runtime_id in self._db.read(workers.runtimes, ids):
            self._reconciler.look(Key(claims.KIND, runtime_id))
        for worker_id in self._db.read(workers.ready, ids):
            self._loads.look(Key(claims.LOAD, worker_id))
        # An empty step ends the round; the next one begins at the first row.
        self._walked = ids[-1] if ids else ""

    def _idle(self) -> None:
        """Let go of the workers of functions that nobody has run for long."""
        # Not counted is the time for which the longest execution may still be running, nor that
        # for which nobody says again that it is used.
        kept = self._options.function_service_expiration + self._longest + demands.NOTED_EVERY
        since = timeutils.utcnow() - dt.timedelta(seconds=kept)
        for idle in self._db.read(demands.idle, since):
            if self._db.write(demands.give_up, idle):
                LOG.info("Function %s has not run for long; it keeps no worker.", idle.function_id)
        # The walk over what is unsettled does the rest.

    def sweep(self) -> None:
        """Remove pools that have had no row for the whole grace."""
        self._lease.check()
        try:
            pools = set(self._orchestrator.pools())
        except exceptions.PoolBusy as error:
            LOG.debug("The pools are counted later: %s", error)
            return
        known = set[str]()
        waiting = sorted(pools)
        for start in range(0, len(waiting), _PAGE):
            known |= self._db.read(runtimes.existing, waiting[start : start + _PAGE])
        now = time.monotonic()
        lost = pools - known
        self._orphans = {pool: since for pool, since in self._orphans.items() if pool in lost}
        for pool_id in sorted(lost):
            since = self._orphans.setdefault(pool_id, now)
            if since == now:
                LOG.warning(
                    "Pool %s has no runtime in the database; it is removed in %.0f s.",
                    pool_id,
                    self._options.orphan_grace,
                )
            if now - since >= self._options.orphan_grace:
                self._remove(pool_id)

    def _remove(self, pool_id: str) -> None:
        try:
            if self._orchestrator.remove(pool_id, None):
                LOG.warning("Pool %s, which had no runtime, is removed.", pool_id)
                del self._orphans[pool_id]
        except exceptions.ClusterAway:
            raise
        except exceptions.OrchestratorError as error:
            LOG.warning("Pool %s, which has no runtime, is removed later: %s", pool_id, error)
