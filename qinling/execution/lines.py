"""The lines of all that is run in this process: one for each function, version and revision."""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oslo_config import cfg

from qinling import context, exceptions
from qinling.db import api as db_api
from qinling.db import demands, executions, function_versions, functions, workers
from qinling.execution.clients import Clients
from qinling.execution.line import Found, Line
from qinling.execution.worker import WorkerClient
from qinling.orchestrator.routes import KEPT_FOR
from qinling.states import WorkerStatus

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier

# Lines that are kept; idle ones go when there are more, or when they were not used for longer than
# their connections are.
_LINES = 2000


@dataclass(frozen=True, slots=True)
class Code:
    """What is run: a function at a version, at a revision."""

    function_id: str
    version: int
    revision: int


class Lines:
    """Makes each line when it is asked for, and lets go of those that nobody uses any more."""

    def __init__(
        self, conf: cfg.ConfigOpts, db: db_api.Database, clients: Clients, engine: "EngineNotifier"
    ) -> None:
        self._concurrency = conf.engine.function_concurrency
        self._most = conf.engine.max_workers_per_function
        self._db = db
        self._clients = clients
        self._engine = engine
        self._lock = threading.Lock()
        self._lines: dict[Code, Line] = {}

    def of(
        self, function: functions.Function, version: int, asked_by: context.RequestContext
    ) -> Line:
        """The line of a function as it is; those of later calls get the same one."""
        code = Code(function.id, version, function.revision)
        with self._lock:
            line = self._lines.pop(code, None)
            if line is None:
                line = self._make(code, function.runtime_id, asked_by)
            # Last in, and so the last of the idle ones to go.
            self._lines[code] = line
            line.used = time.monotonic()
            self._drop_idle()
            return line

    def where(self, execution: executions.Execution) -> list[Line]:
        """Where it may wait: its function may have had several revisions meanwhile."""
        version = execution.function_id, execution.function_version
        with self._lock:
            return [
                line
                for code, line in self._lines.items()
                if (code.function_id, code.version) == version
            ]

    def _make(self, code: Code, runtime_id: str | None, asked_by: context.RequestContext) -> Line:
        def look(known: dict[str, WorkerClient], waiting: Collection[str]) -> Found:
            rows = self._db.read(workers.serving, code.function_id, code.version, code.revision)
            ready = [row for row in rows if row.status is WorkerStatus.READY]
            coming = sum(row.status is WorkerStatus.LOADING for row in rows)
            if not ready and not coming:
                # Nobody gets a worker for code that is old by now, or that no worker takes.
                standing = self._db.read(demands.standing, code.function_id, code.version)
                if standing is None or standing[0] != code.revision:
                    raise exceptions.FunctionChanged(code.function_id)
                if standing[1] is not None:
                    raise exceptions.FunctionRefused(standing[1])
                if code.version:
                    # Nor for a version that has gone.
                    self._db.read(function_versions.get, code.function_id, code.version)
            clients = [known.get(row.id) or self._clients.of(row) for row in ready]
            ended = set(waiting) - self._db.read(executions.running, waiting) if waiting else ()
            return Found([client for client in clients if client is not None], coming, ended)

        def want(number: int) -> None:
            self._db.write(demands.raise_to, code.function_id, code.version, number)
            line.noted = time.monotonic()
            if runtime_id is not None:
                self._engine.claim(asked_by, runtime_id)

        line = Line(self._concurrency, self._most, look, want)
        return line

    def _drop_idle(self) -> None:
        old = time.monotonic() - KEPT_FOR
        for _ in range(len(self._lines)):
            code, line = next(iter(self._lines.items()))
            if len(self._lines) <= _LINES and line.used > old:
                return
            del self._lines[code]
            if line.idle():
                line.close()
            else:
                # Looked at again when those behind it were.
                line.used = time.monotonic()
                self._lines[code] = line
