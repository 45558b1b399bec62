"""Queries on runtimes: a change counts only for the row that it was decided on."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import runtimes
from qinling.db.listing import Listing
from qinling.states import RuntimeStatus
from tests.unit import rows

SEEN = runtimes.Seen(total=2, available=2, reason=None, whole=True)


@pytest.fixture
def statements(db: db_api.Database) -> Iterator[list[str]]:
    """What is asked of the database, as SQL."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        asked.append(statement)

    engine = db.engine()
    sa.event.listen(engine, "before_cursor_execute", note)
    yield asked
    sa.event.remove(engine, "before_cursor_execute", note)


def test_a_new_runtime_is_read_back_as_it_was_made(db: db_api.Database) -> None:
    made = db.write(
        runtimes.create,
        {
            "id": "7b0c7b52-3a55-4b0d-8e43-6a3d3a3b5a5e",
            "project_id": "project",
            "name": "ünïcödé 😀",
            "description": None,
            "image": "python3",
            "is_public": False,
            "trusted": True,
        },
    )
    assert rows.find(db, made.id) == made
    assert made.status is RuntimeStatus.CREATING
    assert (made.revision, made.settled, made.updated_at) == (1, False, None)


def test_an_unknown_runtime_is_not_found_by_its_id(db: db_api.Database) -> None:
    with pytest.raises(exceptions.NotFound, match="Runtime 1234 does not exist"):
        db.read(runtimes.get, "1234")
    assert db.read(runtimes.find, "1234") is None


#: Every change that is decided on a row: the status it starts from, and the change.
SWAPS: dict[str, tuple[str, Callable[..., bool], tuple[Any, ...]]] = {
    "transition": ("available", runtimes.transition, (RuntimeStatus.UPGRADING,)),
    "upgrade": ("available", runtimes.upgrade, ({"image": "new"},)),
    "delete": ("error", runtimes.delete, ()),
    "conclude": ("creating", runtimes.conclude, (RuntimeStatus.AVAILABLE, SEEN)),
    "observe": ("available", runtimes.observe, (SEEN,)),
    "remove": ("deleting", runtimes.remove, ()),
}


@pytest.mark.parametrize(("status", "change", "arguments"), SWAPS.values(), ids=SWAPS)
def test_a_change_that_was_decided_on_the_row_as_it_is_is_made(
    db: db_api.Database, status: str, change: Callable[..., bool], arguments: tuple[Any, ...]
) -> None:
    runtime = rows.insert_one(db, status=status)
    assert db.write(change, runtime, *arguments) is True
    assert db.read(runtimes.find, runtime.id) != runtime


@pytest.mark.parametrize(("status", "change", "arguments"), SWAPS.values(), ids=SWAPS)
def test_a_change_that_was_decided_on_an_older_revision_is_lost_and_changes_nothing(
    db: db_api.Database, status: str, change: Callable[..., bool], arguments: tuple[Any, ...]
) -> None:
    now = rows.insert_one(db, status=status, revision=7)
    other = rows.insert_one(db, status=status, revision=6)
    assert db.write(change, replace(now, revision=6), *arguments) is False
    assert rows.find(db, now.id) == now
    assert rows.find(db, other.id) == other


@pytest.mark.parametrize(("status", "change", "arguments"), SWAPS.values(), ids=SWAPS)
def test_a_change_that_was_decided_on_another_status_is_lost_and_changes_nothing(
    db: db_api.Database, status: str, change: Callable[..., bool], arguments: tuple[Any, ...]
) -> None:
    others = [one for one in RuntimeStatus if one != status]
    for other in others:
        now = rows.insert_one(db, status=other)
        decided_on = replace(now, status=RuntimeStatus(status))
        assert db.write(change, decided_on, *arguments) is False
        assert rows.find(db, now.id) == now


@pytest.mark.parametrize(("status", "change", "arguments"), SWAPS.values(), ids=SWAPS)
def test_a_change_of_a_row_that_has_gone_is_lost(
    db: db_api.Database, status: str, change: Callable[..., bool], arguments: tuple[Any, ...]
) -> None:
    runtime = rows.insert_one(db, status=status)
    rows.delete(db, runtime.id)
    assert db.write(change, runtime, *arguments) is False
    assert db.read(runtimes.find, runtime.id) is None


def test_of_many_that_change_the_same_row_at_once_one_wins(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, status="available")
    askers = 8
    together = threading.Barrier(askers)

    def upgrade(number: int) -> bool:
        together.wait(20)
        return db.write(runtimes.upgrade, runtime, {"image": f"new {number}"})

    with ThreadPoolExecutor(askers) as pool:
        won = list(pool.map(upgrade, range(askers)))
    assert won.count(True) == 1
    after = rows.find(db, runtime.id)
    assert after.image == f"new {won.index(True)}"
    assert after.revision == runtime.revision + 1


def test_a_change_of_what_should_be_raises_the_revision_and_unsettles(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, status="available", settled=True, revision=4)
    db.write(runtimes.transition, runtime, RuntimeStatus.DELETING)
    after = rows.find(db, runtime.id)
    assert (after.revision, after.settled) == (5, False)
    assert after.updated_at is not None


def test_an_end_that_the_pool_has_come_to_leaves_the_revision(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, status="creating", revision=4)
    db.write(runtimes.conclude, runtime, RuntimeStatus.AVAILABLE, SEEN)
    after = rows.find(db, runtime.id)
    assert (after.revision, after.settled, after.pool_available) == (4, True, 2)


@pytest.mark.parametrize("door", [runtimes.transition, runtimes.conclude])
def test_no_door_lets_a_status_through_that_there_is_no_way_to(
    db: db_api.Database, door: Callable[..., bool]
) -> None:
    runtime = rows.insert_one(db, status="available")
    arguments = (SEEN,) if door is runtimes.conclude else ()
    with pytest.raises(exceptions.InvalidTransition):
        db.write(door, runtime, RuntimeStatus.ERROR, *arguments)
    assert rows.find(db, runtime.id) == runtime


def test_an_upgrade_keeps_the_image_that_works(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, status="available", image="old", status_reason="rolled back once")
    db.write(runtimes.upgrade, runtime, {"image": "new", "name": "renamed"})
    after = rows.find(db, runtime.id)
    assert (after.image, after.previous_image, after.name) == ("new", "old", "renamed")
    assert after.status_reason is None


def test_a_runtime_in_error_has_no_image_to_go_back_to(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, status="error", image="broken")
    db.write(runtimes.upgrade, runtime, {"image": "new"})
    assert rows.find(db, runtime.id).previous_image is None


@pytest.mark.parametrize(
    "news", [{"total": 3}, {"available": 1}, {"reason": "x"}, {"whole": False}]
)
def test_what_the_row_says_already_is_known_and_anything_else_is_not(
    db: db_api.Database, news: dict[str, Any]
) -> None:
    runtime = rows.insert_one(db, status="available", settled=True, pool_total=2, pool_available=2)
    assert runtimes.is_known(runtime, SEEN)
    assert not runtimes.is_known(runtime, replace(SEEN, **news))


def test_a_description_changes_nothing_of_the_pool(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, status="upgrading", revision=4, settled=False)
    db.write(runtimes.describe, runtime.id, {"name": "new", "description": "words"})
    after = rows.find(db, runtime.id)
    assert after.updated_at is not None
    assert after == replace(runtime, name="new", description="words", updated_at=after.updated_at)


@pytest.mark.parametrize("name", ["image", "status", "revision", "settled", "is_public"])
def test_a_description_is_no_way_around_the_doors_that_compare(
    db: db_api.Database, name: str
) -> None:
    runtime = rows.insert_one(db, status="available")
    with pytest.raises(ValueError, match=name):
        db.write(runtimes.describe, runtime.id, {"name": "new", name: "x"})
    assert rows.find(db, runtime.id) == runtime


def test_only_a_row_that_is_being_deleted_can_be_removed(db: db_api.Database) -> None:
    for status in RuntimeStatus:
        runtime = rows.insert_one(db, status=status)
        assert db.write(runtimes.remove, runtime) is (status is RuntimeStatus.DELETING)


def test_ids_are_walked_in_order_and_counted(db: db_api.Database) -> None:
    settled = sorted(rows.insert(db, *[{"settled": True}] * 7))
    unsettled = sorted(rows.insert(db, *[{"settled": False}] * 3))
    assert db.read(runtimes.ids, settled=True, limit=4) == settled[:4]
    assert db.read(runtimes.ids, settled=True, after=settled[3], limit=4) == settled[4:]
    assert db.read(runtimes.ids, settled=False) == unsettled
    assert db.read(runtimes.count, settled=True) == 7
    assert db.read(runtimes.count, settled=True, after=settled[3]) == 3


def test_of_some_ids_those_with_a_row_are_told(db: db_api.Database) -> None:
    known = rows.insert(db, {}, {"status": "deleting"})
    assert db.read(runtimes.existing, [*known, "unknown"]) == set(known)
    assert db.read(runtimes.existing, []) == set()


def test_a_project_sees_its_own_and_what_is_public(db: db_api.Database) -> None:
    own, own_private, public, private = rows.insert(
        db,
        {"project_id": "mine", "is_public": True},
        {"project_id": "mine", "is_public": False},
        {"project_id": "theirs", "is_public": True},
        {"project_id": "theirs", "is_public": False},
    )
    seen = {row.id for row in db.read(runtimes.page, Listing(), "mine").rows}
    assert seen == {own, own_private, public}
    everything = {row.id for row in db.read(runtimes.page, Listing(), None).rows}
    assert everything == {own, own_private, public, private}
