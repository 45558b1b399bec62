"""Clusters for the tests of the test server itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.kubernetes import Cluster
from tests.functional.kubernetes.objects import NAMESPACE


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose pods are ready at once, with one namespace."""
    with Cluster(tmp_path, processes=False, clock=0.1, bookmark_every=0.2) as found:
        found.namespace(NAMESPACE)
        yield found
        found.check()
