"""A page of 100 runtimes from 100,000 rows costs about what it costs from 1,000.

Measured at the database's door (``db.runtimes.page``) and through the whole WSGI application, which
without Keystone asks the same query for the project ``default``: what that project may see, not
everything that an admin may.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from qinling import conf, context
from qinling.api import app
from qinling.db import api as db_api
from qinling.db import listing as lists
from qinling.db import runtimes
from tests.bench import report
from tests.bench.report import Figure
from tests.bench.rows import CALLER, Table
from tests.bench.site import Site, say

_FACTOR = 2.0
_PAGE = 100
_LARGE, _SMALL = 100_000, 1000
_ROUNDS = 100
_VISIBLE = f"(is_public OR project_id = '{CALLER}')"

#: What a caller asks for, and the same in SQL.
_SORTS = {
    "created_at:desc": ([lists.Sort("created_at", True)], "created_at DESC, id DESC"),
    "name:asc": ([lists.Sort("name")], "name IS NULL, name, created_at, id"),
}


class _Nobody:
    """Stands in for an engine; a list tells it nothing."""

    def create_runtime(self, asked_by: context.RequestContext, runtime_id: str) -> None:
        raise AssertionError("a list changed something")

    update_runtime = create_runtime
    delete_runtime = update_function = delete_function = execute = create_runtime


@dataclass(frozen=True, slots=True)
class _Position:
    """A page by the keys of the row before it, and the ids that are on it."""

    after: tuple[Any, ...] | None
    ids: Sequence[str]


class _Service:
    """Database and application on one table."""

    def __init__(self, site: Site, table: Table, name: str) -> None:
        options = conf.load(["--config-file", str(table.write_config(site.root / name))], name)
        self.table = table
        self.db = db_api.Database(options)
        self.app = app.build(options, self.db, _Nobody())

    def position(self, order: str, start: int) -> _Position:
        """The page that begins at row ``start`` (0 for the first) of all that are visible."""
        keys = [key.split()[0] for key in order.removeprefix("name IS NULL, ").split(", ")]
        query = f"SELECT {', '.join(keys)} FROM runtimes WHERE {_VISIBLE} ORDER BY {order} LIMIT "
        rows = self.table.execute(f"{query} {max(start - 1, 0)}, {_PAGE + bool(start)}")
        after = rows.pop(0) if start else None
        return _Position(after, [str(row[-1]) for row in rows])

    def page(self, sort: str, position: _Position) -> float:
        """Milliseconds that the query takes in its transaction."""
        listing = lists.Listing(sorts=_SORTS[sort][0], limit=_PAGE, after=position.after)
        began = time.perf_counter()
        page = self.db.read(runtimes.page, listing, CALLER)
        took = time.perf_counter() - began
        assert [row.id for row in page.rows] == position.ids
        return took * 1000

    def request(self, sort: str, position: _Position) -> float:
        """Milliseconds that the application takes for ``GET /v1/runtimes``."""
        asked = {"limit": str(_PAGE), "sort": sort}
        if position.after is not None:
            asked |= {"marker": position.after[-1], "cursor": lists.encode_cursor(position.after)}
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/v1/runtimes",
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
        assert body.count(b'"image"') == len(position.ids)
        return took * 1000


def pages(site: Site) -> Iterator[Figure]:
    """First, 500th and last page in two orders."""
    say(f"filling tables of {_LARGE} and {_SMALL} rows")
    large, small = (_filled(site, count) for count in (_LARGE, _SMALL))
    visible = large.table.count(_VISIBLE)
    starts = {"first": 0, "500th": 499 * _PAGE, "last": visible - _PAGE}
    note = f"{visible} of {_LARGE} rows visible; floor: the first page from {_SMALL} rows"
    for words, measure in (("page", _Service.page), ("GET page", _Service.request)):
        for sort, (_, order) in _SORTS.items():
            say(f"measuring pages sorted by {sort} ({words})")
            places = {name: large.position(order, start) for name, start in starts.items()}
            samples, floors = _sampled(measure, sort, large, places, small)
            for name, taken in samples.items():
                title = f"{words} {sort} {name}"
                yield report.against_floor(title, taken, floors, _FACTOR, note=note)
                note = ""
    for service in (large, small):
        service.db.dispose()
        site.mariadb.drop_database(service.table.url)


def _filled(site: Site, count: int) -> _Service:
    table = Table.in_new_database(site.mariadb)
    table.fill(count)
    return _Service(site, table, f"rows-{count}.conf")


def _sampled(
    measure: Callable[[_Service, str, _Position], float],
    sort: str,
    large: _Service,
    places: dict[str, _Position],
    small: _Service,
) -> tuple[dict[str, list[float]], list[float]]:
    """Each page in turn, and the floor's once in each turn."""
    floor_place = small.position(_SORTS[sort][1], 0)
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
