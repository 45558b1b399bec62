"""The tables: what the migrations make is what the models say, on each database."""

import datetime as dt
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from qinling.db import api as db_api
from qinling.db import listing, migration, models, runtimes
from tests.fixtures.deployment import BIN
from tests.fixtures.mariadb import MariaDB
from tests.unit.config import options

VALUES = {"project_id": "project", "description": None, "is_public": True, "trusted": True}


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'qinling.db'}"
        return
    server: MariaDB = request.getfixturevalue("mariadb")
    server.heal()
    made = server.create_database()
    yield made
    server.drop_database(made)


@pytest.fixture
def empty(url: str) -> Iterator[db_api.Database]:
    """A database without tables."""
    database = db_api.Database(options(url))
    yield database
    database.dispose()


@pytest.fixture
def db(empty: db_api.Database) -> db_api.Database:
    """A database with the tables that the migrations make."""
    migration.upgrade(empty.engine())
    return empty


def create(db: db_api.Database, id_: str, name: str | None) -> runtimes.Runtime:
    return db.write(runtimes.create, VALUES | {"id": id_, "name": name, "image": "python3"})


def run_sql(db: db_api.Database, *statements: str) -> None:
    """Run statements as an operator does who mends by hand."""
    with db.engine().begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def test_the_migrations_make_what_the_models_say(empty: db_api.Database) -> None:
    assert migration.current(empty.engine()) is None
    migration.upgrade(empty.engine())
    assert migration.current(empty.engine()) == migration.head()
    assert migration.differences(empty.engine()) == []
    inspector = sa.inspect(empty.engine())
    for table in models.Base.metadata.sorted_tables:
        indexes = inspector.get_indexes(table.name)
        assert {(index["name"], *index["column_names"]) for index in indexes} == {
            (index.name, *(column.name for column in index.columns)) for index in table.indexes
        }
        columns = {column["name"]: column for column in inspector.get_columns(table.name)}
        assert {name for name, found in columns.items() if found["nullable"]} == {
            column.name for column in table.columns if column.nullable
        }
        keys = inspector.get_pk_constraint(table.name)["constrained_columns"]
        assert keys == [column.name for column in table.primary_key]


def test_the_head_of_the_code_is_that_of_the_scripts() -> None:
    assert migration.history()[0].startswith(f"{migration.head()}: ")


def test_upgrading_again_changes_nothing(db: db_api.Database) -> None:
    kept = create(db, "1", "kept")
    migration.upgrade(db.engine())
    assert migration.current(db.engine()) == migration.head()
    assert migration.differences(db.engine()) == []
    assert db.read(runtimes.get, "1") == kept


def test_the_database_itself_tells_which_names_are_missing(db: db_api.Database) -> None:
    create(db, "1", None)
    create(db, "2", "")
    create(db, "3", "three")
    query = sa.select(models.Runtime.id, models.Runtime.name_missing)

    def missing() -> dict[str, int]:
        return {row.id: row.name_missing for row in db.read(lambda c: c.execute(query).all())}

    assert missing() == {"1": 1, "2": 0, "3": 0}
    db.write(runtimes.describe, "1", {"name": "one"})
    assert missing() == {"1": 0, "2": 0, "3": 0}
    with pytest.raises(Exception, match=r"(?i)generated"):
        run_sql(db, "UPDATE runtimes SET name_missing = 1")


def test_times_keep_their_microseconds(db: db_api.Database) -> None:
    create(db, "1", None)
    time = dt.datetime(2026, 1, 31, 12, 0, 0, 123457)
    for column in ("created_at", "updated_at"):
        db.write(lambda c, name=column: c.execute(sa.update(models.Runtime).values({name: time})))
    found = db.read(runtimes.get, "1")
    assert (found.created_at, found.updated_at) == (time, time)
    # And tell two rows apart that were made within the same second.
    later = listing.Filter("created_at", "gt", time - dt.timedelta(microseconds=1))
    assert db.read(runtimes.page, listing.Listing(filters=[later]), None).rows == [found]
    same = listing.Filter("created_at", "gt", time)
    assert db.read(runtimes.page, listing.Listing(filters=[same]), None).rows == []


def test_texts_are_kept_and_compared_to_the_letter(db: db_api.Database) -> None:
    names = ["a", "A", "ä", "a ", "😀", "a%", "ss", "ß", ""]
    for number, name in enumerate(names):
        create(db, str(number), name)
    for number, name in enumerate(names):
        assert db.read(runtimes.get, str(number)).name == name
        wanted = listing.Listing(filters=[listing.Filter("name", "eq", name)])
        found = db.read(runtimes.page, wanted, None).rows
        assert [row.name for row in found] == [name]
    by_name = listing.Listing(sorts=[listing.Sort("name")])
    in_order = [row.name for row in db.read(runtimes.page, by_name, None).rows]
    assert in_order == sorted(names)


def test_as_long_as_the_api_allows_is_kept(db: db_api.Database) -> None:
    longest = "😀" * 255
    values = {"id": "1", "name": longest, "image": longest, "description": longest}
    db.write(runtimes.create, VALUES | values)
    found = db.read(runtimes.get, "1")
    assert (found.name, found.image, found.description) == (longest,) * 3


def test_what_only_some_of_the_writers_know_of_is_all_written_or_not(db: db_api.Database) -> None:
    create(db, "1", "kept")

    def fail(connection: sa.Connection) -> None:
        runtimes.describe(connection, "1", {"name": "changed"})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        db.write(fail)
    assert db.read(runtimes.get, "1").name == "kept"


class Manage:
    """``qinling-db-manage`` as an operator runs it, on one database."""

    def __init__(self, config: Path, url: str) -> None:
        self.config = config
        config.write_text(f"[database]\nconnection = {url.replace('%', '%%')}\n")

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        done = subprocess.run(
            [BIN / "qinling-db-manage", "--config-file", self.config, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr

    def refused(self, *arguments: str) -> str:
        """A command that must fail with one line, and that line."""
        code, out, err = self(*arguments)
        assert (code, out) == (1, "")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err


@pytest.fixture
def manage(tmp_path: Path, url: str) -> Manage:
    return Manage(tmp_path / "qinling.conf", url)


def test_an_operator_makes_a_database_and_sees_where_it_is(manage: Manage) -> None:
    assert manage("current") == (0, "none\n", "")
    assert "qinling-db-manage upgrade" in manage.refused("check")
    code, out, err = manage("upgrade")
    assert (code, err) == (0, "")
    assert migration.head() in out
    assert manage("current") == (0, f"{migration.head()}\n", "")
    assert manage("check")[0] == 0
    assert manage("upgrade")[0] == 0
    assert manage("check")[0] == 0
    code, out, err = manage("history")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(migration.head())


#: What an operator did by hand, the same on each database → a word of what is told.
TAMPERED = {
    "another index": ("CREATE INDEX mine ON runtimes (image)", "mine"),
    "a column that is not there": ("ALTER TABLE runtimes DROP COLUMN pool_reason", "pool_reason"),
    "another column": ("ALTER TABLE runtimes ADD COLUMN mine INTEGER", "mine"),
    "a table that is not there": ("DROP TABLE services", "services"),
    "another revision": ("UPDATE alembic_version SET version_num = 'mine'", "mine"),
    "no revision": ("DELETE FROM alembic_version", "none"),
}
#: What each of them says in its own way, or only one of them knows.
TAMPERED_SQLITE = {
    "an index that is not there": ("DROP INDEX ix_runtimes_name", "ix_runtimes_name")
}
TAMPERED_MARIADB = {
    "an index that is not there": (
        "DROP INDEX ix_runtimes_name ON runtimes",
        "ix_runtimes_name",
    ),
    "a shorter text": ("ALTER TABLE runtimes MODIFY description VARCHAR(10)", "description"),
    "times of whole seconds": (
        "ALTER TABLE runtimes MODIFY created_at DATETIME NOT NULL",
        "created_at",
    ),
    "values that may be missing": ("ALTER TABLE runtimes MODIFY image VARCHAR(255) NULL", "image"),
}


@pytest.mark.parametrize(
    ("url", "statement", "word"),
    [
        pytest.param(kind, *tampered, id=f"{kind}: {name}")
        for kind, own in (("sqlite", TAMPERED_SQLITE), ("mariadb", TAMPERED_MARIADB))
        for name, tampered in (TAMPERED | own).items()
    ],
    indirect=["url"],
)
def test_a_database_that_was_tampered_with_fails_the_check(
    db: db_api.Database, manage: Manage, statement: str, word: str
) -> None:
    run_sql(db, statement)
    assert word in manage.refused("check")
