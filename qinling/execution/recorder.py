"""Writes ends of executions down, also those that come while the database is away."""

import queue
import threading
import time

from oslo_log import log

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import executions

LOG = log.getLogger(__name__)

# Seconds between two tries while the database is away.
_AGAIN = 1.0


class Recorder:
    """What it cannot write now it writes later, for as long as the process lives.

    After that an engine asks the worker, which keeps what it has done.
    """

    def __init__(self, db: db_api.Database) -> None:
        self._db = db
        self._waiting: queue.SimpleQueue[tuple[executions.Execution, str]] = queue.SimpleQueue()
        self._ids: set[str] = set()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def end(self, ended: executions.Execution, printed: str) -> bool:
        """Write an end down; False when it had one before.

        :raises DatabaseUnavailable: it is written down later.
        """
        try:
            return self._db.write(executions.end, ended, printed)
        except exceptions.DatabaseUnavailable:
            self.end_later(ended, printed)
            raise

    def end_later(self, ended: executions.Execution, printed: str) -> None:
        """Write an end down when the database is there again, if there is such an execution."""
        self._ids.add(ended.id)
        self._waiting.put((ended, printed))
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ends", daemon=True)
                self._thread.start()

    def has(self, execution_id: str) -> bool:
        """Whether an end is still to be written down: nobody is to begin that one again."""
        return execution_id in self._ids

    def _run(self) -> None:
        while True:
            ended, printed = self._waiting.get()
            if self._try(ended, printed):
                self._ids.discard(ended.id)
            else:
                # Last: one that the database never takes, as it is too large for it, holds up
                # no other.
                self._waiting.put((ended, printed))
                time.sleep(_AGAIN)

    def _try(self, ended: executions.Execution, printed: str) -> bool:
        try:
            self._db.write(executions.end, ended, printed)
        except exceptions.DatabaseUnavailable as error:
            LOG.warning("The end of execution %s waits: %s", ended.id, error)
            return False
        except Exception:
            LOG.exception("The end of execution %s cannot be written down", ended.id)
        return True
