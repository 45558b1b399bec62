"""Installations under load, with all their processes killed and stopped: what must hold afterwards.

One trial of each kind; ``tox -e chaos`` makes many long ones.
"""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.chaos import sites, trial
from tests.chaos.sites import Site
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.rabbitmq import RabbitMQ

SECONDS = 15.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that workers with a user id of their own may pass, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="qinling-history-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


def examine(
    site: AbstractContextManager[Site], folder: Path, request: pytest.FixtureRequest
) -> None:
    seed = int(request.config.getoption("hypothesis_seed"))
    with site as found:
        verdict = trial.run(found, trial.runs_file(folder), seed, SECONDS)
    assert not verdict.breaches, "\n".join((verdict.summary, *verdict.harms, *verdict.breaches))


def test_all_holds_with_everything_in_one_process(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    examine(sites.standalone(folder), folder, request)


@pytest.mark.parametrize("make", [sites.distributed, sites.kubernetes])
def test_all_holds_with_two_apis_and_two_engines(
    make: sites.Make,
    folder: Path,
    mariadb: MariaDB,
    rabbitmq: RabbitMQ,
    request: pytest.FixtureRequest,
) -> None:
    mariadb.heal()
    rabbitmq.heal()
    try:
        examine(make(folder, mariadb, rabbitmq), folder, request)
    finally:
        mariadb.heal()
        rabbitmq.heal()
