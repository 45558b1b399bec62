"""Query strings of lists: what a client may have made up, above all cursors."""

import base64
import datetime as dt
import json
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import webob
from hypothesis import given, settings
from hypothesis import strategies as st

from qinling import exceptions
from qinling.api.controllers.v1.runtimes import FIELDS
from qinling.api.query import QUERY, Query
from qinling.db import api as db_api
from qinling.db import listing as lists
from qinling.db import runtimes
from tests.unit import rows
from tests.unit.config import options

CONF = options()


@pytest.fixture(scope="module")
def table(
    make_db: Callable[..., db_api.Database], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[db_api.Database]:
    """A database with a few rows, for all examples."""
    db = make_db(tmp_path_factory.mktemp("query") / "qinling.db")
    rows.insert(db, {}, {"name": "a"}, {"name": "b", "is_public": False})
    yield db
    db.dispose()


def ask(**parameters: str) -> Query:
    """What a client asked for with these parameters of its URL."""
    environ = {QUERY: urllib.parse.urlencode(parameters)}
    request = webob.Request.blank("http://example.test:7070/v1/runtimes", environ=environ)
    return Query(request, FIELDS, CONF)


def as_cursor(keys: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(keys).encode()).decode().rstrip("=")


TIME = {"t": "2026-01-31T12:00:00"}
KEYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.just(TIME),
    st.fixed_dictionaries({"t": st.one_of(st.text(), st.integers(), st.datetimes().map(str))}),
    st.just({"t": "2026-01-31T12:00:00+01:00"}),
    st.lists(st.none(), max_size=2),
)


@settings(max_examples=400, deadline=None)
@given(fields=st.lists(st.sampled_from(list(FIELDS)), max_size=3, unique=True), data=st.data())
def test_a_cursor_that_a_client_made_up_is_refused_or_gives_a_page(
    table: db_api.Database, fields: list[str], data: st.DataObject
) -> None:
    order = lists.Listing(sorts=[lists.Sort(field) for field in fields]).keys()
    timed = {"created_at", "updated_at"}
    keys = [data.draw(st.just(TIME) | KEYS if one.field in timed else KEYS) for one in order]
    parameters = {"sort": ",".join(fields)} if fields else {}
    try:
        query = ask(cursor=as_cursor(keys), **parameters)
    except exceptions.BadRequest:
        return
    table.read(runtimes.page, query.listing, None)


@pytest.mark.parametrize("field", list(FIELDS))
@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_the_next_links_of_a_list_lead_through_all_of_it(
    table: db_api.Database, field: str, direction: str
) -> None:
    everything = ask(sort=f"{field}:{direction}")
    expected = [row.id for row in table.read(runtimes.page, everything.listing, None).rows]
    walked: list[str] = []
    parameters = {"sort": f"{field}:{direction}", "limit": "1"}
    while True:
        query = ask(**parameters)
        page = table.read(runtimes.page, query.listing, None)
        walked += [row.id for row in page.rows]
        if page.cursor is None:
            break
        link = query.link(page.rows[-1], page.cursor)
        assert link.startswith("http://example.test:7070/v1/runtimes?")
        parameters = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(link).query))
    assert walked == expected
    assert len(walked) == 3


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": "٣"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"sort": "nothing"}, "sort"),
        ({"sort": "name:up"}, "sort"),
        ({"sort": "name,name:desc"}, "sort"),
        ({"sort": ""}, "sort"),
        ({"revision": "1"}, "revision"),
        ({"is_public": "maybe"}, "is_public"),
        ({"is_public": "gt:true"}, "is_public"),
        ({"created_at": "yesterday"}, "created_at"),
        ({"created_at": "has:2026"}, "created_at"),
        ({"created_at": "gt:0001-01-01T00:00:00+01:00"}, "created_at"),
        ({"name": "a\0b"}, "name"),
        ({"all_projects": "perhaps"}, "all_projects"),
        ({"cursor": "AAAA"}, "cursor"),
    ],
)
def test_what_a_list_does_not_know_is_named(parameters: dict[str, str], named: str) -> None:
    with pytest.raises(exceptions.BadRequest, match=named):
        ask(**parameters)


@pytest.mark.parametrize(
    ("text", "operator", "value"),
    [
        ("available", "eq", "available"),
        ("eq:available", "eq", "available"),
        ("neq:available", "neq", "available"),
        ("in:a,b", "in", ["a", "b"]),
        ("nin:a", "nin", ["a"]),
        ("has:b", "has", "b"),
        ("gte:b", "gte", "b"),
        # No operator, so a part of the value.
        ("docker.io:5000", "eq", "docker.io:5000"),
        ("eq:gt:1", "eq", "gt:1"),
        ("", "eq", ""),
    ],
)
def test_a_value_may_carry_an_operator(text: str, operator: str, value: object) -> None:
    assert ask(image=text).listing.filters == [lists.Filter("image", operator, value)]


@pytest.mark.parametrize(
    "text", ["2026-01-31 12:00:00", "2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00"]
)
def test_times_are_understood_as_utc(text: str) -> None:
    [wanted] = ask(created_at=f"gt:{text}").listing.filters
    assert wanted.value == dt.datetime(2026, 1, 31, 12, 0, 0)


def test_a_list_without_a_limit_is_answered_up_to_the_configured_bound() -> None:
    assert ask().listing.limit == CONF.api.unpaged_limit
    assert ask(limit="7").listing.limit == 7


def test_a_parameter_that_is_given_twice_is_refused_where_one_is_meant() -> None:
    environ = {QUERY: "limit=1&limit=2"}
    request = webob.Request.blank("/v1/runtimes", environ=environ)
    with pytest.raises(exceptions.BadRequest, match="limit is given 2 times"):
        Query(request, FIELDS, CONF)
