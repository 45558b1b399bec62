"""Executions that ended long ago go, whoever else is at work on the table."""

import datetime as dt
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from oslo_utils import timeutils

from qinling.db import api as db_api
from qinling.db import executions, migration
from qinling.engine.retention import Retention
from qinling.states import ExecutionStatus
from tests.fixtures.mariadb import MariaDB
from tests.unit import rows
from tests.unit.config import options

HOUR = 3600


@pytest.fixture(params=["sqlite", "mariadb"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[db_api.Database]:
    """A database of each kind, without rows."""
    url, server = f"sqlite:///{tmp_path / 'qinling.db'}", None
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb")
        assert isinstance(server, MariaDB)
        server.heal()
        url = server.create_database()
    made = db_api.Database(options(url))
    migration.upgrade(made.engine())
    yield made
    made.dispose()
    if server is not None:
        server.drop_database(url)


def test_engines_that_purge_at_once_leave_what_is_not_old_alone(db: db_api.Database) -> None:
    now = timeutils.utcnow()
    old = now - dt.timedelta(seconds=HOUR + 60)
    rows.insert_executions(db, *({"updated_at": old} for _ in range(450)))
    running = {"status": "running", "updated_at": None, "created_at": old}
    kept = rows.insert_executions(
        db, *({"updated_at": now} for _ in range(50)), *(running for _ in range(50))
    )
    function = rows.insert_function(db)
    new = rows.ENDED | {"function_id": function.id}
    for name in ("created_at", "updated_at", "status", "result"):
        del new[name]

    def accept_and_end(_number: int) -> str:
        """What a caller does meanwhile."""
        accepted = db.write(executions.create, new | {"id": str(uuid.uuid4())}, function.revision)
        ended = replace(accepted, status=ExecutionStatus.SUCCESS, updated_at=timeutils.utcnow())
        assert db.write(executions.end, ended, "printed")
        return accepted.id

    conf = options()
    conf.set_override("execution_retention", HOUR, group="engine")
    engines = [Retention(conf, db) for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        purges = [pool.submit(engine.purge) for engine in engines]
        made = list(pool.map(accept_and_end, range(50)))
        for purge in purges:
            purge.result(timeout=60)
    assert rows.execution_ids(db) == {*kept, *made}
