"""What many pools meet at once is told once, and a server that wants a pause has it."""

import logging
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from qinling import exceptions
from qinling.orchestrator.kubernetes import standing
from qinling.orchestrator.kubernetes.standing import Standing


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in a list of one."""
    found = [1000.0]
    monkeypatch.setattr(standing, "time", SimpleNamespace(monotonic=lambda: found[0]))
    return found


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def away(text: str, retry_after: int | None = None) -> exceptions.ClusterAway:
    return exceptions.ClusterAway(text, retry_after=retry_after)


def test_a_cause_is_told_once_in_an_outage_and_so_is_its_end(
    now: list[float], lines: Callable[[], list[str]]
) -> None:
    found = Standing()
    for number in range(3):
        now[0] += 60
        found.away(away(f"The cluster does not answer: no {number}"))
        found.away(away("The cluster cannot answer now (503): it starts"))
    causes = ["The cluster does not answer: no 0", "The cluster cannot answer now (503): it starts"]
    assert lines() == causes
    found.well()
    found.well()
    assert lines() == [*causes, "The cluster is followed again."]
    found.away(away("The cluster does not answer: once more"))
    now[0] += 600
    found.away(away("The cluster does not answer: after long"))
    assert len(lines()) == 5


@pytest.mark.parametrize(("asked", "pause"), [(7, 7), (9999, 30)])
def test_a_server_that_wants_to_be_left_alone_is(
    now: list[float], asked: int, pause: float
) -> None:
    found = Standing()
    found.check()
    found.away(away("too many requests", asked))
    found.away(away("too many requests", 1))
    now[0] += pause - 0.5
    with pytest.raises(exceptions.ClusterAway) as caught:
        found.check()
    assert caught.value.retry_after == 1
    now[0] += 0.5
    found.check()
