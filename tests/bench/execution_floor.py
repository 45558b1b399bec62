"""The floor of a warm synchronous execution: its bare parts, on the server that qinling-api uses.

A program of its own. WSME takes the POST and answers it; the same transactions go through plain
DB-API, on the same rows; and a bare worker (`tests.bench.echo`) is sent as many bytes.
It has no policy, no log, no request ids, no checks, no signatures, and nobody else to wait for.
"""

import argparse
import datetime as dt
import json
import signal
import threading
import uuid
from collections.abc import Sequence
from typing import Any

import pecan
import webob
from wsme import types as wtypes
from wsmeext.pecan import wsexpose

from qinling.cmd import server
from tests.bench import wire
from tests.bench.floor import Connections

_FUNCTION = (
    "SELECT f.*, r.status FROM functions f LEFT JOIN runtimes r ON r.id = f.runtime_id "
    "WHERE f.id = %s"
)
_HOLD = "SELECT id FROM workers WHERE id = %s AND status = 'ready' LOCK IN SHARE MODE"
_COLUMNS = (
    "id",
    "project_id",
    "created_at",
    "updated_at",
    "function_id",
    "function_version",
    "function_alias",
    "description",
    "status",
    "sync",
    "input",
    "result",
    "owner",
    "worker_id",
)
_INSERT = (
    f"INSERT INTO executions ({', '.join(_COLUMNS)}) VALUES ({', '.join(['%s'] * len(_COLUMNS))})"
)
_COUNT = "UPDATE functions SET count = count + 1 WHERE id = %s AND revision = 1"
_END = (
    "UPDATE executions SET status = %s, result = %s, updated_at = %s, owner = NULL "
    "WHERE id = %s AND status = 'running'"
)


class Execution(wtypes.Base):
    """As large as the real one."""

    id = str
    function_id = str
    function_version = int
    function_alias = str
    description = str
    status = str
    status_reason = str
    sync = bool
    input = str
    result = str
    project_id = str
    created_at = str
    updated_at = str


class ExecutionCreate(wtypes.Base):
    function_id = wtypes.wsattr(str, mandatory=True)
    function_alias = str
    function_version = wtypes.wsattr(int, default=0)
    input = str
    sync = wtypes.wsattr(bool, default=True)
    description = str


class _Worker(threading.local):
    """One connection per thread to the bare worker, made at its first use."""

    def __init__(self, port: int) -> None:
        self.connection = wire.Connection(port)


class Root:
    """``POST /v1/executions``."""

    def __init__(self, database: str, worker_id: str, port: int) -> None:
        self._connections = Connections(database)
        self._worker_id = worker_id
        self._worker = _Worker(port)

    @pecan.expose()
    def _route(self, _parts: Sequence[str], _request: webob.Request) -> tuple[Any, list[str]]:
        return self.create, []

    @wsexpose(Execution, body=ExecutionCreate, status_code=201, rest_content_types=("json",))
    def create(self, body: Any) -> Execution:
        self._find(body.function_id)
        row = {
            "id": str(uuid.uuid4()),
            "project_id": "default",
            "created_at": _now(),
            "updated_at": None,
            "function_id": body.function_id,
            "function_version": body.function_version,
            "function_alias": body.function_alias or None,
            "description": body.description or None,
            "status": "running",
            "sync": body.sync,
            "input": body.input or None,
            "result": None,
            "owner": self._worker_id,
            "worker_id": self._worker_id,
        }
        self._accept(row)
        asked = {"execution_id": row["id"], "input": row["input"], "filler": "x" * 180}
        answer = self._worker.connection.call(wire.request("POST", "/execute", asked), 200)
        assert json.loads(answer)["execution_id"] == row["id"]
        row |= {"status": "success", "result": '{"output": "Hello, World", "duration": 0.000321}'}
        row |= {"updated_at": _now()}
        self._end(row)
        shown = row | {"created_at": str(row["created_at"]), "updated_at": str(row["updated_at"])}
        del shown["owner"], shown["worker_id"]
        return Execution(**shown)

    def _find(self, function_id: str) -> None:
        connection = self._connections.connection
        with connection.cursor() as cursor:
            cursor.execute(_FUNCTION, (function_id,))
            assert cursor.fetchone() is not None
        connection.rollback()

    def _accept(self, row: dict[str, Any]) -> None:
        connection = self._connections.connection
        with connection.cursor() as cursor:
            cursor.execute(_HOLD, (self._worker_id,))
            assert cursor.fetchone() is not None
            cursor.execute(_INSERT, [row[name] for name in _COLUMNS])
            assert cursor.execute(_COUNT, (row["function_id"],))
        connection.commit()

    def _end(self, row: dict[str, Any]) -> None:
        connection = self._connections.connection
        with connection.cursor() as cursor:
            values = (row["status"], row["result"], row["updated_at"], row["id"])
            assert cursor.execute(_END, values)
        connection.commit()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.execution_floor")
    parser.add_argument("--database", required=True, help="SQLAlchemy's URL of it")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--worker-id", required=True, help="of a row that says `ready`")
    parser.add_argument("--worker-port", type=int, required=True, help="of a bare worker")
    arguments = parser.parse_args()
    application = pecan.make_app(
        Root(arguments.database, arguments.worker_id, arguments.worker_port),
        debug=False,
        guess_content_type_from_ext=False,
    )
    http = server.HttpServer(application, "127.0.0.1", arguments.port, arguments.threads)
    http.start()
    print("Serving", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
