"""Whose turn it is: what that costs to find out, on the server that knows what it has read, and
who waits anew.
"""

import datetime as dt
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from qinling.db import api as db_api
from qinling.db import executions, migration, services
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
        assert executions.of_workers(connection, ["worker"]) == set()
        reads = connection.execute(sa.text("SHOW SESSION STATUS LIKE 'Handler_read%'"))
        return found, sum(int(row[1]) for row in reads)

    found, reads = db.read(look)
    assert found == {"a": [ids[3000]], "greedy": ids[2999:2989:-1], "z": [ids[3001]]}
    assert reads < 60


def test_what_a_dead_process_had_sent_to_nobody_waits_anew(db: db_api.Database) -> None:
    runs = {"status": "running", "updated_at": None, "result": None}
    db.write(services.register, "alive", "qinling-engine", "host", None, False)
    sent, unsent, _living, _untaken = rows.insert_executions(
        db,
        runs | {"owner": "gone", "worker_id": "worker"},
        runs | {"owner": "gone"},
        runs | {"owner": "alive"},
        runs,
    )
    found = db.read(executions.orphans, limit=10)
    assert [(one.id, one.is_sent) for one in found] == [(unsent, False), (sent, True)]
    assert db.read(executions.orphans, limit=1) == found[:1]
    assert db.write(executions.put_back, found) == 1
    assert db.read(executions.orphans, limit=10) == found[1:]
    # Whoever has it by now has it.
    assert db.write(executions.take, unsent, "alive") is not None
    assert db.write(executions.put_back, found) == 0
