"""``Idempotency-Key``: a request that is sent again is answered again, and done once.

As of draft-ietf-httpapi-idempotency-key-header: the key is the caller's own, a string with or
without quotes; 422 when another request has it, 409 while the first one has no answer.
"""

import re
from dataclasses import replace
from typing import Any

import webob

from qinling import exceptions
from qinling.db import executions
from qinling.states import ExecutionStatus

HEADER = "Idempotency-Key"
_KEY = re.compile(r'("?)([A-Za-z0-9._~:/+=-]{1,255})\1')


def key_of(request: webob.Request) -> str | None:
    """The key of a request that has one.

    :raises BadRequest: it is malformed.
    """
    given = request.headers.get(HEADER)
    if given is None:
        return None
    found = _KEY.fullmatch(given)
    if found is None:
        raise exceptions.BadRequest(
            f"{HEADER}: it has 1 to 255 letters, digits and -._~:/+=, and may be in quotes."
        )
    return found[2]


def first_answer(first: executions.Execution, asked: dict[str, Any]) -> executions.Execution:
    """What was answered to the request that ``first`` was made of, and is to this one.

    :raises Unprocessable: it was another request.
    :raises StillRunning: it has no answer yet.
    """
    if _request(first) != {"function_id": None} | asked:
        raise exceptions.Unprocessable(
            f"{HEADER}: execution {first.id} was asked for with it and another body; each "
            "request has a key of its own."
        )
    if not first.sync:
        return replace(first, status=ExecutionStatus.RUNNING, result=None, updated_at=None)
    if first.status is ExecutionStatus.RUNNING:
        raise exceptions.StillRunning(
            f"{HEADER}: execution {first.id}, which was asked for with it, has not ended; ask "
            "again when it has."
        )
    return first


def _request(execution: executions.Execution) -> dict[str, Any]:
    """The body that an execution was asked for with, as ``asked``."""
    alias = execution.function_alias
    return {
        "function_id": execution.function_id if alias is None else None,
        # What an alias stands for may have changed meanwhile.
        "function_version": execution.function_version if alias is None else 0,
        "function_alias": alias,
        "input": execution.input,
        "sync": execution.sync,
        "description": execution.description,
    }
