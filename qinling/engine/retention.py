"""Purges executions that ended long ago, with their logs.

Each engine does it for itself. Two that come upon the same executions delete them once, one
waiting for the other for the milliseconds that a batch takes.
"""

import datetime as dt
import threading

from oslo_config import cfg
from oslo_log import log
from oslo_utils import timeutils

from qinling import context, exceptions
from qinling.db import api as db_api
from qinling.db import executions

LOG = log.getLogger(__name__)

# Executions that one transaction deletes: as many as take a few milliseconds.
_BATCH = 100
# Seconds between two batches, so that the database does other things too, and between two looks.
_PAUSE = 0.05
_LOOK = 60.0


class Retention:
    """A thread that keeps to ``[engine] execution_retention``, if there is one."""

    def __init__(self, conf: cfg.ConfigOpts, db: db_api.Database) -> None:
        self._kept = conf.engine.execution_retention
        self._db = db
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        if self._kept:
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._kept:
            self._thread.join(timeout=5)

    def purge(self) -> int:
        """Delete all that ended long enough ago; their number."""
        before = timeutils.utcnow() - dt.timedelta(seconds=self._kept)
        purged = 0
        while ids := self._db.read(executions.ended, before, limit=_BATCH):
            self._db.write(executions.remove, *ids)
            purged += len(ids)
            if len(ids) < _BATCH or self._stopping.wait(_PAUSE):
                break
        return purged

    def _run(self) -> None:
        while not self._stopping.wait(min(_LOOK, self._kept / 10)):
            context.clear()
            try:
                purged = self.purge()
            except exceptions.QinlingError as error:
                LOG.warning("Old executions are purged later: %s", error)
            except Exception:
                LOG.exception("Old executions are purged later")
            else:
                if purged:
                    LOG.info("%d executions that ended long ago are purged.", purged)
