"""Runs of images that are functions: one bare pod for each execution, named by its id.

The name is the guard: two engines, or one that asks twice, get the same pod, and
it is there until somebody has written down how it ended. A watch tells how far
each pod is.
"""

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qinling import exceptions
from qinling.orchestrator import base
from qinling.orchestrator.kubernetes import manifests, names, observe
from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.kubernetes.seen import Seen
from qinling.orchestrator.kubernetes.watch import Watcher

Object = Mapping[str, Any]

_BAD_REQUEST, _NOT_FOUND, _CONFLICT, _TOO_LARGE, _INVALID = 400, 404, 409, 413, 422
# Of a program that was killed, for want of memory as a rule: 128 and SIGKILL.
_KILLED = 137
# Seconds that a program which has to go gets, after a SIGTERM.
_GRACE = 1


@dataclass(frozen=True, slots=True)
class Run:
    """What matters of such a pod. Times are seconds since 1970, whole ones; 0 for not yet."""

    id: str
    uid: str
    began: float
    ended: float
    ending_since: float
    code: int | None
    exhausted: bool
    reason: str
    has_log: bool


def read(item: Object) -> Run:
    """A run as it came from the API."""
    meta, status = item["metadata"], item.get("status") or {}
    containers = status.get("containerStatuses") or []
    state = observe.named(manifests.RUN_CONTAINER, containers).get("state") or {}
    running, terminated = state.get("running") or {}, state.get("terminated") or {}
    failed = status.get("phase") == "Failed"
    reason = str(status.get("reason") or "") if failed else ""
    code = terminated.get("exitCode")
    if reason:
        # As a whole, and not as its program ended: evicted, over its deadline, lost with its node.
        reason = f"its pod has failed ({reason}): {status.get('message') or 'it is not said why'}"
        code = None
    elif terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        reason = f"its program cannot be started: {terminated.get('message') or code}"
        code = None
    elif not running and not terminated:
        reason = _obstacle(item)
    ended = _time(terminated.get("finishedAt"))
    if failed or terminated:
        ended = ended or time.time()
    return Run(
        id=meta["name"],
        uid=meta["uid"],
        began=_time(running.get("startedAt") or terminated.get("startedAt")),
        ended=ended,
        ending_since=_time(meta.get("deletionTimestamp"))
        - int(meta.get("deletionGracePeriodSeconds") or 0),
        code=code,
        exhausted=terminated.get("reason") == "OOMKilled" or code == _KILLED,
        reason=observe.short(reason),
        # Of an evicted pod it is gone, and what is answered in its place is no log.
        has_log=bool(running or terminated) and status.get("reason") != "Evicted",
    )


def _obstacle(item: Object) -> str:
    """What keeps a pod from running."""
    pod = observe.pod(item, manifests.RUN_CONTAINER)
    match pod.trouble:
        case observe.Trouble.IMAGE:
            return f"image {pod.image} cannot be pulled: {pod.message}"
        case observe.Trouble.NODE:
            return f"no node has room for it: {pod.message}"
        case _:
            return pod.message


def _time(text: str | None) -> float:
    return dt.datetime.fromisoformat(text).timestamp() if text else 0.0


@dataclass(slots=True)
class _Witnessed:
    """When this process saw a pod run, and end: on the monotonic clock, 0 for not."""

    running: float = 0.0
    ended: float = 0.0


class Runs:
    """Implements ``base.Runs``.

    :param path: of the pods. :param guard: makes sure that pods are guarded before one is made.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        templates: manifests.Templates,
        guard: Callable[[], None],
        relist: float,
    ) -> None:
        self._client = client
        self._path = path
        self._templates = templates
        self._guard = guard
        self._lock = threading.Lock()
        self._witnessed: dict[str, _Witnessed] = {}
        self._waiters: dict[str, set[threading.Event]] = {}
        self._seen: Seen[Run] = Seen(read, self._changed, names.execution_of)
        self._watcher = Watcher(client, path, self._seen, lambda: None, relist, selector=names.RUNS)

    def start(self) -> None:
        self._watcher.start()

    def stop(self, timeout: float) -> None:
        self._watcher.stop(timeout)

    def begin(self, spec: base.RunSpec) -> None:
        self._guard()
        try:
            self._seen.put(self._client.create(self._path, self._templates.run(spec)))
        except exceptions.ClusterRefusal as error:
            if error.status in (_BAD_REQUEST, _TOO_LARGE, _INVALID):
                raise exceptions.RunRefused(f"the cluster refuses its pod: {error}") from error
            # A quota that others write to at this moment is told the same way.
            if error.status != _CONFLICT or not self.find(spec.id):
                raise

    def find(self, run_id: str) -> bool:
        try:
            item = self._client.get(self._path_of(run_id))
        except exceptions.ClusterRefusal as error:
            if error.status != _NOT_FOUND:
                raise
            known = self._seen.get(run_id, run_id)
            if known is not None:
                self._seen.forget(run_id, known.uid)
            return False
        if names.execution_of(item) != run_id:
            raise exceptions.ClusterRefusal(
                f"Pod {run_id} does not carry Qinling's labels: somebody else has made it.",
                _CONFLICT,
            )
        self._seen.put(item)
        return True

    def wait(self, run_id: str, seconds: float, *, for_end: bool) -> base.RunState | None:
        deadline = time.monotonic() + seconds
        with self._told(run_id) as told:
            while True:
                told.clear()
                run = self._seen.get(run_id, run_id)
                if run is None:
                    return None
                state = self._state(run)
                reached = state.end is not None or (not for_end and state.running_for is not None)
                left = deadline - time.monotonic()
                if reached or left <= 0:
                    return state
                told.wait(left)

    def log(self, run_id: str, most: int) -> bytes:
        run = self._seen.get(run_id, run_id)
        if run is None or not run.has_log:
            return b""
        try:
            return self._client.content(f"{self._path_of(run_id)}/log", {"limitBytes": str(most)})
        except exceptions.ClusterRefusal as error:
            if error.status not in (_BAD_REQUEST, _NOT_FOUND):
                raise
            return b""

    def remove(self, run_id: str) -> None:
        try:
            self._client.delete(self._path_of(run_id), {"gracePeriodSeconds": _GRACE})
        except exceptions.ClusterRefusal as error:
            if error.status != _NOT_FOUND:
                raise

    def ids(self) -> list[str]:
        trouble = self._watcher.trouble
        if trouble is not None:
            raise type(trouble)(str(trouble))
        return [
            run_id
            for run_id in self._seen.pools()
            if any(not run.ending_since for run in self._seen.of(run_id))
        ]

    def _path_of(self, run_id: str) -> str:
        return f"{self._path}/{run_id}"

    def _changed(self, run_id: str) -> None:
        run, now = self._seen.get(run_id, run_id), time.monotonic()
        with self._lock:
            if run is None:
                self._witnessed.pop(run_id, None)
            else:
                witnessed = self._witnessed.setdefault(run_id, _Witnessed())
                if run.ended:
                    witnessed.ended = witnessed.ended or now
                elif run.began:
                    witnessed.running = witnessed.running or now
            for told in self._waiters.get(run_id, ()):
                told.set()

    @contextlib.contextmanager
    def _told(self, run_id: str) -> Iterator[threading.Event]:
        """An event that is set at each change of a run."""
        told = threading.Event()
        with self._lock:
            self._waiters.setdefault(run_id, set()).add(told)
        try:
            yield told
        finally:
            with self._lock:
                self._waiters[run_id].discard(told)
                if not self._waiters[run_id]:
                    del self._waiters[run_id]

    def _state(self, run: Run) -> base.RunState:
        with self._lock:
            witnessed = self._witnessed.get(run.id, _Witnessed())
            running, ended = witnessed.running, witnessed.ended
        if run.ending_since > 0 and (not run.ended or run.ended > run.ending_since + 1):
            # What it ends with now says nothing of what it would have done.
            end = base.RunEnd(None, _passed(run.began, time.time()), reason="its pod was deleted")
            return base.RunState(end=end)
        if run.ended:
            duration = _passed(run.began, run.ended)
            if running:
                # What was seen is finer than whole seconds, but it may not have been all of it.
                duration = min(max(ended - running, duration - 1), duration + 1)
            return base.RunState(end=base.RunEnd(run.code, duration, run.exhausted, run.reason))
        if not run.began:
            return base.RunState(reason=run.reason)
        # The API tells whole seconds: where nobody saw it begin, it may have done so at their end.
        by_clock = time.time() - run.began - 1
        by_sight = time.monotonic() - running if running else 0.0
        return base.RunState(running_for=max(by_sight, by_clock, 0.0))


def _passed(began: float, ended: float) -> float:
    return max(ended - began, 0.0) if began else 0.0
