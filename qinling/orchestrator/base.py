"""The orchestrator as the engine sees it: pools that are asked for and observed.

An orchestrator keeps no queue and decides no status. It makes what is into
what a ``PoolSpec`` says, as far as it can at this moment, tells what it sees,
and calls back with a pool's id whenever something about that pool changed.
No method waits for a worker.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool as it should be: ``size`` warm workers of ``image``."""

    id: str
    image: str
    size: int
    trusted: bool
    revision: int


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool as it was seen, of the revision that was asked for.

    ``ready``: every worker of this revision has come up and nothing of an
    older one is left. ``failed``: it will not come up as it is; the
    orchestrator goes on trying nevertheless. ``reason``: what keeps it from
    being whole, in one sentence: the cause, which everybody may read, and behind
    the first ": " the operator's matters. Errors are worded so, too. ``retry_in``: seconds after
    which it wants to be looked at again, when no event would tell.
    """

    total: int
    available: int
    ready: bool
    failed: bool = False
    reason: str | None = None
    retry_in: float | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that was taken out of a pool for good.

    ``address``: where it is called, as ``routes`` knows it.
    """

    id: str
    pool_id: str
    address: str


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run of an image: a container, or a process, of its own for one execution.

    ``id``: the execution's. ``cpu``: millicpu. ``memory``: bytes. ``lifetime``: seconds after
    which it is ended even if nobody looks after it any more.
    """

    id: str
    function_id: str
    image: str
    arguments: tuple[str, ...]
    cpu: int
    memory: int
    lifetime: float


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended.

    ``code``: of its program, None where that never ran or was lost, and ``reason`` says why.
    ``exhausted``: it was killed, as for want of memory. ``duration``: seconds; up to one more
    than it was where nobody saw it begin.
    """

    code: int | None
    duration: float
    exhausted: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RunState:
    """How far a run has come.

    ``running_for``: seconds for which its program runs, at least; None before it does, and
    ``reason`` says what keeps it, where that is known.
    """

    running_for: float | None = None
    reason: str = ""
    end: RunEnd | None = None


class Runs(Protocol):
    """Runs of images. Safe to call from several threads. Errors are ``OrchestratorError``."""

    def begin(self, spec: RunSpec) -> None:
        """Begin a run, unless there is one with this id: that is the same one then.

        :raises ClusterRefusal, OrchestratorError: it cannot be, or not now.
        """

    def find(self, run_id: str) -> bool:
        """Look for a run that somebody has begun; whether anything is there of it."""

    def wait(self, run_id: str, seconds: float, *, for_end: bool) -> RunState | None:
        """How far a run is when it has ended, or begun, or so many seconds later.

        :returns: None when nothing is there of it any more.
        """

    def log(self, run_id: str, most: int) -> bytes:
        """What it has printed, the first ``most`` bytes of it."""

    def remove(self, run_id: str) -> None:
        """End a run, and leave nothing of it. None that is there is no error."""

    def ids(self) -> Iterable[str]:
        """Of all runs that there are.

        :raises PoolBusy: they are not all known yet; ask again.
        """


class Orchestrator(Protocol):
    """Safe to call from several threads. Errors are ``OrchestratorError``."""

    # Its pools live on one host: a second host must not use the same database.
    one_host: bool
    # Of images that are functions themselves; to be used between ``start`` and ``stop``.
    runs: Runs

    def start(self, notify: Notify) -> None:
        """Begin to observe; ``notify(pool_id)`` is called from any thread.

        :raises StartupError: it cannot work here.
        """

    def stop(self) -> None:
        """End observing; pools live on unless they belong to this process."""

    def check(self) -> list[str]:
        """What keeps it from working here, each in one sentence; it need not be started."""

    def apply(self, spec: PoolSpec) -> PoolState:
        """Take the pool one step towards ``spec`` and tell how it stands.

        :raises StaleRevision: the pool is at a newer revision already.
        :raises PoolBusy: another process is at work on it; ask again.
        """

    def remove(self, pool_id: str, revision: int | None) -> bool:
        """Take the pool one step towards nothing; True when nothing is left.

        :param revision: as in ``apply``; None for a pool that has no row.
        """

    def pools(self) -> Iterable[str]:
        """Ids of all pools there are, whether or not anybody asked for them.

        :raises PoolBusy: they are not all known yet; ask again.
        """

    def claim(self, pool_id: str) -> Worker | None:
        """Take a free worker out of a pool, which refills itself; None when it has none now.

        When it has one again, it calls back as for any change of the pool.

        :raises PoolBusy: another process is at work on it; ask again.
        """

    def claimed(self, pool_id: str, known: Collection[str] = ()) -> Mapping[str, bool]:
        """The claimed workers of a pool by id, and whether each is to live on: False while it ends.

        It calls back with the pool's id when one of them begins to end, and when it has.

        :param known: ids of workers that somebody has claimed, though it may not be seen here
            yet: they are told of too as long as they are there.
        """

    def resize(
        self,
        pool_id: str,
        worker_id: str,
        *,
        memory: tuple[int, int] | None = None,
        cpu: int | None = None,
    ) -> bool:
        """Ask that a claimed worker have what its function needs; True when it has it.

        :param memory: bytes for the function's executions, and for its import beside them.
        :param cpu: millicpu.
        :raises WorkerUnfit: it cannot.
        """

    def release(self, pool_id: str, worker_id: str) -> bool:
        """Tell a claimed worker to end after the work at hand; True when it is gone."""
