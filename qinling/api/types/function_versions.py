"""Versions of functions on the wire."""

from typing import Self

from qinling.api.types.base import List, Text, Type, readonly, time
from qinling.db import function_versions


class FunctionVersion(Type):
    """A version as every call answers it."""

    id = str
    function_id = str
    version_number = int
    description = str
    count = int
    project_id = str
    created_at = str
    updated_at = str

    @classmethod
    def from_row(cls, row: function_versions.FunctionVersion) -> Self:
        return cls(
            id=row.id,
            function_id=row.function_id,
            version_number=row.version_number,
            description=row.description,
            count=row.count,
            project_id=row.project_id,
            created_at=time(row.created_at),
            updated_at=time(row.updated_at),
        )


class FunctionVersions(List):
    function_versions = [FunctionVersion]


class FunctionVersionCreate(Type):
    """The body of ``POST``."""

    description = Text(longest=255, lines=True)

    id = readonly(str)
    function_id = readonly(str)
    version_number = readonly(int)
    count = readonly(int)
    project_id = readonly(str)
    created_at = readonly(str)
    updated_at = readonly(str)
