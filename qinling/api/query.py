"""What a list is asked for, read from a query string. The same for every noun."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import webob
from oslo_config import cfg

from qinling import context, exceptions
from qinling.api.types.base import List, digits
from qinling.db import listing as lists

AnyList = TypeVar("AnyList", bound=List)

_TRUE = frozenset({"true", "1", "yes", "on", "t", "y"})
_FALSE = frozenset({"false", "0", "no", "off", "f", "n"})
_ORDERED = frozenset({lists.GT, lists.GTE, lists.LT, lists.LTE})

TEXT, BOOLEAN, TIME, NUMBER = "text", "boolean", "time", "number"
_PYTHON = {TEXT: str, BOOLEAN: bool, TIME: dt.datetime, NUMBER: int}

# Where ``routing`` puts the query string, out of the sight of Pecan and WSME.
QUERY = "qinling.query"

# No database takes a statement of any length.
_MAX_PARAMETERS = 100
_MAX_VALUES = 1000


class Query:
    """A list's query string.

    :param fields: the type (``TEXT``, ``BOOLEAN``, ``TIME``, ``NUMBER``) of each field
        that the list can be filtered and sorted by.
    :param marker: the field that the marker names a row by.
    :raises BadRequest: anything in it is unknown or malformed.
    """

    def __init__(
        self,
        request: webob.Request,
        fields: Mapping[str, str],
        conf: cfg.ConfigOpts,
        marker: str = "id",
    ) -> None:
        # Not the request: a list may be sent when that has been dealt with.
        self._url = request.path_url
        self._marker = marker
        self._fields = fields
        self._given = _parse(request.environ[QUERY])
        self.all_projects = _boolean("all_projects", self._one("all_projects") or "false")
        limit = self._limit(conf.api.max_limit)
        self.has_limit = limit is not None
        self.filters_project = any(name == "project_id" for name, _ in self._given)
        self.listing = lists.Listing(
            filters=self._filters(),
            sorts=self._sorts(),
            limit=limit or conf.api.unpaged_limit,
            marker=self._marker_value(),
            marker_field=marker,
        )
        cursor = self._one("cursor")
        if cursor is not None:
            self.listing = lists.Listing(
                filters=self.listing.filters,
                sorts=self.listing.sorts,
                limit=self.listing.limit,
                after=self._after(cursor),
            )

    def project(self, caller: context.RequestContext, all_projects: str) -> str | None:
        """Whose rows are asked for; None for everybody's.

        :param all_projects: the rule for those.
        """
        if self.all_projects or self.filters_project:
            caller.can(all_projects)
            return None
        project_id: str | None = caller.project_id
        return project_id

    def answer(self, answer: AnyList, page: lists.Page) -> AnyList:
        """A list that has the rows of ``page``, with the link to what is behind them."""
        if page.cursor is not None:
            answer.next = self.link(page.rows[-1], page.cursor)
        return answer

    def link(self, last: Any, cursor: str) -> str:
        """The absolute URL of the page behind a row."""
        kept = [given for given in self._given if given[0] not in ("marker", "cursor")]
        query = urlencode([*kept, ("marker", getattr(last, self._marker)), ("cursor", cursor)])
        return f"{self._url}?{query}"

    def _one(self, name: str) -> str | None:
        values = [value for given, value in self._given if given == name]
        if len(values) > 1:
            raise exceptions.BadRequest(f"{name} is given {len(values)} times.")
        return values[0] if values else None

    def _marker_value(self) -> Any:
        text = self._one("marker")
        return None if text is None else self._value(self._marker, text, "marker")

    def _after(self, cursor: str) -> tuple[Any, ...]:
        after = lists.decode_cursor(cursor, self.listing)
        for sort, key in zip(self.listing.keys(), after, strict=True):
            if key is not None and type(key) is not _PYTHON[self._fields[sort.field]]:
                raise exceptions.BadRequest(f"cursor: its {sort.field} is not one of this list.")
        return after

    def _limit(self, largest: int) -> int | None:
        text = self._one("limit")
        if text is None:
            return None
        number = _number("limit", text)
        if not 1 <= number <= largest:
            raise exceptions.BadRequest(f"limit: {number} is not between 1 and {largest}.")
        return number

    def _sorts(self) -> list[lists.Sort]:
        text = self._one("sort")
        if text is None:
            return []
        sorts: list[lists.Sort] = []
        for part in text.split(","):
            name, _, direction = part.strip().partition(":")
            if name not in self._fields:
                raise exceptions.BadRequest(
                    f"sort: {name[:40]!r} is not one of {', '.join(self._fields)}."
                )
            if direction not in ("", "asc", "desc"):
                raise exceptions.BadRequest(
                    f"sort: direction {direction[:40]!r} of {name} is neither asc nor desc."
                )
            if any(sort.field == name for sort in sorts):
                raise exceptions.BadRequest(f"sort: {name} is given twice.")
            sorts.append(lists.Sort(name, direction == "desc"))
        return sorts

    def _filters(self) -> list[lists.Filter]:
        own = ("limit", "marker", "cursor", "sort", "all_projects")
        return [self._filter(name, value) for name, value in self._given if name not in own]

    def _filter(self, name: str, text: str) -> lists.Filter:
        kind = self._fields.get(name)
        if kind is None:
            raise exceptions.BadRequest(
                f"{name[:40]!r} is neither a field that this list can be filtered by "
                f"({', '.join(self._fields)}) nor a parameter of it."
            )
        operator, separator, value = text.partition(":")
        if not separator or operator not in lists.OPERATORS:
            operator, value = lists.EQ, text
        if (kind == BOOLEAN and operator in _ORDERED) or (kind != TEXT and operator == lists.HAS):
            raise exceptions.BadRequest(f"{name}: operator {operator} has no meaning for a {kind}.")
        if operator in (lists.IN, lists.NIN):
            values = value.split(",")
            if len(values) > _MAX_VALUES:
                raise exceptions.BadRequest(
                    f"{name}: {len(values)} values are more than the {_MAX_VALUES} allowed."
                )
            return lists.Filter(name, operator, [self._value(name, one) for one in values])
        return lists.Filter(name, operator, self._value(name, value))

    def _value(self, name: str, text: str, parameter: str | None = None) -> Any:
        """A value of the field ``name``, which is given as ``parameter`` (by default its own)."""
        parameter = parameter or name
        if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
            raise exceptions.BadRequest(f"{parameter}: the value has a character that no text has.")
        match self._fields[name]:
            case "boolean":
                return _boolean(parameter, text)
            case "time":
                return self._time(parameter, text)
            case "number":
                return _number(parameter, text)
            case _:
                return text

    @staticmethod
    def _time(name: str, text: str) -> dt.datetime:
        try:
            time = dt.datetime.fromisoformat(text)
        except ValueError as error:
            raise exceptions.BadRequest(
                f"{name}: {text[:40]!r} is not a time as in 2026-01-31 12:00:00."
            ) from error
        if time.tzinfo is not None:
            try:
                time = time.astimezone(dt.UTC).replace(tzinfo=None)
            except OverflowError as error:
                raise exceptions.BadRequest(f"{name}: {text[:40]!r} is out of range.") from error
        return time


def number(request: webob.Request, name: str) -> int | None:
    """The one parameter that a call has, a number; None when it is not given.

    :raises BadRequest: there is another one, or it is no number.
    """
    values = [_number(name, text) for text in _only(request, name)]
    return values[-1] if values else None


def flag(request: webob.Request, name: str) -> bool:
    """The one parameter that a call has, true or false.

    :raises BadRequest: there is another one, or it is neither.
    """
    values = [_boolean(name, text) for text in _only(request, name)]
    return bool(values) and all(values)


def _only(request: webob.Request, name: str) -> list[str]:
    """The values of the one parameter that a call has."""
    given = _parse(request.environ[QUERY])
    for other, _ in given:
        if other != name:
            raise exceptions.BadRequest(f"{other[:40]!r}: this call has no such query parameter.")
    return [value for _, value in given]


def _number(name: str, text: str) -> int:
    found = digits(text)
    if found is None or found >= 2**63:
        raise exceptions.BadRequest(f"{name}: {text[:40]!r} is not a whole number.")
    return found


def _boolean(name: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise exceptions.BadRequest(f"{name}: {text[:40]!r} is neither true nor false.")


def _parse(text: str) -> Sequence[tuple[str, str]]:
    """The parameters of a query string, which WSGI gives as latin-1."""
    try:
        return parse_qsl(
            text.encode("latin-1").decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except UnicodeDecodeError as error:
        raise exceptions.BadRequest("The query string is not UTF-8.") from error
    except ValueError as error:
        raise exceptions.BadRequest(
            f"The query string has more than the {_MAX_PARAMETERS} parameters allowed."
        ) from error
