"""Functions on the wire."""

import json
import re
from dataclasses import dataclass
from typing import Any, Self

from wsme import types as wtypes

from qinling import exceptions
from qinling.api.types.base import List, Number, Text, Type, Uuid, readonly, time
from qinling.api.types.images import Image
from qinling.db import functions
from qinling.execution.worker import ENTRY

PACKAGE, IMAGE, SWIFT = "package", "image", "swift"

_NAME = Text(longest=255)
_DESCRIPTION = Text(longest=255, lines=True)
_IMAGE = Image()
_MD5 = re.compile("[0-9a-f]{32}")
_WORDS = {PACKAGE: ("md5sum",), IMAGE: ("image",)}


@dataclass(frozen=True, slots=True)
class Code:
    """Where a function's code is from: ``source``, and of a package the sum that the client
    expects, of an image its name.
    """

    source: str
    md5sum: str | None = None
    image: str | None = None

    def stored(self) -> str:
        """As it is kept, and answered."""
        given = {"source": self.source, "md5sum": self.md5sum, "image": self.image}
        return json.dumps({name: value for name, value in given.items() if value is not None})

    @classmethod
    def read(cls, stored: str) -> Self:
        return cls(**json.loads(stored))

    @classmethod
    def of(cls, value: dict[str, Any]) -> Self:
        """What a client says. :raises ValueError: it is no code."""
        source = value.get("source")
        if source == SWIFT:
            raise ValueError("functions from Swift are not served yet; send a package")
        if not isinstance(source, str) or source not in _WORDS:
            raise ValueError(f"its source is neither {PACKAGE} nor {IMAGE}")
        given = {name: word for name, word in value.items() if word is not None}
        for name in given:
            if name not in ("source", *_WORDS[source]):
                raise ValueError(f"{name[:80]!r} does not go with source {source}")
        if source == IMAGE:
            if "image" not in given:
                raise ValueError("its image is missing")
            return cls(source, image=_IMAGE.validate(given["image"]))
        md5sum = given.get("md5sum")
        return cls(source) if md5sum is None else cls(source, md5sum=_Md5().validate(md5sum))


class _Code(wtypes.UserType):  # type: ignore[misc]
    """``code``: an object, or a string that has it as JSON."""

    basetype = str
    name = "code"

    @staticmethod
    def validate(value: Any) -> Code:
        if isinstance(value, Code):
            return value
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise ValueError("it is not JSON") from error
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        return Code.of(value)


class _Md5(wtypes.UserType):  # type: ignore[misc]
    basetype = str
    name = "md5sum"

    @staticmethod
    def validate(value: Any) -> str:
        if not isinstance(value, str) or not _MD5.fullmatch(value.lower()):
            raise ValueError("it is not an MD5 sum of 32 hexadecimal digits")
        return value.lower()


class _Entry(wtypes.UserType):  # type: ignore[misc]
    """``module.function``."""

    basetype = str
    name = "entry"
    _text = Text(longest=255)

    def validate(self, value: Any) -> str:
        text = self._text.validate(value)
        if not ENTRY.fullmatch(text):
            raise ValueError(f"{text[:80]!r} is not module.function")
        return text


class _File(wtypes.UserType):  # type: ignore[misc]
    """A package where no file can be."""

    basetype = str
    name = "file"

    @staticmethod
    def validate(_value: Any) -> str:
        raise ValueError("it must be a file part of a multipart/form-data body")


class _Object(wtypes.UserType):  # type: ignore[misc]
    """JSON that is stored as such."""

    basetype = str
    name = "object"

    @staticmethod
    def tobasetype(value: str) -> Any:
        return json.loads(value)


class Function(Type):
    """A function as every call answers it. What is stored was checked when it came."""

    id = str
    name = str
    description = str
    runtime_id = str
    code = _Object()
    entry = str
    cpu = int
    memory_size = int
    timeout = int
    count = int
    latest_version = int
    project_id = str
    created_at = str
    updated_at = str

    @classmethod
    def from_row(cls, row: functions.Function) -> Self:
        return cls(
            id=row.id,
            name=row.name,
            description=row.description,
            runtime_id=row.runtime_id,
            code=row.code,
            entry=row.entry,
            cpu=row.cpu,
            memory_size=row.memory_size,
            timeout=row.timeout,
            count=row.count,
            latest_version=row.latest_version,
            project_id=row.project_id,
            created_at=time(row.created_at),
            updated_at=time(row.updated_at),
        )


class Functions(List):
    functions = [Function]


class _Body(Type):
    """What a client may send in both, and what it may not."""

    name = _NAME
    description = _DESCRIPTION
    code = _Code()
    entry = _Entry()
    cpu = Number()
    memory_size = Number()
    timeout = Number()
    package = _File()
    # What clients in the field send in the place of ``code``.
    source = Text(longest=255)
    md5sum = _Md5()
    swift = Text(longest=255)

    id = readonly(str)
    count = readonly(int)
    latest_version = readonly(int)
    project_id = readonly(str)
    created_at = readonly(str)
    updated_at = readonly(str)

    def parts(self) -> tuple[Code | None, dict[str, Any]]:
        """The code, None when the client says nothing of it, and the other attributes.

        :raises BadRequest: what stands in its place is no code.
        """
        given = self.given()
        loose = {name: given.pop(name) for name in ("source", "md5sum", "swift") if name in given}
        if "code" in given or not loose:
            return given.pop("code", None), given
        if SWIFT in (*loose, loose.get("source")):
            raise exceptions.BadRequest(
                "swift: container and object are lost when they are sent this way, and functions "
                "from Swift are not served yet; send a package."
            )
        try:
            return Code.of({"source": PACKAGE} | loose), given
        except ValueError as error:
            raise exceptions.BadRequest(f"source: {error}.") from error


class FunctionCreate(_Body):
    """The body of ``POST``."""

    runtime_id = Uuid()


class FunctionUpdate(_Body):
    """The body of ``PUT``."""

    runtime_id = readonly(str)
