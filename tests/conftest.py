"""Fixtures that all tests share: the services, once per run, and installations on them."""

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.fixtures.deployment import Deployment, Distributed, Standalone, running
from tests.fixtures.keystone import Keystone
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.personas import Persona, make_personas
from tests.fixtures.rabbitmq import RabbitMQ

pytest_plugins = ("tests.fixtures.host", "tests.fixtures.services")

#: Where Hypothesis keeps ``--hypothesis-seed``.
SEED = "hypothesis_seed"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Each run takes its chances anew, all of them from one number."""
    if config.getoption(SEED) is None:
        setattr(config.option, SEED, str(secrets.randbits(32)))


def pytest_report_header(config: pytest.Config) -> str:
    return f"chance: --hypothesis-seed={config.getoption(SEED)} takes the same again"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    if exitstatus:
        terminalreporter.write_line(pytest_report_header(config))


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
        found = Distributed(root, mariadb, request.getfixturevalue("rabbitmq"), vhost="shared")
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


@pytest.fixture(scope="session")
def guarded(
    tmp_path_factory: pytest.TempPathFactory,
    mariadb: MariaDB,
    rabbitmq: RabbitMQ,
    keystone: Keystone,
) -> Iterator[Distributed]:
    """A running installation behind Keystone, and in its catalog, that all tests share.

    It counts a token as Keystone does, at each call: a test may stop Keystone or revoke a token.
    """
    options = {
        "pecan": {"auth_enable": "true"},
        "keystone_authtoken": {**keystone.middleware_options(), "token_cache_time": "-1"},
    }
    root = tmp_path_factory.mktemp("guarded")
    found = Distributed(root, mariadb, rabbitmq, options, vhost="guarded")
    keystone.catalog(found.url)
    with running(found):
        yield found


@pytest.fixture(scope="session")
def personas(keystone: Keystone) -> Mapping[str, Persona]:
    """One caller of each kind; tests/functional/personas.yaml says who they are."""
    return make_personas(keystone)
