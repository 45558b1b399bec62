"""Observing worker processes: are they up, are they well, have they ended.

One thread with an event loop for all workers of this engine. A process is
watched through its pidfd, which works for workers that an earlier engine
started as well as for our own children. A worker counts as ready from the
moment it has answered with its own id, and as gone when none of its processes
lives and its temporary files are removed.
"""

import asyncio
import contextlib
import enum
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from oslo_log import log

from qinling.orchestrator.local import group, probe, process
from qinling.orchestrator.local.state import WorkerEntry

LOG = log.getLogger(__name__)

# Seconds between two questions to a worker that answers, but is not ready yet.
_ASK_AGAIN = 0.2
# Seconds a worker may take for one answer, and answers it may miss in a row.
_PROBE_TIMEOUT = 3.0
_PROBE_MISSES = 3


class Health(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended that nobody had told to. ``came_up``: it was ready before."""

    reason: str
    came_up: bool


@dataclass(slots=True)
class Watched:
    """A worker as this process sees it. Changed by the watch's thread, but for ``retiring``.

    ``leader`` and ``rest``: descriptors of the process that was started, until
    it has ended, and of those that are left of it then. ``doomed``:
    whoever of them still lives is killed.
    """

    pool_id: str
    entry: WorkerEntry
    started: process.Started | None
    leader: int | None
    rest: list[int] = field(default_factory=list)
    health: Health = Health.STARTING
    came_up: bool = False
    # What it did wrong, when the watch ended it or it ended by itself.
    reason: str = ""
    retiring: bool = False
    doomed: bool = False
    following: "asyncio.Task[None] | None" = None
    grace: asyncio.TimerHandle | None = None


class Watch:
    """Tracks workers; calls ``notify(pool_id)`` whenever one of them changed."""

    def __init__(
        self,
        notify: Callable[[str], None],
        startup_timeout: float,
        shutdown_grace: float,
        probe_interval: float,
    ) -> None:
        self._notify = notify
        self._startup_timeout = startup_timeout
        self._shutdown_grace = shutdown_grace
        self._probe_interval = probe_interval
        # Held for the tables; notified when a worker is gone.
        self._changed = threading.Condition()
        self._pools: dict[str, dict[str, Watched]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Workers are left alone, but for those whose lifeline is held here."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        for watched in self._all():
            self._stop_following(watched)
            for descriptor in (watched.leader, *watched.rest):
                if descriptor is not None:
                    os.close(descriptor)
            if watched.started is not None:
                watched.started.abandon()
        self._pools.clear()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def track(
        self, pool_id: str, entry: WorkerEntry, started: process.Started | None = None
    ) -> Health:
        """Watch a worker from now on, and tell how it is. Again is no matter.

        :param started: the worker, when this process has just started it; its
            lifeline is held for as long as it lives.
        """
        with self._changed:
            watched = self._find(pool_id, entry.id)
            if watched is None:
                # Our own child's pid is its own until we have waited for it.
                own = started is not None
                leader = os.pidfd_open(entry.pid) if own else process.open_pidfd(entry)
                watched = Watched(pool_id, entry, started, leader)
                if leader is None:
                    watched.rest = group.everybody(entry)
                    if not watched.rest:
                        if not pathlib.Path(entry.folder).exists():
                            return Health.GONE
                        # It remains to be cleared away; nobody of this process saw it end.
                        watched.retiring = True
                self._pools.setdefault(pool_id, {})[entry.id] = watched
                self._loop.call_soon_threadsafe(self._begin, watched)
            return watched.health

    def tell(self, pool_id: str, pause: float) -> None:
        """Notify of a pool in so many seconds."""
        self._loop.call_soon_threadsafe(self._loop.call_later, pause, self._notify, pool_id)

    def retire(self, pool_id: str, entry: WorkerEntry, grace: float | None = None) -> None:
        """Tell a tracked worker to end; kill it when it does not in time.

        :param grace: seconds that it gets, where it has more to end than usual.
        """
        with self._changed:
            watched = self._find(pool_id, entry.id)
            if watched is not None:
                self._retire(watched, grace or self._shutdown_grace)

    def end_all(self, timeout: float) -> bool:
        """Tell all tracked workers to end; whether they have within so many seconds."""
        with self._changed:
            for watched in self._all():
                self._retire(watched, self._shutdown_grace)
            return self._changed.wait_for(
                lambda: all(watched.health is Health.GONE for watched in self._all()), timeout
            )

    def forget(self, pool_id: str, worker_id: str) -> End | None:
        """Drop a worker that is gone; how it ended, None if it was asked to or
        nobody of this process saw it.
        """
        with self._changed:
            watched = self._find(pool_id, worker_id)
            if watched is None:
                return None
            self._drop(watched)
        return None if watched.retiring else End(watched.reason, watched.came_up)

    def forget_others(self, pool_id: str, known: Collection[str]) -> None:
        """Drop the workers of a pool that are gone and that another engine has buried."""
        with self._changed:
            for watched in list(self._pools.get(pool_id, {}).values()):
                if watched.health is Health.GONE and watched.entry.id not in known:
                    self._drop(watched)

    def forget_other_pools(self, known: Collection[str]) -> None:
        """The same, for pools that another engine has removed."""
        with self._changed:
            for pool_id in [pool_id for pool_id in self._pools if pool_id not in known]:
                self.forget_others(pool_id, ())

    def _all(self) -> list[Watched]:
        return [watched for pool in self._pools.values() for watched in pool.values()]

    def _find(self, pool_id: str, worker_id: str) -> Watched | None:
        return self._pools.get(pool_id, {}).get(worker_id)

    def _drop(self, watched: Watched) -> None:
        pool = self._pools[watched.pool_id]
        del pool[watched.entry.id]
        if not pool:
            del self._pools[watched.pool_id]

    def _retire(self, watched: Watched, grace: float) -> None:
        if not watched.retiring:
            watched.retiring = True
            self._loop.call_soon_threadsafe(self._terminate, watched, grace)

    # All below runs in the watch's thread.

    def _begin(self, watched: Watched) -> None:
        if watched.leader is None:
            # Left over from a worker that ended while no engine was there to see it.
            self._leader_ended(watched)
        else:
            self._loop.add_reader(watched.leader, self._leader_ended, watched)
            watched.following = self._loop.create_task(self._follow(watched))

    def _stop_following(self, watched: Watched) -> None:
        if watched.following is not None:
            watched.following.cancel()
        if watched.grace is not None:
            watched.grace.cancel()

    def _terminate(self, watched: Watched, grace: float) -> None:
        if watched.doomed or watched.health is Health.GONE:
            return
        self._stop_following(watched)
        group.terminate(watched.entry)
        watched.grace = self._loop.call_later(
            grace,
            self._kill,
            watched,
            f"did not end within {grace:g} s",
        )

    def _kill(self, watched: Watched, wrong: str) -> None:
        LOG.warning(
            "Worker %s of pool %s %s; it is killed.", watched.entry.id, watched.pool_id, wrong
        )
        watched.reason = f"the worker {wrong}"
        watched.doomed = True
        if watched.leader is None:
            self._look_at_rest(watched)
        else:
            group.kill(watched.entry)

    def _leader_ended(self, watched: Watched) -> None:
        if watched.leader is not None:
            self._loop.remove_reader(watched.leader)
            os.close(watched.leader)
            watched.leader = None
        if not watched.retiring:
            # It did not end in order, so what it left behind will not either.
            self._stop_following(watched)
            watched.doomed = True
        self._look_at_rest(watched)

    def _look_at_rest(self, watched: Watched) -> None:
        """Once the leader has ended: wait for each that is left, and look again at its end."""
        for descriptor in watched.rest:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        watched.rest = group.members(watched.entry)
        if not watched.rest:
            # Who has left the worker's session does not go with it in order.
            watched.rest = group.strays(watched.entry)
            watched.doomed |= bool(watched.rest)
        for descriptor in watched.rest:
            self._loop.add_reader(descriptor, self._look_at_rest, watched)
        if watched.rest and watched.doomed:
            group.kill(watched.entry)
        if not watched.rest:
            self._stop_following(watched)
            watched.doomed = True
            self._loop.run_in_executor(None, self._end, watched)

    def _end(self, watched: Watched) -> None:
        """In a thread of its own: a function may have left very many files."""
        process.remove_files(watched.entry)
        reason = "the worker ended"
        if watched.started is not None:
            # Not before: until it is waited for, the leader's pid keeps the group's number ours.
            reason = _exit_reason(watched.started.popen.wait())
            watched.started.abandon()
        watched.reason = watched.reason or reason
        with self._changed:
            watched.health = Health.GONE
            self._changed.notify_all()
        self._notify(watched.pool_id)

    async def _follow(self, watched: Watched) -> None:
        """Wait until the worker is up, then ask it now and then."""
        if trouble := await self._comes_up(watched.entry):
            self._kill(
                watched,
                f"was not ready within {self._startup_timeout:g} s of its start ({trouble})",
            )
            return
        watched.health, watched.came_up = Health.READY, True
        self._notify(watched.pool_id)
        misses = 0
        while misses < _PROBE_MISSES:
            await asyncio.sleep(self._probe_interval)
            trouble = await _ask_once(watched.entry)
            misses = misses + 1 if trouble else 0
        self._kill(watched, f"was not well {_PROBE_MISSES} times in a row ({trouble})")

    async def _comes_up(self, entry: WorkerEntry) -> str | None:
        """Wait until the worker says that it is ready; what was wrong if that takes too long."""
        trouble: str | None = "it did not answer"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._startup_timeout):
                while trouble := await probe.ask(entry.port, entry.id):
                    await asyncio.sleep(_ASK_AGAIN)
        return trouble


async def _ask_once(entry: WorkerEntry) -> str | None:
    try:
        async with asyncio.timeout(_PROBE_TIMEOUT):
            return await probe.ask(entry.port, entry.id)
    except TimeoutError:
        return "it did not answer"


def _exit_reason(code: int) -> str:
    if code < 0:
        try:
            return f"the worker was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"the worker was ended by signal {-code}"
    return f"the worker exited with code {code}"
