"""Transactions that a database ends for others' sake are done again."""

import threading
from collections.abc import Iterator

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
    values = {"wanted": 1, "settled": True, "raised_at": "2026-01-31 12:00:00"}
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
