"""The door to the database: whole transactions, tried again, and its errors in our words."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import api as oslo_db_api

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import migration, models, runtimes
from tests.fixtures.process import free_port
from tests.unit import rows
from tests.unit.config import options
from tests.unit.db import pymysql_double
from tests.unit.db.pymysql_double import (
    DEADLOCK,
    DENIED,
    GONE,
    LOCK_WAIT,
    REFUSED,
    SYNTAX,
    UNKNOWN,
    Driver,
)

MARIADB = "mysql+pymysql://qinling:secret@db/qinling?charset=utf8mb4"


def ask(connection: sa.Connection) -> int:
    """A query that the driver's double knows."""
    return int(connection.execute(sa.text(f"SELECT {Driver.MARK}")).scalar_one())


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    # The pauses between two tries are none of ours to wait for.
    monkeypatch.setattr(oslo_db_api.time, "sleep", lambda _seconds: None)
    return pymysql_double.install(monkeypatch)


@pytest.fixture
def mariadb_double(driver: Driver) -> Iterator[db_api.Database]:
    """A database on a double of MariaDB's driver, connected."""
    database = db_api.Database(options(MARIADB))
    assert database.write(ask) == 1
    driver.calls.clear()
    yield database
    database.dispose()


@pytest.mark.parametrize("error", [DEADLOCK, LOCK_WAIT], ids=["1213", "1205"])
@pytest.mark.parametrize("door", ["read", "write"])
def test_the_loser_of_a_deadlock_is_tried_again_from_the_beginning(
    mariadb_double: db_api.Database, driver: Driver, door: str, error: Exception
) -> None:
    driver.failures = [error] * 3
    begun: list[str] = []

    def query(connection: sa.Connection) -> int:
        begun.append("begun")
        return ask(connection)

    assert getattr(mariadb_double, door)(query) == 1
    assert len(begun) == 4
    assert driver.calls[:6] == ["execute", "rollback"] * 3
    assert driver.calls[6] == "execute"


def test_a_deadlock_that_is_told_at_the_commit_is_tried_again_too(
    mariadb_double: db_api.Database, driver: Driver
) -> None:
    driver.committing = [DEADLOCK]
    assert mariadb_double.write(ask) == 1
    assert driver.calls.count("execute") == 2
    assert driver.calls[-1] == "commit"


def test_a_deadlock_is_not_tried_for_ever(mariadb_double: db_api.Database, driver: Driver) -> None:
    driver.failures = [DEADLOCK] * 1000
    with pytest.raises(exceptions.QinlingError) as caught:
        mariadb_double.write(ask)
    assert caught.value.code == 503
    assert 2 < driver.calls.count("execute") < 50


@pytest.mark.parametrize("door", ["read", "write"])
def test_a_connection_that_is_lost_is_told_as_a_database_that_is_away(
    mariadb_double: db_api.Database, driver: Driver, door: str
) -> None:
    driver.failures = [GONE]
    with pytest.raises(exceptions.DatabaseUnavailable, match="does not answer"):
        getattr(mariadb_double, door)(ask)
    # What it did then nobody knows: it is not done again on our own account.
    assert driver.calls.count("execute") == 1
    assert getattr(mariadb_double, door)(ask) == 1


def test_a_server_that_cannot_be_reached_is_told_and_reached_when_it_is_back(
    driver: Driver,
) -> None:
    database = db_api.Database(options(MARIADB))
    for _ in range(3):
        driver.connecting = [REFUSED]
        with pytest.raises(exceptions.DatabaseUnavailable) as caught:
            database.read(ask)
        assert caught.value.retry_after is not None
        assert "secret" not in str(caught.value)
    assert database.read(ask) == 1
    database.dispose()


@pytest.mark.parametrize("error", [DENIED, UNKNOWN], ids=["password", "database"])
def test_a_server_that_does_not_let_us_in_is_told_to_the_operator_and_to_no_client(
    driver: Driver, error: Exception
) -> None:
    database = db_api.Database(options(MARIADB))
    driver.connecting = [error]
    with pytest.raises(exceptions.DatabaseUnavailable) as caught:
        database.read(ask)
    assert str(error.args[1]) not in str(caught.value)
    driver.connecting = [error]
    with pytest.raises(exceptions.StartupError, match=str(error.args[1])):
        database.check()
    database.dispose()


def test_a_port_that_nobody_listens_on_is_a_database_that_is_away() -> None:
    database = db_api.Database(options(f"mysql+pymysql://q:q@127.0.0.1:{free_port()}/qinling"))
    with pytest.raises(exceptions.DatabaseUnavailable):
        database.ping()
    with pytest.raises(exceptions.StartupError, match="Connection refused"):
        database.check()


def test_a_mistake_in_the_code_is_not_told_as_a_database_that_is_away(
    mariadb_double: db_api.Database, driver: Driver
) -> None:
    driver.failures = [SYNTAX]
    with pytest.raises(Exception, match="1064") as caught:
        mariadb_double.write(ask)
    assert not isinstance(caught.value, exceptions.QinlingError)
    assert driver.calls == ["execute", "rollback"]


class Trouble(Exception):
    """What a query of a test raises."""


def test_what_a_query_wrote_before_it_raised_is_rolled_back(db: db_api.Database) -> None:
    kept = rows.insert_one(db, name="kept")

    def query(connection: sa.Connection) -> None:
        connection.execute(sa.update(models.Runtime).values(name="changed"))
        connection.execute(sa.insert(models.Runtime), [rows.NEW | {"id": "new"}])
        raise Trouble

    with pytest.raises(Trouble):
        db.write(query)
    assert rows.find(db, kept.id) == kept
    assert db.read(runtimes.find, "new") is None


def test_an_error_of_ours_comes_out_of_a_query_as_it_is(db: db_api.Database) -> None:
    with pytest.raises(exceptions.NotFound, match="1234"):
        db.write(runtimes.get, "1234")


@pytest.mark.parametrize("door", ["read", "write"])
def test_a_query_that_raised_leaves_no_transaction_behind(db: db_api.Database, door: str) -> None:
    def query(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT 1"))
        raise Trouble

    for _ in range(100):  # more than there may be connections
        with pytest.raises(Trouble):
            getattr(db, door)(query)
    rows.insert_one(db)


def test_writers_that_read_first_wait_for_each_other_and_lose_nothing(
    db: db_api.Database,
) -> None:
    runtime = rows.insert_one(db, revision=0)
    writers, times = 4, 10
    together = threading.Barrier(writers)

    def increment(connection: sa.Connection) -> None:
        revision = runtimes.get(connection, runtime.id).revision
        connection.execute(sa.update(models.Runtime).values(revision=revision + 1))

    def write(_number: int) -> None:
        together.wait(20)
        for _ in range(times):
            db.write(increment)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    assert rows.find(db, runtime.id).revision == writers * times


def test_a_reader_does_not_wait_for_a_writer(db: db_api.Database) -> None:
    runtime = rows.insert_one(db, name="old")

    def write(connection: sa.Connection) -> None:
        connection.execute(sa.update(models.Runtime).values(name="new"))
        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(rows.find, db, runtime.id).result(20)
        assert seen.name == "old"

    db.write(write)
    assert rows.find(db, runtime.id).name == "new"


def test_a_database_file_that_cannot_be_opened_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    database = db_api.Database(options(f"sqlite:///{tmp_path}/file/qinling.db"))
    with pytest.raises(exceptions.DatabaseUnavailable):
        database.ping()
    with pytest.raises(exceptions.StartupError, match="unable to open database file"):
        database.check()


def test_a_database_that_was_never_made_names_the_command_that_makes_it(tmp_path: Path) -> None:
    database = db_api.Database(options(f"sqlite:///{tmp_path}/qinling.db"))
    with pytest.raises(exceptions.StartupError, match="qinling-db-manage upgrade"):
        database.check()
    database.dispose()


def test_a_database_of_another_release_is_refused_by_both_revisions(db: db_api.Database) -> None:
    db.check()
    stamp = sa.text("UPDATE alembic_version SET version_num='x'")
    db.write(lambda connection: connection.execute(stamp))
    with pytest.raises(exceptions.StartupError, match=f"revision x .*{migration.head()}"):
        db.check()


def test_a_database_that_is_not_named_is_told_with_the_option(conf: cfg.ConfigOpts) -> None:
    conf.set_override("connection", None, group="database")
    with pytest.raises(exceptions.StartupError, match=r"\[database\] connection is not set"):
        db_api.Database(conf)


@pytest.mark.parametrize(
    "url", ["nonsense", "oracel://db/qinling", "mysql+nothing://db/qinling", "mysql+pymysql://db:x"]
)
def test_a_database_url_that_nothing_serves_is_told_with_the_option(url: str) -> None:
    with pytest.raises(exceptions.StartupError, match=r"\[database\] connection"):
        db_api.Database(options(url)).check()


def test_who_finds_all_connections_taken_is_told_so_after_the_configured_time(
    driver: Driver, conf: cfg.ConfigOpts
) -> None:
    values = {"connection": MARIADB, "max_pool_size": 2, "max_overflow": 0, "pool_timeout": 0}
    for name, value in values.items():
        conf.set_override(name, value, group="database")
    database = db_api.Database(conf)

    def third(_connection: sa.Connection) -> None:
        with pytest.raises(exceptions.DatabaseUnavailable):
            database.read(ask)

    def first(connection: sa.Connection) -> None:
        ask(connection)
        database.read(lambda connection: (ask(connection), third(connection)))

    database.read(first)
    assert database.read(ask) == 1
    database.dispose()
