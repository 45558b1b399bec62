"""What is wrong with a database, told to an operator without a password, and to a client."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from oslo_db import exception as db_exc
from sqlalchemy import exc as sa_exc

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import errors, runtimes
from tests.unit import rows
from tests.unit.config import options

#: What follows in a URL → what is told of it.
UNUSABLE = {
    "?charset=utf8mb5": "charset",
    "?nonsense=1": "nonsense",
    "?ssl_ca=/nonexistent/ca.pem&charset=utf8mb4": "charset, ssl_ca",
    "?connect_timeout=abc": "connect_timeout",
    "?read_timeout=-1": "read_timeout",
}


def told(url: str) -> str:
    """The line in which it is told that this cannot be used."""
    with pytest.raises(exceptions.StartupError) as caught:
        db_api.Database(options(url)).check()
    line = str(caught.value)
    assert line.startswith("[database] connection: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize(("query", "words"), UNUSABLE.items())
def test_what_a_driver_cannot_use_is_told_with_the_option(query: str, words: str) -> None:
    line = told(f"mysql+pymysql://qinling:wombat@127.0.0.1:1/qinling{query}")
    assert words in line
    assert "wombat" not in line


@pytest.mark.parametrize(
    "credentials", ["q:wom@bat", "q:wom:b@t:bat", "q:\N{SNOWMAN}wombat", "q:%ffwombat", "q:wom/b@t"]
)
def test_no_piece_is_told_of_a_password_that_should_have_been_encoded(credentials: str) -> None:
    line = told(f"mysql+pymysql://{credentials}@127.0.0.1:1/qinling")
    for piece in ("wom", "bat", "b@t", "\N{SNOWMAN}", "\\u2603"):
        assert piece not in line


def test_a_password_in_an_error_is_blotted_out() -> None:
    url = errors.parse("mysql+pymysql://qinling:wom%40bat@db/qinling?a=1")
    line = str(errors.unusable(TypeError("cannot use 'wom@bat' here"), url))
    assert "cannot use '***' here" in line
    assert "with a " in line


def test_a_file_that_is_no_database_is_told() -> None:
    with pytest.raises(exceptions.StartupError, match="file is not a database"):
        db_api.Database(options("sqlite:////etc/hosts")).check()


def raised_through(error: Exception) -> exceptions.DatabaseUnavailable:
    with pytest.raises(exceptions.DatabaseUnavailable) as caught, errors.translated():
        raise error
    return caught.value


@pytest.mark.parametrize(
    "cause",
    [
        sqlite3.OperationalError("database or disk is full"),
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("attempt to write a readonly database"),
        sqlite3.OperationalError("database is locked"),
        sqlite3.DatabaseError("database disk image is malformed"),
    ],
    ids=str,
)
def test_what_keeps_a_file_from_being_written_is_told_however_it_comes(
    cause: sqlite3.DatabaseError,
) -> None:
    wrapped = sa_exc.OperationalError("UPDATE …", {}, cause)
    for error in (cause, wrapped, db_exc.DBError(wrapped)):
        found = raised_through(error)
        assert str(cause) in str(found)
        assert "UPDATE" not in str(found)
        assert found.__cause__ is cause


@pytest.mark.parametrize("error", [sqlite3.IntegrityError("x"), sqlite3.ProgrammingError("x")])
def test_a_mistake_in_a_query_is_no_database_that_is_away(error: Exception) -> None:
    with pytest.raises(type(error)), errors.translated():
        raise error


def test_a_lock_that_is_held_for_too_long_is_told(db: db_api.Database, tmp_path: Path) -> None:
    runtime = rows.insert_one(db)

    @sa.event.listens_for(db.engine(), "connect")
    def impatient(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout = 10")

    db.engine().dispose()
    holder = sqlite3.connect(tmp_path / "qinling.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(exceptions.DatabaseUnavailable, match="database is locked"):
        db.write(runtimes.describe, runtime.id, {"name": "new"})
    holder.close()
    db.write(runtimes.describe, runtime.id, {"name": "new"})
