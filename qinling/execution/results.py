"""How executions end, as it is written down and told, by whoever ends them."""

from dataclasses import replace
from typing import Any

from oslo_utils import timeutils

from qinling.db import executions
from qinling.execution import worker
from qinling.states import ExecutionStatus

FAILED = "Function execution failed."
CANCELLED = "Function execution was cancelled."


def encode(duration: float, **output: Any) -> str:
    """The contract's ``result``: JSON in a string.

    :param duration: seconds. :param output: ``output``, unless there is none, as of an image.
    """
    return worker.encode({**output, "duration": round(duration, 6)}).decode()


def end(
    execution: executions.Execution, status: ExecutionStatus, result: str
) -> executions.Execution:
    """An execution at its end."""
    return replace(
        execution, status=status, result=result, updated_at=timeutils.utcnow(), owner=None
    )


def fail(execution: executions.Execution, output: str, duration: float) -> executions.Execution:
    """One that came to no end of its own, and why: ``error``."""
    return end(execution, ExecutionStatus.ERROR, encode(duration, output=output))
