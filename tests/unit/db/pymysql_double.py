"""A double of the driver of MariaDB, which fails when and as a test says.

It stands below SQLAlchemy and oslo.db, which are the real ones here: what they make of the driver's
errors is what is tested. It keeps no tables; a statement of a test answers one row, ``(1,)``.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import pymysql
import pytest
from pymysql import err

DEADLOCK = err.OperationalError(
    1213, "Deadlock found when trying to get lock; try restarting transaction"
)
LOCK_WAIT = err.OperationalError(1205, "Lock wait timeout exceeded; try restarting transaction")
REFUSED = err.OperationalError(2003, "Can't connect to MySQL server on 'db' (Connection refused)")
DENIED = err.OperationalError(1045, "Access denied for user 'qinling'@'api' using password")
UNKNOWN = err.OperationalError(1049, "Unknown database 'qinling'")
GONE = err.OperationalError(2013, "Lost connection to MySQL server during query")
SYNTAX = err.ProgrammingError(1064, "You have an error in your SQL syntax")

#: What SQLAlchemy and oslo.db ask of a new connection.
_ANSWERS = {
    "version()": [("11.4.5-MariaDB",)],
    "isolation": [("REPEATABLE-READ",)],
    "show variables like 'sql_mode'": [("sql_mode", "TRADITIONAL")],
    "sql_mode": [("TRADITIONAL",)],
    "lower_case_table_names": [("0",)],
}


class Driver:
    """What the driver does from now on; ``failures`` are raised one after the other.

    :ivar connecting: failures of ``connect``.
    :ivar failures: failures of statements with ``MARK`` in them.
    :ivar committing: failures of ``COMMIT``.
    :ivar calls: ``execute``, ``commit`` and ``rollback``, in order: of statements with the mark,
        and of transactions that have any.
    """

    MARK = "the_statement"

    def __init__(self) -> None:
        self.connecting: list[Exception] = []
        self.failures: list[Exception] = []
        self.committing: list[Exception] = []
        self.calls: list[str] = []

    def end(self, how: str) -> None:
        if self.calls and self.calls[-1] == "execute":
            self.calls.append(how)

    def connect(self, *_args: Any, **_options: Any) -> "_Connection":
        if self.connecting:
            raise self.connecting.pop(0)
        return _Connection(self)


class _Connection:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        # Where a closed connection would have something to read: never, here.
        self._sock = os.eventfd(0)

    def cursor(self, *_args: Any) -> "_Cursor":
        return _Cursor(self._driver)

    def commit(self) -> None:
        if self._driver.committing:
            raise self._driver.committing.pop(0)
        self._driver.end("commit")

    def rollback(self) -> None:
        self._driver.end("rollback")

    def close(self) -> None:
        pass

    def character_set_name(self) -> str:
        return "utf8mb4"


class _Cursor:
    description: Sequence[tuple[Any, ...]] | None = None
    rowcount = 1
    lastrowid = 0

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._rows: list[tuple[Any, ...]] = []

    def execute(self, statement: str, _parameters: object = None) -> None:
        if Driver.MARK in statement:
            self._driver.calls.append("execute")
            if self._driver.failures:
                raise self._driver.failures.pop(0)
        asked = statement.lower()
        rows = next((rows for word, rows in _ANSWERS.items() if word in asked), [(1,)])
        self._rows = list(rows)
        self.description = [(f"c{n}", *[None] * 6) for n in range(len(self._rows[0]))]

    def fetchall(self) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows, []
        return rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def close(self) -> None:
        pass


def install(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Put a double in the place of the driver."""
    driver = Driver()
    connect: Callable[..., _Connection] = driver.connect
    monkeypatch.setattr(pymysql, "connect", connect)
    return driver
