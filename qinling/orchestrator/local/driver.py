"""Decides what to start and what to end, one pool at a time.

A pool's file is read, the workers in it are looked up in the watch, the
difference is applied and the file is written, all under the pool's lock. So
any number of engines of one host can do it, and an engine that is killed
anywhere in between leaves a file from which the next one goes on.
"""

import contextlib
import os
import time
import uuid

from oslo_config import cfg
from oslo_log import log

from qinling import exceptions
from qinling.orchestrator import base
from qinling.orchestrator.local import images, process, state
from qinling.orchestrator.local.watch import Health, Watch

LOG = log.getLogger(__name__)

# A worker that ends by itself before this age (seconds) counts as a failure;
# as many failures in a row say that the pool will not come up as it is.
_USEFUL_AGE = 10.0
_FAILURES = 3
# After so many failures the next start waits, twice as long each time (seconds).
_BACKOFF = 0.5
_MAX_BACKOFF = 60.0
# How much of a worker's log goes into a reason (bytes read, characters told).
_LOG_TAIL = 2048
_REASON_LINE = 200


class LocalOrchestrator:
    """Implements ``base.Orchestrator`` with processes of this host.

    :param bound: the workers must not outlive this process.
    """

    one_host = True

    def __init__(self, conf: cfg.ConfigOpts, bound: bool = False) -> None:
        self._options = conf.local
        self._bound = bound
        self._images = images.Images(conf.local.images)
        self._state = state.StateDir(conf.local.state_dir)
        self._uid_base: int | None = None
        # Held open for as long as a bound worker may live.
        self._lifelines: dict[str, process.Started] = {}

    def start(self, notify: base.Notify) -> None:
        self._state.prepare()
        self._choose_isolation()
        self._notify = notify
        self._watch = Watch(
            notify,
            self._options.startup_timeout,
            self._options.shutdown_grace,
            self._options.probe_interval,
        )

    def stop(self) -> None:
        if self._bound:
            for pool_id in self._state.ids():
                self._end_all(pool_id)
        self._watch.stop()
        for started in self._lifelines.values():
            started.abandon()
        self._lifelines.clear()

    def apply(self, spec: base.PoolSpec) -> base.PoolState:
        with self._state.locked(spec.id):
            pool = self._state.load(spec.id) or state.Pool(spec.id)
            if pool.revision > spec.revision:
                raise exceptions.StaleRevision(
                    f"Pool {spec.id} is at revision {pool.revision}, not {spec.revision}.",
                    revision=pool.revision,
                )
            changed = self._bury(pool)
            if (pool.revision, pool.image, pool.size) != (spec.revision, spec.image, spec.size):
                if pool.image != spec.image:
                    pool.failures, pool.failed_at, pool.reason = 0, 0.0, None
                pool.revision, pool.image, pool.size = spec.revision, spec.image, spec.size
                changed = True
            return self._settle(pool, changed)

    def remove(self, pool_id: str, revision: int | None) -> bool:
        with self._state.locked(pool_id):
            pool = self._state.load(pool_id)
            if pool is None:
                self._state.delete(pool_id)
                return True
            if revision is not None and pool.revision > revision:
                raise exceptions.StaleRevision(
                    f"Pool {pool_id} is at revision {pool.revision}, not {revision}.",
                    revision=pool.revision,
                )
            if revision is not None and pool.revision < revision:
                # From here on nobody with an older revision in hand can refill it.
                pool.revision, pool.size = revision, 0
                self._state.save(pool)
            self._bury(pool)
            for entry in pool.workers:
                self._watch.track(pool_id, entry)
                self._watch.retire(entry)
            if pool.workers:
                return False
            self._state.delete(pool_id)
            return True

    def pools(self) -> list[str]:
        return self._state.ids()

    def _choose_isolation(self) -> None:
        """One user id per worker where this process may give them away."""
        if os.geteuid() != 0:
            LOG.warning("Workers share this engine's user id: run functions of one tenant only.")
        elif process.runs_as_other(images.PYTHON_WORKER, self._options.uid_base):
            self._uid_base = self._options.uid_base
        else:
            LOG.warning(
                "Workers run as root: %s, or this package, cannot be read by other users. Install "
                "both where everybody may read them, so that each worker gets a user id of its "
                "own. Run functions of one tenant only.",
                images.PYTHON_WORKER[0],
            )

    def _bury(self, pool: state.Pool) -> bool:
        """Drop the workers that have ended, and count those that failed."""
        gone = set()
        for entry in pool.workers:
            if self._watch.track(pool.id, entry) is not Health.GONE:
                continue
            reason = self._watch.forget(entry.id)
            gone.add(entry.id)
            now = time.time()
            if reason is not None and not entry.retiring and now - entry.born < _USEFUL_AGE:
                pool.failures += 1
                pool.failed_at = now
                pool.reason = reason + self._last_words(entry.id)
            self._state.log(entry.id).unlink(missing_ok=True)
            if started := self._lifelines.pop(entry.id, None):
                started.abandon()
        pool.drop(gone)
        return bool(gone)

    def _settle(self, pool: state.Pool, changed: bool) -> base.PoolState:
        """Start what is missing, end what is too many, and tell how it stands."""
        command = self._images.command(pool.image)
        if command is None:
            pool.reason = f"image {pool.image} is not on this host: [local] images has no such name"
            pool.failures = _FAILURES
        health = {entry.id: self._watch.track(pool.id, entry) for entry in pool.workers}
        current = [e for e in pool.workers if e.image == pool.image and not e.retiring]
        ready = [entry for entry in current if health[entry.id] is Health.READY]
        if len(ready) >= pool.size and pool.failures:
            pool.failures, pool.reason, changed = 0, None, True
        # An image comes to this host with a new configuration, and so a new process.
        wait = _MAX_BACKOFF if command is None else self._backoff(pool)
        missing = pool.size - len(current) if wait == 0 else 0
        # The old ones go only when the new ones are up, and never before them.
        surplus = current[pool.size :]
        old = [e for e in pool.workers if e.image != pool.image and not e.retiring]
        if len(ready) >= pool.size:
            surplus = surplus + old
        retired = [pool.retire(entry) for entry in surplus]
        if changed or retired or missing > 0:
            self._start(pool, command or (), max(missing, 0))
        for entry in pool.workers:
            if entry.retiring:
                self._watch.retire(entry)
        whole = len(ready) >= pool.size
        return base.PoolState(
            total=pool.size,
            available=min(len(ready), pool.size),
            ready=whole and len(pool.workers) == len(current) - len(surplus),
            failed=pool.failures >= _FAILURES and not whole,
            reason=None if whole else pool.reason,
            retry_in=wait if wait > 0 else None,
        )

    def _backoff(self, pool: state.Pool) -> float:
        """Seconds until the next start is due; 0 for now."""
        if pool.failures < _FAILURES:
            return 0.0
        pause = min(_BACKOFF * 2.0 ** (pool.failures - _FAILURES), _MAX_BACKOFF)
        return max(0.0, min(pool.failed_at + pause - time.time(), pause))

    def _start(self, pool: state.Pool, command: tuple[str, ...], missing: int) -> None:
        """Start workers and save the pool; either all of it stands or none."""
        fresh: list[process.Started] = []
        try:
            for _ in range(missing):
                worker_id = str(uuid.uuid4())
                try:
                    started = process.start(
                        worker_id, pool.image, command, self._state.log(worker_id), self._uid_base
                    )
                except exceptions.OrchestratorError as error:
                    self._state.log(worker_id).unlink(missing_ok=True)
                    pool.failures = max(pool.failures + 1, _FAILURES)
                    pool.failed_at = time.time()
                    pool.reason = str(error)
                    break
                fresh.append(started)
                pool.workers.append(started.entry)
            self._state.save(pool)
        except BaseException:
            for started in fresh:
                started.abandon()
                started.popen.kill()
                started.popen.wait()
                self._state.log(started.entry.id).unlink(missing_ok=True)
            raise
        for started in fresh:
            if self._bound:
                self._lifelines[started.entry.id] = started
            else:
                started.release()
            self._watch.track(pool.id, started.entry, started.popen)

    def _last_words(self, worker_id: str) -> str:
        """The last line of a worker's log, as a tail for a reason."""
        with contextlib.suppress(OSError), open(self._state.log(worker_id), "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LOG_TAIL))
            lines = file.read().decode(errors="replace").strip().splitlines()
            if lines:
                printable = "".join(c if c.isprintable() else "?" for c in lines[-1])
                return f": {printable[-_REASON_LINE:]}"
        return ""

    def _end_all(self, pool_id: str) -> None:
        with contextlib.suppress(exceptions.OrchestratorError):
            pool = self._state.load(pool_id)
            for entry in pool.workers if pool is not None else []:
                self._watch.track(pool_id, entry)
                self._watch.retire(entry)
