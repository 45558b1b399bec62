"""The test server answers as a real Kubernetes was recorded to answer."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.kubernetes import Cluster, left_out
from tests.functional.kubernetes import recording
from tests.functional.kubernetes.replay import Answer, Replay

_STAND_IN = Path(__file__).with_name("stand_in.py")
_IMAGE = "localhost/py:1"
_NAMESPACE = "qinling-rec"


def _program(container: Mapping[str, Any], address: str) -> list[str]:
    """What stands in for the programs of the recorded image."""
    line: list[str] = container["command"]
    if line[0] != "python3":
        return line
    if "-c" in line:
        return [sys.executable, "-I", "-S", *line[1:]]
    return [sys.executable, "-I", "-S", str(_STAND_IN), address, *line[1:]]


@contextlib.contextmanager
def _cluster(root: Path, backoff: float) -> Iterator[Cluster]:
    images = {_IMAGE: _program}
    with Cluster(root, images=images, clock=0.1, backoff=backoff, user_namespaces=False) as found:
        yield found
        found.check()


def _nobody_lists(replay: Replay) -> Answer:
    token = replay.ask(
        "POST",
        f"/api/v1/namespaces/{_NAMESPACE}/serviceaccounts/nobody/token",
        {},
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        "application/json",
    ).body["status"]["token"]
    return _list_with(replay, token)


def _list_with(replay: Replay, token: str) -> Answer:
    path = f"/apis/apps/v1/namespaces/{_NAMESPACE}/deployments"
    return replay.ask("GET", path, {}, headers={"Authorization": f"Bearer {token}"})


def _old_watch(replay: Replay) -> Answer:
    replay.cluster.compact()
    path = f"/api/v1/namespaces/{_NAMESPACE}/pods"
    return replay.ask("GET", path, {"watch": "true", "resourceVersion": "1"})


def _first_page(replay: Replay) -> Answer:
    answer = replay.ask("GET", f"/api/v1/namespaces/{_NAMESPACE}/pods", {"limit": 1})
    assert len(answer.body["items"]) == 1
    return answer


#: What the recording tells by its note alone.
_ODD = {
    "list deployments with no rights": _nobody_lists,
    "bad token": lambda replay: _list_with(replay, "bad"),
    "watch from a compacted resourceVersion": _old_watch,
    "list limit=1": _first_page,
}


def _replay(cluster: Cluster, names: list[str], namespace: str = _NAMESPACE) -> None:
    scenarios = [recording.load(name) for name in names]
    replay = Replay(cluster, namespace, scenarios, _ODD)
    try:
        for scenario in scenarios:
            replay.run(scenario)
    finally:
        replay.close()


def test_a_pool_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    names = [name for name in recording.names() if name < "18" and not name.startswith("11")]
    # At the recorded pace, as what it shows of retries counts them.
    with _cluster(tmp_path, backoff=1) as cluster:
        _replay(cluster, names)


@pytest.mark.parametrize("name", [name for name in recording.names() if name >= "18"])
def test_what_was_recorded_on_its_own(tmp_path: Path, name: str) -> None:
    namespace = f"{_NAMESPACE}2" if name.startswith("19b") else _NAMESPACE
    with _cluster(tmp_path, backoff=0.2) as cluster:
        cluster.namespace(namespace)
        _replay(cluster, [name], namespace)


def test_the_tables_of_what_is_left_out_name_what_was_recorded() -> None:
    calls = {
        f"{call.scenario}#{call.number}{plus}"
        for name in recording.names()
        for call in recording.load(name).calls
        for plus in ("", "+")
    }
    tables = (
        left_out.NOT_ASKED,
        left_out.NOT_COMPARED,
        left_out.IN_PASSING,
        left_out.NOT_WATCHED,
    )
    for table in tables:
        assert not {key.partition("/")[0] for key in table} - calls - set(recording.names())
