"""Workers for functions: from what is wanted to workers that were claimed and loaded.

``Claims.reconcile`` works on one runtime's pool: it buries the workers that have
died, lets go of those that nobody wants, and hands out free ones to those who
wait, in turns. ``Loads.reconcile`` calls one claimed worker: it takes it to its
function, and in the end says that nothing is left to be done.
"""

import contextlib
import datetime as dt
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from oslo_config import cfg
from oslo_log import log
from oslo_utils import timeutils

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import demands, executions, function_versions, functions, workers
from qinling.engine.losses import USEFUL_AGE, Losses
from qinling.execution.clients import Clients
from qinling.orchestrator import base
from qinling.states import WorkerStatus
from qinling.storage import base as stores

LOG = log.getLogger(__name__)

KIND = "claims"
LOAD = "load"

# Seconds between looks at a pool of which something is wanted, when nothing may tell.
_LOOK_AGAIN = 1.0
# Seconds after which a claimed worker without a row is let go: its claim was cut short.
_GRACE = 30.0
# Seconds beyond the import that a worker may take to get its function.
_MARGIN = 10.0
# Seconds that a worker may take to get more memory, which takes a tenth of one, and between looks.
_FIT_TIMEOUT = 10.0
_FIT_LOOK = 0.005
_MIB = 1024**2

# A function and a version of it.
Code = tuple[str, int]


class Claims:
    """
    :param losses: of workers, counted here and where they are loaded.
    :param load: called with the id of each worker that is to get its function, or to be told that
        it may end at once.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        orchestrator: base.Orchestrator,
        clients: Clients,
        losses: Losses,
        load: Callable[[str], None],
    ) -> None:
        self._most: int = conf.engine.max_workers_per_function
        self._db = db
        self._orchestrator = orchestrator
        self._clients = clients
        self._losses = losses
        self._load = load
        # Claimed workers that have no row, by runtime, and since when that is known.
        self._rowless: dict[str, dict[str, float]] = {}
        # Workers that were let go and have not ended, by runtime.
        self._ending: dict[str, set[str]] = {}

    def reconcile(self, runtime_id: str) -> float | None:
        """Take the workers of a runtime one step; seconds until the next look, or None."""
        rows, asked, revisions = self._db.read(workers.standing, runtime_id)
        # Asked after the rows were read: none of them is younger than what is told.
        there = self._orchestrator.claimed(runtime_id, {row.id for row in rows})
        waits = self._let_go_rowless(runtime_id, there.keys() - {row.id for row in rows})
        if self._bury(rows, there):
            # In place of each that was lost there is to be another one, which need not wait for
            # its end.
            rows, asked, revisions = self._db.read(workers.standing, runtime_id)
        current, leaving = self._sort(asked, rows, revisions)
        waits |= self._release(runtime_id, leaving)
        short = [each for each in asked if self._missing(each, current)]
        pauses = {each: self._pause(each) for each in short}
        due = [each for each in short if not pauses[each]]
        served = self._hand_out(runtime_id, _in_turns(due, current), current)
        settled = [each for each in asked if not self._missing(each, current)]
        if settled:
            self._db.write(demands.settle, settled, self._most)
        pause = min(filter(None, pauses.values()), default=None)
        if waits or not served:
            return _LOOK_AGAIN if pause is None else min(pause, _LOOK_AGAIN)
        return pause

    def _missing(
        self, demand: demands.Demand, current: Mapping[Code, Sequence[workers.Worker]]
    ) -> bool:
        return len(current.get(_code(demand), ())) < min(demand.wanted, self._most)

    def _pause(self, demand: demands.Demand) -> float:
        """Seconds until another worker may be claimed for it; 0 for now."""
        pause = self._losses.wait((demand.function_id, demand.revision))
        if demand.refused_until is not None:
            refused: dt.timedelta = demand.refused_until - timeutils.utcnow()
            pause = max(pause, refused.total_seconds())
        return pause

    def _bury(self, rows: list[workers.Worker], there: Mapping[str, bool]) -> bool:
        """Forget the workers that have died, and see who is dying; whether there were any.

        :param there: as the orchestrator tells of them.
        """
        found = False
        for row in rows:
            is_there, released = row.id in there, row.status is WorkerStatus.DRAINING
            if is_there and (released or there[row.id]):
                continue
            found = True
            what = "ending" if is_there else "gone"
            LOG.info("Worker %s of function %s is %s.", row.id, row.function_id, what)
            if is_there:
                self._drain(row)
            else:
                self._db.write(workers.remove, row.id)
                if not released:
                    _lose(self._db, self._losses, row, "its last worker is gone")
            if not released:
                self._db.write(demands.ask_again, row.function_id)
        return found

    def _drain(self, row: workers.Worker) -> workers.Worker:
        self._db.write(workers.drain, row.id)
        return replace(row, status=WorkerStatus.DRAINING)

    def _let_go_rowless(self, runtime_id: str, rowless: Iterable[str]) -> bool:
        """Let go of claimed workers that nobody has written down; whether there are any."""
        before, now = self._rowless.pop(runtime_id, {}), time.monotonic()
        since = {worker_id: before.get(worker_id, now) for worker_id in rowless}
        for worker_id, known in since.items():
            # Its row may only be younger than those that were read.
            if now - known >= _GRACE and self._db.read(workers.find, worker_id) is None:
                LOG.warning("Worker %s was claimed for nobody; it is let go.", worker_id)
                self._orchestrator.release(runtime_id, worker_id)
        if since:
            self._rowless[runtime_id] = since
        return bool(since)

    def _sort(
        self,
        asked: list[demands.Demand],
        rows: list[workers.Worker],
        revisions: Mapping[str, int],
    ) -> tuple[dict[Code, list[workers.Worker]], list[workers.Worker]]:
        """The workers that stay, by what they have, and those that leave.

        Who has old code leaves, and who nobody wants, or nobody can call.
        """
        wanted = {_code(each): each.wanted for each in asked}
        current: dict[Code, list[workers.Worker]] = defaultdict(list)
        leaving = []
        for row in rows:
            code = row.function_id, row.function_version
            if row.status is WorkerStatus.DRAINING:
                leaving.append(row)
            elif (
                revisions.get(row.function_id) != row.revision
                or (code in wanted and len(current[code]) >= wanted[code])
                or not self._clients.can_call(row)
            ):
                leaving.append(self._drain(row))
            else:
                current[code].append(row)
        return current, leaving

    def _release(self, runtime_id: str, leaving: list[workers.Worker]) -> bool:
        """Let go of workers; whether some are still ending.

        None before what was sent to it has ended, so that no request can be on its
        way to a worker that has just gone.
        """
        busy = self._db.read(executions.of_workers, [row.id for row in leaving]) if leaving else ()
        ending = set[str]()
        for row in leaving:
            if row.id in busy:
                continue
            if self._orchestrator.release(runtime_id, row.id):
                self._db.write(workers.remove, row.id)
            else:
                ending.add(row.id)
        # Once it knows that no answer of its is missing it need not wait for who asks.
        for worker_id in ending - self._ending.pop(runtime_id, set()):
            self._load(worker_id)
        if ending:
            self._ending[runtime_id] = ending
        return bool(busy or ending)

    def _hand_out(
        self,
        runtime_id: str,
        turns: Iterable[demands.Demand],
        current: dict[Code, list[workers.Worker]],
    ) -> bool:
        """Claim a worker for each turn; False when the pool ended before they did."""
        # Of what another engine has seen to meanwhile.
        enough = set[demands.Demand]()
        for demand in turns:
            if demand in enough:
                continue
            claimed = self._orchestrator.claim(runtime_id)
            if claimed is None:
                return False
            row = workers.Worker(
                id=claimed.id,
                function_id=demand.function_id,
                function_version=demand.function_version,
                revision=demand.revision,
                runtime_id=runtime_id,
                boot_id=None,
                address=claimed.address,
                key=self._clients.make_key(claimed.id),
                status=WorkerStatus.LOADING,
                claimed_at=timeutils.utcnow(),
            )
            if self._db.write(workers.create, row):
                current[_code(demand)].append(row)
                self._load(row.id)
            else:
                enough.add(demand)
                self._orchestrator.release(runtime_id, row.id)
        return True


class Loads:
    """:param changed: called with a runtime's id when a worker of it is of no use."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        orchestrator: base.Orchestrator,
        store: stores.PackageStore,
        clients: Clients,
        losses: Losses,
        changed: Callable[[str], None],
    ) -> None:
        self._conf = conf
        self._db = db
        self._orchestrator = orchestrator
        self._store = store
        self._clients = clients
        self._losses = losses
        self._changed = changed

    def reconcile(self, worker_id: str) -> float | None:
        """Give one claimed worker its function, and then no more processor than is due to it; one
        that is let go the word that it may end.
        """
        row, function = self._db.read(workers.with_function, worker_id)
        if row is not None and row.status is WorkerStatus.DRAINING:
            self._let_end(row)
        elif row is not None:
            self._bring(row, function)
        return None

    def _bring(self, row: workers.Worker, function: functions.Function | None) -> None:
        """Take a worker to its function, and let go of it where that cannot be."""
        fit = False
        try:
            if function is not None and function.revision == row.revision:
                fit = row.status is WorkerStatus.READY or self._load(row, function)
            if function is not None and fit:
                # Only now: an import under a tenth of a processor takes ten times as long. Nobody
                # waits for it, and it is in force in a moment.
                self._orchestrator.resize(row.runtime_id, row.id, cpu=function.cpu)
        except exceptions.OrchestratorError as error:
            # It is away; the worker is there for when it comes back.
            if not fit:
                self._db.write(demands.note, row.function_id, row.function_version, error.cause)
            raise
        except exceptions.NotFound as error:
            # Or worker after worker would be claimed for a version that has gone.
            LOG.info("Worker %s is wanted no more: %s", row.id, error)
            self._db.write(demands.let_go, row.function_id, row.function_version)
        except (exceptions.FunctionRefused, exceptions.PackageLost) as error:
            LOG.warning("No worker takes function %s: %s", row.function_id, error)
            key = row.function_id, row.function_version, row.revision
            self._db.write(demands.refuse, *key, str(error))
        except exceptions.QinlingError as error:
            LOG.warning("Worker %s cannot be loaded, and is let go: %s", row.id, error)
            fit = False
            # Where workers are is not for who reads why a function has none.
            away = isinstance(error, exceptions.WorkerGone | exceptions.WorkerLost)
            _lose(self._db, self._losses, row, "its worker did not take it" if away else str(error))
        if not fit:
            self._db.write(workers.drain, row.id)
            self._db.write(demands.ask_again, row.function_id)
            self._changed(row.runtime_id)

    def _let_end(self, row: workers.Worker) -> None:
        """Tell a worker that all which was sent to it is written down, if that is so."""
        client = self._clients.of(row)
        if client is None or row.boot_id is None:
            return
        with contextlib.closing(client):
            if not self._db.read(executions.of_workers, [row.id]):
                # Who does not hear it is gone, or waits for some seconds in vain.
                with contextlib.suppress(exceptions.WorkerError, exceptions.OrchestratorError):
                    client.drain()

    def _load(self, row: workers.Worker, function: functions.Function) -> bool:
        """Push the package; False when the worker is of no use."""
        code: functions.Function | function_versions.FunctionVersion = function
        if row.function_version:
            code = self._db.read(function_versions.get, function.id, row.function_version)
        client = self._clients.of(row)
        if code.package is None or client is None:
            return False
        options = self._conf.execution
        concurrency = self._conf.engine.function_concurrency
        memory = concurrency * function.memory_size, options.import_memory * _MIB
        metadata = {
            "function_id": function.id,
            "entry": code.entry,
            "concurrency": concurrency,
            "memory_size": function.memory_size,
            "import_memory": options.import_memory * _MIB,
            "import_timeout": options.import_timeout,
            "max_unpacked_size": self._conf.storage.max_unpacked_size * _MIB,
            "max_result_size": options.max_result_size,
            "max_log_size": options.max_log_size,
        }
        with contextlib.closing(client):
            # Asked for first, so that it may come while the rest is made ready.
            self._orchestrator.resize(row.runtime_id, row.id, memory=memory)
            boot_id = client.meet()
            with self._store.pieces(code.package) as package:
                self._fit(row, memory)
                patience = options.import_timeout + _MARGIN
                client.load(boot_id, metadata, package, package.size, patience)
        return self._db.write(workers.loaded, row.id, boot_id)

    def _fit(self, row: workers.Worker, memory: tuple[int, int]) -> None:
        """Let a worker have its function's memory, before it has the function.

        :raises WorkerUnfit: it does not get it, or not in time.
        """
        deadline = time.monotonic() + _FIT_TIMEOUT
        while not self._orchestrator.resize(row.runtime_id, row.id, memory=memory):
            if time.monotonic() > deadline:
                raise exceptions.WorkerUnfit(
                    f"it was not given more memory within {_FIT_TIMEOUT:.0f} s"
                )
            time.sleep(_FIT_LOOK)


def _lose(db: db_api.Database, losses: Losses, row: workers.Worker, reason: str) -> None:
    """Take note of a worker that was lost, and count it if it was lost young."""
    db.write(demands.note, row.function_id, row.function_version, reason)
    if (timeutils.utcnow() - row.claimed_at).total_seconds() >= USEFUL_AGE:
        return
    pause = losses.count((row.function_id, row.revision))
    if pause:
        LOG.warning(
            "Function %s loses its workers soon after they are claimed; it gets the next one in "
            "%g s.",
            row.function_id,
            pause,
        )


def _code(demand: demands.Demand) -> Code:
    return demand.function_id, demand.function_version


def _in_turns(
    short: list[demands.Demand], current: Mapping[Code, Sequence[workers.Worker]]
) -> Iterable[demands.Demand]:
    """Who gets the next worker: each project in turn, and each of its functions in turn."""
    lines: dict[str, list[demands.Demand]] = defaultdict(list)
    for demand in short:
        missing = demand.wanted - len(current.get(_code(demand), ()))
        lines[demand.project_id] += [demand] * missing
    while lines:
        for project_id in list(lines):
            yield lines[project_id].pop(0)
            if not lines[project_id]:
                del lines[project_id]
