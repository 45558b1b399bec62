"""Filters, sorting and keyset paging, the same for every noun.

A page starts behind the sort keys of the last row of the page before, never at
an offset, so the last page costs what the first one costs. The cursor that the
link to the next page carries holds those keys, so that the page is found even
when that row has been deleted meanwhile.
"""

import base64
import binascii
import datetime as dt
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from qinling import exceptions

EQ, NEQ, IN, NIN, GT, GTE, LT, LTE, HAS = (
    "eq",
    "neq",
    "in",
    "nin",
    "gt",
    "gte",
    "lt",
    "lte",
    "has",
)
OPERATORS = frozenset({EQ, NEQ, IN, NIN, GT, GTE, LT, LTE, HAS})


@dataclass(frozen=True, slots=True)
class Filter:
    """``value`` is a list for ``in`` and ``nin``."""

    field: str
    operator: str
    value: Any


@dataclass(frozen=True, slots=True)
class Sort:
    field: str
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What a caller asked of a list. ``after`` are the sort keys to start behind, ``marker`` is
    the last row before, by its ``marker_field``.
    """

    filters: Sequence[Filter] = ()
    sorts: Sequence[Sort] = ()
    limit: int = 1000
    marker: str | int | None = None
    marker_field: str = "id"
    after: tuple[Any, ...] | None = field(default=None)

    def keys(self) -> list[Sort]:
        """The sort keys in full: what the caller named, then (created_at, id).

        The last key that was named gives those two their direction, so that an
        index serves ``created_at:desc`` as it serves ``created_at``.
        """
        descending = self.sorts[-1].descending if self.sorts else False
        named = {sort.field for sort in self.sorts}
        rest = [Sort(name, descending) for name in ("created_at", "id") if name not in named]
        return [*self.sorts, *rest]


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, and the cursor of the page after them where there is one."""

    rows: Sequence[Any]
    cursor: str | None


def page(
    connection: sa.Connection,
    table: sa.Table,
    columns: Sequence[Any],
    make: Callable[[sa.Row[Any]], Any],
    listing: Listing,
    *conditions: sa.ColumnElement[bool],
) -> Page:
    """One page of rows, each as ``make`` makes it.

    :raises BadRequest: the marker is unknown.
    """
    keys = listing.keys()
    query = sa.select(*columns).where(*conditions)
    for wanted in listing.filters:
        query = query.where(_condition(table.c[wanted.field], wanted))
    after = listing.after
    if after is None and listing.marker is not None:
        after = _keys_of(connection, table, listing, *conditions)
    left = keys
    if after is not None:
        # Missing values come last: behind one there is nothing else, so that
        # key orders nothing any more, and the next key's index can serve.
        while after[len(keys) - len(left)] is None:
            query = query.where(table.c[left[0].field].is_(None))
            left = left[1:]
        query = query.where(_behind(table, left, after[len(keys) - len(left) :]))
    query = query.order_by(*_order(table, left)).limit(listing.limit + 1)
    rows = connection.execute(query).all()
    found = Page([make(row) for row in rows], None)
    return cut(found, listing, listing.limit)


def cut(page: Page, listing: Listing, count: int) -> Page:
    """The first ``count`` rows of a page, one at least, with the cursor of those behind them."""
    if len(page.rows) <= count:
        return page
    rows = page.rows[:count]
    return Page(rows, encode_cursor(keys_of(rows[-1], listing)))


def keys_of(row: Any, listing: Listing) -> tuple[Any, ...]:
    """The sort keys of a row, which the page after it starts behind."""
    keys = listing.keys()
    return tuple(getattr(row, sort.field) for sort in keys)


def encode_cursor(keys: Sequence[Any]) -> str:
    """Sort keys as text for a URL."""
    values = [
        {"t": value.isoformat()} if isinstance(value, dt.datetime) else value for value in keys
    ]
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(text: str, listing: Listing) -> tuple[Any, ...]:
    """The sort keys in a cursor.

    :raises BadRequest: it is not one that this list would have given.
    """
    refusal = exceptions.BadRequest("cursor is not one that this list gave; start the list anew.")
    try:
        values = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_"))
        keys = tuple(
            dt.datetime.fromisoformat(value["t"]) if isinstance(value, dict) else value
            for value in values
        )
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise refusal from error
    if len(keys) != len(listing.keys()) or any(isinstance(key, list) for key in keys):
        raise refusal
    for sort, key in zip(listing.keys(), keys, strict=True):
        timed = sort.field in ("created_at", "updated_at")
        if key is not None and timed != isinstance(key, dt.datetime):
            raise refusal
        if sort.field in ("created_at", "id") and key is None:
            raise refusal
        if isinstance(key, dt.datetime) and key.tzinfo is not None:
            raise refusal
        if isinstance(key, str) and _unstorable(key):
            raise refusal
        if isinstance(key, int) and not 0 <= key < 2**63:
            raise refusal
        if isinstance(key, float):
            raise refusal
    return keys


def _unstorable(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _keys_of(
    connection: sa.Connection,
    table: sa.Table,
    listing: Listing,
    *conditions: sa.ColumnElement[bool],
) -> tuple[Any, ...]:
    keys = listing.keys()
    query = sa.select(*(table.c[sort.field] for sort in keys))
    marked = table.c[listing.marker_field] == listing.marker
    # The names of aliases are unique within a project only.
    row = connection.execute(query.where(marked, *conditions).limit(1)).one_or_none()
    if row is None:
        raise exceptions.BadRequest(
            f"marker {listing.marker} does not exist; follow the list's next link, "
            "which holds even when its marker is deleted."
        )
    return tuple(row)


def _condition(column: Any, wanted: Filter) -> sa.ColumnElement[bool]:
    value = wanted.value
    # A missing value differs from every value.
    match wanted.operator:
        case "eq":
            found = column == value
        case "neq":
            found = (column != value) | column.is_(None)
        case "in":
            found = column.in_(value)
        case "nin":
            found = column.not_in(value) | column.is_(None)
        case "gt":
            found = column > value
        case "gte":
            found = column >= value
        case "lt":
            found = column < value
        case "lte":
            found = column <= value
        case "has":
            # Not LIKE, which would give % and _ a meaning.
            found = sa.func.instr(column, value) > 0
        case _:
            raise ValueError(wanted.operator)
    condition: sa.ColumnElement[bool] = found
    return condition


def _missing(table: sa.Table, name: str) -> Any:
    """An expression that puts the rows without a value last; None where all have one."""
    column = table.c[name]
    if not column.nullable:
        return None
    indexed = table.c.get(f"{name}_missing")
    return indexed if indexed is not None else sa.case((column.is_(None), 1), else_=0)


def _order(table: sa.Table, keys: Sequence[Sort]) -> list[Any]:
    order: list[Any] = []
    for sort in keys:
        missing = _missing(table, sort.field)
        if missing is not None:
            order.append(missing)
        column = table.c[sort.field]
        order.append(column.desc() if sort.descending else column)
    return order


def _behind(table: sa.Table, keys: Sequence[Sort], after: Sequence[Any]) -> sa.ColumnElement[bool]:
    """Rows behind ``after``: (a > x) or (a = x and ((b > y) or (b = y and …))).

    Nested this way MariaDB reads it as one range of an index on (a, b, …); it
    cannot do that with a comparison of tuples, nor SQLite with a flat OR.
    """
    condition: Any = sa.false()
    bound: Any = None
    for sort, value in reversed(list(zip(keys, after, strict=True))):
        column = table.c[sort.field]
        missing = _missing(table, sort.field)
        # SQLAlchemy compares nothing with a bare True or False.
        key = sa.literal(value, column.type)
        if missing is None:
            further = column < key if sort.descending else column > key
            condition = further | ((column == key) & condition)
            bound = column <= key if sort.descending else column >= key
        elif value is None:
            condition = (missing == 1) & condition
            bound = missing == 1
        else:
            further = column < key if sort.descending else column > key
            condition = (missing == 1) | (
                (missing == 0) & (further | ((column == key) & condition))
            )
            bound = None
    result: sa.ColumnElement[bool] = condition if bound is None else bound & condition
    return result
