"""Runs executions in slots, and judges how they ended."""

import time
from typing import Any, NamedTuple

from qinling.worker import channel
from qinling.worker.child import Exhausted, Gone, Late
from qinling.worker.executions import Execution, Executions
from qinling.worker.function import EXHAUSTED, FAILED, SPENT, SUCCESS, TIMEOUT, Function
from qinling.worker.log import Log
from qinling.worker.slots import Slot, Slots, Unimportable


class _Outcome(NamedTuple):
    status: str
    output: Any
    trace: str = ""
    #: Whether its slot may run another one.
    reusable: bool = False


_CANCELLED = _Outcome("cancelled", "Function execution cancelled.")
_FAULT = _Outcome(FAILED, "The function's worker has made a mistake; its own log says which.")


class Executor:
    """What a worker does once it has its function."""

    def __init__(self, function: Function, slots: Slots) -> None:
        self._function = function
        self._slots = slots
        self.executions = Executions(function.concurrency)
        #: Why the function cannot be imported, if so.
        self.fault: Unimportable | None = None
        try:
            slots.start()
        except Unimportable as fault:
            self.fault = fault

    def close(self) -> None:
        """End all processes of the function."""
        self._slots.close()

    def run(self, execution: Execution, given: str | None, timeout: float) -> bytes:
        """Run what ``begin`` has made, to its end, and keep and return its answer."""
        answer = None
        try:
            answer = self._run(execution, given, timeout)
        finally:
            # Whatever goes wrong: its place is free, and who asks is told.
            self.executions.end(execution, answer or _encode(execution.id, _FAULT, 0.0, ""))
        return answer

    def _run(self, execution: Execution, given: str | None, timeout: float) -> bytes:
        log = Log(self._function.max_log_size)
        began = time.monotonic()
        try:
            if self.fault is not None:
                raise self.fault
            slot = self._slots.take()
        except Unimportable as fault:
            outcome = _Outcome(FAILED, str(fault), fault.log)
        else:
            # The function's time counts from here.
            began = time.monotonic()
            outcome = self._run_in(slot, execution, given, timeout, log)
        duration = time.monotonic() - began
        if execution.cancelled:
            outcome = _CANCELLED
        return _encode(execution.id, outcome, duration, log.text(outcome.trace))

    def _run_in(
        self, slot: Slot, execution: Execution, given: str | None, timeout: float, log: Log
    ) -> _Outcome:
        outcome = _FAULT
        try:
            self.executions.attach(execution, slot.child.kill)
            outcome = self._judge(slot, given, time.monotonic() + timeout, timeout, log)
        finally:
            self.executions.attach(execution, None)
            self._slots.give_back(slot, reusable=outcome.reusable)
        return outcome

    def cancelled(self, execution_id: str) -> bytes:
        """The answer to one that was cancelled before it came."""
        return _encode(execution_id, _CANCELLED, 0.0, "")

    def _judge(
        self, slot: Slot, given: str | None, deadline: float, timeout: float, log: Log
    ) -> _Outcome:
        try:
            said = slot.child.ask(channel.pack(given), deadline, slot.memory, log)
        except Late:
            return _Outcome(FAILED, f"{TIMEOUT}: it has run for {timeout:g} s.")
        except (Exhausted, Gone, OSError) as error:
            return _Outcome(FAILED, f"{EXHAUSTED}: {error}.")
        match said:
            case [str(status), output, str(trace), bool(spent)]:
                if status == SUCCESS:
                    return _Outcome(SUCCESS, output, reusable=not spent)
                if status == SPENT:
                    return _Outcome(FAILED, f"{EXHAUSTED}: {output}", trace)
                if status == FAILED and isinstance(output, str):
                    return _Outcome(FAILED, output, trace, not spent)
        return _Outcome(FAILED, f"{EXHAUSTED}: its process has said what cannot be.")


def _encode(execution_id: str, outcome: _Outcome, duration: float, log: str) -> bytes:
    """What ``/execute`` answers."""
    return channel.encode(
        {
            "execution_id": execution_id,
            "status": outcome.status,
            "output": outcome.output,
            "duration": duration,
            "log": log,
        }
    )
