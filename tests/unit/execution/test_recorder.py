"""The recorder: ends that the database does not take at once."""

from dataclasses import replace
from typing import Any

import pytest
from oslo_utils import timeutils

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import executions
from qinling.execution.recorder import Recorder
from qinling.states import ExecutionStatus
from tests.fixtures.process import wait_until
from tests.unit import rows


def test_an_end_that_the_database_never_takes_holds_up_no_other(
    db: db_api.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = {"status": "running", "updated_at": None, "result": None}
    large, other = (
        replace(
            db.read(executions.get, id_),
            status=ExecutionStatus.SUCCESS,
            updated_at=timeutils.utcnow(),
        )
        for id_ in rows.insert_executions(db, running, running)
    )
    write = db.write

    def refuse_one(query: Any, *arguments: Any) -> Any:
        if query is executions.end and arguments[0].id == large.id:
            # Over what the server takes in a packet it closes the connection.
            raise exceptions.DatabaseUnavailable("The database does not answer for now.")
        return write(query, *arguments)

    monkeypatch.setattr(db, "write", refuse_one)
    recorder = Recorder(db)
    for ended in (large, other):
        recorder.end_later(ended, "")
    wait_until(
        lambda: db.read(executions.get, other.id).status is ExecutionStatus.SUCCESS, 10, "its end"
    )
    # Of which of them nobody is to begin anew.
    wait_until(lambda: not recorder.has(other.id), 10, "it forgotten")
    assert recorder.has(large.id)
