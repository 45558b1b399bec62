"""Transactions that meet: those that a database ends for others' sake are done again, and each
counts.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from qinling.db import api as db_api
from qinling.db import demands, migration
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import wait_until
from tests.unit.config import options

FUNCTION = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def db(database_url: str) -> Iterator[db_api.Database]:
    found = db_api.Database(options(database_url))
    migration.upgrade(found.engine())
    yield found
    found.dispose()


def insert(connection: sa.Connection, function_id: str) -> None:
    values = {"wanted": 1, "settled": True, "used_at": "2026-01-31 12:00:00"}
    row = {"function_id": function_id, "function_version": 0, **values}
    connection.execute(sa.insert(demands.Table).values(row))


def test_of_two_that_want_the_first_worker_at_once_neither_is_refused(
    db: db_api.Database, mariadb: MariaDB
) -> None:
    waits = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    with db.engine().connect() as other, other.begin():
        # It has done more than the one that it meets: that one is ended.
        for number in range(10):
            insert(other, f"00000000-0000-4000-8000-{number:012}")
        # Nobody inserts where another one has looked in vain, and both have.
        other.execute(
            sa.update(demands.Table)
            .where(demands.Table.c.function_id == FUNCTION, demands.Table.c.function_version == 0)
            .values(settled=False)
        )
        asker = threading.Thread(target=db.write, args=(demands.raise_to, FUNCTION, 0, 2))
        asker.start()
        # The server looks anew when nobody has asked for a tenth of a second, and not before.
        wait_until(lambda: mariadb.execute(waits) == [(1,)], 20, "the insert that waits", pause=0.2)
        insert(other, FUNCTION)
    asker.join(20)
    with db.engine().connect() as connection:
        query = sa.select(demands.Table.c.wanted).where(demands.Table.c.function_id == FUNCTION)
        assert connection.execute(query).scalars().all() == [2]


# Where nobody keeps others from inserting what he has looked for in vain.
READ_COMMITTED = "init_command=SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"


@pytest.mark.parametrize("kind", ["sqlite", "mariadb", "mariadb, read committed"])
def test_of_those_who_scale_up_at_once_each_counts(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    url = f"sqlite:///{tmp_path / 'qinling.db'}"
    if kind != "sqlite":
        url = request.getfixturevalue("database_url")
    if kind == "mariadb, read committed":
        url += "&" + READ_COMMITTED
    db = db_api.Database(options(url))
    migration.upgrade(db.engine())
    together = threading.Barrier(3)

    def scale_up(_number: int) -> None:
        for version in range(8):
            together.wait(30)
            assert db.write(demands.change, FUNCTION, version, 2, 10)

    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(scale_up, range(3)))
        query = sa.select(demands.Table.c.wanted)
        assert db.read(lambda c: c.execute(query).scalars().all()) == [6] * 8
    finally:
        db.dispose()


@pytest.mark.parametrize("sync_wait", [None, 3])
def test_each_connection_waits_for_what_other_nodes_of_a_cluster_have_committed_if_it_is_to(
    database_url: str, sync_wait: int | None
) -> None:
    conf = options(database_url)
    conf.set_override("mysql_wsrep_sync_wait", sync_wait, "database")
    db = db_api.Database(conf)

    def read(connection: sa.Connection) -> int:
        """What this connection does, while another one does it, too."""
        together.wait(30)
        return int(connection.execute(sa.text("SELECT @@SESSION.wsrep_sync_wait")).scalar_one())

    together = threading.Barrier(2)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert (
                list(pool.map(lambda door: door(read), (db.read, db.write))) == [sync_wait or 0] * 2
            )
    finally:
        db.dispose()
