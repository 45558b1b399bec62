"""A line: who gets a place in which worker, and how many workers are asked for."""

import concurrent.futures
import threading
import time
import uuid
from collections.abc import Callable, Collection

import pytest

from qinling import exceptions
from qinling.execution import line as module
from qinling.execution.line import Found, Line
from qinling.execution.worker import WorkerClient
from qinling.orchestrator.routes import Direct
from tests.fixtures.process import wait_until

DEADLINE = 20.0
CONCURRENCY = 3
MOST = 10


def worker(name: str) -> WorkerClient:
    """A client that nobody calls."""
    return WorkerClient(name, Direct("127.0.0.1:1"), b"key", 1)


class Rows:
    """A double of the tables: workers that serve, that are on their way, and what was wanted."""

    def __init__(self) -> None:
        self.serving: list[WorkerClient] = []
        self.coming = 0
        self.wanted: list[int] = []
        self.looks = 0
        self.ended: set[str] = set()
        # What an engine does when it is asked.
        self.answer: Callable[[int], None] = lambda _number: None

    def look(self, known: dict[str, WorkerClient], waiting: Collection[str]) -> Found:
        self.looks += 1
        serving = [known.get(each.id, each) for each in self.serving]
        return Found(serving, self.coming, self.ended.intersection(waiting))

    def want(self, number: int) -> None:
        self.wanted.append(number)
        self.answer(number)

    def bring(self, number: int) -> None:
        """Have as many workers as are wanted."""
        while len(self.serving) < number:
            self.serving.append(worker(f"w{len(self.serving)}"))


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def line(rows: Rows) -> Line:
    return Line(CONCURRENCY, MOST, rows.look, rows.want)


def soon() -> float:
    return time.monotonic() + DEADLINE


def take(line: Line) -> WorkerClient:
    """A place for an execution."""
    return line.take(soon(), str(uuid.uuid4()))


class Callers:
    """Threads that each want one place."""

    def __init__(self, line: Line, number: int) -> None:
        self.took: list[WorkerClient] = []
        self._line = line
        self._threads = [threading.Thread(target=self._take, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _take(self) -> None:
        self.took.append(take(self._line))

    def wait_for(self, number: int) -> None:
        wait_until(lambda: len(self.took) == number, DEADLINE, f"{number} places")

    def join(self) -> None:
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


def test_three_first_calls_at_once_want_one_worker(line: Line, rows: Rows) -> None:
    callers = Callers(line, 3)
    wait_until(lambda: len(line._waiting) == 3 and rows.wanted, DEADLINE, "all to wait")
    rows.bring(1)
    callers.join()
    assert rows.wanted == [1]
    assert {client.id for client in callers.took} == {"w0"}


def test_ten_calls_that_overlap_get_four_workers_and_never_more(line: Line, rows: Rows) -> None:
    rows.answer = rows.bring
    callers = Callers(line, 10)
    callers.join()
    assert max(rows.wanted) == 4
    in_use = [client.id for client in callers.took]
    assert {in_use.count(name) for name in set(in_use)} <= {1, 2, 3}
    assert len(set(in_use)) == 4


def test_a_place_that_is_free_costs_no_look(line: Line, rows: Rows) -> None:
    rows.bring(1)
    client = take(line)
    looks = rows.looks
    assert line.try_take() is client
    line.give_back(client)
    assert take(line) is client
    assert rows.looks == looks


def test_the_worker_with_the_fewest_in_flight_is_next(line: Line, rows: Rows) -> None:
    rows.bring(2)
    took = [take(line).id for _ in range(4)]
    assert sorted(took) == ["w0", "w0", "w1", "w1"]


def test_a_place_that_is_given_back_goes_to_who_waits(line: Line, rows: Rows) -> None:
    rows.bring(1)
    clients = [take(line) for _ in range(CONCURRENCY)]
    callers = Callers(line, 1)
    wait_until(lambda: rows.wanted == [2], DEADLINE, "a second worker to be wanted")
    assert line.try_take() is None
    line.give_back(clients[0])
    callers.join()


def test_a_worker_that_is_full_of_others_executions_makes_one_more_wanted(
    line: Line, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUSY", DEADLINE)
    rows.bring(1)
    rows.answer = rows.bring
    client = take(line)
    line.is_busy(client)
    assert take(line).id == "w1"
    assert rows.wanted == [2]


def test_a_worker_that_is_gone_is_not_called_again(line: Line, rows: Rows) -> None:
    rows.bring(2)
    client = take(line)
    line.is_gone(client)
    rows.serving.remove(client)
    assert {take(line).id for _ in range(CONCURRENCY)} == {"w1"}


def test_no_more_than_the_most_are_wanted(line: Line, rows: Rows) -> None:
    rows.answer = rows.bring
    callers = Callers(line, (MOST + 1) * CONCURRENCY)
    callers.wait_for(MOST * CONCURRENCY)
    assert max(rows.wanted) == MOST
    for client in callers.took[:CONCURRENCY]:
        line.give_back(client)
    callers.join()


def test_who_waits_too_long_is_told(line: Line) -> None:
    with pytest.raises(exceptions.NoWorker):
        line.take(time.monotonic() + 0.05, "1")
    assert line.idle()


@pytest.mark.parametrize("is_told", [True, False], ids=["told", "not told"])
def test_who_has_ended_waits_no_longer_and_the_others_go_on(
    line: Line, rows: Rows, is_told: bool
) -> None:
    """Whether this process has heard of it, or another one: then the rows say so."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        calls = {name: pool.submit(line.take, soon(), name) for name in "abc"}
        wait_until(lambda: len(line._waiting) == 3, DEADLINE, "all to wait")
        if is_told:
            line.end(["a", "b", "another"])
        else:
            rows.ended |= {"a", "b", "another"}
        for name in "ab":
            with pytest.raises(exceptions.ExecutionTaken):
                calls[name].result(DEADLINE / 2)
        assert not calls["c"].done()
        rows.bring(1)
        assert calls["c"].result(DEADLINE).id == "w0"
    assert not line._ended


def test_another_one_watches_when_the_first_is_given_up(line: Line, rows: Rows) -> None:
    with pytest.raises(exceptions.NoWorker):
        line.take(time.monotonic() + 0.02, "1")
    callers = Callers(line, 2)
    wait_until(lambda: len(line._waiting) == 2, DEADLINE, "both to wait")
    rows.bring(1)
    callers.join()


def test_a_failure_of_the_database_is_told_to_who_looked_and_the_others_go_on(
    line: Line, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [exceptions.DatabaseUnavailable("away")]
    look = rows.look

    def fail_once(known: dict[str, WorkerClient], waiting: Collection[str]) -> Found:
        if failures:
            raise failures.pop()
        return look(known, waiting)

    broken = Line(CONCURRENCY, MOST, fail_once, rows.want)
    with pytest.raises(exceptions.DatabaseUnavailable):
        take(broken)
    rows.bring(1)
    assert take(broken).id == "w0"


def test_places_go_from_one_to_the_next_without_a_look_for_each(rows: Rows, line: Line) -> None:
    rows.bring(1)
    rows.answer = lambda _number: None
    taken = [take(line) for _ in range(CONCURRENCY)]
    ended = threading.Semaphore(0)

    def run() -> None:
        line.give_back(take(line))
        ended.release()

    threads = [threading.Thread(target=run) for _ in range(60)]
    for thread in threads:
        thread.start()
    wait_until(lambda: rows.wanted, DEADLINE, "the line has asked for more")
    before = rows.looks
    for client in taken:
        line.give_back(client)
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    assert rows.looks - before < 20
