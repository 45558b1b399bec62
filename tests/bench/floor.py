"""The floor of the two calls: what Pecan, WSME, the HTTP server and the transactions cost alone.

A program of its own. It answers the wire type of a runtime on the server that qinling-api uses, and
runs the same transactions in plain DB-API, one connection per thread, on the same table. It has no
policy, no log, no request ids, no checks and no bus.
"""

import argparse
import datetime as dt
import signal
import threading
import urllib.parse
import uuid
from collections.abc import Sequence
from typing import Any

import pecan
import pymysql
import webob
from wsme import types as wtypes
from wsmeext.pecan import wsexpose

from qinling.cmd import server

COLUMNS = (
    "id",
    "project_id",
    "created_at",
    "updated_at",
    "name",
    "description",
    "image",
    "previous_image",
    "is_public",
    "trusted",
    "status",
    "status_reason",
    "revision",
    "settled",
    "pool_total",
    "pool_available",
    "pool_reason",
)
SELECT = f"SELECT {', '.join(COLUMNS)} FROM runtimes WHERE id = %s"
INSERT = f"INSERT INTO runtimes ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"


class Runtime(wtypes.Base):
    """As large as the real one."""

    id = str
    name = str
    image = str
    description = str
    is_public = bool
    trusted = bool
    status = str
    status_reason = str
    project_id = str
    created_at = str
    updated_at = str


class RuntimeCreate(wtypes.Base):
    image = wtypes.wsattr(str, mandatory=True)
    name = str
    description = str
    is_public = wtypes.wsattr(bool, default=True)
    trusted = wtypes.wsattr(bool, default=True)


class Connections(threading.local):
    """One connection per thread, made at its first use."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.connection = pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=parts.username,
            password=parts.password or "",
            database=parts.path[1:],
            charset="utf8mb4",
        )


def _answer(row: dict[str, Any]) -> Runtime:
    return Runtime(
        id=row["id"],
        name=row["name"],
        image=row["image"],
        description=row["description"],
        is_public=bool(row["is_public"]),
        trusted=bool(row["trusted"]),
        status=row["status"],
        status_reason=row["status_reason"],
        project_id=row["project_id"],
        created_at=str(row["created_at"]),
        updated_at=None if row["updated_at"] is None else str(row["updated_at"]),
    )


class Root:
    """`/v1/runtimes`, found without Pecan's RestController, which alone costs as much as WSME."""

    def __init__(self, database: str) -> None:
        self._connections = Connections(database)

    @pecan.expose()
    def _route(self, parts: Sequence[str], request: webob.Request) -> tuple[Any, list[str]]:
        found = [part for part in parts if part]
        return (self.create, []) if request.method == "POST" else (self.show, found[2:])

    @wsexpose(Runtime, str, rest_content_types=("json",))
    def show(self, runtime_id: str) -> Runtime:
        connection = self._connections.connection
        with connection.cursor() as cursor:
            cursor.execute(SELECT, (runtime_id,))
            row = cursor.fetchone()
        connection.rollback()
        assert row is not None
        return _answer(dict(zip(COLUMNS, row, strict=True)))

    @wsexpose(Runtime, body=RuntimeCreate, status_code=201, rest_content_types=("json",))
    def create(self, body: Any) -> Runtime:
        row = {
            "id": str(uuid.uuid4()),
            "project_id": "default",
            "created_at": dt.datetime.now(dt.UTC).replace(tzinfo=None),
            "updated_at": None,
            "name": body.name or None,
            "description": body.description or None,
            "image": body.image,
            "previous_image": None,
            "is_public": body.is_public,
            "trusted": body.trusted,
            "status": "creating",
            "status_reason": None,
            "revision": 1,
            "settled": False,
            "pool_total": 0,
            "pool_available": 0,
            "pool_reason": None,
        }
        connection = self._connections.connection
        with connection.cursor() as cursor:
            cursor.execute(INSERT, [row[name] for name in COLUMNS])
        connection.commit()
        return _answer(row)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.floor", description=__doc__)
    parser.add_argument("--database", required=True, help="SQLAlchemy's URL of it")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    application = pecan.make_app(
        Root(arguments.database), debug=False, guess_content_type_from_ext=False
    )
    http = server.HttpServer(application, "127.0.0.1", arguments.port, arguments.threads)
    http.start()
    print("Serving", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
