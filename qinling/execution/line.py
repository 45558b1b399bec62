"""Who runs next: the workers of one version of a function, and those who wait for them.

One line per process and version. Whoever finds no free place becomes the line's
watcher, if it has none yet: it asks the database for workers, and for more of
them, until it has a place itself; the others wait for what it finds.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from qinling import exceptions
from qinling.execution.worker import WorkerClient

# Seconds from the first look at the workers' rows to the second, by which no worker that was wanted
# then can have its function. From there on it is looked less and less often: so that what a look
# comes too late is a tenth of the wait, at most.
_SOONEST = 0.02
_LOOK_EVERY = 0.003
_SLOWER = 1.1
_LOOK_AT_MOST = 0.25
# Seconds between two looks that are for those who wait, too: whether they have ended, in another
# process. The first one is as late, as most have a place by then.
_CHECK_EVERY = 0.25
# Seconds after which what is wanted is said again.
_SAY_AGAIN = 2.0
# Seconds for which a worker that said that it is busy is believed.
_BUSY = 0.05


@dataclass(slots=True)
class Seat:
    """A worker with a place for ``concurrency`` executions."""

    client: WorkerClient
    in_flight: int = 0
    busy_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Found:
    """What the rows say: clients of the workers that serve, how many are on their way, and which
    executions were asked about in vain, as they have ended.
    """

    serving: Sequence[WorkerClient]
    coming: int
    ended: Collection[str] = ()


class Line:
    """:param concurrency: executions of one worker at a time.
    :param most: workers that the version may have.
    :param look: reads the rows, given the clients that are known by id, and ids of executions.
    :param want: asks for so many workers in all.
    """

    def __init__(
        self,
        concurrency: int,
        most: int,
        look: Callable[[dict[str, WorkerClient], Collection[str]], Found],
        want: Callable[[int], None],
    ) -> None:
        self._concurrency = concurrency
        self._most = most
        self._look = look
        self._want = want
        self._changed = threading.Condition()
        self._seats: dict[str, Seat] = {}
        # The executions that wait, and those of them that have ended meanwhile.
        self._waiting: set[str] = set()
        self._ended: set[str] = set()
        self._watched = False
        self._looked_at = -math.inf
        # When the executions were looked at, too.
        self._checked_at = time.monotonic()
        #: When it was asked for last, and when the database was told so; on the monotonic clock.
        self.used = time.monotonic()
        self.noted = -math.inf

    def idle(self) -> bool:
        """Whether nobody has a place, or waits for one."""
        with self._changed:
            return not self._waiting and not any(seat.in_flight for seat in self._seats.values())

    def close(self) -> None:
        for seat in self._seats.values():
            seat.client.close()

    def try_take(self) -> WorkerClient | None:
        """A place in a worker that is known, if one is free and nobody waits for it."""
        with self._changed:
            return None if self._waiting else self._take()

    def take(self, deadline: float, execution_id: str) -> WorkerClient:
        """A place in a worker, waiting for it.

        :param deadline: on the monotonic clock.
        :raises NoWorker: none could be had in time. :raises ExecutionTaken: it has ended.
            What ``look`` raises is raised to who waits.
        """
        with self._changed:
            if not self._waiting:
                self._checked_at = time.monotonic()
            self._waiting.add(execution_id)
            try:
                while (client := self._take()) is None:
                    left = deadline - time.monotonic()
                    if execution_id in self._ended:
                        raise exceptions.ExecutionTaken(execution_id)
                    if left <= 0:
                        raise exceptions.NoWorker("no worker was free in time")
                    if self._watched:
                        self._changed.wait(left)
                    else:
                        self._watch(deadline, execution_id)
                return client
            finally:
                self._waiting.discard(execution_id)
                self._ended.discard(execution_id)
                # One of those who wait watches, and none of them waits beside a free place.
                if self._waiting and (not self._watched or self._has_place()):
                    self._changed.notify()

    def end(self, execution_ids: Collection[str]) -> None:
        """Executions have ended: those of them that wait do so no longer."""
        with self._changed:
            ended = self._waiting.intersection(execution_ids)
            if ended:
                self._ended |= ended
                self._changed.notify_all()

    def give_back(self, client: WorkerClient) -> None:
        """An execution has ended."""
        with self._changed:
            seat = self._seats.get(client.id)
            if seat is not None and seat.client is client:
                seat.in_flight -= 1
                seat.busy_until = 0.0
                self._changed.notify()

    def is_busy(self, client: WorkerClient) -> None:
        """The worker has no place, whatever is known here: others send to it, too."""
        with self._changed:
            seat = self._seats.get(client.id)
            if seat is not None and seat.client is client:
                seat.in_flight -= 1
                seat.busy_until = time.monotonic() + _BUSY

    def is_gone(self, client: WorkerClient) -> None:
        """The worker takes no more."""
        with self._changed:
            seat = self._seats.get(client.id)
            if seat is not None and seat.client is client:
                del self._seats[client.id]
        client.close()

    def _take(self) -> WorkerClient | None:
        now = time.monotonic()
        free = [
            seat
            for seat in self._seats.values()
            if seat.in_flight < self._concurrency and seat.busy_until <= now
        ]
        if not free:
            return None
        seat = min(free, key=lambda each: each.in_flight)
        seat.in_flight += 1
        return seat.client

    def _watch(self, deadline: float, execution_id: str) -> None:
        """Find more workers until one has a place. The lock is held, but for looks and words."""
        self._watched = True
        pauses, said, said_at = _pauses(), 0, 0.0
        try:
            # Whoever watched before has just looked.
            self._pause(self._looked_at + _SOONEST - time.monotonic(), deadline)
            while not (
                self._has_place() or execution_id in self._ended or time.monotonic() >= deadline
            ):
                needed, known = (
                    self._needed(),
                    {s.client.id: s.client for s in self._seats.values()},
                )
                asked = self._to_check()
                self._changed.release()
                try:
                    found = self._look(known, asked)
                    now = self._looked_at = time.monotonic()
                    there = len(found.serving) + found.coming
                    if self._all_busy(found):
                        needed = max(needed, there + 1)
                    needed = min(needed, self._most)
                    if needed > max(there, said) or (needed > there and now - said_at > _SAY_AGAIN):
                        self._want(needed)
                        said, said_at = needed, now
                finally:
                    self._changed.acquire()
                self._see(found.serving)
                self.end(found.ended)
                if not self._has_place():
                    enough = len(found.serving) >= self._most
                    self._pause(_BUSY if enough else next(pauses), deadline)
        finally:
            self._watched = False

    def _to_check(self) -> Collection[str]:
        """Who waits, to be looked at, but not at each look."""
        now = time.monotonic()
        if now < self._checked_at + _CHECK_EVERY:
            return ()
        self._checked_at = now
        return frozenset(self._waiting)

    def _pause(self, seconds: float, deadline: float) -> None:
        """Wait for a place that is given back, for so long."""
        seconds = min(seconds, deadline - time.monotonic())
        if seconds > 0 and not self._has_place():
            self._changed.wait(seconds)

    def _needed(self) -> int:
        running = sum(seat.in_flight for seat in self._seats.values())
        return math.ceil((running + len(self._waiting)) / self._concurrency)

    def _has_place(self) -> bool:
        now = time.monotonic()
        return any(
            seat.in_flight < self._concurrency and seat.busy_until <= now
            for seat in self._seats.values()
        )

    def _all_busy(self, found: Found) -> bool:
        """Whether all workers are full by what they say themselves, and none is coming."""
        now = time.monotonic()
        seats = [self._seats.get(client.id) for client in found.serving]
        return (
            bool(seats)
            and not found.coming
            and all(
                seat is not None and (seat.busy_until > now or seat.in_flight >= self._concurrency)
                for seat in seats
            )
        )

    def _see(self, serving: Sequence[WorkerClient]) -> None:
        clients = {client.id: client for client in serving}
        for worker_id in self._seats.keys() - clients.keys():
            self._seats.pop(worker_id).client.close()
        for worker_id, client in clients.items():
            seat = self._seats.get(worker_id)
            if seat is None or seat.client is not client:
                self._seats[worker_id] = Seat(client)
                self._changed.notify()


def _pauses() -> Iterator[float]:
    yield _SOONEST
    pause = _LOOK_EVERY
    while True:
        yield pause
        pause = min(pause * _SLOWER, _LOOK_AT_MOST)
