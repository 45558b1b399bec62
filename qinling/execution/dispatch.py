"""Takes an execution to its one end: picks a worker, sends, records.

An execution is sent to one worker only. Where the answer means "not run"
another one gets it; after anything else the same worker is asked again by the
execution's id, and nobody else is.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from oslo_config import cfg
from oslo_log import log
from oslo_utils import timeutils

from qinling import context, exceptions
from qinling.db import api as db_api
from qinling.db import demands, executions, functions, workers
from qinling.execution import results
from qinling.execution.clients import Clients
from qinling.execution.line import Line
from qinling.execution.lines import Lines
from qinling.execution.recorder import Recorder
from qinling.execution.worker import Outcome, WorkerClient
from qinling.states import ExecutionStatus

if TYPE_CHECKING:
    from qinling.rpc import EngineNotifier

LOG = log.getLogger(__name__)

# Seconds between two questions to a worker whose answer was lost, at first and at most, and beyond
# the function's timeout until it is given up.
_ASK_AGAIN = 0.2
_ASK_AT_MOST = 1.0
_SLOWER = 1.2
_PATIENCE = 15.0
# Seconds until somebody on the way to a worker who refuses is asked again, unless he names them.
_COME_BACK = 1.0
# Times that an execution is accepted anew because its function has changed.
_ATTEMPTS = 10


class Dispatcher:
    """Runs executions in the threads of whoever calls.

    :param owner: the lease of this process: it is alive, and has what it runs.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        db: db_api.Database,
        clients: Clients,
        engine: "EngineNotifier",
        owner: Callable[[], str],
    ) -> None:
        self._options = conf.execution
        self._db = db
        self._engine = engine
        self._owner = owner
        self._clients = clients
        self._recorder = Recorder(db)
        self._lines = Lines(conf, db, clients, engine)

    def start(
        self, values: dict[str, Any], function: functions.Function, asked_by: context.RequestContext
    ) -> executions.Execution:
        """Accept a synchronous execution and take it to its end.

        :raises FunctionChanged: again and again, before it was accepted.
        :raises NotFound: the function, or the version, has gone.
        """
        for _ in range(_ATTEMPTS):
            line = self._lines.of(function, values["function_version"], asked_by)
            client = line.try_take()
            owned = {"owner": self._owner(), "worker_id": client.id if client else None}
            try:
                execution = self._db.write(executions.create, values | owned, function.revision)
            except exceptions.FunctionChanged:
                if client is not None:
                    line.is_gone(client)
                function = self._db.read(functions.get, function.id)
            except BaseException as error:
                if client is not None:
                    line.give_back(client)
                if isinstance(error, exceptions.DatabaseUnavailable):
                    # It may be there all the same, and nobody else would take it from this owner.
                    self._recorder.end_later(_never_run(values | owned), "")
                raise
            else:
                return self._run(execution, function, asked_by, client)
        raise exceptions.FunctionChanged(function.id)

    def accept(self, values: dict[str, Any], function: functions.Function) -> executions.Execution:
        """Accept an asynchronous execution, for whichever engine takes it.

        :raises FunctionChanged, NotFound: as ``start``.
        """
        nobodys = values | {"owner": None, "worker_id": None}
        for _ in range(_ATTEMPTS):
            try:
                return self._db.write(executions.create, nobodys, function.revision)
            except exceptions.FunctionChanged:
                function = self._db.read(functions.get, function.id)
        raise exceptions.FunctionChanged(function.id)

    def run(
        self,
        execution: executions.Execution,
        function: functions.Function,
        asked_by: context.RequestContext,
    ) -> executions.Execution:
        """Take an execution that this process owns, and that nobody was sent, to its end.

        :raises DatabaseUnavailable: it is this process's still, and to be looked at again.
        """
        return self._run(execution, function, asked_by, None)

    def is_ending(self, execution_id: str) -> bool:
        """Whether an execution has had its end, which the database has not taken yet."""
        return self._recorder.has(execution_id)

    def recover(self, execution: executions.Execution, timeout: float) -> None:
        """End an execution whose owner is gone, as its worker says."""
        outcome = None
        with self._client_of(execution) as client:
            if client is not None:
                with contextlib.suppress(exceptions.WorkerBroken):
                    outcome = self._ask(client, execution.id, timeout)
        if outcome is None:
            self._end(execution, ExecutionStatus.ERROR, results.FAILED, 0.0, "")
        else:
            self._record(execution, outcome)

    def cancel(self, execution: executions.Execution) -> None:
        """Stop an execution where it runs, if it does, or where it waits for a worker."""
        for line in self._lines.where(execution):
            line.end([execution.id])
        with self._client_of(execution) as client:
            if client is None:
                return
            try:
                client.cancel(execution.id)
            except (exceptions.WorkerError, exceptions.OrchestratorError) as error:
                LOG.info("Execution %s is stopped by nobody: %s", execution.id, error)

    def _run(
        self,
        execution: executions.Execution,
        function: functions.Function,
        asked_by: context.RequestContext,
        client: WorkerClient | None,
    ) -> executions.Execution:
        """
        :param client: the worker that the row says it is sent to; its place is taken.
        """
        began = time.monotonic()
        try:
            client, outcome = self._deliver(execution, function, asked_by, client)
        except exceptions.ExecutionTaken as error:
            LOG.info("%s", error)
            return self._end_by_others(execution, self._options.start_timeout + function.timeout)
        except exceptions.DatabaseUnavailable as error:
            if not execution.sync:
                # It was run by nobody, and nobody waits: it can be begun when the database is back.
                raise
            output = f"{results.FAILED} {error}"
        except exceptions.NoWorker as error:
            output = f"{results.FAILED} {error}{self._reason(execution)}"
            LOG.warning("Execution %s cannot be run: %s", execution.id, output)
        except exceptions.QinlingError as error:
            LOG.warning("Execution %s cannot be run: %s", execution.id, error)
            told = error.cause if isinstance(error, exceptions.OrchestratorError) else error
            output = f"{results.FAILED} {told}"
        except Exception:
            LOG.exception("Execution %s cannot be run", execution.id)
            output = results.FAILED
        else:
            recorded = self._record(execution, outcome)
            client.acknowledge(execution.id)
            return recorded
        return self._end(execution, ExecutionStatus.ERROR, output, time.monotonic() - began, "")

    def _reason(self, execution: executions.Execution) -> str:
        """Why there is no worker, as far as it is known."""
        key = execution.function_id, execution.function_version
        try:
            reason = self._db.read(demands.reason, *key)
        except exceptions.DatabaseUnavailable:
            reason = None
        return f": {reason}" if reason else ""

    def _deliver(
        self,
        execution: executions.Execution,
        function: functions.Function,
        asked_by: context.RequestContext,
        client: WorkerClient | None,
    ) -> tuple[WorkerClient, Outcome]:
        """Send it, to one worker after the other until one runs it: that one, and what came."""
        deadline = time.monotonic() + self._options.start_timeout
        while True:
            line = self._lines.of(function, execution.function_version, asked_by)
            if client is None:
                try:
                    client = line.take(deadline, execution.id)
                except exceptions.FunctionChanged:
                    function = self._db.read(functions.get, function.id)
                    continue
                if not self._note(execution, function, line, client):
                    current = self._db.read(executions.find, execution.id)
                    if current is None or current.owner != execution.owner:
                        line.give_back(client)
                        raise exceptions.ExecutionTaken(execution.id)
                    line.is_gone(client)
                    # What was answered to who changed it holds for all that starts after that.
                    function = self._db.read(functions.get, function.id)
                    client = None
                    continue
            self._note_use(execution, line)
            try:
                outcome = self._try(execution, line, client, function.timeout, asked_by)
            except exceptions.ClusterAway as error:
                LOG.info("Execution %s has not got to its worker: %s", execution.id, error)
                outcome = None
                _wait(error, deadline)
            if outcome is not None:
                return client, outcome
            self._recall(execution)
            client = None

    def _recall(self, execution: executions.Execution) -> None:
        """Have it be sent to nobody: whoever inherits it is not to ask the one that refused it.

        :raises DatabaseUnavailable: that cannot be noted, and somebody waits for it.
        """
        while True:
            try:
                self._db.write(executions.recall, execution)
                return
            except exceptions.DatabaseUnavailable:
                # Noted as it is, it would be taken for one that its worker has forgotten.
                if execution.sync:
                    raise
                time.sleep(_ASK_AT_MOST)

    def _note(
        self,
        execution: executions.Execution,
        function: functions.Function,
        line: Line,
        client: WorkerClient,
    ) -> bool:
        """Write down who is about to get it; False when it, or nobody with this code, may not."""
        try:
            return self._db.write(executions.send, execution, client.id, function.revision)
        except BaseException:
            line.give_back(client)
            raise

    def _note_use(self, execution: executions.Execution, line: Line) -> None:
        """Have the workers kept; now and then, as a write for each execution would be dear."""
        now = time.monotonic()
        if now - line.noted < demands.NOTED_EVERY:
            return
        line.noted = now
        # Missed once is no matter: they are kept for longer than the longest execution takes.
        with contextlib.suppress(exceptions.DatabaseUnavailable):
            key = execution.function_id, execution.function_version
            self._db.write(demands.note_use, *key)

    def _try(
        self,
        execution: executions.Execution,
        line: Line,
        client: WorkerClient,
        timeout: float,
        asked_by: context.RequestContext,
    ) -> Outcome | None:
        """What came of sending it to a worker; None when that has not run it.

        :raises OrchestratorError: nor has it, and another worker would not either.
        """
        try:
            outcome = self._send(execution, client, timeout)
        except exceptions.WorkerBusy:
            line.is_busy(client)
            return None
        except exceptions.WorkerGone as error:
            LOG.info("Worker %s is gone: %s", client.id, error)
            line.is_gone(client)
            self._tell(execution.function_id, asked_by)
            return None
        except exceptions.OrchestratorError:
            line.give_back(client)
            raise
        except BaseException:
            line.is_gone(client)
            raise
        line.give_back(client)
        return outcome

    def _send(
        self, execution: executions.Execution, client: WorkerClient, timeout: float
    ) -> Outcome:
        try:
            return client.execute(execution.id, execution.input, timeout)
        except exceptions.WorkerLost as error:
            LOG.info("Execution %s: %s", execution.id, error)
        outcome = self._ask(client, execution.id, timeout)
        if outcome is None:
            raise exceptions.WorkerLost("its worker was lost while it ran")
        return outcome

    def _ask(self, client: WorkerClient, execution_id: str, timeout: float) -> Outcome | None:
        """The result of what was sent; None when nobody will ever know."""
        deadline, pause = time.monotonic() + timeout + _PATIENCE, _ASK_AGAIN
        while time.monotonic() < deadline:
            try:
                outcome = client.result(execution_id)
            except exceptions.WorkerAway:
                if not self._is_known(client):
                    return None
                wait = pause
            except exceptions.WorkerGone:
                return None
            except exceptions.WorkerLost:
                wait = pause
            except exceptions.OrchestratorError as error:
                wait = _come_back(error)
            else:
                if outcome is not None:
                    return outcome
                wait = pause
            time.sleep(wait)
            pause = min(pause * _SLOWER, _ASK_AT_MOST)
        return None

    def _is_known(self, client: WorkerClient) -> bool:
        """Whether no engine has seen the end of a worker yet."""
        try:
            return self._db.read(workers.find, client.id) is not None
        except exceptions.DatabaseUnavailable:
            return True

    def _record(self, execution: executions.Execution, outcome: Outcome) -> executions.Execution:
        status = {"success": ExecutionStatus.SUCCESS, "failed": ExecutionStatus.FAILED}.get(
            outcome.status, ExecutionStatus.ERROR
        )
        output = results.CANCELLED if outcome.status == "cancelled" else outcome.output
        return self._end(execution, status, output, outcome.duration, outcome.log)

    def _end(
        self,
        execution: executions.Execution,
        status: ExecutionStatus,
        output: Any,
        duration: float,
        printed: str,
    ) -> executions.Execution:
        """Write the end down; what is answered is what stands in the row."""
        ended = results.end(execution, status, results.encode(duration, output=output))
        if self._recorder.end(ended, printed):
            return ended
        # It had its end: it was taken for lost, or deleted.
        current = self._db.read(executions.find, execution.id)
        return current or results.fail(execution, results.CANCELLED, duration)

    def _end_by_others(
        self, execution: executions.Execution, timeout: float
    ) -> executions.Execution:
        """What becomes of an execution that this process lost; as it is when the time is over."""
        began = time.monotonic()
        while True:
            runs, _ = self._db.read(executions.under_way, execution.id)
            waited = time.monotonic() - began
            if not runs or waited > timeout:
                current = self._db.read(executions.find, execution.id)
                return current or results.fail(execution, results.CANCELLED, waited)
            time.sleep(_ASK_AGAIN)

    def _tell(self, function_id: str, asked_by: context.RequestContext) -> None:
        """A worker is not what its row says: let the engine look, sooner than it would."""
        with contextlib.suppress(exceptions.DatabaseUnavailable):
            self._db.write(demands.ask_again, function_id)
            self._engine.update_function(asked_by, function_id)

    @contextlib.contextmanager
    def _client_of(self, execution: executions.Execution) -> Iterator[WorkerClient | None]:
        """The worker that an execution was sent to, for a while; None when there is none."""
        row = self._db.read(workers.find, execution.worker_id) if execution.worker_id else None
        client = None if row is None else self._clients.of(row)
        if client is None:
            yield None
            return
        with contextlib.closing(client):
            yield client


def _come_back(error: exceptions.OrchestratorError) -> float:
    """Seconds until somebody on the way to a worker may be asked again."""
    return max(float(error.retry_after or 0), _COME_BACK)


def _wait(error: exceptions.ClusterAway, deadline: float) -> None:
    """Until somebody on the way to the workers may be asked again.

    :param deadline: on the monotonic clock.
    :raises NoWorker: it is over by then.
    """
    pause = _come_back(error)
    if time.monotonic() + pause >= deadline:
        raise exceptions.NoWorker(f"no worker could be reached in time: {error.cause}") from error
    time.sleep(pause)


def _never_run(values: dict[str, Any]) -> executions.Execution:
    """The end of an execution whose acceptance could not be answered."""
    now = timeutils.utcnow()
    result = results.encode(0.0, output=results.FAILED)
    return executions.Execution(
        **values, created_at=now, updated_at=now, status=ExecutionStatus.ERROR, result=result
    )
