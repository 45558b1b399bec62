"""Lists: every row exactly once, in whatever order and however many at a time."""

import datetime as dt
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import sqlalchemy as sa

from qinling.db import models
from tests.fixtures.deployment import Client, Deployment, Standalone, running
from tests.fixtures.process import wait_until
from tests.fixtures.rawhttp import Answer

Row = dict[str, Any]

#: An image that no host has: its runtimes stay in error, and no worker is started for them.
IMAGE = "lists/image"
OTHER_PROJECT = "elsewhere"
NAMES = (None, "", "B", "a", "a ", "b%_\\", "Ä", "蛇", "🐍", 'it\'s "quoted"')
DESCRIPTIONS = (None, "same", "first: one, two")


class Rows:
    """Runtimes written into the database: times and projects cannot be had of the API."""

    def __init__(self, deployment: Deployment) -> None:
        sqlite = f"sqlite:///{deployment.state_dir}/qinling.db"
        self._engine = sa.create_engine(getattr(deployment, "database", sqlite))

    def insert(self, *rows: Row) -> list[str]:
        values = [
            {
                "id": str(uuid.uuid4()),
                "project_id": "default",
                "created_at": dt.datetime(2026, 1, 1),
                "updated_at": None,
                "name": None,
                "description": None,
                "image": IMAGE,
                "is_public": True,
                "trusted": True,
                "status": "error",
                "revision": 1,
                "settled": True,
                "pool_total": 0,
                "pool_available": 0,
            }
            | row
            for row in rows
        ]
        with self._engine.begin() as connection:
            connection.execute(sa.insert(models.Runtime), values)
        return [value["id"] for value in values]

    def delete(self, *ids: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(models.Runtime).where(models.Runtime.id.in_(ids)))

    def update(self, runtime_id: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(models.Runtime).where(models.Runtime.id == runtime_id).values(values)
            )

    def close(self) -> None:
        self._engine.dispose()


@dataclass
class Listed:
    """The rows of this module in an installation, and the ways to ask for them."""

    client: Client
    rows: Rows
    all: list[Row]

    def ask(self, query: str) -> dict[str, Any]:
        """A list of this module's rows; `query` goes out as it is."""
        answer = self.client.call("GET", f"/v1/runtimes?{query}&image=has:{IMAGE}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ids(self, query: str) -> list[str]:
        return [row["id"] for row in self.ask(query)["runtimes"]]

    def walk(self, query: str) -> Iterator[list[Row]]:
        """The pages of a list, by following ``next``."""
        page = self.ask(query)
        yield page["runtimes"]
        while "next" in page:
            assert page["next"].startswith(f"{self.client.url}/v1/runtimes?"), page["next"]
            answer = self.client.session.get(page["next"], timeout=30)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            yield page["runtimes"]


def _rows() -> list[Row]:
    """Every combination that makes ties and nulls; three rows share each creation time."""
    began = dt.datetime(2026, 1, 31, 12)
    return [
        {
            "name": name,
            "description": DESCRIPTIONS[number % len(DESCRIPTIONS)],
            "image": f"{IMAGE}:{number % 4}",
            "is_public": bool(number % 2),
            "trusted": number % 5 != 0,
            "project_id": OTHER_PROJECT if number % 3 == 0 else "default",
            "created_at": began + dt.timedelta(microseconds=number // 3),
            "updated_at": None if number % 4 == 0 else began + dt.timedelta(days=number % 7),
        }
        for number, name in enumerate(NAMES * 4)
    ]


@pytest.fixture(scope="module")
def listed(deployment: Deployment) -> Iterator[Listed]:
    rows = Rows(deployment)
    rows.insert(*_rows())
    found = Listed(deployment.client, rows, [])
    found.all += found.ask("all_projects=true")["runtimes"]
    yield found
    for row in found.all:
        deployment.client.delete(row["id"])
    wait_until(lambda: not found.ids("all_projects=true"), 30, "the rows gone")
    rows.close()


def _null_last(key: str, descending: bool) -> Callable[[Row], tuple[bool, Any]]:
    """Sorts, for `reverse=descending`, the rows without a value behind all others."""
    return lambda row: ((row[key] is None) != descending, "" if row[key] is None else row[key])


SORTS = [
    "created_at",
    "created_at:desc",
    "id:desc",
    "name",
    "name:desc",
    "description:desc,name",
    "updated_at",
    "updated_at:desc,name:asc",
    "is_public,trusted:desc,name:desc",
    "project_id:desc,image",
    "status,updated_at:asc,description:desc",
]


@pytest.mark.parametrize(
    ("sort", "limit"),
    [*((sort, 7) for sort in SORTS), ("name:desc", 1), ("updated_at", 13), ("image:desc", 40)],
)
def test_paging_walks_through_every_row_exactly_once_in_order(
    listed: Listed, sort: str, limit: int
) -> None:
    pages = list(listed.walk(f"all_projects=true&sort={sort}&limit={limit}"))
    walked = list(itertools.chain(*pages))
    assert sorted(row["id"] for row in walked) == sorted(row["id"] for row in listed.all)
    assert all(len(page) == limit for page in pages[:-1])
    assert pages[-1]
    expected = sorted(listed.all, key=lambda row: (row["created_at"], row["id"]))
    for part in reversed(sort.split(",")):
        name, _, direction = part.partition(":")
        expected.sort(key=_null_last(name, direction == "desc"), reverse=direction == "desc")
    named = [part.partition(":")[0] for part in sort.split(",")]
    assert [[row[name] for name in named] for row in walked] == [
        [row[name] for name in named] for row in expected
    ]
    assert [row["id"] for row in walked] == listed.ids(f"all_projects=true&sort={sort}")


def test_without_a_sort_the_oldest_come_first_and_equal_times_are_in_order_of_the_ids(
    listed: Listed,
) -> None:
    expected = sorted((row["created_at"], row["id"]) for row in listed.all)
    for query in ("all_projects=true", "all_projects=true&limit=5"):
        walked = itertools.chain(*listed.walk(query))
        assert [(row["created_at"], row["id"]) for row in walked] == expected


@pytest.mark.parametrize("sort", ["created_at", "name", "name:desc", "updated_at:desc"])
def test_a_client_that_knows_the_last_id_needs_no_link(listed: Listed, sort: str) -> None:
    query = f"all_projects=true&sort={sort}"
    everything = listed.ids(query)
    walked: list[str] = []
    while page := listed.ids(
        f"{query}&limit=9&marker={walked[-1]}" if walked else f"{query}&limit=9"
    ):
        walked += page
    assert walked == everything
    # A marker needs no limit.
    assert listed.ids(f"{query}&marker={everything[9]}") == everything[10:]


@pytest.mark.parametrize("sort", ["created_at:desc", "name", "updated_at:desc", "is_public"])
def test_a_link_holds_when_its_marker_is_deleted_meanwhile(listed: Listed, sort: str) -> None:
    passing = listed.rows.insert(*({"name": name} for name in NAMES))
    staying = {row["id"] for row in listed.all}
    seen: list[str] = []
    try:
        for page in listed.walk(f"all_projects=true&sort={sort}&limit=4"):
            seen += [row["id"] for row in page]
            # The marker of the link among them, whenever it is one of these.
            listed.rows.delete(*(set(seen) & set(passing)))
            # What comes before it does not shift the pages.
            passing += listed.rows.insert({"created_at": dt.datetime(1999, 1, 1), "name": ""})
    finally:
        listed.rows.delete(*passing)
    assert len(seen) == len(set(seen))
    assert staying <= set(seen)


@pytest.mark.parametrize("sort", ["name", "name:desc", "updated_at:desc"])
def test_pages_hold_while_an_engine_writes_down_what_it_sees(listed: Listed, sort: str) -> None:
    """Nothing that the list is sorted by changes; MariaDB once lost rows of such an index."""
    query = f"all_projects=true&sort={sort}"
    expected = listed.ids(query)
    done = threading.Event()

    def write() -> None:
        for number, row in enumerate(itertools.cycle(listed.all)):
            if done.wait(0.002):
                return
            listed.rows.update(row["id"], pool_reason="x" * (number % 50), settled=number % 2 == 0)

    with ThreadPoolExecutor() as pool:
        writer = pool.submit(write)
        try:
            for _ in range(3):
                walked = itertools.chain(*listed.walk(f"{query}&limit=1"))
                assert [row["id"] for row in walked] == expected
        finally:
            done.set()
        writer.result()


def test_a_list_of_no_page_ends_without_a_link(listed: Listed) -> None:
    assert set(listed.ask("all_projects=true")) == {"runtimes"}
    assert set(listed.ask("all_projects=true&limit=40")) == {"runtimes"}
    assert set(listed.ask("all_projects=true&limit=39")) == {"runtimes", "next"}
    assert listed.ask("name=no-such-name&limit=1") == {"runtimes": []}


def test_a_link_keeps_the_filters_and_the_order(listed: Listed) -> None:
    query = "all_projects=true&sort=description:desc&limit=2&name=neq:Ä&name=neq:B&is_public=true"
    walked = [row["id"] for row in itertools.chain(*listed.walk(query))]
    assert walked == listed.ids(query.replace("&limit=2", ""))
    assert set(walked) == {
        row["id"] for row in listed.all if row["name"] not in ("Ä", "B") and row["is_public"]
    }


def test_other_projects_are_for_those_who_ask_for_them(listed: Listed) -> None:
    def these(keeps: Callable[[Row], bool]) -> set[str]:
        return {row["id"] for row in listed.all if keeps(row)}

    own = these(lambda row: row["is_public"] or row["project_id"] == "default")
    everything = these(lambda _: True)
    assert own < everything
    assert set(listed.ids("")) == set(listed.ids("all_projects=false")) == own
    assert set(listed.ids("all_projects=true")) == everything
    there = these(lambda row: row["project_id"] == OTHER_PROJECT)
    for query in (
        f"project_id={OTHER_PROJECT}",
        "project_id=neq:default&all_projects=true",
        f"project_id=has:{OTHER_PROJECT[:4]}",
    ):
        assert set(listed.ids(query)) == there
    assert set(listed.ids("project_id=neq:abc")) == everything


def _keeps(operator: str, value: Any, wanted: Any) -> bool:
    """What the contract says of an operator; a value that is not there differs from each."""
    if value is None:
        return operator in ("neq", "nin")
    match operator:
        case "in" | "nin":
            return (value in wanted) == (operator == "in")
        case "has":
            return wanted in value
    return {
        "eq": value == wanted,
        "neq": value != wanted,
        "gt": value > wanted,
        "gte": value >= wanted,
        "lt": value < wanted,
        "lte": value <= wanted,
    }[operator]


COMPARING = ("eq", "neq", "gt", "gte", "lt", "lte")
TEXTS = {
    "name": ["B", "a", "", "b%_\\", "蛇", "🐍", 'it\'s "quoted"', "%", "A", "nobody's"],
    "description": ["same", "first: one", "o", "SAME", "in:same"],
    "image": [f"{IMAGE}:1", "lists", ":3"],
    "status": ["error", "available", "err", "perfect"],
    "project_id": ["default", OTHER_PROJECT, "other"],
}
FILTERS = [
    *(
        (field, operator, value)
        for field, values in TEXTS.items()
        for value in values
        for operator in (*COMPARING, "has")
    ),
    *(
        (field, operator, values)
        for field, values in TEXTS.items()
        for operator in ("in", "nin")
        if not any("," in value for value in values)
    ),
    *(
        (field, operator, value)
        for field in ("is_public", "trusted")
        for operator, value in (
            ("eq", True),
            ("eq", False),
            ("neq", True),
            ("in", [False, True]),
            ("nin", [True]),
        )
    ),
    *(
        (field, operator, value)
        for field in ("created_at", "updated_at")
        for value in (
            "2026-01-31 12:00:00.000000",
            "2026-01-31 12:00:00.000005",
            "2026-02-03 12:00:00.000000",
        )
        for operator in COMPARING
    ),
    ("updated_at", "in", ["2026-02-01 12:00:00.000000", "2026-02-03 12:00:00.000000"]),
    ("updated_at", "nin", ["2026-02-01 12:00:00.000000", "2026-02-03 12:00:00.000000"]),
]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(one) for one in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("field", sorted({field for field, _, _ in FILTERS}))
def test_filters_keep_what_their_operators_say(listed: Listed, field: str) -> None:
    told = []
    for _, operator, value in (entry for entry in FILTERS if entry[0] == field):
        expected = {row["id"] for row in listed.all if _keeps(operator, row[field], value)}
        text = f"{operator}:{_text(value)}"
        # As the clients in the field send it, and with every character that can be encoded.
        for sent in (quote(text, safe=":,"), quote(text, safe="")):
            found = listed.ids(f"all_projects=true&{field}={sent}")
            if set(found) != expected or len(found) != len(expected):
                told.append(f"{field}={text} (sent as {sent}): {len(found)} of {len(expected)}")
    assert not told, "\n".join(told)


def test_a_filter_on_the_id_finds_the_one(listed: Listed) -> None:
    one, other = listed.all[3]["id"], listed.all[5]["id"]
    assert listed.ids(f"all_projects=true&id={one}") == [one]
    assert set(listed.ids(f"all_projects=true&id=in:{one},{other}")) == {one, other}
    assert len(listed.ids(f"all_projects=true&id=neq:{one}")) == len(listed.all) - 1


def test_without_an_operator_the_whole_value_is_meant(listed: Listed) -> None:
    for value in ("first: one, two", "eq:first: one, two"):
        found = listed.ids(f"all_projects=true&description={quote(value)}")
        assert len(found) == len([row for row in listed.all if row["description"] == value[-15:]])
    assert listed.ids("all_projects=true&description=unheard:same") == []
    assert listed.ids(f"all_projects=true&image={IMAGE}:2") == listed.ids(
        f"all_projects=true&image=eq:{IMAGE}:2"
    )


@pytest.mark.parametrize(
    "spelling",
    [
        "2026-02-03 12:00:00",
        "2026-02-03T12:00:00",
        "2026-02-03 12:00",
        "2026-02-03T12:00:00Z",
        "2026-02-03T14:00:00.000000+02:00",
        "2026-02-03T04:00:00-08:00",
    ],
)
def test_a_time_is_the_same_in_each_of_its_spellings(listed: Listed, spelling: str) -> None:
    expected = {
        row["id"] for row in listed.all if row["updated_at"] == "2026-02-03 12:00:00.000000"
    }
    assert expected
    assert set(listed.ids(f"all_projects=true&updated_at={quote(spelling)}")) == expected


def test_a_longer_list_than_the_unpaged_limit_goes_on_at_next(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith("pytest-"):
            folder.chmod(0o711)
    small = Standalone(tmp_path, {"api": {"unpaged_limit": "3", "max_limit": "2"}})
    with running(small):
        rows = Rows(small)
        ids = rows.insert(
            *({"created_at": dt.datetime(2026, 1, 1, second=second)} for second in range(8))
        )
        few = Listed(small.client, rows, [])
        pages = [[row["id"] for row in page] for page in few.walk("sort=created_at")]
        assert pages == [ids[:3], ids[3:6], ids[6:]]
        assert len(few.ids("limit=2")) == 2
        refused = Answer.of(small.client.call("GET", "/v1/runtimes?limit=3"))
        assert "limit" in refused.refused(400)
        rows.close()


def test_the_link_is_for_the_name_that_the_client_has_for_the_service(listed: Listed) -> None:
    answer = listed.client.call(
        "GET", "/v1/runtimes?limit=1", headers={"Host": "functions.example.org:8443"}
    )
    link = urlsplit(answer.json()["next"])
    assert (link.scheme, link.netloc, link.path) == (
        "http",
        "functions.example.org:8443",
        "/v1/runtimes",
    )
