"""Executions that no caller waits for, and those whose owner is gone."""

import threading
from concurrent import futures

from oslo_config import cfg
from oslo_log import log

from qinling import context, exceptions
from qinling.db import api as db_api
from qinling.db import executions, functions
from qinling.execution.dispatch import Dispatcher

LOG = log.getLogger(__name__)

# Seconds between two scans for what no message told of.
_SCAN = 1.0


class Executions:
    """Takes executions and runs them, each in a thread.

    :param owner: the lease of this engine.
    """

    def __init__(
        self, conf: cfg.ConfigOpts, db: db_api.Database, dispatcher: Dispatcher, owner: str
    ) -> None:
        self._db = db
        self._dispatcher = dispatcher
        self._owner = owner
        self._pool = futures.ThreadPoolExecutor(conf.engine.execution_threads, "execution")
        self._lock = threading.Lock()
        self._taken: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._scan, name="executions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more; what is under way is another engine's when the lease ends."""
        self._stopping.set()
        self._thread.join(_SCAN)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def execute(self, execution_id: str, asked_by: context.RequestContext | None = None) -> None:
        """Run an execution unless somebody has it."""
        self._submit(self._run, execution_id, asked_by or context.RequestContext())

    def _submit(self, work, execution_id: str, *arguments) -> None:  # type: ignore[no-untyped-def]
        with self._lock:
            if execution_id in self._taken or self._stopping.is_set():
                return
            self._taken.add(execution_id)
        self._pool.submit(self._guard, work, execution_id, *arguments)

    def _guard(self, work, execution_id: str, *arguments) -> None:  # type: ignore[no-untyped-def]
        try:
            work(execution_id, *arguments)
        except exceptions.QinlingError as error:
            LOG.warning("Execution %s is tried again: %s", execution_id, error)
        except Exception:
            LOG.exception("Execution %s is tried again", execution_id)
        finally:
            with self._lock:
                self._taken.discard(execution_id)

    def _run(self, execution_id: str, asked_by: context.RequestContext) -> None:
        asked_by.update_store()
        execution = self._db.write(executions.take, execution_id, self._owner)
        if execution is None:
            return
        function = self._db.read(functions.find, execution.function_id)
        if function is None:
            self._dispatcher.recover(execution, 0.0)
        else:
            self._dispatcher.run(execution, function, asked_by)

    def _recover(self, execution_id: str, lost: str) -> None:
        context.clear()
        if not self._db.write(executions.inherit, execution_id, lost, self._owner):
            return
        execution = self._db.read(executions.find, execution_id)
        if execution is None:
            return
        LOG.warning("The owner of execution %s is gone; asking its worker.", execution_id)
        function = self._db.read(functions.find, execution.function_id)
        if execution.worker_id is None and function is not None:
            self._dispatcher.run(execution, function, context.RequestContext())
        else:
            self._dispatcher.recover(execution, 0.0 if function is None else function.timeout)

    def _scan(self) -> None:
        while not self._stopping.wait(_SCAN):
            context.clear()
            try:
                for execution_id in self._db.read(executions.waiting):
                    self.execute(execution_id)
                for orphan in self._db.read(executions.orphans):
                    self._submit(self._recover, orphan.id, orphan.owner)
            except exceptions.QinlingError as error:
                LOG.warning("Executions are looked for later: %s", error)
            except Exception:
                LOG.exception("Executions are looked for later")
