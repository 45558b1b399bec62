"""Lists: any order, any filter, and pages that together are the list."""

import base64
import datetime as dt
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cmp_to_key
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import listing as lists
from qinling.db import runtimes
from qinling.db.listing import Filter, Listing, Sort
from tests.unit import rows

Row = dict[str, Any]

FIELDS = runtimes.LISTED
START = dt.datetime(2026, 1, 31, 12, 0, 0)

# Few values each, so that there are ties and rows without a value.
TEXTS = st.sampled_from(["", "a", "A", "b", "ab", "a%", "a_", "ä", "z", "😀"])
TIMES = st.sampled_from([START + dt.timedelta(microseconds=step) for step in (0, 1, 2, 10**6)])
ROWS = st.fixed_dictionaries(
    {
        "id": st.uuids().map(str),
        "name": st.none() | TEXTS,
        "description": st.none() | TEXTS,
        "image": TEXTS,
        "is_public": st.booleans(),
        "trusted": st.booleans(),
        "status": st.sampled_from(["creating", "available", "error"]),
        "project_id": st.sampled_from(["p", "q"]),
        "created_at": TIMES,
        "updated_at": st.none() | TIMES,
    }
)
TABLES = st.lists(ROWS, max_size=12, unique_by=lambda row: row["id"])
SORTS = st.lists(
    st.builds(Sort, st.sampled_from(FIELDS), st.booleans()),
    max_size=4,
    unique_by=lambda sort: sort.field,
)
MANY = settings(max_examples=80, deadline=None)


@pytest.fixture(scope="module")
def table(
    make_db: Callable[..., db_api.Database], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[db_api.Database]:
    """A database for the examples of one test after the other."""
    db = make_db(tmp_path_factory.mktemp("listing") / "qinling.db")
    yield db
    db.dispose()


def fill(db: db_api.Database, content: Sequence[Row]) -> None:
    rows.delete(db)
    if content:
        rows.insert(db, *content)


def page(db: db_api.Database, listing: Listing) -> lists.Page:
    return db.read(runtimes.page, listing, None)


def found(db: db_api.Database, *filters: Filter) -> list[str]:
    return [row.id for row in page(db, Listing(filters=filters)).rows]


def sorted_rows(content: Sequence[Row], sorts: Sequence[Sort]) -> list[Row]:
    """The contract's order: by each key, what has no value last, then created_at and id."""
    last = sorts[-1].descending if sorts else False
    keys = [*sorts, Sort("created_at", last), Sort("id", last)]

    def compare(one: Row, other: Row) -> int:
        for sort in keys:
            a, b = one[sort.field], other[sort.field]
            if a == b:
                continue
            if a is None or b is None:
                return 1 if a is None else -1
            return (1 if a > b else -1) * (-1 if sort.descending else 1)
        return 0

    return sorted(content, key=cmp_to_key(compare))


@MANY
@given(content=TABLES, sorts=SORTS)
def test_a_list_has_the_order_that_was_asked_for(
    table: db_api.Database, content: list[Row], sorts: list[Sort]
) -> None:
    fill(table, content)
    listed = page(table, Listing(sorts=sorts))
    assert [row.id for row in listed.rows] == [row["id"] for row in sorted_rows(content, sorts)]
    assert listed.cursor is None


def test_a_list_is_oldest_first_when_nothing_else_is_asked_for(table: db_api.Database) -> None:
    ids = [f"{number}0000000-0000-0000-0000-000000000000" for number in range(4)]
    fill(
        table,
        [
            {"id": ids[2], "created_at": START + dt.timedelta(microseconds=1)},
            {"id": ids[1], "created_at": START},
            {"id": ids[3], "created_at": START - dt.timedelta(microseconds=1)},
            {"id": ids[0], "created_at": START},
        ],
    )
    assert found(table) == [ids[3], ids[0], ids[1], ids[2]]


@MANY
@given(content=TABLES, sorts=SORTS, limit=st.integers(1, 5))
def test_the_pages_of_a_list_together_are_the_list(
    table: db_api.Database, content: list[Row], sorts: list[Sort], limit: int
) -> None:
    fill(table, content)
    listing = Listing(sorts=sorts, limit=limit)
    walked: list[str] = []
    while True:
        one = page(table, listing)
        walked += [row.id for row in one.rows]
        if one.cursor is None:
            break
        assert len(one.rows) == limit
        listing = replace(listing, after=lists.decode_cursor(one.cursor, listing))
    assert walked == [row["id"] for row in sorted_rows(content, sorts)]


@MANY
@given(content=TABLES, sorts=SORTS, data=st.data())
def test_a_marker_begins_behind_its_row_and_a_cursor_does_when_that_row_has_gone(
    table: db_api.Database, content: list[Row], sorts: list[Sort], data: st.DataObject
) -> None:
    fill(table, content)
    order = [row["id"] for row in sorted_rows(content, sorts)]
    if not order:
        return
    place = data.draw(st.integers(0, len(order) - 1))
    marked = page(table, Listing(sorts=sorts, marker=order[place]))
    assert [row.id for row in marked.rows] == order[place + 1 :]
    if place + 1 < len(order):
        cursor = page(table, Listing(sorts=sorts, limit=place + 1)).cursor
        assert cursor is not None
        rows.delete(table, order[place])
        after = lists.decode_cursor(cursor, Listing(sorts=sorts))
        rest = page(table, Listing(sorts=sorts, after=after))
        assert [row.id for row in rest.rows] == order[place + 1 :]


def test_a_marker_that_does_not_exist_is_named(table: db_api.Database) -> None:
    marker = str(uuid.uuid4())
    with pytest.raises(exceptions.BadRequest, match=f"marker {marker} does not exist"):
        page(table, Listing(marker=marker))


MODEL: dict[str, Callable[[Any, Any], bool]] = {
    lists.EQ: lambda value, wanted: value == wanted,
    lists.NEQ: lambda value, wanted: value != wanted,
    lists.IN: lambda value, wanted: value in wanted,
    lists.NIN: lambda value, wanted: value not in wanted,
    lists.GT: lambda value, wanted: value is not None and value > wanted,
    lists.GTE: lambda value, wanted: value is not None and value >= wanted,
    lists.LT: lambda value, wanted: value is not None and value < wanted,
    lists.LTE: lambda value, wanted: value is not None and value <= wanted,
    lists.HAS: lambda value, wanted: value is not None and wanted in value,
}


def test_every_operator_is_tried_here() -> None:
    assert set(MODEL) == lists.OPERATORS


@pytest.mark.parametrize(
    ("operator", "value", "kept"),
    [
        (lists.EQ, "b", {"b"}),
        (lists.NEQ, "b", {"a", "c", None}),
        (lists.IN, ["a", "b"], {"a", "b"}),
        (lists.NIN, ["a", "b"], {"c", None}),
        (lists.GT, "b", {"c"}),
        (lists.GTE, "b", {"b", "c"}),
        (lists.LT, "b", {"a"}),
        (lists.LTE, "b", {"a", "b"}),
        (lists.HAS, "b", {"b"}),
    ],
)
def test_what_each_operator_keeps(
    table: db_api.Database, operator: str, value: Any, kept: set[str | None]
) -> None:
    fill(table, [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": None}])
    listed = page(table, Listing(filters=[Filter("name", operator, value)])).rows
    assert {row.name for row in listed} == kept


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    """A filter as the API makes it: of the field's type, and no order among booleans."""
    field = draw(st.sampled_from(FIELDS))
    if field in ("is_public", "trusted"):
        operators, values = {lists.EQ, lists.NEQ, lists.IN, lists.NIN}, st.booleans()
    elif field in ("created_at", "updated_at"):
        operators, values = lists.OPERATORS - {lists.HAS}, TIMES
    else:
        operators, values = lists.OPERATORS, TEXTS
    operator = draw(st.sampled_from(sorted(operators)))
    many = operator in (lists.IN, lists.NIN)
    return Filter(field, operator, draw(st.lists(values, min_size=1) if many else values))


@MANY
@given(content=TABLES, wanted=st.lists(filters(), min_size=1, max_size=3))
def test_a_filter_keeps_what_fits_and_a_missing_value_differs_from_every_value(
    table: db_api.Database, content: list[Row], wanted: list[Filter]
) -> None:
    fill(table, content)
    expected = {
        row["id"]
        for row in content
        if all(MODEL[one.operator](row[one.field], one.value) for one in wanted)
    }
    assert set(found(table, *wanted)) == expected


def test_a_sign_that_sql_gives_a_meaning_has_none(table: db_api.Database) -> None:
    fill(table, [{"name": "100%"}, {"name": "1000"}, {"name": "a_b"}, {"name": "a'b"}])
    listed = page(table, Listing(sorts=[Sort("name")])).rows
    by_name = {row.name: row.id for row in listed}
    assert found(table, Filter("name", "has", "0%")) == [by_name["100%"]]
    assert found(table, Filter("name", "has", "_")) == [by_name["a_b"]]
    assert found(table, Filter("name", "eq", "a'b")) == [by_name["a'b"]]


def as_cursor(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@MANY
@given(sorts=SORTS, text=st.text() | st.binary().map(as_cursor))
def test_a_cursor_of_anything_is_refused(sorts: list[Sort], text: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="cursor"):
        lists.decode_cursor(text, Listing(sorts=sorts))


#: For a list sorted by image (which every row has), name and is_public.
SORTED = Listing(sorts=[Sort("image"), Sort("name"), Sort("is_public")])
GOOD = ["python3", None, True, {"t": "2026-01-31T12:00:00"}, "7b0c7b52"]


@pytest.mark.parametrize(
    "keys",
    [
        GOOD[:-1],
        [*GOOD, "more"],
        [],
        {},
        None,
        5,
        "text",
        [-1, *GOOD[1:]],
        [2**63, *GOOD[1:]],
        [["python3"], *GOOD[1:]],
        ["\ud800", *GOOD[1:]],
        [*GOOD[:3], None, GOOD[4]],
        [*GOOD[:3], "2026-01-31T12:00:00", GOOD[4]],
        [*GOOD[:3], {"t": "yesterday"}, GOOD[4]],
        [*GOOD[:3], {"t": "2026-01-31T12:00:00+00:00"}, GOOD[4]],
        [*GOOD[:3], {"s": "2026-01-31T12:00:00"}, GOOD[4]],
        [*GOOD[:4], None],
        [*GOOD[:4], 1.5],
        [*GOOD[:4], {"t": "2026-01-31T12:00:00"}],
    ],
    ids=repr,
)
def test_a_cursor_that_this_list_would_not_have_given_is_refused(keys: Any) -> None:
    lists.decode_cursor(as_cursor(json.dumps(GOOD).encode()), SORTED)
    with pytest.raises(exceptions.BadRequest, match="cursor"):
        lists.decode_cursor(as_cursor(json.dumps(keys).encode()), SORTED)


@MANY
@given(content=ROWS, sorts=SORTS)
def test_the_keys_in_a_cursor_come_back_as_they_went_in(content: Row, sorts: list[Sort]) -> None:
    listing = Listing(sorts=sorts)
    order = listing.keys()
    keys = tuple(content[sort.field] for sort in order)
    cursor = lists.encode_cursor(keys)
    assert lists.decode_cursor(cursor, listing) == keys
    # It goes into a URL as it is.
    assert all(char.isalnum() or char in "-_" for char in cursor)


def test_a_page_is_made_of_runtimes(table: db_api.Database) -> None:
    fill(table, [{"name": "one"}])
    [row] = page(table, Listing()).rows
    assert isinstance(row, runtimes.Runtime)
    assert asdict(row)["name"] == "one"
