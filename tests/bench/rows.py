"""Rows of the table ``runtimes`` by the thousand, made in the database server itself.

They are the same in every run: what looks random is a hash of the row's number.
"""

from pathlib import Path

import sqlalchemy as sa

from qinling.db import migration
from tests.fixtures.deployment import SECRET
from tests.fixtures.mariadb import MariaDB

#: Who calls where nobody must bring a token (`qinling.api.middleware.auth`).
CALLER = "default"


def _hash(salt: str) -> str:
    return f"CONV(SUBSTR(MD5(CONCAT('{salt}', seq)), 1, 8), 16, 10)"


#: For each column an SQL expression over ``seq``, the row's number from 1: settled runtimes of
#: 1,000 projects, 60 % of them public and half of them without a name.
COLUMNS = {
    "id": "INSERT(INSERT(INSERT(INSERT(MD5(seq), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')",
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


class Table:
    """The table ``runtimes`` of one database."""

    def __init__(self, mariadb: MariaDB, url: str) -> None:
        self.url = url
        database = url.rpartition("/")[2].partition("?")[0]
        self._connection = mariadb.connect(database)

    @classmethod
    def in_new_database(cls, mariadb: MariaDB) -> "Table":
        url = mariadb.create_database()
        engine = sa.create_engine(url)
        migration.upgrade(engine)
        engine.dispose()
        return cls(mariadb, url)

    def fill(self, count: int, **columns: str) -> None:
        """Insert so many rows, of which some ``columns`` are not as in `COLUMNS`."""
        expressions = COLUMNS | columns
        self.execute(
            f"INSERT INTO runtimes ({', '.join(expressions)}) "
            f"SELECT {', '.join(expressions.values())} FROM seq_1_to_{count}"
        )
        self.execute("ANALYZE TABLE runtimes")

    def clear(self) -> None:
        self.execute("DELETE FROM runtimes")

    def count(self, where: str) -> int:
        [(count,)] = self.execute(f"SELECT COUNT(*) FROM runtimes WHERE {where}")
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
