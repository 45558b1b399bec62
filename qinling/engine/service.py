"""The engine: queue, resync, orchestrator and lease, started and stopped together."""

from collections.abc import Callable

from oslo_config import cfg

from qinling import context, exceptions, orchestrator
from qinling.db import api as db_api
from qinling.engine import runtimes
from qinling.engine.lease import Lease
from qinling.engine.reconciler import Key, Reconciler
from qinling.engine.resync import Resync
from qinling.orchestrator import base

# Seconds that work in progress gets when the engine is told to stop.
_STOP_TIMEOUT = 10.0


class Engine:
    """One engine. Any number of them work on one database side by side.

    :param binary: the program it runs in, as the table ``services`` shows it.
    :param fail: called from any thread when it cannot go on.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        driver: base.Orchestrator,
        binary: str,
        fail: Callable[[exceptions.StartupError], None],
    ) -> None:
        self._orchestrator = driver
        self._lease = Lease(conf, db, binary, driver.one_host, lost=fail)
        self._runtimes = runtimes.Runtimes(conf, db, driver)
        self._reconciler = Reconciler(
            {runtimes.KIND: self._reconcile_runtime}, threads=conf.engine.reconcile_threads
        )
        self._resync = Resync(conf, db, driver, self._reconciler, self._lease)

    def start(self) -> None:
        """:raises StartupError: it cannot work here."""
        self._lease.start()
        try:
            self._orchestrator.start(self._changed)
        except exceptions.StartupError:
            self._lease.stop(_STOP_TIMEOUT)
            raise
        self._reconciler.start()
        self._resync.start()

    def stop(self) -> None:
        """End after the work at hand."""
        self._resync.stop()
        self._reconciler.stop(_STOP_TIMEOUT)
        self._orchestrator.stop()
        self._lease.stop(_STOP_TIMEOUT)

    def look_at_runtime(self, runtime_id: str, asked_by: context.RequestContext | None) -> None:
        """A message said that this runtime's row has changed."""
        self._reconciler.add(Key(runtimes.KIND, runtime_id), asked_by)

    def look_at_function(self, function_id: str, asked_by: context.RequestContext | None) -> None:
        """A message said that this function's row has changed, or is gone."""

    # What the API calls when it shares a process with the engine.

    def create_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        self.look_at_runtime(runtime_id, asked_by)

    update_runtime = create_runtime
    delete_runtime = create_runtime

    def update_function(self, asked_by: context.RequestContext, function_id: str) -> None:
        self.look_at_function(function_id, asked_by)

    delete_function = update_function

    def _changed(self, pool_id: str) -> None:
        self._reconciler.add(Key(runtimes.KIND, pool_id))

    def _reconcile_runtime(self, runtime_id: str) -> float | None:
        self._lease.check()
        return self._runtimes.reconcile(runtime_id)


def load(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    binary: str,
    fail: Callable[[exceptions.StartupError], None],
    *,
    bound: bool = False,
) -> Engine:
    """An engine with the configured orchestrator, not yet started.

    :param fail: as of ``Engine``. :param bound: local workers must not outlive this process.
    """
    options = {"bound": True} if bound and conf.orchestrator.driver == "local" else {}
    return Engine(conf, db, orchestrator.load(conf, **options), binary, fail)
