"""Runtimes on the wire."""

from typing import Self

from wsme import types as wtypes

from qinling.api.types.base import Bool, List, Text, Type, readonly, time
from qinling.api.types.images import Image
from qinling.db import runtimes

_NAME = Text(longest=255)
_DESCRIPTION = Text(longest=255, lines=True)
_IMAGE = Image()


class Runtime(Type):
    """A runtime as every call answers it. What is stored was checked when it came."""

    id = str
    name = str
    image = str
    description = str
    is_public = bool
    trusted = bool
    status = str
    status_reason = str
    project_id = str
    created_at = str
    updated_at = str

    @classmethod
    def from_row(cls, row: runtimes.Runtime, *, details: bool) -> Self:
        """:param details: whether the caller is told the operator's matters, too."""
        return cls(
            id=row.id,
            name=row.name,
            image=row.image,
            description=row.description,
            is_public=row.is_public,
            trusted=row.trusted,
            status=row.status.value,
            status_reason=row.reason if details else row.cause,
            project_id=row.project_id,
            created_at=time(row.created_at),
            updated_at=time(row.updated_at),
        )


class _Body(Type):
    """What no client may send."""

    id = readonly(str)
    status = readonly(str)
    status_reason = readonly(str)
    project_id = readonly(str)
    created_at = readonly(str)
    updated_at = readonly(str)


class RuntimeCreate(_Body):
    """The body of ``POST``."""

    image = wtypes.wsattr(_IMAGE, mandatory=True)
    name = _NAME
    description = _DESCRIPTION
    is_public = wtypes.wsattr(Bool(), default=True)
    trusted = wtypes.wsattr(Bool(), default=True)


class RuntimeUpdate(_Body):
    """The body of ``PUT``."""

    image = _IMAGE
    name = _NAME
    description = _DESCRIPTION
    is_public = readonly(Bool())
    trusted = readonly(Bool())


class Runtimes(List):
    runtimes = [Runtime]


class Capacity(Type):
    total = int
    available = int


class Pool(Type):
    name = str
    capacity = Capacity

    @classmethod
    def from_row(cls, row: runtimes.Runtime) -> Self:
        return cls(
            name=row.id, capacity=Capacity(total=row.pool_total, available=row.pool_available)
        )
