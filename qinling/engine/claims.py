"""Workers for functions: from what is wanted to workers that were claimed and loaded.

``Claims.reconcile`` works on one runtime's pool: it buries the workers that have
died, lets go of those that nobody wants, and hands out free ones to those who
wait, in turns. ``Loads.reconcile`` takes one claimed worker to its function.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace

from oslo_config import cfg
from oslo_log import log
from oslo_utils import timeutils

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import demands, function_versions, functions, workers
from qinling.execution.keys import Keys
from qinling.execution.worker import WorkerClient
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
_MIB = 1024**2


class Claims:
    """:param load: called with the id of each worker that is to get its function."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        orchestrator: base.Orchestrator,
        keys: Keys,
        load: Callable[[str], None],
    ) -> None:
        self._most = conf.engine.max_workers_per_function
        self._db = db
        self._orchestrator = orchestrator
        self._keys = keys
        self._load = load
        self._lock = threading.Lock()
        # Claimed workers that have no row, and since when that is known.
        self._rowless: dict[str, float] = {}

    def reconcile(self, runtime_id: str) -> float | None:
        """Take the workers of a runtime one step; seconds until the next look, or None."""
        rows = self._db.read(workers.of_runtime, runtime_id)
        if rows:
            rows = self._bury(runtime_id, rows)
        asked = self._db.read(demands.unsettled, runtime_id)
        if not asked and not rows:
            return self._let_go_rowless(runtime_id, ())
        waits = self._let_go_rowless(runtime_id, rows) is not None
        current = self._drain_unwanted(asked, rows)
        waits |= self._release(rows)
        short = [each for each in asked if len(current[_key(each)]) < min(each.wanted, self._most)]
        for each in asked:
            if each not in short:
                self._db.write(demands.settle, each)
        claimed = self._hand_out(runtime_id, _in_turns(short, current), current)
        for each in short:
            if len(current[_key(each)]) >= min(each.wanted, self._most):
                self._db.write(demands.settle, each)
        return _LOOK_AGAIN if waits or (short and not claimed) else None

    def _bury(self, runtime_id: str, rows: list[workers.Worker]) -> list[workers.Worker]:
        """Forget the workers that have died, and see who is dying; those that live yet.

        In place of each there is to be another one, which need not wait for its end.
        """
        # Asked after the rows were read: none of them is younger than what is told.
        there = self._orchestrator.claimed(runtime_id, {row.id for row in rows})
        living = []
        for row in rows:
            is_there, released = row.id in there, row.status is WorkerStatus.DRAINING
            if is_there and (released or there[row.id]):
                living.append(row)
                continue
            what = "ending" if is_there else "gone"
            LOG.info("Worker %s of function %s is %s.", row.id, row.function_id, what)
            if is_there:
                self._db.write(workers.drain, row.id)
                living.append(replace(row, status=WorkerStatus.DRAINING))
            else:
                self._db.write(workers.remove, row.id)
            if not released:
                self._db.write(demands.ask_again, row.function_id)
        return living

    def _let_go_rowless(self, runtime_id: str, rows: Iterable[workers.Worker]) -> float | None:
        known = {row.id for row in rows}
        now = time.monotonic()
        rowless = [each for each in self._orchestrator.claimed(runtime_id) if each not in known]
        for worker_id in rowless:
            since = self._rowless.setdefault(worker_id, now)
            if now - since >= _GRACE and self._db.read(workers.find, worker_id) is None:
                LOG.warning("Worker %s was claimed for nobody; it is let go.", worker_id)
                if self._orchestrator.release(runtime_id, worker_id):
                    self._rowless.pop(worker_id, None)
        return _LOOK_AGAIN if rowless else None

    def _drain_unwanted(
        self, asked: list[demands.Demand], rows: list[workers.Worker]
    ) -> dict[tuple[str, int], list[workers.Worker]]:
        """Mark old and superfluous workers; the others by function and version."""
        wanted = {_key(each): each for each in asked}
        revisions = self._db.read(functions.revisions, {row.function_id for row in rows})
        current: dict[tuple[str, int], list[workers.Worker]] = defaultdict(list)
        for row in rows:
            key = (row.function_id, row.function_version)
            demand = wanted.get(key)
            stale = revisions.get(row.function_id) != row.revision
            many = demand is not None and len(current[key]) >= demand.wanted
            if row.status is WorkerStatus.DRAINING:
                continue
            if stale or many:
                self._db.write(workers.drain, row.id)
            else:
                current[key].append(row)
        return current

    def _release(self, rows: list[workers.Worker]) -> bool:
        """Let go of the workers that are marked; whether some are still ending."""
        ending = False
        for row in rows:
            now = self._db.read(workers.find, row.id)
            if now is None or now.status is not WorkerStatus.DRAINING:
                continue
            if self._orchestrator.release(row.runtime_id, row.id):
                self._db.write(workers.remove, row.id)
            else:
                ending = True
        return ending

    def _hand_out(
        self,
        runtime_id: str,
        turns: Iterable[demands.Demand],
        current: dict[tuple[str, int], list[workers.Worker]],
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
                key=self._keys.hide(self._keys.make()),
                status=WorkerStatus.LOADING,
                claimed_at=timeutils.utcnow(),
            )
            if self._db.write(workers.create, row):
                current[_key(demand)].append(row)
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
        store: stores.PackageStore,
        keys: Keys,
        changed: Callable[[str], None],
    ) -> None:
        self._conf = conf
        self._db = db
        self._store = store
        self._keys = keys
        self._changed = changed

    def reconcile(self, worker_id: str) -> float | None:
        """Give one claimed worker its function."""
        row = self._db.read(workers.find, worker_id)
        if row is None or row.status is not WorkerStatus.LOADING:
            return None
        try:
            boot_id = self._give(row)
        except exceptions.QinlingError as error:
            LOG.warning("Worker %s cannot be loaded, and is let go: %s", row.id, error)
            boot_id = None
        if boot_id is None or not self._db.write(workers.loaded, row.id, boot_id):
            self._db.write(workers.drain, row.id)
            self._db.write(demands.ask_again, row.function_id)
            self._changed(row.runtime_id)
        return None

    def _give(self, row: workers.Worker) -> str | None:
        """Push the package; the boot id of the server that has it, None when it is old."""
        function = self._db.read(functions.find, row.function_id)
        if function is None or function.revision != row.revision or function.package is None:
            return None
        code: functions.Function | function_versions.FunctionVersion = function
        if row.function_version:
            code = self._db.read(function_versions.get, function.id, row.function_version)
        assert code.package is not None
        options = self._conf.execution
        metadata = {
            "function_id": function.id,
            "entry": code.entry,
            "concurrency": self._conf.engine.function_concurrency,
            "memory_size": function.memory_size,
            "import_memory": options.import_memory * _MIB,
            "import_timeout": options.import_timeout,
            "max_unpacked_size": self._conf.storage.max_unpacked_size * _MIB,
            "max_result_size": options.max_result_size,
            "max_log_size": options.max_log_size,
        }
        with self._store.open(code.package) as file:
            package = file.read()
        client = WorkerClient(row.id, row.address, self._keys.reveal(row.key), row.revision)
        try:
            return client.load(metadata, package, options.import_timeout + 10.0).boot_id
        finally:
            client.close()


def _key(demand: demands.Demand) -> tuple[str, int]:
    return demand.function_id, demand.function_version


def _in_turns(
    short: list[demands.Demand], current: dict[tuple[str, int], list[workers.Worker]]
) -> Iterable[demands.Demand]:
    """Who gets the next worker: each project in turn, and each of its functions in turn."""
    lines: dict[str, list[demands.Demand]] = defaultdict(list)
    for demand in short:
        missing = demand.wanted - len(current[_key(demand)])
        lines[demand.project_id] += [demand] * missing
    while lines:
        for project_id in list(lines):
            yield lines[project_id].pop(0)
            if not lines[project_id]:
                del lines[project_id]
