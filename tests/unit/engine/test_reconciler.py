"""The keyed work queue: who is worked on when, with events instead of time.

With one thread the order is a proof: a key that comes later is taken only after everything that was
due before it and after the bookkeeping of the work before it.
"""

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from oslo_context import context as oslo_context

from qinling import context, exceptions
from qinling.engine import reconciler as module
from qinling.engine.reconciler import Key, Reconciler
from tests.fixtures.process import wait_until

# Seconds until a test is given up; nothing is ever waited for this long.
DEADLINE = 20.0
AN_HOUR = 3600.0


def key(name: str) -> Key:
    return Key("thing", name)


class Work:
    """What the reconciler calls; a test says per id what a look does, and counts the looks."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.does: dict[str, Callable[[], float | None]] = {}

    def __call__(self, id_: str) -> float | None:
        self.looks.append(id_)
        return self.does.get(id_, lambda: None)()

    def count(self, id_: str) -> int:
        return Counter(self.looks)[id_]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def make(work: Work) -> Iterator[Callable[[int], Reconciler]]:
    """Makes a reconciler with so many threads; the test starts it."""
    made: list[Reconciler] = []

    def make(threads: int) -> Reconciler:
        made.append(Reconciler({"thing": work}, threads))
        return made[-1]

    yield make
    for reconciler in made:
        reconciler.stop(DEADLINE)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The bounds of each pause that jitter was asked for; none of them lasts."""
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.0

    monkeypatch.setattr(module, "random", SimpleNamespace(uniform=uniform))
    return asked


def pending(reconciler: Reconciler) -> int:
    """Keys that wait or are worked on."""
    with reconciler._condition:
        return len(reconciler._slots)


def idle(reconciler: Reconciler) -> None:
    """Wait until nothing waits or is worked on."""
    wait_until(lambda: pending(reconciler) == 0, DEADLINE, "an empty queue")


def work_off(reconciler: Reconciler, work: Work) -> None:
    """Wait until all that was due before now has been taken and ended (with one thread)."""
    mark = str(uuid.uuid4())
    reconciler.add(key(mark))
    wait_until(lambda: work.count(mark) == 1, DEADLINE, "the mark's turn")


def test_keys_that_were_added_are_looked_at_once_each(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(4)
    reconciler.start()
    for number in range(100):
        reconciler.add(key(str(number)))
    idle(reconciler)
    assert Counter(work.looks) == {str(number): 1 for number in range(100)}


def test_a_key_that_waits_is_not_there_twice(make: Callable[[int], Reconciler], work: Work) -> None:
    reconciler = make(2)
    for _ in range(10):
        reconciler.add(key("a"))
        reconciler.offer(key("a"))
    assert pending(reconciler) == 1
    reconciler.start()
    idle(reconciler)
    assert work.count("a") == 1


def test_a_key_that_is_added_again_keeps_its_place_in_line(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    for name in "abaa":
        reconciler.add(key(name))
    reconciler.start()
    idle(reconciler)
    assert work.looks == ["a", "b"]


def test_different_keys_are_worked_on_side_by_side(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(4)
    together = threading.Barrier(4)
    met: list[int] = []
    for name in "abcd":
        # Passed only when all four are in it at the same time.
        work.does[name] = lambda: met.append(together.wait(DEADLINE))
        reconciler.add(key(name))
    reconciler.start()
    idle(reconciler)
    assert sorted(met) == [0, 1, 2, 3]


def test_a_key_is_with_one_thread_at_a_time_and_comes_back_once(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(4)
    entered, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        go_on.wait(DEADLINE)

    work.does["a"] = hold
    reconciler.add(key("a"))
    reconciler.start()
    assert entered.wait(DEADLINE)
    for number in range(20):
        reconciler.add(key("a"))
        # Due later than the key that was just added again: if that one could be taken by another
        # of the threads it would have been.
        reconciler.add(key(f"other {number}"))
    wait_until(lambda: len(work.looks) == 21, DEADLINE, "the other keys' turns")
    assert work.count("a") == 1
    go_on.set()
    idle(reconciler)
    assert work.count("a") == 2


def test_a_look_is_taken_by_the_thread_that_wants_it(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    reconciler.start()
    threads: list[str] = []
    work.does["a"] = lambda: threads.append(threading.current_thread().name)
    reconciler.look(key("a"))
    assert (threads, pending(reconciler)) == ([threading.current_thread().name], 0)


def test_a_look_at_a_key_that_waits_or_is_worked_on_is_left_to_whoever_has_it(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    reconciler.add(key("waits"))
    reconciler.look(key("waits"))
    assert work.looks == []

    began, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        assert go_on.wait(DEADLINE)

    work.does["waits"] = hold
    reconciler.start()
    assert began.wait(DEADLINE)
    reconciler.look(key("waits"))
    go_on.set()
    idle(reconciler)
    assert work.count("waits") == 1


def test_a_look_that_fails_is_tried_again(
    make: Callable[[int], Reconciler], work: Work, pauses: list[tuple[float, float]]
) -> None:
    reconciler = make(1)

    def fail_once() -> None:
        if work.count("a") == 1:
            raise exceptions.OrchestratorError("it is away")

    work.does["a"] = fail_once
    reconciler.look(key("a"))
    assert (work.count("a"), pending(reconciler)) == (1, 1)
    reconciler.start()
    idle(reconciler)
    assert work.count("a") == 2


def test_keys_whose_time_comes_together_each_get_their_look(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(8)
    for number in range(50):
        name = str(number)
        work.does[name] = lambda name=name: 0.05 if work.count(name) < 4 else None
        reconciler.add(key(name))
    reconciler.start()
    idle(reconciler)
    assert Counter(work.looks) == {str(number): 4 for number in range(50)}


def test_an_add_during_the_work_is_not_lost_and_an_offer_during_it_is_no_matter(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    tells = {"added": reconciler.add, "offered": reconciler.offer}
    for name, tell in tells.items():

        def tell_once(name: str = name, tell: Callable[[Key], None] = tell) -> None:
            if work.count(name) == 1:
                tell(key(name))

        work.does[name] = tell_once
        reconciler.add(key(name))
    reconciler.start()
    idle(reconciler)
    assert Counter(work.looks) == {"added": 2, "offered": 1}


def test_work_that_wants_another_look_gets_it(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    work.does["a"] = lambda: 0.001 if work.count("a") < 5 else None
    reconciler.add(key("a"))
    reconciler.start()
    idle(reconciler)
    assert work.count("a") == 5


def test_a_key_that_waits_for_its_time_is_brought_forward_by_an_add_alone(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    reconciler.start()
    work.does["a"] = lambda: AN_HOUR if work.count("a") == 1 else None
    reconciler.add(key("a"))
    work_off(reconciler, work)
    assert pending(reconciler) == 1
    reconciler.offer(key("a"))
    work_off(reconciler, work)
    assert work.count("a") == 1
    reconciler.add(key("a"))
    idle(reconciler)  # its old turn, an hour ahead, is no turn any more
    assert work.count("a") == 2


def test_a_time_that_was_brought_forward_is_no_time_any_more(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    reconciler.start()
    pauses = iter([0.1, AN_HOUR])
    work.does["a"] = lambda: next(pauses)
    reconciler.add(key("a"))
    work_off(reconciler, work)
    reconciler.add(key("a"))  # now, and so no more in a tenth of a second
    work.does["later"] = lambda: 0.2 if work.count("later") == 1 else None
    reconciler.add(key("later"))
    wait_until(lambda: work.count("later") == 2, DEADLINE, "a turn after that time")
    assert work.count("a") == 2


def test_failures_back_off_further_each_time_up_to_a_bound_and_success_forgets_them(
    make: Callable[[int], Reconciler], work: Work, pauses: list[tuple[float, float]]
) -> None:
    reconciler = make(1)
    reconciler.start()

    def look() -> float | None:
        if work.count("a") == 13:
            return 0.001  # it went well, and wants another look
        if work.count("a") <= 14:
            raise exceptions.OrchestratorError("not now")
        return None

    work.does["a"] = look
    reconciler.add(key("a"))
    idle(reconciler)
    assert work.count("a") == 15
    bounds = [high for _, high in pauses]
    assert all(low == high / 2 for low, high in pauses)
    assert bounds[:4] == [0.2, 0.4, 0.8, 1.6]
    assert bounds[:12] == sorted(bounds[:12])
    assert bounds[11] == 60.0
    # It went well once, so the next failure is a first one.
    assert bounds[12:] == [0.2]


def test_failures_of_one_key_are_none_of_another(
    make: Callable[[int], Reconciler], work: Work, pauses: list[tuple[float, float]]
) -> None:
    reconciler = make(1)

    def fail(name: str, times: int) -> None:
        if work.count(name) <= times:
            raise exceptions.OrchestratorError("not now")

    work.does["a"] = lambda: fail("a", 5)
    work.does["b"] = lambda: fail("b", 1)
    reconciler.add(key("a"))
    reconciler.add(key("b"))
    reconciler.start()
    idle(reconciler)
    assert sorted(high for _, high in pauses) == [0.2, 0.2, 0.4, 0.8, 1.6, 3.2]


def test_an_offer_does_not_shorten_a_back_off(
    make: Callable[[int], Reconciler], work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "random", SimpleNamespace(uniform=lambda *_: AN_HOUR))
    reconciler = make(1)

    def fail_once() -> None:
        if work.count("a") == 1:
            raise exceptions.OrchestratorError("not now")

    work.does["a"] = fail_once
    reconciler.start()
    reconciler.add(key("a"))
    work_off(reconciler, work)
    reconciler.offer(key("a"))
    work_off(reconciler, work)
    assert work.count("a") == 1
    # Somebody changed it: that is worth a look now.
    reconciler.add(key("a"))
    idle(reconciler)
    assert work.count("a") == 2


def test_a_busy_pool_is_asked_again_soon_and_is_no_failure(
    make: Callable[[int], Reconciler], work: Work, pauses: list[tuple[float, float]]
) -> None:
    reconciler = make(1)
    answers = [exceptions.PoolBusy("held")] * 5 + [exceptions.OrchestratorError("not now")]

    def answer() -> None:
        if answers:
            raise answers.pop(0)

    work.does["a"] = answer
    reconciler.add(key("a"))
    reconciler.start()
    idle(reconciler)
    assert pauses[:5] == [(0.05, 0.15)] * 5
    assert pauses[5:] == [(0.1, 0.2)]


def test_a_pool_that_stays_busy_is_told_and_asked_less_often(
    make: Callable[[int], Reconciler],
    work: Work,
    pauses: list[tuple[float, float]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    reconciler = make(1)
    answers = [exceptions.PoolBusy("held by somebody who hangs")] * 70

    def answer() -> None:
        if answers:
            raise answers.pop(0)

    work.does["a"] = answer
    reconciler.add(key("a"))
    reconciler.start()
    idle(reconciler)
    assert pauses[0] == (0.05, 0.15)
    assert pauses[-1] == (30.0, 60.0)
    assert "held by somebody who hangs" in caplog.text


@pytest.mark.parametrize(("asked", "told"), [(7, "again in 7."), (9999, "again in 60.")])
def test_who_asks_to_be_left_alone_for_a_while_is(
    make: Callable[[int], Reconciler],
    work: Work,
    pauses: list[tuple[float, float]],
    caplog: pytest.LogCaptureFixture,
    asked: int,
    told: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    reconciler = make(1)

    def refuse() -> float | None:
        raise exceptions.ClusterAway("too many requests", 429, retry_after=asked)

    work.does["a"] = refuse
    reconciler.add(key("a"))
    reconciler.start()
    wait_until(lambda: told in caplog.text, DEADLINE, "the pause told")
    assert work.looks == ["a"]
    # Whoever raised it has told of it once, and not for each key.
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_what_nobody_expected_is_logged_with_its_traceback_and_ends_no_thread(
    make: Callable[[int], Reconciler],
    work: Work,
    pauses: list[tuple[float, float]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    reconciler = make(1)

    def fail(name: str, error: Exception) -> None:
        if work.count(name) == 1:
            raise error

    work.does["a"] = lambda: fail("a", ValueError("a mistake in the code"))
    work.does["b"] = lambda: fail("b", exceptions.OrchestratorError("a trouble that is known"))
    reconciler.add(key("a"))
    reconciler.add(key("b"))
    reconciler.start()
    idle(reconciler)
    assert Counter(work.looks) == {"a": 2, "b": 2}
    told = {record.levelno: record for record in caplog.records}
    assert "a mistake in the code" in told[logging.ERROR].getMessage()
    assert told[logging.ERROR].exc_info
    assert "a trouble that is known" in told[logging.WARNING].getMessage()
    assert not told[logging.WARNING].exc_info


def test_the_log_of_a_look_carries_the_request_that_asked_for_it_and_no_other(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    seen: list[str | None] = []

    def look() -> None:
        current = oslo_context.get_current()
        seen.append(current.request_id if current else None)

    work.does["a"] = look
    asked_by = context.RequestContext(request_id="req-asked", overwrite=False)
    reconciler.add(key("a"), asked_by)
    reconciler.add(key("a"))  # an event of the pool meanwhile
    reconciler.start()
    idle(reconciler)
    reconciler.offer(key("a"))
    idle(reconciler)
    assert seen[0] == "req-asked"
    assert seen[1] != "req-asked"


def test_a_stop_waits_for_the_work_at_hand_and_begins_no_other(
    make: Callable[[int], Reconciler], work: Work
) -> None:
    reconciler = make(1)
    entered, go_on = threading.Event(), threading.Event()
    ended: list[str] = []

    def hold() -> None:
        entered.set()
        go_on.wait(DEADLINE)
        ended.append("a")

    work.does["a"] = hold
    reconciler.add(key("a"))
    reconciler.start()
    assert entered.wait(DEADLINE)
    reconciler.add(key("b"))

    def stop() -> None:
        reconciler.stop(DEADLINE)
        ended.append("stop")

    stopper = threading.Thread(target=stop)
    stopper.start()
    # Only now, so that the stop finds the work at hand.
    wait_until(lambda: reconciler._stopping, DEADLINE, "the stop's begin")
    go_on.set()
    stopper.join(DEADLINE)
    assert ended == ["a", "stop"]
    assert work.looks == ["a"]


def test_a_stop_does_not_wait_for_ever(make: Callable[[int], Reconciler], work: Work) -> None:
    reconciler = make(1)
    entered, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        go_on.wait(DEADLINE)

    work.does["a"] = hang
    reconciler.add(key("a"))
    reconciler.start()
    assert entered.wait(DEADLINE)
    reconciler.stop(0.01)
    assert not go_on.is_set()
    assert pending(reconciler) == 1
    go_on.set()
