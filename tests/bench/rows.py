"""Rows of runtimes and executions by the thousand, made in the database server itself.

They are the same in every run: what looks random is a hash of the row's number.
"""

from pathlib import Path

import sqlalchemy as sa

from qinling.db import migration, models
from tests.fixtures.deployment import SECRET
from tests.fixtures.mariadb import MariaDB

#: Who calls where nobody must bring a token (`qinling.api.middleware.auth`).
CALLER = "default"


def _hash(salt: str) -> str:
    return f"CONV(SUBSTR(MD5(CONCAT('{salt}', seq)), 1, 8), 16, 10)"


def _uuid(text: str) -> str:
    for place in (9, 14, 19, 24):
        text = f"INSERT({text}, {place}, 0, '-')"
    return text


#: For each column an SQL expression over ``seq``, the row's number from 1: settled runtimes of
#: 1,000 projects, 60 % of them public and half of them without a name.
RUNTIMES = {
    "id": _uuid("MD5(seq)"),
    "project_id": f"IF(seq % 1000 = 0, '{CALLER}', MD5(CONCAT('project', seq % 1000)))",
    "created_at": "'2026-01-01' + INTERVAL seq * 997 SECOND + INTERVAL seq MICROSECOND",
    "updated_at": "'2026-06-01'",
    "name": f"IF({_hash('null')} % 2, NULL, CONCAT('runtime-', {_hash('name')} % 1000000))",
    "description": "'What it is for, in a few words'",
    "image": "'python3'",
    "previous_image": "NULL",
    "is_public": f"{_hash('public')} % 10 < 6",
    "trusted": "1",
    "status": "'available'",
    "status_reason": "NULL",
    "revision": "1",
    "settled": "1",
    "pool_total": "3",
    "pool_available": "3",
    "pool_reason": "NULL",
}


#: Executions of 1,000 projects, one of which has a tenth of them all.
EXECUTIONS = {
    "id": _uuid("MD5(seq)"),
    "project_id": f"IF(seq % 10 = 0, '{CALLER}', MD5(CONCAT('project', seq % 999)))",
    "created_at": "'2026-01-01' + INTERVAL seq SECOND + INTERVAL seq MICROSECOND",
    "updated_at": "'2026-01-01' + INTERVAL seq + 2 SECOND",
    "function_id": _uuid(f"MD5(CONCAT('function', {_hash('function')} % 5000))"),
    "function_version": "0",
    "function_alias": "NULL",
    "description": f"IF({_hash('made')} % 2, NULL, 'Created by Job')",
    "status": f"IF({_hash('status')} % 10, 'success', 'failed')",
    "sync": f"{_hash('sync')} % 2",
    "size": "300",
    "idempotency_key": "NULL",
    "input": """CONCAT('{"name": "', REPEAT('x', 200), '"}')""",
    "result": """'{"output": "hello world", "duration": 0.001234}'""",
    "owner": "NULL",
    "worker_id": "NULL",
}


class Table:
    """A table of one database.

    :param name: ``runtimes`` or ``executions``.
    """

    def __init__(self, mariadb: MariaDB, url: str, name: str = "runtimes") -> None:
        self.url = url
        self.name = name
        self._columns = {"runtimes": RUNTIMES, "executions": EXECUTIONS}[name]
        database = url.rpartition("/")[2].partition("?")[0]
        self._connection = mariadb.connect(database)

    @classmethod
    def in_new_database(cls, mariadb: MariaDB, name: str = "runtimes") -> "Table":
        url = mariadb.create_database()
        engine = sa.create_engine(url)
        migration.upgrade(engine)
        engine.dispose()
        return cls(mariadb, url, name)

    def fill(self, count: int, **columns: str) -> None:
        """Insert so many rows, of which some ``columns`` are not as in `RUNTIMES`, `EXECUTIONS`."""
        expressions = self._columns | columns
        self.execute(
            f"INSERT INTO {self.name} ({', '.join(expressions)}) "
            f"SELECT {', '.join(expressions.values())} FROM seq_1_to_{count} ORDER BY 1"
        )
        self.execute(f"ANALYZE TABLE {self.name}")

    def fill_at_once(self, count: int, **columns: str) -> None:
        """As ``fill``, into an empty table: its indexes are made of what is there then."""
        engine = sa.create_engine(self.url)
        indexes = models.Base.metadata.tables[self.name].indexes
        for index in indexes:
            index.drop(engine)
        self.fill(count, **columns)
        for index in indexes:
            index.create(engine)
        engine.dispose()
        self.execute(f"ANALYZE TABLE {self.name}")

    def clear(self) -> None:
        self.execute(f"DELETE FROM {self.name}")

    def count(self, where: str) -> int:
        [(count,)] = self.execute(f"SELECT COUNT(*) FROM {self.name} WHERE {where}")
        assert isinstance(count, int)
        return count

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Run one statement, committed by itself, and return its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def write_config(self, path: Path, options: str = "") -> Path:
        """A configuration of nothing but this database, and ``options`` behind it."""
        path.touch(mode=0o600)
        path.write_text(
            f"[DEFAULT]\nlog_file = {path}.log\nuse_stderr = false\n"
            f"[pecan]\nauth_enable = false\n[execution]\nsecret = {SECRET}\n"
            f"[database]\nconnection = {self.url}\n{options}"
        )
        return path
