"""Executions that no caller waits for, and those whose owner is gone.

Threads are few, and one may be held until its function's timeout. So projects take
turns: what a message tells of and what a scan finds gets a thread only within its
project's share, which leaves some to the next project that comes.

Of what a dead process leaves, an execution that was sent to nobody waits its turn
again. One that was sent runs already, and who looks for its end must not wait: for
these there are other threads, which count for the project's share all the same.
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
# Orphans that one scan looks at.
_ORPHANS = 500


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
        # Those of them that were begun by others.
        self._inherited: set[str] = set()
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
        return self._begin(execution_id, project_id, work, inherited=False)

    def _begin(
        self, execution_id: str, project_id: str, work: Callable[[], None], *, inherited: bool
    ) -> bool:
        """Give it a thread; False when there is none for it: it is looked for when one ends."""
        with self._lock:
            if self._stopping or execution_id in self._under_way:
                return True
            if not self._has_thread(project_id, inherited):
                self._refused = True
                return False
            self._under_way[execution_id] = project_id
            if inherited:
                self._inherited.add(execution_id)
        # No pool's thread: those keep a process from ending before what they do has ended.
        threading.Thread(
            target=self._guard, args=(execution_id, work), name=execution_id, daemon=True
        ).start()
        return True

    def _has_thread(self, project_id: str, inherited: bool) -> bool:
        if inherited:
            return len(self._inherited) < self._most
        free = self._most - (len(self._under_way) - len(self._inherited))
        under_way = sum(one == project_id for one in self._under_way.values())
        return free > 0 and under_way < _SHARE * free

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
                self._inherited.discard(execution_id)
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

    def _recover(self, orphan: executions.Orphan) -> None:
        context.clear()
        execution = self._db.write(executions.inherit, orphan, self._owner)
        if execution is None or execution.worker_id is None:
            # Its worker has refused it meanwhile: the next scan puts it back.
            return
        function = self._db.read(functions.find, execution.function_id)
        if function is not None and function.runtime_id is None:
            self._images.run(execution, function)
        else:
            self._dispatcher.recover(execution, 0.0 if function is None else function.timeout)

    def _take_over(self) -> None:
        """Go on with what has lost its owner, and with what this engine has and does not know of.

        Of the latter the database could not tell that it is this engine's: it had gone away.
        """
        with self._lock:
            known = list(self._under_way)
        found = self._db.read(executions.orphans, limit=_ORPHANS)
        found += self._db.read(executions.owned, self._owner, known)
        with self._lock:
            # Others have begun meanwhile.
            lost = [one for one in found if one.id not in self._under_way]
        lost = [one for one in lost if not self._is_ending(one.id)]
        unsent = [one for one in lost if not one.is_sent]
        if unsent and (number := self._db.write(executions.put_back, unsent)):
            LOG.warning("The owners of %d executions are gone; these wait anew.", number)
        for orphan in lost:
            if orphan.is_sent:
                work = functools.partial(self._recover, orphan)
                if not self._begin(orphan.id, orphan.project_id, work, inherited=True):
                    break
                LOG.warning("The owner of execution %s is gone.", orphan.id)

    def _is_ending(self, execution_id: str) -> bool:
        return self._dispatcher.is_ending(execution_id) or self._images.is_ending(execution_id)

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
                self._take_over()
                self._take_waiting()
            except exceptions.QinlingError as error:
                LOG.warning("Executions are looked for later: %s", error)
            except Exception:
                LOG.exception("Executions are looked for later")
