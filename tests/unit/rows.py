"""Rows of runtimes, functions and executions in any state, put straight into the tables."""

import datetime as dt
import uuid
from typing import Any

import sqlalchemy as sa

from qinling.db import api as db_api
from qinling.db import functions, models, runtimes

#: A runtime that was asked for and that nobody has looked at yet.
NEW: dict[str, Any] = {
    "project_id": "project",
    "created_at": dt.datetime(2026, 1, 31, 12, 0, 0, 123456),
    "updated_at": None,
    "name": None,
    "description": None,
    "image": "python3",
    "previous_image": None,
    "is_public": True,
    "trusted": True,
    "status": "creating",
    "status_reason": None,
    "revision": 1,
    "settled": False,
    "pool_total": 0,
    "pool_available": 0,
    "pool_reason": None,
}


def insert(db: db_api.Database, *rows: dict[str, Any]) -> list[str]:
    """Insert rows, each `NEW` but for what it names, and return their ids."""
    values = [NEW | {"id": str(uuid.uuid4())} | row for row in rows]

    def query(connection: sa.Connection) -> None:
        connection.execute(sa.insert(models.Runtime), values)

    db.write(query)
    return [row["id"] for row in values]


def insert_one(db: db_api.Database, **values: Any) -> runtimes.Runtime:
    """Insert one row and return it as it was read back."""
    return find(db, insert(db, values)[0])


def find(db: db_api.Database, runtime_id: str) -> runtimes.Runtime:
    return db.read(runtimes.get, runtime_id)


def delete(db: db_api.Database, *runtime_ids: str) -> None:
    """Delete rows whatever their state; all of them when none is named."""
    condition = models.Runtime.id.in_(runtime_ids) if runtime_ids else sa.true()

    def query(connection: sa.Connection) -> None:
        connection.execute(sa.delete(models.Runtime).where(condition))

    db.write(query)


#: A function that nobody has called yet.
NEW_FUNCTION: dict[str, Any] = {
    "project_id": "project",
    "created_at": dt.datetime(2026, 1, 31, 12, 0, 0, 123456),
    "updated_at": None,
    "name": None,
    "description": None,
    "runtime_id": None,
    "code": '{"source": "package", "md5sum": "d41d8cd98f00b204e9800998ecf8427e"}',
    "package": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "entry": "main.main",
    "cpu": 100,
    "memory_size": 33554432,
    "timeout": 5,
    "count": 0,
    "latest_version": 0,
    "revision": 1,
}


def insert_function(db: db_api.Database, **values: Any) -> functions.Function:
    """Insert one function, `NEW_FUNCTION` but for what is named, and return it as read back."""
    row = NEW_FUNCTION | {"id": str(uuid.uuid4())} | values

    def query(connection: sa.Connection) -> None:
        connection.execute(sa.insert(models.Function), [row])

    db.write(query)
    return db.read(functions.get, row["id"])


#: An execution that has ended well.
ENDED: dict[str, Any] = {
    "project_id": "project",
    "created_at": dt.datetime(2026, 1, 31, 12, 0, 0, 123456),
    "updated_at": dt.datetime(2026, 1, 31, 12, 0, 1, 123456),
    "function_id": "e9e0a5c4-4a6f-4a39-93ab-9a2ad5a9e0b1",
    "function_version": 0,
    "function_alias": None,
    "description": None,
    "status": "success",
    "sync": True,
    "input": None,
    "result": '{"output": null, "duration": 0.1}',
    "owner": None,
    "worker_id": None,
    "idempotency_key": None,
}


def insert_executions(db: db_api.Database, *rows: dict[str, Any]) -> list[str]:
    """Insert executions, each `ENDED` but for what it names, with a log each; their ids."""
    values = [ENDED | {"id": str(uuid.uuid4())} | row for row in rows]
    for row in values:
        row["size"] = sum(len((row[name] or "").encode()) for name in ("input", "result"))
    logs = [{"execution_id": row["id"], "log": "printed"} for row in values]

    def query(connection: sa.Connection) -> None:
        connection.execute(sa.insert(models.Execution), values)
        connection.execute(sa.insert(models.ExecutionLog), logs)

    db.write(query)
    return [row["id"] for row in values]


def execution_ids(db: db_api.Database) -> set[str]:
    """Of all executions that have a row or a log."""
    columns = (models.Execution.id, models.ExecutionLog.execution_id)
    return {
        id_
        for column in columns
        for id_ in db.read(lambda c, column=column: c.execute(sa.select(column)).scalars().all())
    }


def asked(function: functions.Function) -> dict[str, Any]:
    """An execution of a function as the API asks for it: what `executions.create` takes, but for
    its owner and worker.
    """
    return {
        "id": str(uuid.uuid4()),
        "project_id": "project",
        "function_id": function.id,
        "function_version": 0,
        "function_alias": None,
        "description": None,
        "sync": True,
        "input": None,
    }
