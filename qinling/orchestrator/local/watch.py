"""Observing worker processes: are they up, are they well, have they ended.

One thread with an event loop for all workers of this engine. A process is
watched through its pidfd, which works for workers that an earlier engine
started as well as for our own children. A worker counts as ready from the
moment it has answered with its own id.
"""

import asyncio
import contextlib
import enum
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from oslo_log import log

from qinling.orchestrator.local import process
from qinling.orchestrator.local.state import WorkerEntry

LOG = log.getLogger(__name__)

# Seconds a worker may take for one answer, and answers it may miss in a row.
_PROBE_TIMEOUT = 3.0
_PROBE_MISSES = 3
_MAX_ANSWER = 64 * 1024


class Health(enum.Enum):
    STARTING = "starting"
    READY = "ready"
    GONE = "gone"


@dataclass(slots=True)
class Watched:
    """A worker as this process sees it. Changed by the watch's thread alone."""

    pool_id: str
    entry: WorkerEntry
    pidfd: int
    popen: subprocess.Popen[bytes] | None
    health: Health = Health.STARTING
    # What it did wrong, when the watch ended it or it ended by itself.
    reason: str | None = None
    retiring: bool = False
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)


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
        self._lock = threading.Lock()
        self._workers: dict[str, Watched] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; the workers are left alone."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        for watched in self._workers.values():
            for task in watched.tasks:
                task.cancel()
            self._close(watched)
        self._workers.clear()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def track(
        self, pool_id: str, entry: WorkerEntry, popen: subprocess.Popen[bytes] | None = None
    ) -> Health:
        """Watch a worker from now on, and tell how it is. Again is no matter."""
        with self._lock:
            watched = self._workers.get(entry.id)
            if watched is None:
                # Our own child's pid is its own until we have waited for it.
                pidfd = process.open_pidfd(entry) if popen is None else os.pidfd_open(entry.pid)
                if pidfd is None:
                    return Health.GONE
                watched = Watched(pool_id, entry, pidfd, popen)
                self._workers[entry.id] = watched
                self._loop.call_soon_threadsafe(self._begin, watched)
            return watched.health

    def retire(self, entry: WorkerEntry) -> None:
        """Tell a tracked worker to end; kill it when it does not in time."""
        with self._lock:
            watched = self._workers.get(entry.id)
        if watched is None or watched.retiring:
            return
        watched.retiring = True
        self._signal(watched, signal.SIGTERM)
        self._loop.call_soon_threadsafe(self._schedule_kill, watched)

    def forget(self, worker_id: str) -> str | None:
        """Drop a worker that is gone; why it ended, None if it was asked to or
        nobody of this process saw it.
        """
        with self._lock:
            watched = self._workers.pop(worker_id, None)
        return None if watched is None or watched.retiring else watched.reason

    # All below runs in the watch's thread.

    def _begin(self, watched: Watched) -> None:
        self._loop.add_reader(watched.pidfd, self._ended, watched)
        self._spawn(watched, self._follow(watched))

    def _spawn(self, watched: Watched, work: Coroutine[Any, Any, None]) -> None:
        watched.tasks.append(self._loop.create_task(work))

    def _schedule_kill(self, watched: Watched) -> None:
        if watched.health is not Health.GONE:
            self._spawn(watched, self._kill_later(watched))

    async def _kill_later(self, watched: Watched) -> None:
        await asyncio.sleep(self._shutdown_grace)
        self._signal(watched, signal.SIGKILL)

    def _signal(self, watched: Watched, number: signal.Signals) -> None:
        # Under the lock: a closed descriptor's number may be another process's.
        with self._lock:
            if watched.pidfd >= 0:
                process.send(watched.pidfd, number)

    def _close(self, watched: Watched) -> None:
        with self._lock:
            if watched.pidfd >= 0:
                os.close(watched.pidfd)
                watched.pidfd = -1

    def _ended(self, watched: Watched) -> None:
        self._loop.remove_reader(watched.pidfd)
        for task in watched.tasks:
            task.cancel()
        if watched.popen is not None:
            code = watched.popen.wait()
            if watched.reason is None:
                watched.reason = _exit_reason(code)
        elif watched.reason is None:
            watched.reason = "the worker ended"
        self._close(watched)
        watched.health = Health.GONE
        self._notify(watched.pool_id)

    async def _follow(self, watched: Watched) -> None:
        """Wait until the worker is up, then ask it now and then."""
        if not await self._answers(watched.entry, self._startup_timeout):
            self._kill(watched, f"did not answer within {self._startup_timeout:g} s of its start")
            return
        watched.health = Health.READY
        self._notify(watched.pool_id)
        misses = 0
        while misses < _PROBE_MISSES:
            await asyncio.sleep(self._probe_interval)
            misses = 0 if await self._answers(watched.entry, _PROBE_TIMEOUT) else misses + 1
        self._kill(watched, f"did not answer {_PROBE_MISSES} times in a row")

    def _kill(self, watched: Watched, reason: str) -> None:
        if not watched.retiring:
            watched.reason = reason
            LOG.warning("Worker %s %s; it is killed.", watched.entry.id, reason)
            self._signal(watched, signal.SIGKILL)

    async def _answers(self, entry: WorkerEntry, timeout: float) -> bool:
        """Whether the worker says in time that it is ready and who we think it is."""
        try:
            async with asyncio.timeout(timeout):
                answer = await _get_health(entry.port)
        except (OSError, ValueError, EOFError):  # TimeoutError is an OSError
            return False
        return answer.get("worker_id") == entry.id and answer.get("status") == "ready"


async def _get_health(port: int) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_MAX_ANSWER)
    try:
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        await writer.drain()
        answer = await reader.read(_MAX_ANSWER)
        while more := await reader.read(_MAX_ANSWER):
            answer += more
            if len(answer) > _MAX_ANSWER:
                raise ValueError("too long an answer")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise ValueError("not well")
    parsed = json.loads(body)
    if not isinstance(parsed, dict):
        raise ValueError("not an object")
    return parsed


def _exit_reason(code: int) -> str:
    if code < 0:
        try:
            return f"the worker was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"the worker was ended by signal {-code}"
    return f"the worker exited with code {code}"
