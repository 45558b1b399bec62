"""How much of an execution a database takes, as it comes."""

import json
import uuid
from dataclasses import replace

from qinling.conf.execution import MAX_KEPT
from qinling.db import api as db_api
from qinling.db import executions, migration
from qinling.states import ExecutionStatus
from tests.unit import rows
from tests.unit.config import options

VALUES = {
    name: rows.ENDED[name]
    for name in rows.ENDED
    if name not in ("created_at", "updated_at", "status", "result")
}


def test_the_largest_result_and_log_are_written_down(database_url: str) -> None:
    db = db_api.Database(options(database_url))
    migration.upgrade(db.engine())
    function = rows.insert_function(db)
    made = VALUES | {"id": str(uuid.uuid4()), "function_id": function.id}
    accepted = db.write(executions.create, made, function.revision)
    # Each of these is two in a statement, and each comma has a blank behind it.
    largest, quotes = json.dumps([""] * (MAX_KEPT // 3)), '"' * MAX_KEPT
    ended = replace(accepted, status=ExecutionStatus.SUCCESS, result=largest, owner=None)
    assert db.write(executions.end, ended, quotes)
    assert db.read(executions.get, accepted.id).result == largest
    assert db.read(executions.log, accepted.id) == quotes
    db.dispose()
