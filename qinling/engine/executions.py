"""Executions that no caller waits for, and those whose owner is gone.

Threads are few, and one may be held until its function's timeout. So projects take
turns: what a message tells of and what a scan finds gets a thread only within its
project's share, which leaves some to the next project that comes.
"""

import functools
import threading
from collections import Counter
from collections.abc import Callable

from oslo_config import cfg
from oslo_log import log

from qinling import context, exceptions
from qinling.db import api as db_api
from qinling.db import executions, functions
from qinling.engine.images import ImageRuns
from qinling.execution.dispatch import Dispatcher

LOG = log.getLogger(__name__)

# Seconds between two scans for what no message told of.
_SCAN = 1.0
# Projects that one scan looks at; the next scan goes on behind them.
_PROJECTS = 16
# A project gets a thread while it has fewer than so many times those that are free then. One that
# is alone gets three of four, two get three of seven each, and so on: always less than half where
# there are others, as soon as they have got theirs.
_SHARE = 3


class Executions:
    """Takes executions and runs them, each in a thread of its own.

    One that finds no thread free is left to whoever has one: this engine's next
    scan, or another engine.

    :param owner: the lease of this engine.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        dispatcher: Dispatcher,
        images: ImageRuns,
        owner: str,
    ) -> None:
        self._db = db
        self._dispatcher = dispatcher
        self._images = images
        self._owner = owner
        self._most: int = conf.engine.execution_threads
        self._lock = threading.Lock()
        # Their projects, by id.
        self._under_way: dict[str, str] = {}
        # The project that had the last turn.
        self._served = ""
        self._refused = False
        self._stopping = False
        self._look = threading.Event()
        self._thread = threading.Thread(target=self._scan, name="executions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more; what is under way is another engine's when the lease has ended."""
        self._stopping = True
        self._look.set()
        self._thread.join(_SCAN)

    def execute(self, execution_id: str, asked_by: context.RequestContext) -> None:
        """Run an execution of the caller's project unless somebody has it."""
        self._take(execution_id, asked_by.project_id or "", asked_by)

    def _take(self, execution_id: str, project_id: str, asked_by: context.RequestContext) -> bool:
        """Begin it if its project may; as ``_begin``."""
        work = functools.partial(self._run, execution_id, asked_by)
        return self._begin(execution_id, project_id, work, _SHARE)

    def _begin(
        self, execution_id: str, project_id: str, work: Callable[[], None], share: int | None = None
    ) -> bool:
        """Give it a thread; False when there is none for it: it is looked for when one ends.

        :param share: as ``_SHARE``; None for what had its turn already.
        """
        with self._lock:
            if self._stopping or execution_id in self._under_way:
                return True
            free = self._most - len(self._under_way)
            if free <= 0 or (share is not None and self._of(project_id) >= share * free):
                self._refused = True
                return False
            self._under_way[execution_id] = project_id
        # No pool's thread: those keep a process from ending before what they do has ended.
        threading.Thread(
            target=self._guard, args=(execution_id, work), name=execution_id, daemon=True
        ).start()
        return True

    def _of(self, project_id: str) -> int:
        return sum(one == project_id for one in self._under_way.values())

    def _free(self) -> int:
        with self._lock:
            return self._most - len(self._under_way)

    def _guard(self, execution_id: str, work: Callable[[], None]) -> None:
        try:
            work()
        except exceptions.QinlingError as error:
            LOG.warning("Execution %s is looked at again: %s", execution_id, error)
        except Exception:
            LOG.exception("Execution %s is looked at again", execution_id)
        finally:
            with self._lock:
                del self._under_way[execution_id]
                refused, self._refused = self._refused, False
            if refused:
                self._look.set()

    def _run(self, execution_id: str, asked_by: context.RequestContext) -> None:
        asked_by.update_store()
        execution = self._db.write(executions.take, execution_id, self._owner)
        if execution is None:
            return
        function = self._db.read(functions.find, execution.function_id)
        if function is None:
            self._dispatcher.recover(execution, 0.0)
        elif function.runtime_id is None:
            self._images.run(execution, function)
        else:
            self._dispatcher.run(execution, function, asked_by)

    def _recover(self, orphan: executions.Execution) -> None:
        context.clear()
        execution = self._db.write(executions.inherit, orphan, self._owner)
        if execution is None:
            return
        function = self._db.read(functions.find, execution.function_id)
        if function is not None and function.runtime_id is None:
            self._images.run(execution, function)
        elif execution.worker_id is None and function is not None:
            self._dispatcher.run(execution, function, context.RequestContext())
        else:
            self._dispatcher.recover(execution, 0.0 if function is None else function.timeout)

    def _find_lost(self) -> None:
        """Go on with what this engine has and does not know of.

        The database went away when it was to answer that it is this engine's.
        """
        for execution_id in self._db.read(executions.ids_of, self._owner):
            with self._lock:
                known = execution_id in self._under_way
            execution = None if known else self._db.read(executions.find, execution_id)
            # One that has ended meanwhile has no owner any more.
            if execution is not None and execution.owner == self._owner:
                self._go_on(execution)

    def _go_on(self, execution: executions.Execution) -> None:
        work = functools.partial(self._recover, execution)
        self._begin(execution.id, execution.project_id, work)

    def _take_waiting(self) -> None:
        """Begin what waits: who has the fewest under way is next."""
        lines = self._db.read(
            executions.waiting, after=self._served, projects=_PROJECTS, limit=self._most
        )
        if not lines:
            return
        with self._lock:
            under_way = self._under_way.copy()
        having = Counter(under_way.values())
        # Where nobody gets a thread, the next scan looks at others.
        *_, served = lines
        while lines:
            project_id = min(lines, key=having.__getitem__)
            ids = lines[project_id]
            if not ids:
                del lines[project_id]
            elif ids[0] in under_way:
                # Its thread has not come to take it yet.
                del ids[0]
            elif self._take(ids.pop(0), project_id, context.RequestContext()):
                having[project_id] += 1
                served = project_id
            else:
                # Nor does anybody who has more.
                break
        self._served = served

    def _scan(self) -> None:
        while not self._stopping:
            self._look.wait(_SCAN)
            self._look.clear()
            context.clear()
            try:
                self._take_waiting()
                # One more than there are threads for: it tells that this is to look again.
                for orphan in self._db.read(executions.orphans, limit=self._free() + 1):
                    LOG.warning("The owner of execution %s is gone.", orphan.id)
                    self._go_on(orphan)
                self._find_lost()
            except exceptions.QinlingError as error:
                LOG.warning("Executions are looked for later: %s", error)
            except Exception:
                LOG.exception("Executions are looked for later")
