"""Executions on the wire."""

from typing import Any, Self

from wsme import types as wtypes

from qinling.api.types.base import VERSION, Bool, List, Text, Type, Uuid, readonly, time
from qinling.db import executions

_DESCRIPTION = Text(longest=255, lines=True)


class Input(wtypes.UserType):  # type: ignore[misc]
    """Any string: what a function gets is its own business."""

    basetype = str
    name = "input"

    @staticmethod
    def validate(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError("it is not a string; JSON goes in as a string, too")
        return value


class Execution(Type):
    """An execution as every call answers it."""

    id = str
    function_id = str
    function_version = int
    function_alias = str
    description = str
    status = str
    status_reason = str
    sync = bool
    input = str
    result = str
    project_id = str
    created_at = str
    updated_at = str

    @classmethod
    def from_row(cls, row: executions.Execution) -> Self:
        return cls(
            id=row.id,
            function_id=row.function_id,
            function_version=row.function_version,
            function_alias=row.function_alias,
            description=row.description,
            status=row.status.value,
            status_reason=None,
            sync=row.sync,
            input=row.input,
            result=row.result,
            project_id=row.project_id,
            created_at=time(row.created_at),
            updated_at=time(row.updated_at),
        )


class ExecutionCreate(Type):
    """The body of ``POST``."""

    function_id = Uuid()
    function_alias = Text(longest=255, shortest=1)
    function_version = wtypes.wsattr(VERSION, default=0)
    input = Input()
    sync = wtypes.wsattr(Bool(), default=True)
    description = _DESCRIPTION

    id = readonly(str)
    status = readonly(str)
    status_reason = readonly(str)
    result = readonly(str)
    project_id = readonly(str)
    created_at = readonly(str)
    updated_at = readonly(str)


class Executions(List):
    executions = [Execution]
