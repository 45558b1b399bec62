"""Queries on executions: pages of bounded size, keys that are one's own, and what has ended."""

import datetime as dt
import itertools
import uuid
from dataclasses import replace
from typing import Any

import pytest

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import executions
from qinling.db import listing as lists
from qinling.states import ExecutionStatus
from tests.unit import rows

MIB = 1024**2
VALUES = {
    name: rows.ENDED[name]
    for name in rows.ENDED
    if name not in ("created_at", "updated_at", "status", "result")
}


def accept(db: db_api.Database, **values: Any) -> executions.Execution:
    function = rows.insert_function(db)
    made = VALUES | {"id": str(uuid.uuid4()), "function_id": function.id} | values
    return db.write(executions.create, made, function.revision)


def walk(db: db_api.Database, listing: lists.Listing) -> list[list[executions.Execution]]:
    """All that a listing asks for, in the pieces in which it comes."""
    pieces = []
    while True:
        page = db.read(executions.page, listing, "project")
        pieces.append(list(page.rows))
        if page.cursor is None:
            return pieces
        listing = replace(listing, after=lists.decode_cursor(page.cursor, listing))


@pytest.mark.parametrize(
    "sort", [[], [lists.Sort("updated_at", True)], [lists.Sort("description")]]
)
def test_what_is_large_comes_in_pieces_of_bounded_size(
    db: db_api.Database, sort: list[lists.Sort]
) -> None:
    sizes = [3 * MIB, 10, 10, 400_000, 400_000, 400_000, 10, MIB, 10, 2 * MIB]
    expected = rows.insert_executions(
        db,
        *(
            {"id": f"{number:036}", "input": "x" * (size // 2), "result": "y" * (size // 2)}
            for number, size in enumerate(sizes)
        ),
    )
    if sort and sort[0].descending:
        expected.reverse()
    pieces = walk(db, lists.Listing(sorts=sort))
    assert [row.id for row in itertools.chain(*pieces)] == expected
    for piece in pieces:
        size = sum(len(row.input or "") + len(row.result or "") for row in piece)
        assert len(piece) == 1 or size <= MIB
    assert len(pieces) < len(sizes)


def test_an_execution_that_ends_counts_with_its_result(db: db_api.Database) -> None:
    for _ in range(3):
        execution = accept(db, input="ä" * 100_000)
        ended = replace(
            execution,
            status=ExecutionStatus.SUCCESS,
            result="x" * 500_000,
            updated_at=execution.created_at,
            owner=None,
        )
        assert db.write(executions.end, ended, "printed")
    assert [len(piece) for piece in walk(db, lists.Listing())] == [1, 1, 1]


def test_a_key_is_given_once_in_a_project_and_is_free_when_its_execution_is_gone(
    db: db_api.Database,
) -> None:
    first = accept(db, idempotency_key="a")
    with pytest.raises(exceptions.KeyTaken):
        accept(db, idempotency_key="a")
    for values in ({"idempotency_key": "A"}, {"project_id": "other", "idempotency_key": "a"}, {}):
        accept(db, **values)
    accept(db)
    assert db.read(executions.find_by_key, "project", "a") == first
    assert db.read(executions.find_by_key, "nobody", "a") is None
    db.write(executions.remove, first.id)
    assert db.read(executions.find_by_key, "project", "a") is None
    accept(db, idempotency_key="a")


def test_what_waits_is_told_by_project_each_ones_oldest_first(db: db_api.Database) -> None:
    waits = {"status": "running", "updated_at": None, "result": None}
    now = dt.datetime(2026, 6, 1)
    ids = rows.insert_executions(
        db,
        *(
            waits | {"project_id": project, "created_at": now - dt.timedelta(seconds=age)}
            for project, age in [("a", 1), ("a", 3), ("a", 2), ("b", 9), ("c", 5), ("c", 7)]
        ),
        waits | {"project_id": "d", "owner": "somebody"},
        {"project_id": "e"},
    )
    everything = {"a": [ids[1], ids[2], ids[0]], "b": [ids[3]], "c": [ids[5], ids[4]]}

    def waiting(after: str, projects: int, limit: int) -> list[tuple[str, list[str]]]:
        query = executions.waiting
        return list(db.read(query, after=after, projects=projects, limit=limit).items())

    assert waiting("", 10, 10) == list(everything.items())
    assert waiting("b", 2, 2) == [("c", everything["c"]), ("a", everything["a"][:2])]
    assert waiting("x", 1, 1) == [("a", everything["a"][:1])]


def test_what_ended_is_told_from_what_still_runs(db: db_api.Database) -> None:
    now = dt.datetime(2026, 6, 1)
    old, older, recent = rows.insert_executions(
        db,
        {"updated_at": now - dt.timedelta(seconds=2)},
        {"updated_at": now - dt.timedelta(days=2), "status": "error"},
        {"updated_at": now},
    )
    accept(db)
    assert set(db.read(executions.ended, now, limit=10)) == {old, older}
    assert db.read(executions.ended, now, limit=1) == [older]
    assert recent in rows.execution_ids(db)
