"""Executions of a worker, known by their ids.

A sender that does not know whether its request has arrived sends it again, and
gets the same run: an id is never run twice while it is known. Answers are kept
until they are acknowledged, within bounds. One that is cancelled before it has
come, as two senders may overtake each other, is not run when it comes.
"""

import threading
import time
from collections.abc import Callable, Iterable

#: Bytes of answers that are kept, and what each takes beside its own; at least the newest one is
#: kept. Whose sender was killed is asked for after 15 to 20 seconds, when others have sent on.
_BYTES = 16 << 20
_BESIDE = 512
#: Ids that are kept of what was removed.
_REMOVED = 1000


class Execution:
    """One that is running, or has ended when it has an answer."""

    __slots__ = ("answer", "cancelled", "ended_at", "id", "kill")

    def __init__(self, execution_id: str) -> None:
        self.id = execution_id
        self.answer: bytes | None = None
        self.ended_at = 0.0
        self.cancelled = False
        #: Ends the process that runs it, while one does.
        self.kill: Callable[[], None] | None = None


class Closed(Exception):
    """No more are taken."""


class Full(Exception):
    """As many run as may at once."""


class Removed(Exception):
    """It was cancelled before it came."""


class Executions:
    """:param most: how many may run at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._known: dict[str, Execution] = {}
        self._running = 0
        self._closed = False
        # In the order in which they ended.
        self._ended: dict[str, Execution] = {}
        self._bytes = 0
        # In the order in which they were first removed.
        self._removed: dict[str, None] = {}
        self._waiting = 0

    def begin(self, execution_id: str) -> tuple[Execution, bool]:
        """The execution, and whether the caller is to run it and then ``end`` it.

        :raises Removed, Closed, Full: it is not known, and was removed, or no more is taken, or
            not now.
        """
        with self._lock:
            known = self._known.get(execution_id)
            if known is not None:
                return known, False
            if execution_id in self._removed:
                raise Removed
            if self._closed:
                raise Closed
            if self._running >= self._most:
                raise Full
            self._running += 1
            execution = self._known[execution_id] = Execution(execution_id)
            return execution, True

    def get(self, execution_id: str) -> Execution | None:
        return self._known.get(execution_id)

    def attach(self, execution: Execution, kill: Callable[[], None] | None) -> None:
        """From now on it is cancelled by this; nobody calls it after it was taken away (None)."""
        with self._lock:
            execution.kill = kill
            if kill is not None and execution.cancelled:
                kill()

    def end(self, execution: Execution, answer: bytes) -> None:
        """Keep its answer, and give it to those who wait for it."""
        with self._lock:
            self._running -= 1
            execution.answer = answer
            execution.ended_at = time.monotonic()
            if execution.cancelled:
                # Who has cancelled it does not ask again.
                del self._known[execution.id]
            else:
                self._ended[execution.id] = execution
                self._bytes += len(answer) + _BESIDE
                while len(self._ended) > 1 and self._bytes > _BYTES:
                    self._forget(next(iter(self._ended)))
            if self._waiting:
                self._changed.notify_all()

    def wait(self, execution: Execution) -> bytes:
        """Its answer, once it has one."""
        with self._lock:
            self._waiting += 1
            while execution.answer is None:
                self._changed.wait()
            self._waiting -= 1
            return execution.answer

    def remove(self, execution_id: str) -> None:
        """Cancel it if it runs, forget its answer if it has ended, and never run it from now on."""
        with self._lock:
            self._removed[execution_id] = None
            if len(self._removed) > _REMOVED:
                del self._removed[next(iter(self._removed))]
            execution = self._known.get(execution_id)
            if execution is None:
                return
            if execution.answer is None:
                execution.cancelled = True
                if execution.kill is not None:
                    execution.kill()
            else:
                self._forget(execution_id)
                if self._waiting:
                    self._changed.notify_all()

    def acknowledge(self, execution_ids: Iterable[str] | None = None) -> None:
        """Forget the answers of those that have ended, of all of them without ids."""
        with self._lock:
            for each in list(self._ended) if execution_ids is None else execution_ids:
                if each in self._ended:
                    self._forget(each)
            if self._waiting:
                self._changed.notify_all()

    def _forget(self, execution_id: str) -> None:
        execution = self._ended.pop(execution_id)
        self._bytes -= len(execution.answer or b"") + _BESIDE
        del self._known[execution_id]

    def close(self) -> None:
        """Take no more; those that are known are known still."""
        with self._lock:
            self._closed = True

    def wait_until_done(self, grace: float) -> None:
        """Until none runs, and answers were acknowledged or are that many seconds old."""
        with self._lock:
            self._waiting += 1
            while self._running:
                self._changed.wait()
            while self._ended:
                newest = max(each.ended_at for each in self._ended.values())
                left = newest + grace - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            self._waiting -= 1
