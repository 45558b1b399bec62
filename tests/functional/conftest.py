"""What the tests share that send what no client should."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fixtures.deployment import Deployment, Distributed, Standalone
from tests.fixtures.rawhttp import RUNTIMES


@pytest.fixture(scope="module")
def target(deployment: Deployment) -> Iterator[dict[str, Any]]:
    """A runtime to aim at, as it is shown; its image is of no host, so that it has no workers."""
    runtime = deployment.client.create(image="bad/input", name="target", description="as it is")
    yield deployment.client.wait_for(runtime["id"], "error")
    deployment.client.delete(runtime["id"])
    deployment.client.wait_gone(runtime["id"])


@pytest.fixture(scope="module")
def silent_log(deployment: Deployment) -> Iterator[None]:
    """What clients do wrong is no error of the service, and writes no line of its own there."""
    assert isinstance(deployment, Standalone | Distributed)
    process = deployment.api if isinstance(deployment, Distributed) else deployment.process
    before = len(process.log())
    yield
    log = process.log()[before:]
    for word in ("Traceback", " ERROR ", " CRITICAL ", "\nFORGED"):
        assert word not in log, log[max(0, log.index(word) - 500) :][:5000]


@pytest.fixture
def unharmed(deployment: Deployment, target: dict[str, Any], silent_log: None) -> Iterator[None]:
    """After a test good requests have their good answers, and nothing was created or changed."""
    yield
    answer = requests.get(f"{deployment.url}{RUNTIMES}?all_projects=true", timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"runtimes": [target]})


@pytest.fixture
def engineless(distributed: Distributed) -> Iterator[Distributed]:
    """An installation whose engine is down."""
    distributed.engine.terminate()
    yield distributed
    distributed.engine.close()
