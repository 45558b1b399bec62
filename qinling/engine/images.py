"""Executions of functions that are images: each is one run of its own, to its one end.

That a run is begun is written down before. Whoever takes an execution over looks
for the run that is there, and never begins another one; and a run is there until
its end stands in the row.
"""

import json
import time

from oslo_config import cfg
from oslo_log import log

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import executions, functions
from qinling.execution import images, results
from qinling.execution.recorder import Recorder
from qinling.execution.worker import EXHAUSTED, TIMEOUT
from qinling.orchestrator import base
from qinling.states import ExecutionStatus

LOG = log.getLogger(__name__)

KIND = "run"

_CUT = "\n[The log was cut here: it is longer than {} bytes.]\n"
# Seconds between two tries at what the orchestrator cannot do now.
_AGAIN = 1.0
# Seconds for which an orchestrator that is away is asked how a run has ended.
_PATIENCE = 60.0
# Seconds after start and timeout in which whoever looks after a run is expected to end it.
_MARGIN = 60.0
# Of a duration that nobody has measured: the orchestrator may tell whole seconds.
_SLACK = 1.0


class ImageRuns:
    """Takes executions that this engine owns to their ends, in the threads of whoever calls."""

    def __init__(self, conf: cfg.ConfigOpts, db: db_api.Database, driver: base.Orchestrator):
        self._options = conf.execution
        self._db = db
        self._driver = driver
        self._recorder = Recorder(db)

    def run(self, execution: executions.Execution, function: functions.Function) -> None:
        """Begin its run, or go on with the one that was begun, and write down how it ends."""
        began = time.monotonic()
        printed = ""
        try:
            status, result = self._outcome(execution, function)
            printed = self._log(execution.id)
        except _NotOurs:
            return
        except exceptions.DatabaseUnavailable:
            # Nothing was begun: the next scan goes on with it.
            raise
        except exceptions.QinlingError as error:
            LOG.warning("Execution %s cannot be run: %s", execution.id, error)
            status = ExecutionStatus.ERROR
            result = results.encode(time.monotonic() - began, output=f"{results.FAILED} {error}")
        except Exception:
            LOG.exception("Execution %s cannot be run", execution.id)
            status = ExecutionStatus.ERROR
            result = results.encode(time.monotonic() - began, output=results.FAILED)
        self._recorder.end(results.end(execution, status, result), printed)
        self._driver.runs.remove(execution.id)

    def is_ending(self, execution_id: str) -> bool:
        """As ``Dispatcher.is_ending``."""
        return self._recorder.has(execution_id)

    def reconcile(self, execution_id: str) -> None:
        """End the run of an execution that is not under way, if it has one."""
        if not self._db.read(executions.running, [execution_id]):
            self._driver.runs.remove(execution_id)

    def _outcome(
        self, execution: executions.Execution, function: functions.Function
    ) -> tuple[ExecutionStatus, str]:
        if execution.worker_id is None:
            self._begin(execution, function)
        elif not self._find(execution.id):
            raise exceptions.RunLost("it was begun, and nothing is there of it any more")
        state = self._wait(execution.id, self._options.start_timeout, for_end=False)
        if state.end is None and state.running_for is None:
            why = f": {state.reason}" if state.reason else ""
            raise exceptions.NoWorker(f"its image did not run in time{why}")
        while state.end is None:
            left = function.timeout - (state.running_for or 0.0)
            if left <= 0 and self._is_timeout(execution.id):
                duration = max(state.running_for or 0.0, function.timeout)
                return ExecutionStatus.FAILED, results.encode(duration, output=TIMEOUT)
            state = self._wait(execution.id, max(left, 0.0), for_end=True)
        return _judge(state.end, function.timeout)

    def _is_timeout(self, run_id: str) -> bool:
        """Whether a run goes on, past what was last told of it."""
        self._find(run_id)
        return self._wait(run_id, 0.0, for_end=True).end is None

    def _begin(self, execution: executions.Execution, function: functions.Function) -> None:
        """:raises OrchestratorError: it could not be begun in time."""
        if not self._db.write(executions.launch, execution):
            raise _NotOurs
        image = json.loads(function.code)["image"]
        spec = base.RunSpec(
            id=execution.id,
            function_id=function.id,
            image=image,
            arguments=images.arguments(execution.input),
            cpu=function.cpu,
            memory=function.memory_size,
            lifetime=self._options.start_timeout + function.timeout + _MARGIN,
        )
        deadline = time.monotonic() + self._options.start_timeout
        while True:
            try:
                self._driver.runs.begin(spec)
                return
            except exceptions.RunRefused:
                raise
            except exceptions.OrchestratorError as error:
                if time.monotonic() + _AGAIN > deadline:
                    raise
                LOG.info("The run of execution %s is tried again: %s", execution.id, error)
            time.sleep(_AGAIN)

    def _find(self, run_id: str) -> bool:
        """Look for it, for as long as an orchestrator is away that may come back."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._driver.runs.find(run_id)
            except (exceptions.ClusterAway, exceptions.PoolBusy):
                if time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN)

    def _wait(self, run_id: str, seconds: float, *, for_end: bool) -> base.RunState:
        state = self._driver.runs.wait(run_id, seconds, for_end=for_end)
        if state is None:
            raise exceptions.RunLost("its run was removed while it was under way")
        return state

    def _log(self, run_id: str) -> str:
        most = self._options.max_log_size
        try:
            printed = self._driver.runs.log(run_id, most + 1)
        except exceptions.OrchestratorError as error:
            LOG.warning("The log of execution %s is lost: %s", run_id, error)
            return "[The log is lost: it could not be read.]\n"
        # What is no UTF-8 takes more room as the character that stands for it.
        text = printed.decode(errors="replace").encode()
        if len(text) <= most:
            return text.decode()
        note = _CUT.format(most)
        return text[: max(most - len(note), 0)].decode(errors="ignore") + note


class _NotOurs(Exception):
    """The execution has ended, or another engine has it."""


def _judge(end: base.RunEnd, timeout: float) -> tuple[ExecutionStatus, str]:
    if end.duration > timeout + _SLACK:
        # Nobody was there to end it in time.
        return ExecutionStatus.FAILED, results.encode(end.duration, output=TIMEOUT)
    if end.code is None:
        return ExecutionStatus.ERROR, results.encode(
            end.duration, output=f"{results.FAILED} {end.reason}"
        )
    if end.exhausted:
        return ExecutionStatus.FAILED, results.encode(end.duration, output=EXHAUSTED)
    if end.code:
        return ExecutionStatus.FAILED, results.encode(
            end.duration, output=f"It exited with code {end.code}."
        )
    return ExecutionStatus.SUCCESS, results.encode(end.duration)
