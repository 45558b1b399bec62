"""A page of 100 rows from a large table costs about what it costs from 1,000.

Measured at the database's door (``db.<noun>.page``) and through the whole WSGI application, which
without Keystone asks the same query for the project ``default``: what that project may see, not
everything that an admin may.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from qinling import conf, context
from qinling.api import app
from qinling.db import api as db_api
from qinling.db import executions, runtimes
from qinling.db import listing as lists
from tests.bench import report
from tests.bench.report import Figure
from tests.bench.rows import CALLER, Table
from tests.bench.site import Site, say

_FACTOR = 2.0
_PAGE = 100
_SMALL = 1000
_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class _Noun:
    """What is listed.

    :ivar visible: what the caller may see, in SQL.
    :ivar sorts: what a caller asks for, and the same in SQL.
    :ivar small: how the columns are in the small table, where they are not as in the large one.
    """

    name: str
    page: Callable[..., lists.Page]
    large: int
    visible: str
    sorts: Mapping[str, tuple[list[lists.Sort], str]]
    small: Mapping[str, str]


_NEWEST = {"created_at:desc": ([lists.Sort("created_at", True)], "created_at DESC, id DESC")}
_RUNTIMES = _Noun(
    "runtimes",
    runtimes.page,
    100_000,
    f"(is_public OR project_id = '{CALLER}')",
    _NEWEST | {"name:asc": ([lists.Sort("name")], "name IS NULL, name, created_at, id")},
    {},
)
_EXECUTIONS = _Noun(
    "executions",
    executions.page,
    1_000_000,
    f"project_id = '{CALLER}'",
    _NEWEST | {"created_at:asc": ([], "created_at, id")},
    {"project_id": f"'{CALLER}'"},
)


class _Nobody:
    """Stands in for an engine; a list tells it nothing."""

    def create_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        raise AssertionError("a list changed something")

    update_runtime = create_runtime
    delete_runtime = update_function = delete_function = claim = execute = create_runtime


@dataclass(frozen=True, slots=True)
class _Position:
    """A page by the keys of the row before it, and the ids that are on it."""

    after: tuple[Any, ...] | None
    ids: Sequence[str]


class _Service:
    """Database and application on one table."""

    def __init__(self, site: Site, noun: _Noun, table: Table, name: str) -> None:
        options = conf.load(["--config-file", str(table.write_config(site.root / name))], name)
        self._noun = noun
        self.table = table
        self.db = db_api.Database(options)
        self.app = app.build(options, self.db, _Nobody())

    def position(self, order: str, start: int) -> _Position:
        """The page that begins at row ``start`` (0 for the first) of all that are visible."""
        keys = [key.split()[0] for key in order.removeprefix("name IS NULL, ").split(", ")]
        rows = self.table.execute(
            f"SELECT {', '.join(keys)} FROM {self._noun.name} WHERE {self._noun.visible} "
            f"ORDER BY {order} LIMIT {max(start - 1, 0)}, {_PAGE + bool(start)}"
        )
        after = rows.pop(0) if start else None
        return _Position(after, [str(row[-1]) for row in rows])

    def page(self, sort: str, position: _Position) -> float:
        """Milliseconds that the query takes in its transaction."""
        sorts = self._noun.sorts[sort][0]
        listing = lists.Listing(sorts=sorts, limit=_PAGE, after=position.after)
        began = time.perf_counter()
        page = self.db.read(self._noun.page, listing, CALLER)
        took = time.perf_counter() - began
        assert [row.id for row in page.rows] == position.ids
        return took * 1000

    def request(self, sort: str, position: _Position) -> float:
        """Milliseconds that the application takes for the list."""
        asked = {"limit": str(_PAGE), "sort": sort}
        if position.after is not None:
            asked |= {"marker": position.after[-1], "cursor": lists.encode_cursor(position.after)}
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": f"/v1/{self._noun.name}",
            "QUERY_STRING": urlencode(asked),
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
        }
        said: list[str] = []
        began = time.perf_counter()
        body = b"".join(self.app(environ, lambda status, *_: said.append(status)))  # type: ignore[arg-type]
        took = time.perf_counter() - began
        assert said == ["200 OK"], (said, body)
        assert body.count(b'"created_at"') == len(position.ids)
        return took * 1000


def pages_of_runtimes(site: Site) -> Iterator[Figure]:
    """First, 500th and last page in two orders."""
    return _pages(site, _RUNTIMES)


def pages_of_executions(site: Site) -> Iterator[Figure]:
    """The same for a member of the project that has a tenth of all executions."""
    return _pages(site, _EXECUTIONS)


def _pages(site: Site, noun: _Noun) -> Iterator[Figure]:
    say(f"filling tables of {noun.large} and {_SMALL} {noun.name}")
    large = _filled(site, noun, noun.large, {})
    small = _filled(site, noun, _SMALL, noun.small)
    visible = large.table.count(noun.visible)
    starts = {"first": 0, "500th": 499 * _PAGE, "last": visible - _PAGE}
    note = f"{visible} of {noun.large} rows visible; floor: the first page from {_SMALL} rows"
    for words, measure in (("page", _Service.page), ("GET", _Service.request)):
        for sort, (_, order) in noun.sorts.items():
            say(f"measuring pages of {noun.name} sorted by {sort} ({words})")
            places = {name: large.position(order, start) for name, start in starts.items()}
            floor = small.position(order, 0)
            samples, floors = _sampled(measure, sort, large, places, small, floor)
            for name, taken in samples.items():
                title = f"{words} {noun.name} {sort} {name}"
                yield report.against_floor(title, taken, floors, _FACTOR, note=note)
                note = ""
    for service in (large, small):
        service.db.dispose()
        site.mariadb.drop_database(service.table.url)


def _filled(site: Site, noun: _Noun, count: int, columns: Mapping[str, str]) -> _Service:
    table = Table.in_new_database(site.mariadb, noun.name)
    table.fill_at_once(count, **columns)
    return _Service(site, noun, table, f"{noun.name}-{count}.conf")


def _sampled(
    measure: Callable[[_Service, str, _Position], float],
    sort: str,
    large: _Service,
    places: dict[str, _Position],
    small: _Service,
    floor_place: _Position,
) -> tuple[dict[str, list[float]], list[float]]:
    """Each page in turn, and the floor's once in each turn."""
    samples: dict[str, list[float]] = {name: [] for name in places}
    floors: list[float] = []
    for turn in range(-5, _ROUNDS):
        taken = {name: measure(large, sort, place) for name, place in places.items()}
        floor = measure(small, sort, floor_place)
        if turn < 0:
            continue  # warming up
        floors.append(floor)
        for name, value in taken.items():
            samples[name].append(value)
    return samples, floors
