"""Makes the clients of claimed workers from their rows, in API and engine alike."""

from oslo_config import cfg
from oslo_log import log

from qinling.db import workers
from qinling.execution.keys import Keys
from qinling.execution.worker import WorkerClient
from qinling.orchestrator import routes

LOG = log.getLogger(__name__)


class Clients:
    """:raises StartupError: as ``Keys``."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._keys = Keys(conf)
        self._routes = routes.load(conf)
        # Rows are looked at many times a second.
        self._told = False

    def make_key(self, worker_id: str) -> str:
        """The key of one worker, hidden."""
        return self._keys.hide(self._keys.make(worker_id))

    def of(self, worker: workers.Worker) -> WorkerClient | None:
        """None for one that cannot be called, which the engine lets go.

        Its key was hidden with another secret, or its address with another ``[kubernetes]
        worker_access``.
        """
        key, route = self._keys.reveal(worker.key), self._routes.to(worker.address)
        if route is None and not self._told:
            self._told = True
            LOG.warning(
                "Worker %s is at %s, which is not called from here. If that goes on, "
                "[orchestrator] driver and [kubernetes] worker_access are not those of the "
                "other services.",
                worker.id,
                worker.address,
            )
        if key is None or route is None:
            return None
        return WorkerClient(worker.id, route, key, worker.revision, worker.boot_id)

    def can_call(self, worker: workers.Worker) -> bool:
        return self.of(worker) is not None
