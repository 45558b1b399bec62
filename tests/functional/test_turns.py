"""What it costs to find out whose turn it is, on the server that knows what it has read."""

import datetime as dt
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from qinling.db import api as db_api
from qinling.db import executions, migration
from tests.unit import rows
from tests.unit.config import options


@pytest.fixture
def db(database_url: str) -> Iterator[db_api.Database]:
    found = db_api.Database(options(database_url))
    migration.upgrade(found.engine())
    yield found
    found.dispose()


def test_however_much_of_a_project_waits_little_is_read(db: db_api.Database) -> None:
    now = dt.datetime(2026, 6, 1)
    waits = {"status": "running", "updated_at": None, "result": None}
    many = [
        waits | {"project_id": "greedy", "created_at": now - dt.timedelta(seconds=age)}
        for age in range(3000)
    ]
    few = [waits | {"project_id": project, "created_at": now} for project in ("a", "z")]
    ids = rows.insert_executions(db, *many, *few, *[{}] * 1000)

    def look(connection: sa.Connection) -> tuple[dict[str, list[str]], int]:
        connection.execute(sa.text("FLUSH STATUS"))
        found = executions.waiting(connection, after="", projects=16, limit=10)
        reads = connection.execute(sa.text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
        return found, sum(int(row[1]) for row in reads)

    found, reads = db.read(look)
    assert found == {"a": [ids[3000]], "greedy": ids[2999:2989:-1], "z": [ids[3001]]}
    assert reads < 60
