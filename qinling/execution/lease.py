"""The lease of a process: it says that the process is alive, and is an engine's right to work.

An orchestrator that keeps its pools on its own host must not work for two hosts
on one database. Its engine works only while its lease holds, so that an engine
that slept, or was cut off, does nothing between its waking and its next look at
the lease. Should another host have taken over meanwhile, it ends.
"""

import threading
import time
import uuid
from collections.abc import Callable

from oslo_config import cfg
from oslo_log import log

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import services

LOG = log.getLogger(__name__)

# Seconds between two tries to renew a lease while the database is away: when it is back the lease
# may have lapsed.
_AGAIN = 1.0


class Lease:
    """A row in ``services``, renewed by a thread.

    :param binary: the program, as the table shows it.
    :param driver: the orchestrator that it works with; None for a process that has none.
    :param one_host: only one host may have leases with this orchestrator.
    :param lost: called once, from the thread, when another host has taken over.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        binary: str,
        driver: str | None,
        one_host: bool,
        lost: Callable[[exceptions.StartupError], None],
    ) -> None:
        self._driver = driver
        self._host = conf.engine.host
        self._db = db
        self._binary = binary
        self._one_host = one_host
        self._lost = lost
        self.id = str(uuid.uuid4())
        self._holds_until = 0.0
        self._holding = threading.Lock()
        self._held = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def start(self) -> None:
        """:raises StartupError: another host has it."""
        self._register()
        self._thread.start()

    def hold(self) -> str:
        """Its id; it is taken when this is first asked, which a server's fork has come before."""
        if not self._held:
            with self._holding:
                if not self._held:
                    self.start()
                    self._held = True
        return self.id

    def stop(self, timeout: float) -> None:
        self._stopping.set()
        self._thread.join(timeout)
        try:
            self._db.write(services.leave, self.id)
        except exceptions.DatabaseUnavailable as error:
            LOG.warning("The lease of this engine is left to expire: %s", error)

    def check(self) -> None:
        """Raise ``LeaseLapsed`` unless this engine may work now."""
        if self._one_host and _now() >= self._holds_until:
            raise exceptions.LeaseLapsed(
                "The lease of this engine has lapsed: it does nothing until it has renewed it."
            )

    def _register(self) -> None:
        began = _now()
        other = self._db.write(
            services.register, self.id, self._binary, self._host, self._driver, self._one_host
        )
        if other is not None:
            raise exceptions.StartupError(
                f"An engine on host {other} runs the pools of this database with the driver "
                f"{self._driver}, which keeps them on its own host; stop it before starting one "
                f"on {self._host}, or use another database."
            )
        self._holds_until = began + services.LEASE

    def _renew(self) -> None:
        pause = services.RENEWAL
        while not self._stopping.wait(pause):
            began = _now()
            try:
                if self._db.write(services.renew, self.id):
                    self._holds_until = began + services.LEASE
                else:
                    self._register()
            except exceptions.StartupError as error:
                self._lost(error)
                return
            except exceptions.QinlingError as error:
                LOG.warning("The lease of this process was not renewed: %s", error)
                pause = _AGAIN
            else:
                pause = services.RENEWAL


def _now() -> float:
    """Seconds of a clock that goes on while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
