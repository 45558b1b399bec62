"""What the wire types of all nouns are made of."""

import datetime as dt
import functools
import inspect
import re
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import pecan
import wsme
import wsme.api
import wsme.exc
from wsme import types as wtypes
from wsme.rest import args as wsme_args
from wsme.rest import json as wsme_json
from wsmeext import pecan as wsme_pecan

from qinling import exceptions

_UUID = re.compile("[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)

# All of Unicode's category Cc, and all of it but line breaks and tabs.
_CONTROLS_IN_LINE = re.compile("[\x00-\x1f\x7f-\x9f]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

F = TypeVar("F", bound=Callable[..., Any])


def expose(answer: Any, *arguments: Any, **options: Any) -> Callable[[F], F]:
    """Make a controller's method a call that takes and answers JSON, and nothing else.

    It may return a ``pecan.Response`` of its own instead, which is answered as it is.

    What WSME's ``wsexpose`` does, but for errors: that one makes answers of
    them, and logs those of ours with a traceback each. Here they are raised,
    for the error middleware.

    :param answer: the type of the answer, None when it has no content.
    :param arguments: the types of the method's arguments.
    :param options: ``body``, the type of a last argument that is the request's
        body, and ``status_code``, that of an answer.
    """
    sign = wsme.signature(answer, *arguments, **options)

    def decorate(method: F) -> F:
        sign(method)
        definition = wsme.api.FunctionDefinition.get(method)
        definition.resolve_types(wtypes.registry)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kw: Any) -> Any:
            request, response = pecan.request, pecan.response
            try:
                args, kw = wsme_args.get_args(
                    definition, args, kw, request.params, None, request.body, request.content_type
                )
            except wsme.exc.InvalidInput as error:
                # Of an argument in the URL: what its type has said, and not what WSME makes of it.
                raise exceptions.BadRequest(
                    f"{error.fieldname}: {error.__context__}: {str(error.value)[:64]!r}."
                ) from error
            except wsme.exc.ClientSideError as error:
                raise exceptions.BadRequest(error.faultstring) from error
            result = method(self, *args, **kw)
            if isinstance(result, pecan.Response):
                return result
            response.status = definition.status_code
            if definition.return_type is None:
                request.pecan["content_type"] = response.content_type = None
                return ""
            return {"datatype": definition.return_type, "result": result}

        wsme_pecan.pecan_json_decorate(call)
        pecan.util._cfg(call)["argspec"] = inspect.getfullargspec(method)
        exposed: F = call  # type: ignore[assignment]
        return exposed

    return decorate


class Uuid(wtypes.UserType):  # type: ignore[misc]
    """A UUID, with or without its dashes."""

    basetype = str
    name = "uuid"

    @staticmethod
    def validate(value: Any) -> str:
        if not isinstance(value, str) or not _UUID.fullmatch(value):
            raise ValueError("it is not a UUID")
        return str(uuid.UUID(value))

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
        self._refused = _CONTROLS_IN_LINE if not lines else _CONTROLS

    def validate(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"it is not a string but {_json_name(value)}")
        if len(value) > self._longest:
            raise ValueError(f"it has {len(value)} characters, more than {self._longest}")
        if len(value) < self._shortest:
            raise ValueError("it is empty")
        control = self._refused.search(value)
        if control is not None:
            raise ValueError(f"it has a control character (U+{ord(control[0]):04X})")
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


class Number(wtypes.UserType):  # type: ignore[misc]
    """A whole number; in a form or a URL, and of some clients in JSON, it is its decimal digits.

    :param most: what its column can have.
    """

    # As which it comes in a URL.
    basetype = str
    name = "number"

    def __init__(self, least: int = 0, most: int = 2**63 - 1) -> None:
        self._least = least
        self._most = most

    def validate(self, value: Any) -> int:
        if isinstance(value, str):
            value = digits(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("it is not a whole number")
        if not self._least <= value <= self._most:
            raise ValueError(f"it is not a whole number from {self._least} to {self._most}")
        return value

    frombasetype = validate


#: The number of a version; 0 is the function itself.
VERSION = Number(most=2**31 - 1)


def digits(text: str) -> int | None:
    """The number that decimal digits stand for; None when they are none, or too many."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


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


class List(Type):
    """A list; ``next`` is there when it goes on."""

    next = wtypes.wsattr(str)


@wsme_json.fromjson.when_type(type(Type))  # type: ignore[untyped-decorator]
def _from_json(kind: type[Type], given: dict[str, Any]) -> Type:
    """The body of a call, in the place of WSME's own reading of it.

    That one takes 1 and "yes" for true, and tells what is wrong with the
    client's value in front of the reason, however long it is.
    """
    body = kind()
    attributes = {attribute.name: attribute for attribute in kind._wsme_attributes}
    for name, value in given.items():
        attribute = attributes.get(name)
        if attribute is None:
            raise exceptions.BadRequest(f"{name[:255]}: this call has no such attribute.")
        if attribute.readonly:
            raise exceptions.BadRequest(f"{name}: no client can set it.")
        try:
            setattr(body, name, value)
        except wsme.exc.InvalidInput as error:
            raise exceptions.BadRequest(f"{name}: {error.msg}.") from error
    for attribute in attributes.values():
        if attribute.mandatory and attribute.name not in given:
            raise exceptions.BadRequest(f"{attribute.name}: it is required.")
    return body


def readonly(datatype: Any) -> Any:
    """An attribute that only the service sets; 400 when a client sends it."""
    return wtypes.wsattr(datatype, readonly=True)


def time(value: dt.datetime | None) -> str | None:
    """A time as the contract writes it: UTC, the fraction behind a dot."""
    return None if value is None else value.isoformat(" ", "microseconds")
