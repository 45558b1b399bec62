"""Workers of functions on the wire."""

from typing import Any, Self

from wsme import types as wtypes

from qinling.api.types.base import Type
from qinling.db import workers


class Count(wtypes.UserType):  # type: ignore[misc]
    """A number of workers, one or more."""

    basetype = int
    name = "count"

    @staticmethod
    def validate(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError("it is not a number from 1 on")
        return value


class Scale(Type):
    """The body of ``scale_up`` and ``scale_down``."""

    count = wtypes.wsattr(Count(), mandatory=True)


class Worker(Type):
    function_id = str
    function_version = int
    worker_name = str

    @classmethod
    def from_row(cls, row: workers.Worker) -> Self:
        return cls(
            function_id=row.function_id,
            function_version=row.function_version,
            worker_name=row.id,
        )


class Workers(Type):
    workers = [Worker]
