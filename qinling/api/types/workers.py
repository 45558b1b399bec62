"""Workers of functions on the wire."""

from typing import Self

from wsme import types as wtypes

from qinling.api.types.base import Number, Type
from qinling.db import workers


class Scale(Type):
    """The body of ``scale_up`` and ``scale_down``."""

    count = wtypes.wsattr(Number(least=1), mandatory=True)


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
