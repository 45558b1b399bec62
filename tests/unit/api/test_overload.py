"""Executions that are let in: up to a limit, and fewer while requests wait for a processor."""

import pytest
from oslo_config import cfg

from qinling import exceptions
from qinling.api.middleware.overload import HAS_PLACE, Overload, Place, Places
from qinling.conf import api
from tests.unit.api.wsgi import call, environ


class Clock:
    """Goes on when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def fill(places: Places) -> list[Place]:
    """Take all that are free."""
    taken = []
    while place := places.take():
        taken.append(place)
    return taken


def take_all(places: Places) -> int:
    """How many are let in beside those that are in; they leave again."""
    taken = fill(places)
    for place in taken:
        place.give_back()
    return len(taken)


def test_fewer_are_let_in_while_threads_wake_late_and_then_as_many_as_before() -> None:
    places = Places(40)
    assert take_all(places) == 40
    for _ in range(10):
        places.see(0.05)
    assert take_all(places) < 30
    for _ in range(100):
        places.see(0.05)
    assert take_all(places) == 8
    for _ in range(200):
        places.see(0.0)
    assert take_all(places) == 40


def test_those_that_wait_for_their_functions_keep_nobody_out_but_of_threads() -> None:
    clock = Clock()
    places = Places(20, clock)
    for _ in range(100):
        places.see(0.05)
    # A busy host lets eight in, which turn out to sleep, and then it lets others in.
    sleeping = fill(places)
    assert len(sleeping) == 8
    clock.now += 1.9
    assert not places.take()
    clock.now += 0.1
    assert take_all(places) == 8
    sleeping += fill(places)
    clock.now += 2.0
    # The threads that remain are for others.
    sleeping += fill(places)
    assert len(sleeping) == 20
    clock.now += 60.0
    assert not places.take()
    for place in sleeping:
        place.give_back()
    assert take_all(places) == 8


def test_one_thread_that_wakes_late_once_is_no_load() -> None:
    places = Places(40)
    places.see(0.02)
    assert take_all(places) == 40


@pytest.mark.parametrize(
    ("method", "path", "counted"),
    [
        ("POST", "/v1/executions", True),
        ("POST", "//v1/executions/", True),
        ("GET", "/v1/executions", False),
        ("DELETE", "/v1/executions/1", False),
        ("POST", "/v1/functions", False),
    ],
)
def test_what_begins_an_execution_is_counted_until_its_answer_is_closed(
    method: str, path: str, counted: bool
) -> None:
    within: list[int] = []

    class Body(list[bytes]):
        def close(self) -> None:
            within.append(take_all(middleware._places))

    def application(_environ: object, start_response: object) -> list[bytes]:
        start_response("200 OK", [])  # type: ignore[operator]
        return Body([b"answer"])

    middleware = Overload(application, Places(2))  # type: ignore[arg-type]
    assert call(middleware, environ(method, path)).body == b"answer"  # type: ignore[arg-type]
    assert within == [1 if counted else 2]
    assert take_all(middleware._places) == 2


def test_an_error_leaves_its_place_and_a_refusal_takes_none() -> None:
    def application(_environ: object, _start_response: object) -> list[bytes]:
        with pytest.raises(exceptions.Overloaded):
            middleware(environ("POST", "/v1/executions"), None)  # type: ignore[arg-type]
        raise exceptions.NotFound.of("Function", "1")

    middleware = Overload(application, Places(1))
    for _ in range(3):
        with pytest.raises(exceptions.NotFound):
            middleware(environ("POST", "/v1/executions"), None)  # type: ignore[arg-type]


def test_what_has_its_place_from_the_server_takes_no_other() -> None:
    def application(_environ: object, start_response: object) -> list[bytes]:
        start_response("200 OK", [])  # type: ignore[operator]
        return [b"answer"]

    places = Places(1)
    assert places.take()
    request = environ("POST", "/v1/executions") | {HAS_PLACE: True}
    assert call(Overload(application, places), request).body == b"answer"  # type: ignore[arg-type]
    assert not places.take()


@pytest.mark.parametrize(("threads", "given", "most"), [(64, None, 48), (4, None, 3), (64, 10, 10)])
def test_three_quarters_of_the_threads_are_the_most(
    conf: cfg.ConfigOpts, threads: int, given: int | None, most: int
) -> None:
    conf.set_override("threads", threads, group="api")
    conf.set_override("max_inflight_executions", given, group="api")
    assert api.inflight_executions(conf) == most


def test_more_than_three_quarters_stop_the_start(conf: cfg.ConfigOpts) -> None:
    conf.set_override("max_inflight_executions", 49, group="api")
    with pytest.raises(exceptions.StartupError, match=r"max_inflight_executions = 49.*48 at most"):
        api.inflight_executions(conf)
