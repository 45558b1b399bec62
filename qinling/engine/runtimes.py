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

    def reconcile(self, runtime_id: str) -> float | None:
        """Take a runtime one step; seconds until the next look, or None."""
        runtime = self._db.read(runtimes.find, runtime_id)
        if runtime is None:
            # A pool that is still there is found, and removed, by the orphan sweep.
            return None
        if runtime.status is RuntimeStatus.DELETING:
            return self._delete(runtime)
        try:
            state = self._orchestrator.apply(self._spec(runtime))
        except exceptions.StaleRevision:
            LOG.info("Runtime %s was changed meanwhile; reading it again.", runtime.id)
            return 0.0 if self._moved(runtime) else _LOOK_AGAIN
        except exceptions.PoolBusy:
            raise
        except exceptions.OrchestratorError as error:
            self._record_trouble(runtime, str(error))
            raise
        return self._record(runtime, state)

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
            self._observe(runtime, seen)
        elif state.ready:
            self._conclude(runtime, RuntimeStatus.AVAILABLE, seen, None)
        elif runtime.status is RuntimeStatus.UPGRADING and runtime.previous_image is not None:
            return self._roll_back(runtime, state)
        elif runtime.status is RuntimeStatus.ERROR:
            self._observe(runtime, seen)
        else:
            self._conclude(runtime, RuntimeStatus.ERROR, seen, state.reason)
        return state.retry_in

    def _observe(self, runtime: runtimes.Runtime, seen: runtimes.Seen) -> None:
        """Write down what was seen, if that is news: most looks find what the row says."""
        if not runtimes.is_known(runtime, seen):
            self._db.write(runtimes.observe, runtime, seen)

    def _conclude(
        self,
        runtime: runtimes.Runtime,
        status: RuntimeStatus,
        seen: runtimes.Seen,
        reason: str | None,
    ) -> None:
        concluded = self._db.write(
            runtimes.conclude, runtime, status, seen, status_reason=reason, previous_image=None
        )
        if concluded:
            LOG.info("Runtime %s is %s%s.", runtime.id, status, f": {reason}" if reason else "")

    def _roll_back(self, runtime: runtimes.Runtime, state: base.PoolState) -> float | None:
        """Go back to the image that works; its workers were kept running."""
        reason = (
            f"image {runtime.image} did not come up and was rolled back: "
            f"{state.reason or 'no reason is known'}"
        )
        self._db.write(
            runtimes.transition,
            runtime,
            RuntimeStatus.AVAILABLE,
            image=runtime.previous_image,
            previous_image=None,
            status_reason=reason,
            pool_reason=None,
        )
        LOG.warning("Runtime %s: %s.", runtime.id, reason)
        return 0.0

    def _record_trouble(self, runtime: runtimes.Runtime, reason: str) -> None:
        """Tell in the row why nothing could even be tried."""
        seen = runtimes.Seen(runtime.pool_total, runtime.pool_available, reason, whole=False)
        self._observe(runtime, seen)

    def _moved(self, runtime: runtimes.Runtime) -> bool:
        now = self._db.read(runtimes.find, runtime.id)
        return now is None or now.revision != runtime.revision
