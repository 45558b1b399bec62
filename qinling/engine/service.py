"""The engine: queues, resync, orchestrator and lease, started and stopped together."""

from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from qinling import context, exceptions, orchestrator, storage
from qinling.db import api as db_api
from qinling.db import functions, workers
from qinling.engine import claims, executions, images, losses, runtimes
from qinling.engine.reconciler import Key, Reconciler
from qinling.engine.resync import Resync
from qinling.engine.retention import Retention
from qinling.execution.clients import Clients
from qinling.execution.dispatch import Dispatcher
from qinling.execution.keys import Keys
from qinling.execution.lease import Lease
from qinling.orchestrator import base

# Seconds that work in progress gets when the engine is told to stop.
_STOP_TIMEOUT = 10.0
# Workers that get their functions at a time: each may take as long as an import does.
_LOADS = 32


class Engine:
    """One engine. Any number of them work on one database side by side.

    Implements ``rpc.EngineNotifier``: a message, or an API in the same process, says what to
    look at.

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
        self._db = db
        self._orchestrator = driver
        self._lease = Lease(conf, db, binary, conf.orchestrator.driver, driver.one_host, lost=fail)
        clients = Clients(conf)
        self._runtimes = runtimes.Runtimes(conf, db, driver)
        lost = losses.Losses()
        self._claims = claims.Claims(conf, db, driver, clients, lost, self._load)
        image_runs = images.ImageRuns(conf, db, driver)
        self._reconciler = Reconciler(
            {
                runtimes.KIND: self._reconcile_runtime,
                claims.KIND: self._reconcile_claims,
                images.KIND: image_runs.reconcile,
            },
            threads=conf.engine.reconcile_threads,
        )
        loads = claims.Loads(
            conf, db, driver, storage.load(conf), clients, lost, self._look_at_claims
        )
        self._loads = Reconciler({claims.LOAD: loads.reconcile}, threads=_LOADS)
        dispatcher = Dispatcher(conf, db, clients, self, lambda: self._lease.id)
        self._executions = executions.Executions(conf, db, dispatcher, image_runs, self._lease.id)
        self._resync = Resync(conf, db, driver, self._reconciler, self._loads, self._lease)
        self._retention = Retention(conf, db)

    def start(self) -> None:
        """:raises StartupError: it cannot work here."""
        self._lease.start()
        try:
            self._orchestrator.start(self._changed)
        except exceptions.StartupError:
            self._lease.stop(_STOP_TIMEOUT)
            raise
        self._reconciler.start()
        self._loads.start()
        self._resync.start()
        self._executions.start()
        self._retention.start()

    def stop(self) -> None:
        """End after the work at hand."""
        self._retention.stop()
        self._executions.stop()
        self._resync.stop()
        self._loads.stop(_STOP_TIMEOUT)
        self._reconciler.stop(_STOP_TIMEOUT)
        self._orchestrator.stop()
        self._lease.stop(_STOP_TIMEOUT)

    def create_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        self._reconciler.add(Key(runtimes.KIND, runtime_id), asked_by)

    update_runtime = create_runtime
    delete_runtime = create_runtime

    def update_function(self, asked_by: context.RequestContext, function_id: str) -> None:
        function = self._db.read(functions.find, function_id)
        if function is None:
            self.delete_function(asked_by, function_id)
        elif function.runtime_id is not None:
            self._reconciler.add(Key(claims.KIND, function.runtime_id), asked_by)

    def delete_function(self, asked_by: context.RequestContext, function_id: str) -> None:
        for runtime_id in {
            row.runtime_id for row in self._db.read(workers.of_function, function_id)
        }:
            self._reconciler.add(Key(claims.KIND, runtime_id), asked_by)

    def claim(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        self._reconciler.add(Key(claims.KIND, runtime_id), asked_by)

    def execute(self, asked_by: context.RequestContext, execution_id: str) -> None:
        self._executions.execute(execution_id, asked_by)

    def delete_execution(self, asked_by: context.RequestContext, execution_id: str) -> None:
        self._reconciler.add(Key(images.KIND, execution_id), asked_by)

    def _changed(self, pool_id: str) -> None:
        self._reconciler.add(Key(runtimes.KIND, pool_id))
        self._look_at_claims(pool_id)

    def _look_at_claims(self, runtime_id: str) -> None:
        self._reconciler.add(Key(claims.KIND, runtime_id))

    def _load(self, worker_id: str) -> None:
        self._loads.add(Key(claims.LOAD, worker_id))

    def _reconcile_runtime(self, runtime_id: str) -> float | None:
        self._lease.check()
        return self._runtimes.reconcile(runtime_id)

    def _reconcile_claims(self, runtime_id: str) -> float | None:
        self._lease.check()
        return self._claims.reconcile(runtime_id)


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
    options: dict[str, Any] = {}
    if conf.orchestrator.driver == "local":
        options = {"bound": bound, "key_digest": Keys(conf).digest}
    return Engine(conf, db, orchestrator.load(conf, **options), binary, fail)
