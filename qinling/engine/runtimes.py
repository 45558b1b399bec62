"""Reconciling one runtime: its row is what should be, its pool is what is.

``reconcile`` is the only code that moves a runtime on, whoever asks for it: a
message, an event of the orchestrator, the resync. It reads the row, takes the
pool one step, records what it saw, and returns.
"""

from oslo_config import cfg
from oslo_log import log

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import runtimes
from qinling.orchestrator import base
from qinling.states import RuntimeStatus

LOG = log.getLogger(__name__)

KIND = "runtime"

# Seconds between looks at something that nothing may tell us about.
_LOOK_AGAIN = 5.0


class Runtimes:
    """The engine's hands on runtimes."""

    def __init__(
        self, conf: cfg.ConfigOpts, db: db_api.Database, orchestrator: base.Orchestrator
    ) -> None:
        self._pool_size = conf.engine.pool_size
        self._db = db
        self._orchestrator = orchestrator
        # Pools that this engine applied for rows that were gone by then.
        self._for_nobody: set[str] = set()

    def reconcile(self, runtime_id: str) -> float | None:
        """Take a runtime one step; seconds until the next look, or None."""
        runtime = self._db.read(runtimes.find, runtime_id)
        if runtime is None:
            # Any other pool that is still there is found, and removed, by the orphan sweep.
            return self._undo(runtime_id) if runtime_id in self._for_nobody else None
        try:
            if runtime.status is RuntimeStatus.DELETING:
                return self._delete(runtime)
            return self._record(runtime, self._orchestrator.apply(self._spec(runtime)))
        except exceptions.StaleRevision as error:
            return self._outgrow(runtime, error.revision)
        except exceptions.PoolBusy:
            raise
        except exceptions.OrchestratorError as error:
            self._record_trouble(runtime, str(error))
            raise

    def _spec(self, runtime: runtimes.Runtime) -> base.PoolSpec:
        return base.PoolSpec(
            id=runtime.id,
            image=runtime.image,
            size=self._pool_size,
            trusted=runtime.trusted,
            revision=runtime.revision,
        )

    def _delete(self, runtime: runtimes.Runtime) -> float | None:
        if not self._orchestrator.remove(runtime.id, runtime.revision):
            return _LOOK_AGAIN
        if self._db.write(runtimes.remove, runtime):
            LOG.info("Runtime %s is deleted.", runtime.id)
        return None

    def _record(self, runtime: runtimes.Runtime, state: base.PoolState) -> float | None:
        """Write down what was seen of the pool, and the end it has come to."""
        seen = runtimes.Seen(state.total, state.available, state.reason, whole=state.ready)
        if runtime.status is RuntimeStatus.AVAILABLE or not (state.ready or state.failed):
            current = self._observe(runtime, seen)
        elif state.ready:
            current = self._conclude(runtime, RuntimeStatus.AVAILABLE, seen, None)
        elif runtime.status is RuntimeStatus.UPGRADING and runtime.previous_image is not None:
            return self._roll_back(runtime, state)
        elif runtime.status is RuntimeStatus.ERROR:
            current = self._observe(runtime, seen)
        else:
            current = self._conclude(runtime, RuntimeStatus.ERROR, seen, state.reason)
        return state.retry_in if current else self._overtaken(runtime)

    def _observe(self, runtime: runtimes.Runtime, seen: runtimes.Seen) -> bool:
        """Write down what was seen, if that is news: most looks find what the row says.

        False when somebody else has moved the row, or deleted it.
        """
        if not runtimes.is_known(runtime, seen):
            return self._db.write(runtimes.observe, runtime, seen)
        return seen.whole or not self._moved(runtime)

    def _conclude(
        self,
        runtime: runtimes.Runtime,
        status: RuntimeStatus,
        seen: runtimes.Seen,
        reason: str | None,
    ) -> bool:
        concluded = self._db.write(
            runtimes.conclude, runtime, status, seen, status_reason=reason, previous_image=None
        )
        if concluded:
            LOG.info("Runtime %s is %s%s.", runtime.id, status, f": {reason}" if reason else "")
        return concluded

    def _roll_back(self, runtime: runtimes.Runtime, state: base.PoolState) -> float | None:
        """Go back to the image that works; its workers were kept running."""
        reason = (
            f"image {runtime.image} did not come up and was rolled back, as "
            f"{state.reason or 'no reason is known'}"
        )
        moved = self._db.write(
            runtimes.transition,
            runtime,
            RuntimeStatus.AVAILABLE,
            image=runtime.previous_image,
            previous_image=None,
            status_reason=reason,
            pool_reason=None,
        )
        if not moved:
            return self._overtaken(runtime)
        LOG.warning("Runtime %s: %s.", runtime.id, reason)
        return 0.0

    def _overtaken(self, runtime: runtimes.Runtime) -> float | None:
        """Somebody else moved the row since it was read; maybe its pool was made anew for nobody.

        An id is never given again, so what was applied for a row that has gone is removed.
        """
        if self._db.read(runtimes.find, runtime.id) is not None:
            return 0.0
        LOG.info("Runtime %s was deleted meanwhile; its pool is removed again.", runtime.id)
        self._for_nobody.add(runtime.id)
        return self._undo(runtime.id)

    def _undo(self, runtime_id: str) -> float | None:
        if not self._orchestrator.remove(runtime_id, None):
            return _LOOK_AGAIN
        self._for_nobody.discard(runtime_id)
        return None

    def _outgrow(self, runtime: runtimes.Runtime, pool_revision: int) -> float | None:
        """The pool is newer than the row that was read.

        When nobody has moved the row, it comes from an older copy of the
        database, and what it says counts from now on.
        """
        if self._moved(runtime):
            LOG.info("Runtime %s was changed meanwhile; reading it again.", runtime.id)
            return self._overtaken(runtime)
        if self._db.write(runtimes.outgrow, runtime, pool_revision):
            LOG.warning(
                "The pool of runtime %s is at revision %d and its row at %d, as after the database "
                "was restored; the row counts and is at revision %d now.",
                *(runtime.id, pool_revision, runtime.revision, pool_revision + 1),
            )
        return 0.0

    def _record_trouble(self, runtime: runtimes.Runtime, reason: str) -> None:
        """Tell in the row why nothing could even be tried."""
        seen = runtimes.Seen(runtime.pool_total, runtime.pool_available, reason, whole=False)
        self._observe(runtime, seen)

    def _moved(self, runtime: runtimes.Runtime) -> bool:
        now = self._db.read(runtimes.find, runtime.id)
        return now is None or now.revision != runtime.revision
