"""The engine: queue, resync, orchestrator and lease, started and stopped together."""

import threading
import uuid

from oslo_config import cfg
from oslo_log import log

from qinling import context, exceptions, orchestrator
from qinling.db import api as db_api
from qinling.db import services
from qinling.engine import runtimes
from qinling.engine.reconciler import Key, Reconciler
from qinling.engine.resync import Resync
from qinling.orchestrator import base

LOG = log.getLogger(__name__)

# Seconds that work in progress gets when the engine is told to stop.
_STOP_TIMEOUT = 10.0


class Engine:
    """One engine. Any number of them work on one database side by side.

    :param binary: the program it runs in, as the table ``services`` shows it.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        driver: base.Orchestrator,
        binary: str,
    ) -> None:
        self._conf = conf
        self._db = db
        self._orchestrator = driver
        self._binary = binary
        self._id = str(uuid.uuid4())
        hands = runtimes.Runtimes(conf, db, driver)
        self._reconciler = Reconciler(
            {runtimes.KIND: hands.reconcile}, threads=conf.engine.reconcile_threads
        )
        self._resync = Resync(conf, db, driver, self._reconciler)
        self._stopping = threading.Event()
        self._lease = threading.Thread(target=self._renew, name="lease", daemon=True)

    def start(self) -> None:
        """:raises StartupError: it cannot work here."""
        self._register()
        self._orchestrator.start(self._changed)
        self._lease.start()
        self._reconciler.start()
        self._resync.start()

    def stop(self) -> None:
        """End after the work at hand."""
        self._stopping.set()
        self._resync.stop()
        self._reconciler.stop(_STOP_TIMEOUT)
        self._orchestrator.stop()
        self._lease.join(timeout=_STOP_TIMEOUT)
        try:
            self._db.write(services.leave, self._id)
        except exceptions.DatabaseUnavailable as error:
            LOG.warning("The lease of this engine is left to expire: %s", error)

    def look_at_runtime(self, runtime_id: str, asked_by: context.RequestContext | None) -> None:
        """A message said that this runtime's row has changed."""
        self._reconciler.add(Key(runtimes.KIND, runtime_id), asked_by)

    # What the API calls when it shares a process with the engine.

    def create_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        self.look_at_runtime(runtime_id, asked_by)

    update_runtime = create_runtime
    delete_runtime = create_runtime

    def _changed(self, pool_id: str) -> None:
        self._reconciler.add(Key(runtimes.KIND, pool_id))

    def _register(self) -> None:
        driver, host = self._conf.orchestrator.driver, self._conf.engine.host
        other = self._db.write(
            services.register, self._id, self._binary, host, driver, self._orchestrator.one_host
        )
        if other is not None:
            raise exceptions.StartupError(
                f"An engine on host {other} runs the pools of this database with the driver "
                f"{driver}, which keeps them on its own host; stop it before starting one on "
                f"{host}, or use another database."
            )

    def _renew(self) -> None:
        while not self._stopping.wait(services.RENEWAL):
            try:
                if not self._db.write(services.renew, self._id):
                    self._register()
            except exceptions.StartupError as error:
                LOG.error("%s", error)
            except exceptions.QinlingError as error:
                LOG.warning("The lease of this engine was not renewed: %s", error)


def load(conf: cfg.ConfigOpts, db: db_api.Database, binary: str, *, bound: bool = False) -> Engine:
    """An engine with the configured orchestrator, not yet started.

    :param bound: local workers must not outlive this process.
    """
    options = {"bound": True} if bound and conf.orchestrator.driver == "local" else {}
    return Engine(conf, db, orchestrator.load(conf, **options), binary)
