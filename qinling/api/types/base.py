"""What the wire types of all nouns are made of."""

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import wsme
from wsme import types as wtypes
from wsmeext import pecan as wsme_pecan

F = TypeVar("F", bound=Callable[..., Any])


def expose(answer: Any, *arguments: Any, **options: Any) -> Callable[[F], F]:
    """WSME's ``wsexpose`` for calls that take and answer JSON, and nothing else."""
    decorate: Callable[[F], F] = wsme_pecan.wsexpose(
        answer, *arguments, rest_content_types=("json",), **options
    )
    return decorate


class Uuid(wtypes.UserType):  # type: ignore[misc]
    """A UUID, in whichever of its spellings it came."""

    basetype = str
    name = "uuid"

    @staticmethod
    def validate(value: Any) -> str:
        try:
            return str(uuid.UUID(value))
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError("it is not a UUID") from error

    @staticmethod
    def frombasetype(value: Any) -> str | None:
        return None if value is None else Uuid.validate(value)


class Text(wtypes.UserType):  # type: ignore[misc]
    """A string of bounded length without control characters.

    :param lines: line breaks and tabs may be in it.
    """

    basetype = str
    name = "text"

    def __init__(self, longest: int, shortest: int = 0, lines: bool = False) -> None:
        self._longest = longest
        self._shortest = shortest
        self._lines = lines

    def validate(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"it is not a string but {_json_name(value)}")
        if len(value) > self._longest:
            raise ValueError(f"it has {len(value)} characters, more than {self._longest}")
        if len(value) < self._shortest:
            raise ValueError("it is empty")
        allowed = "\n\r\t" if self._lines else ""
        for char in value:
            if (char < " " or "\x7f" <= char <= "\x9f") and char not in allowed:
                raise ValueError(f"it has a control character (U+{ord(char):04X})")
        return value


class Bool(wtypes.UserType):  # type: ignore[misc]
    """true or false, and nothing that could be taken for one of them."""

    basetype = bool
    name = "boolean"

    @staticmethod
    def validate(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"it is not true or false but {_json_name(value)}")
        return value


def _json_name(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else "a string"


class Type(wtypes.Base):  # type: ignore[misc]
    """A wire type."""

    def given(self) -> dict[str, Any]:
        """The attributes that the client sent."""
        return {
            attribute.name: value
            for attribute in self._wsme_attributes
            if (value := getattr(self, attribute.name)) is not wsme.Unset
        }


def readonly(datatype: Any) -> Any:
    """An attribute that only the service sets; 400 when a client sends it."""
    return wtypes.wsattr(datatype, readonly=True)


def time(value: dt.datetime | None) -> str | None:
    """A time as the contract writes it: UTC, the fraction behind a dot."""
    return None if value is None else value.isoformat(" ", "microseconds")
