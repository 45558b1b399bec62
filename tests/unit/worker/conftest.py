"""Fixtures of the worker's tests: real worker processes."""

from collections.abc import Callable, Iterator

import pytest

from tests.fixtures.worker import Worker


@pytest.fixture
def make() -> Iterator[Callable[..., Worker]]:
    """Starts workers, which end with the test."""
    made: list[Worker] = []

    def make(**options: object) -> Worker:
        made.append(Worker(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def worker(make: Callable[..., Worker]) -> Worker:
    return make()
