"""Fixtures of the unit tests: a configuration and a database file, and no service."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from oslo_config import cfg

from qinling.db import api as db_api
from qinling.db import migration
from tests.unit.config import options


@pytest.fixture
def conf() -> cfg.ConfigOpts:
    """A configuration that a test may change: every option at its default."""
    return options()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with today's tables and no rows, to be copied."""
    path = tmp_path_factory.mktemp("database") / "empty.db"
    database = db_api.Database(options(f"sqlite:///{path}"))
    migration.upgrade(database.engine())
    database.dispose()
    return path


@pytest.fixture(scope="session")
def make_db(empty_database: Path) -> Callable[[Path], db_api.Database]:
    """Makes a database without rows at a path; whoever made it disposes of it."""

    def make(path: Path) -> db_api.Database:
        shutil.copy(empty_database, path)
        return db_api.Database(options(f"sqlite:///{path}"))

    return make


@pytest.fixture
def db(make_db: Callable[[Path], db_api.Database], tmp_path: Path) -> Iterator[db_api.Database]:
    """A database without rows."""
    database = make_db(tmp_path / "qinling.db")
    yield database
    database.dispose()
