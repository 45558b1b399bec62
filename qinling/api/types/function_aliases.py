"""Aliases of functions on the wire."""

from typing import Any, Self

from wsme import types as wtypes

from qinling.api.types.base import VERSION, List, Text, Type, Uuid, readonly, time
from qinling.db import function_aliases


class Name(wtypes.UserType):  # type: ignore[misc]
    """The name of an alias, which is one part of a URL."""

    basetype = str
    name = "name"
    _text = Text(longest=255, shortest=1)

    @classmethod
    def validate(cls, value: Any) -> str:
        text = cls._text.validate(value)
        if "/" in text or text in (".", ".."):
            raise ValueError("it has a slash, or is a step in a path, and could not be in a URL")
        return text


class FunctionAlias(Type):
    """An alias as every call answers it."""

    id = str
    name = str
    function_id = str
    function_version = int
    description = str
    project_id = str
    created_at = str
    updated_at = str

    @classmethod
    def from_row(cls, row: function_aliases.FunctionAlias) -> Self:
        return cls(
            id=row.id,
            name=row.name,
            function_id=row.function_id,
            function_version=row.function_version,
            description=row.description,
            project_id=row.project_id,
            created_at=time(row.created_at),
            updated_at=time(row.updated_at),
        )


class FunctionAliases(List):
    function_aliases = [FunctionAlias]


class _Body(Type):
    """What a client may send in both, and what it may not."""

    function_version = VERSION
    description = Text(longest=255, lines=True)

    id = readonly(str)
    project_id = readonly(str)
    created_at = readonly(str)
    updated_at = readonly(str)


class FunctionAliasCreate(_Body):
    """The body of ``POST``."""

    name = wtypes.wsattr(Name(), mandatory=True)
    function_id = wtypes.wsattr(Uuid(), mandatory=True)


class FunctionAliasUpdate(_Body):
    """The body of ``PUT``."""

    name = readonly(str)
    function_id = Uuid()
