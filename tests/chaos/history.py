"""What was seen and done while an installation was under load, as the checker gets it.

Times are UTC, of this host, without a zone: as the service answers them.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: An execution, a JSON object as the service answers it.
Execution = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """An execution that a client asked for.

    :ivar key: what the client called it, in its input.
    :ivar number: of the newest code whose update had been answered before the call began.
    :ivar answer: the execution, answered with 201; None when it was refused or its answer was lost.
    """

    key: str
    function_id: str
    sync: bool
    number: int
    answer: Execution | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success: to what, its status, and its body."""

    asked: str
    status: int
    text: str
    retry_after: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """What a function wrote down as it began.

    :ivar number: of its code. :ivar worker_id: the worker that it was in.
    """

    key: str
    number: int
    worker_id: str

    @classmethod
    def parse(cls, line: str) -> "Run":
        key, number, worker_id = line.split()
        return cls(key, int(number), worker_id)


@dataclass(frozen=True, slots=True)
class Harm:
    """What was done to a process.

    :ivar kind: ``worker``, ``api``, ``engine``, or ``all`` for a process that is everything;
        ``database`` or ``broker`` for the servers that these need.
    :ivar name: the worker's id, or the program.
    :ivar seconds: for how long it was stopped; None when it was killed.
    """

    at: dt.datetime
    kind: str
    name: str
    seconds: float | None = None

    def __str__(self) -> str:
        what = "killed" if self.seconds is None else f"stopped for {self.seconds:.1f} s"
        return f"{self.at:%H:%M:%S.%f} {self.kind} {self.name} {what}"


@dataclass(slots=True)
class History:
    """Appended to from many threads."""

    calls: list[Call] = field(default_factory=list)
    #: Executions as they were shown, to whoever looked, at whatever time.
    shown: list[Execution] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    harms: list[Harm] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What there is when all is over.

    :ivar rows: all executions, as they are answered then.
    :ivar workers: of each execution's id, the worker that its row names.
    :ivar runs: what the functions wrote down, in order.
    :ivar counts: of each function's id, its ``count``.
    """

    rows: Sequence[Execution]
    workers: Mapping[str, str | None]
    runs: Sequence[Run]
    counts: Mapping[str, int]


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def time(text: str) -> dt.datetime:
    """A time as the service answers it."""
    return dt.datetime.fromisoformat(text)
