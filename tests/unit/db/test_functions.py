"""Queries on functions: their runtime stays, and a change counts for the row it was decided on."""

from dataclasses import replace
from typing import Any

import pytest

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import functions, runtimes
from qinling.db.listing import Listing
from qinling.states import RuntimeStatus
from tests.unit import rows

VALUES = {
    "id": "7b0c7b52-3a55-4b0d-8e43-6a3d3a3b5a5e",
    "project_id": "project",
    "name": "ünïcödé 😀",
    "description": None,
    "code": '{"source": "package"}',
    "package": "ab" * 32,
    "entry": "main.main",
    "cpu": 100,
    "memory_size": 2**40,
    "timeout": 5,
}


def test_a_new_function_is_read_back_as_it_was_made(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, status="available")
    made = db.write(functions.create, VALUES | {"runtime_id": runtime.id})
    assert db.read(functions.get, made.id) == made
    assert (made.count, made.latest_version, made.revision, made.updated_at) == (0, 0, 1, None)


@pytest.mark.parametrize("status", [one for one in RuntimeStatus if one != "available"])
def test_no_function_is_made_of_a_runtime_that_is_not_available(
    db: db_api.Database, status: RuntimeStatus
) -> None:
    runtime = rows.insert_one(db, status=status)
    with pytest.raises(exceptions.BadRequest, match=f"runtime_id: .* is {status}"):
        db.write(functions.create, VALUES | {"runtime_id": runtime.id})
    assert db.read(functions.find, VALUES["id"]) is None


def test_an_image_function_needs_no_runtime(db: db_api.Database) -> None:
    made = db.write(functions.create, VALUES | {"runtime_id": None, "package": None})
    assert db.read(functions.get, made.id) == made


def test_an_unknown_function_is_not_found_by_its_id(db: db_api.Database) -> None:
    with pytest.raises(exceptions.NotFound, match="Function 1234 does not exist"):
        db.read(functions.get, "1234")
    assert db.read(functions.find, "1234") is None


@pytest.mark.parametrize(
    ("values", "revision"),
    [
        ({"name": "new"}, 4),
        ({"name": None, "description": "words", "timeout": 7}, 4),
        ({"cpu": 200}, 5),
        ({"timeout": 7, "package": "cd" * 32}, 5),
        ({"entry": "a.b"}, 5),
    ],
)
def test_a_change_that_workers_cannot_follow_raises_the_revision(
    db: db_api.Database, values: dict[str, Any], revision: int
) -> None:
    function = rows.insert_function(db, revision=4)
    assert db.write(functions.update, function, values) is True
    after = db.read(functions.get, function.id)
    assert after.updated_at is not None
    assert after == replace(function, **values, revision=revision, updated_at=after.updated_at)


def test_a_change_that_was_decided_on_an_older_revision_is_lost(db: db_api.Database) -> None:
    now = rows.insert_function(db, revision=7)
    stale = replace(now, revision=6)
    assert db.write(functions.update, stale, {"cpu": 200}) is False
    assert db.write(functions.delete, stale) is None
    assert db.read(functions.get, now.id) == now


def test_a_function_is_deleted_once(db: db_api.Database) -> None:
    function = rows.insert_function(db)
    assert db.write(functions.delete, function) == {function.package}
    assert db.read(functions.find, function.id) is None
    assert db.write(functions.delete, function) is None
    assert db.write(functions.update, function, {"cpu": 200}) is False


def test_a_runtime_that_functions_use_is_not_deleted(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, status="available")
    function = rows.insert_function(db, runtime_id=runtime.id)
    with pytest.raises(exceptions.Forbidden, match=f"{runtime.id} cannot be deleted while func"):
        db.write(runtimes.delete, runtime)
    assert rows.find(db, runtime.id) == runtime
    db.write(functions.delete, function)
    assert db.write(runtimes.delete, runtime) is True


def test_what_is_used_is_told(db: db_api.Database) -> None:
    function = rows.insert_function(db, runtime_id="one", package="ab" * 32)
    assert db.read(functions.uses, "one")
    assert not db.read(functions.uses, "two")
    assert function.package is not None
    assert db.read(functions.package_is_used, function.package)
    assert not db.read(functions.package_is_used, "cd" * 32)


def test_a_project_sees_its_own_and_nothing_else(db: db_api.Database) -> None:
    mine = rows.insert_function(db, project_id="mine")
    theirs = rows.insert_function(db, project_id="theirs")
    assert db.read(functions.page, Listing(), "mine").rows == [mine]
    everything = {row.id for row in db.read(functions.page, Listing(), None).rows}
    assert everything == {mine.id, theirs.id}
