"""The API's conventions, told in YAML and sent over the wire to a running installation."""

import unittest
from collections.abc import Iterator
from pathlib import Path

import pytest
from gabbi import driver
from gabbi.suite import GabbiSuite

from tests.fixtures.deployment import Deployment

_GABBITS = Path(__file__).with_name("gabbits")


@pytest.fixture(scope="module")
def suites(deployment: Deployment) -> Iterator[dict[str, GabbiSuite]]:
    """The cases of each file by its name, to be sent to this installation."""
    built = list(
        driver.build_tests(
            str(_GABBITS),
            unittest.TestLoader(),
            url=deployment.url,
            test_loader_name=__name__,
            # No certificates here, and reading those of the host takes 60 ms per case.
            cert_validate=False,
        )
    )
    clients = [case.http.client for suite in built for case in suite]
    yield {next(iter(suite)).test_base_name: suite for suite in built}
    for client in clients:
        # gabbi itself leaves the connections to the garbage collector.
        client.close()


@pytest.mark.parametrize("name", sorted(path.stem for path in _GABBITS.glob("*.yaml")))
def test_the_wire_is_as_the_contract_has_it(suites: dict[str, GabbiSuite], name: str) -> None:
    result = unittest.TestResult()
    suites[name].run(result)
    told = [f"{case.id()}\n{trace}" for case, trace in result.failures + result.errors]
    assert not told, "\n".join(told)
    assert result.testsRun
    assert not result.skipped
