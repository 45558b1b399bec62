"""Decides what to start and what to end, one pool at a time.

A pool's file is read, the workers in it are looked up in the watch, the
difference is applied and the file is written, all under the pool's lock. So
any number of engines of one host can do it, and an engine that is killed
anywhere in between leaves a file from which the next one goes on.
"""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace

from oslo_config import cfg
from oslo_log import log

from qinling import exceptions
from qinling.orchestrator import base
from qinling.orchestrator.local import guard, images, process, runs, state
from qinling.orchestrator.local.watch import End, Health, Watch

LOG = log.getLogger(__name__)

# A worker that is up at this age (seconds) has been of use; one that ends by
# itself without having been up, or before this age, is a failed attempt. As many
# of them in a row say that the pool will not come up as it is.
_USEFUL_AGE = 10.0
_FAILURES = 3
# After so many failures the next start waits, twice as long each time (seconds).
_BACKOFF = 0.5
_MAX_BACKOFF = 60.0
_MAX_DOUBLINGS = 7
# Seconds for which a pool that still has free workers leaves a claimed one's place
# empty: the start of another would take the processors from the function's.
_REFILL_PAUSE = 0.25
# How much of a worker's log goes into a reason (bytes read, characters told).
_LOG_TAIL = 2048
_REASON_LINE = 200
# How long a killed process may take to be gone (seconds).
_KILL_TIME = 5.0


class LocalOrchestrator:
    """Implements ``base.Orchestrator`` with processes of this host.

    :param bound: the workers must not outlive this process.
    :param key_digest: of the key that a worker is to take, by its id.
    """

    one_host = True

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        bound: bool = False,
        key_digest: Callable[[str], str] | None = None,
    ) -> None:
        self._options = conf.local
        self._max_processes: int = conf.execution.max_processes
        self._bound = bound
        self._key_digest = key_digest
        # What a worker may have to end: the longest function.
        self._work_grace = conf.resource_limits.max_timeout + conf.local.shutdown_grace
        self._images = images.Images(conf.local.images)
        self._state = state.StateDir(conf.local.state_dir)
        self._uid_base: int | None = None
        self.runs = runs.Runs(
            self._state.runs,
            self._images,
            conf.execution.max_log_size + 1,
            self._max_processes,
            bound,
        )

    def start(self, notify: base.Notify) -> None:
        self._state.prepare()
        self._choose_isolation()
        self.runs.start(self._uid_base)
        self._notify = notify
        self._watch = Watch(
            notify,
            self._options.startup_timeout,
            self._options.shutdown_grace,
            self._options.probe_interval,
        )

    def stop(self) -> None:
        patience = self._options.shutdown_grace + _KILL_TIME
        if self._bound and not self._watch.end_all(patience):
            LOG.warning("Some workers did not end within %g s.", patience)
        self._watch.stop()
        self.runs.let_end()

    def check(self) -> list[str]:
        # The folder is not tried: this may run as another user than the engine.
        return []

    def apply(self, spec: base.PoolSpec) -> base.PoolState:
        with self._state.locked(spec.id):
            pool = self._state.load(spec.id) or state.Pool(spec.id)
            _check_revision(pool, spec.revision)
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
                self._watch.forget_others(pool_id, ())
                return True
            if revision is not None:
                _check_revision(pool, revision)
                if pool.revision < revision:
                    # From here on nobody with an older revision in hand can refill it.
                    pool.revision, pool.size = revision, 0
                    self._state.save(pool)
            self._bury(pool)
            for entry in pool.workers:
                self._watch.retire(pool_id, entry)
            for entry in pool.claimed:
                self._watch.retire(pool_id, entry, self._work_grace)
            if pool.workers or pool.claimed:
                return False
            self._state.delete(pool_id)
            return True

    def claim(self, pool_id: str) -> base.Worker | None:
        with self._state.locked(pool_id):
            pool = self._state.load(pool_id)
            if pool is None:
                return None
            changed = self._bury(pool) | self._retire_strangers(pool)
            free = [
                entry
                for entry in pool.workers
                if self._watch.track(pool_id, entry) is Health.READY
                and self._is_current(pool, entry)
            ]
            if free:
                pool.claim(free[0])
            if free or changed:
                self._state.save(pool)
            if not free:
                return None
            self._watch.tell(pool_id, _REFILL_PAUSE if len(free) > 1 else 0.0)
            return base.Worker(free[0].id, pool_id, f"127.0.0.1:{free[0].port}")

    def claimed(
        self,
        pool_id: str,
        known: Collection[str] = (),  # noqa: ARG002  # the pool's file shows each claim at once
    ) -> dict[str, bool]:
        pool = self._state.load(pool_id)
        if pool is None:
            return {}
        return {
            entry.id: not entry.retiring
            for entry in pool.claimed
            if self._watch.track(pool_id, entry) is not Health.GONE
        }

    def resize(
        self,
        pool_id: str,  # noqa: ARG002
        worker_id: str,  # noqa: ARG002
        *,
        memory: tuple[int, int] | None = None,  # noqa: ARG002
        cpu: int | None = None,  # noqa: ARG002
    ) -> bool:
        # A worker holds its own executions to their memory, and nothing holds it to a processor.
        return True

    def release(self, pool_id: str, worker_id: str) -> bool:
        with self._state.locked(pool_id):
            pool = self._state.load(pool_id)
            if pool is None:
                return True
            changed = self._bury(pool)
            entry = next((each for each in pool.claimed if each.id == worker_id), None)
            if entry is not None and not entry.retiring:
                entry, changed = pool.retire(entry), True
            if changed:
                self._state.save(pool)
            if entry is None:
                return True
            self._watch.retire(pool_id, entry, self._work_grace)
            return False

    def pools(self) -> list[str]:
        ids = self._state.ids()
        # Nobody asks for a pool again that another engine has removed.
        self._watch.forget_other_pools(ids)
        return ids

    def _choose_isolation(self) -> None:
        """One user id per worker where this process may give them away."""
        if os.geteuid() != 0:
            LOG.warning("Workers share this engine's user id: run functions of one tenant only.")
        elif process.runs_as_other(images.PYTHON_WORKER, self._options.uid_base):
            self._uid_base = self._options.uid_base
        else:
            LOG.warning(
                "Workers run as root: %s, or this package, cannot be read by other users, or %s "
                "not be written to. Install both where everybody may read them, so that each "
                "worker gets a user id of its own. Run functions of one tenant only.",
                images.PYTHON_WORKER[0],
                tempfile.gettempdir(),
            )

    def _is_current(self, pool: state.Pool, entry: state.WorkerEntry) -> bool:
        return entry.image == pool.image and self._takes_key(entry) and not entry.retiring

    def _takes_key(self, entry: state.WorkerEntry) -> bool:
        return self._key_digest is None or entry.key_digest == self._key_digest(entry.id)

    def _retire_strangers(self, pool: state.Pool) -> bool:
        """End those that take no key of ours, or anybody's: others are started when they are gone.

        Whoever had another secret has started them.
        """
        strangers = [e for e in pool.workers if not e.retiring and not self._takes_key(e)]
        for entry in strangers:
            self._watch.retire(pool.id, pool.retire(entry))
        return bool(strangers)

    def _bury(self, pool: state.Pool) -> bool:
        """Drop the workers that have ended, and count those that failed."""
        known = (*pool.workers, *pool.claimed)
        self._watch.forget_others(pool.id, {entry.id for entry in known})
        gone = set()
        for entry in known:
            if self._watch.track(pool.id, entry) is not Health.GONE:
                continue
            end = self._watch.forget(pool.id, entry.id)
            gone.add(entry.id)
            if end is not None and not entry.retiring and entry in pool.workers:
                self._judge(pool, entry, end)
            self._state.log(entry.id).unlink(missing_ok=True)
        pool.drop(gone)
        return bool(gone)

    def _judge(self, pool: state.Pool, entry: state.WorkerEntry, end: End) -> None:
        """Count how a worker ended that nobody had told to."""
        now = time.time()
        if end.came_up and now - entry.born >= _USEFUL_AGE:
            pool.count_use(entry)
        else:
            pool.count_failure(entry, end.reason + self._last_words(entry.id), now)

    def _settle(self, pool: state.Pool, changed: bool) -> base.PoolState:
        """Start what is missing, end what is too many, and tell how it stands."""
        command = self._images.command(pool.image)
        health = {entry.id: self._watch.track(pool.id, entry) for entry in pool.workers}
        current = [e for e in pool.workers if self._is_current(pool, e)]
        ready = [entry for entry in current if health[entry.id] is Health.READY]
        for entry in ready:
            if time.time() - entry.born >= _USEFUL_AGE:
                changed |= pool.count_use(entry)
        whole = len(ready) >= pool.size
        # The old ones go only when the new ones are up, and never before them.
        old = [e for e in pool.workers if e not in current and not e.retiring]
        surplus = current[pool.size :] + (old if whole else [])
        retired = [pool.retire(entry) for entry in surplus]
        missing = max(pool.size - len(current), 0)
        due = 0 if self._backoff(pool, command) else missing
        if changed or retired or due:
            missing -= self._start(pool, command or (), due)
        for entry in pool.workers:
            if entry.retiring:
                self._watch.retire(pool.id, entry)
        reason = pool.reason
        if command is None:
            reason = f"image {pool.image} is not on this host: [local] images has no such name"
        return base.PoolState(
            total=pool.size,
            available=min(len(ready), pool.size),
            ready=whole and len(pool.workers) == len(current[: pool.size]),
            failed=not whole and (command is None or pool.failures >= _FAILURES),
            reason=None if whole else reason,
            retry_in=(self._backoff(pool, command) or None) if missing else None,
        )

    def _backoff(self, pool: state.Pool, command: tuple[str, ...] | None) -> float:
        """Seconds until the next start is due; 0 for now."""
        if command is None:
            # An image comes to this host with a new configuration, and so a new process.
            return _MAX_BACKOFF
        if pool.failures < _FAILURES:
            return 0.0
        doublings = min(pool.failures - _FAILURES, _MAX_DOUBLINGS)
        pause = min(_BACKOFF * 2.0**doublings, _MAX_BACKOFF)
        return max(0.0, min(pool.failed_at + pause - time.time(), pause))

    def _start(self, pool: state.Pool, command: tuple[str, ...], due: int) -> int:
        """Start workers and save the pool, either all of it or none; how many were started."""
        fresh: list[process.Started] = []
        users = self._users() if due else None
        try:
            for _ in range(due):
                worker_id = str(uuid.uuid4())
                try:
                    started = process.start(
                        worker_id,
                        pool.image,
                        command,
                        self._state.log(worker_id),
                        users,
                        self._guarded(command),
                        self._key_digest(worker_id) if self._key_digest else None,
                    )
                except exceptions.OrchestratorError as error:
                    self._state.log(worker_id).unlink(missing_ok=True)
                    pool.failures = max(pool.failures + 1, _FAILURES)
                    pool.failed_at = time.time()
                    pool.reason = str(error)
                    break
                fresh.append(started)
                pool.workers.append(replace(started.entry, attempt=pool.failures))
            self._state.save(pool)
        except BaseException:
            for started in fresh:
                started.kill()
                self._state.log(started.entry.id).unlink(missing_ok=True)
            raise
        for started in fresh:
            if not self._bound:
                started.release()
            self._watch.track(pool.id, started.entry, started)
        return len(fresh)

    def _users(self) -> process.Users | None:
        """Whom the next workers may be; None where they are who this engine is."""
        if self._uid_base is None:
            return None
        return process.Users(self._uid_base, self._state.uids(), self._max_processes)

    def _guarded(self, command: tuple[str, ...]) -> str | None:
        """How a command is tied to this engine that does not tie itself."""
        if command == images.PYTHON_WORKER:
            return None
        return guard.BOUND if self._bound else guard.RELEASED

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


def _check_revision(pool: state.Pool, revision: int) -> None:
    if pool.revision > revision:
        raise exceptions.StaleRevision(
            f"Pool {pool.id} is at revision {pool.revision}, not {revision}.",
            revision=pool.revision,
        )
