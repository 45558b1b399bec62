"""Fixtures that all tests share: the services, once per run, and installations on them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.deployment import Deployment, Distributed, Standalone, running
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with MariaDB(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="session", params=["standalone", "distributed"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A running installation that all tests share, of each kind in turn: leave it as it was."""
    root = tmp_path_factory.mktemp(request.param)
    found: Deployment
    if request.param == "standalone":
        found = Standalone(root)
    else:
        mariadb = request.getfixturevalue("mariadb")
        found = Distributed(root, mariadb, request.getfixturevalue("rabbitmq"))
    with running(found):
        yield found


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[Standalone]:
    """An installation in one process, running, for one test alone."""
    found = Standalone(tmp_path)
    with running(found):
        yield found


@pytest.fixture
def distributed(tmp_path: Path, mariadb: MariaDB, rabbitmq: RabbitMQ) -> Iterator[Distributed]:
    """An installation of processes, running, for one test alone."""
    mariadb.heal()
    rabbitmq.heal()
    found = Distributed(tmp_path, mariadb, rabbitmq)
    with running(found):
        yield found
    mariadb.heal()
    rabbitmq.heal()
