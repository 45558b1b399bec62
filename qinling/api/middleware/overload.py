"""Overload is refused here, before it has cost anything: no token, policy, Pecan or database.

An execution that its caller waits for occupies a thread of the server until the function has
ended. So many are let in that threads remain for all other calls, and fewer while those that are in
wait for a processor, as each more would only make all calls slower. One that has been in for long
waits for its function, and not for a processor: it takes a thread from others, and nothing else.

A server that knows of a request before it gives it a thread may ask for its place itself, and
refuse it then: cheroot's does (``qinling/cmd/server.py``). Any other one leaves that to the
middleware.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from qinling import exceptions

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

#: Is in the environ of a request for which the server has taken a place, and gives it back.
HAS_PLACE = "qinling.has_place"

_EXECUTIONS = ["v1", "executions"]
# So many are let in whatever the load is (or the most, where that is less): enough to keep a few
# processors busy.
_LEAST = 8
# Seconds between two looks at the load; what a thread may wake too late, on an average; the weight
# of the last look in that. A call needs the processor some twenty times. Eight callers that keep
# two processors busy make it late by 1.5 ms; more of them get no more done.
_PERIOD = 0.02
_TOO_LATE = 0.0025
_WEIGHT = 0.1
# What each look makes of the number that is let in.
_FEWER = 0.9
_MORE = 0.25
# Seconds after which one that is in counts as a thread alone. Where eight are let in, each has the
# processor for long enough to be through in a small part of them.
_LONG = 2.0


class Overload:
    """Answers 429 to a ``POST`` of an execution when there are enough of them.

    One that nobody waits for is counted too, for the moment that it takes: which it is only its
    body tells, and that is not read here.

    :param places: of those that are let in.
    """

    def __init__(self, application: "WSGIApplication", places: "Places") -> None:
        self._application = application
        self._places = places

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if (
            environ["REQUEST_METHOD"] != "POST"
            or HAS_PLACE in environ
            or not _is_execution(environ.get("PATH_INFO", ""))
        ):
            return self._application(environ, start_response)
        place = self._places.take()
        if place is None:
            raise refusal()
        answer = _Answer(place.give_back)
        try:
            answer.body = self._application(environ, start_response)
        except BaseException:
            answer.close()
            raise
        return answer


class Places:
    """How many are in, and how many may be.

    :param most: executions that are let in at a time, whatever they wait for.
    :param clock: seconds, monotonic.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._least = min(_LEAST, most)
        self._clock = clock
        self._lock = threading.Lock()
        self._taken = 0
        # When those were let in that may want the processor, in that order.
        self._new: dict[Place, float] = {}
        # How many of these may be in.
        self._allowed = float(most)
        # What threads wake too late by: seconds, an average.
        self._late = 0.0
        self._used = threading.Event()
        self._watched = False

    def take(self) -> "Place | None":
        """A place, if one is free."""
        with self._lock:
            self._let_age()
            if self._taken >= self._most or len(self._new) >= int(self._allowed):
                return None
            place = Place(self)
            self._taken += 1
            self._new[place] = self._clock()
            # So many are let in whatever the load is, which nobody watches then.
            if len(self._new) < self._least:
                return place
            self._used.set()
            # Not before: a server may have forked since this object was made.
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="overload", daemon=True).start()
        return place

    def give_back(self, place: "Place") -> None:
        with self._lock:
            self._taken -= 1
            self._new.pop(place, None)

    def see(self, late: float) -> None:
        """A thread that slept woke so many seconds too late: it waited for a processor, or for
        Python's lock, as requests do."""
        with self._lock:
            self._late += (late - self._late) * _WEIGHT
            if self._late > _TOO_LATE:
                self._allowed = max(self._allowed * _FEWER, self._least)
            else:
                self._allowed = min(self._allowed + _MORE, self._most)
            self._let_age()
            if len(self._new) < self._least and self._allowed == self._most:
                self._used.clear()

    def _let_age(self) -> None:
        long_ago = self._clock() - _LONG
        while self._new and self._new[oldest := next(iter(self._new))] <= long_ago:
            del self._new[oldest]

    def _watch(self) -> None:
        while True:
            self._used.wait()
            due = time.monotonic() + _PERIOD
            time.sleep(_PERIOD)
            self.see(time.monotonic() - due)


class Place:
    """What an execution that is in holds until it has ended."""

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places = places

    def give_back(self) -> None:
        self._places.give_back(self)


class _Answer:
    """The answer to an execution that was let in. The server closes it, whatever becomes of it."""

    body: Iterable[bytes] = ()

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave: Callable[[], None] | None = leave

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        leave, self._leave = self._leave, None
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            if leave is not None:
                leave()


def refusal() -> exceptions.Overloaded:
    """What is told when no place is free."""
    return exceptions.Overloaded(
        "As many executions are under way here as can be; try again in a moment."
    )


def _is_execution(path: str) -> bool:
    """Read as the routing reads it."""
    return "executions" in path and [part for part in path.split("/") if part] == _EXECUTIONS
