"""What this host knows of its pools, on disk, so that it outlives the engine.

One JSON file per pool, replaced atomically, and one lock file beside it that
is held around each change. Pool ids are UUIDs that this service has made; any
other name is refused before it can become a path.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

from qinling import exceptions


@dataclass(frozen=True, slots=True)
class WorkerEntry:
    """A worker process. ``started`` is the kernel's start time of the pid, in
    clock ticks since boot, and ``boot`` the host's boot id: together with the
    pid they name one process for ever. ``folder`` has its temporary files. ``uid`` is
    the user id that it alone has, if it has one. ``key_digest``: of the only key that it
    takes. ``attempt``: the pool's ``failures`` when it was started.
    """

    id: str
    image: str
    pid: int
    started: int
    boot: str
    port: int
    born: float  # seconds since the epoch
    folder: str
    uid: int | None = None
    key_digest: str | None = None
    attempt: int = 0
    retiring: bool = False


@dataclass(slots=True)
class Pool:
    """A pool as the last change left it.

    ``failures``: attempts in a row of which no worker came to be of use;
    ``failed_at``: when the last of them failed, in seconds since the epoch.
    """

    id: str
    revision: int = 0
    image: str = ""
    size: int = 0
    failures: int = 0
    failed_at: float = 0.0
    reason: str | None = None
    workers: list[WorkerEntry] = field(default_factory=list)
    # Those that were taken out of the pool for functions.
    claimed: list[WorkerEntry] = field(default_factory=list)

    def claim(self, entry: WorkerEntry) -> None:
        """Take a worker out of the pool for good."""
        self.workers.remove(entry)
        self.claimed.append(entry)

    def retire(self, entry: WorkerEntry) -> WorkerEntry:
        """Mark a worker as one that is to end."""
        retired = replace(entry, retiring=True)
        self.workers = [retired if worker.id == entry.id else worker for worker in self.workers]
        self.claimed = [retired if worker.id == entry.id else worker for worker in self.claimed]
        return retired

    def count_failure(self, entry: WorkerEntry, reason: str, now: float) -> None:
        """A worker ended before it was of use.

        One that was started before the last failure says nothing new: a whole
        pool that dies at once is one failed attempt, and so are some of many.
        """
        if entry.image == self.image:
            self.reason = reason
            if entry.attempt >= self.failures:
                self.failures += 1
                self.failed_at = now

    def count_use(self, entry: WorkerEntry) -> bool:
        """A worker has been of use; whether that ended a row of failures."""
        if not self.failures or entry.attempt < self.failures or entry.image != self.image:
            return False
        self.failures, self.failed_at, self.reason = 0, 0.0, None
        return True

    def drop(self, gone: set[str]) -> None:
        """Forget workers that have ended."""
        self.workers = [worker for worker in self.workers if worker.id not in gone]
        self.claimed = [worker for worker in self.claimed if worker.id not in gone]


class StateDir:
    """The folder ``[local] state_dir``."""

    def __init__(self, path: str) -> None:
        self.path = pathlib.Path(path)
        self.pools = self.path / "pools"
        self.logs = self.path / "logs"
        self.runs = self.path / "runs"

    def prepare(self) -> None:
        """Make the folders and prove that they can be written to.

        :raises StartupError: they cannot.
        """
        try:
            # Nothing here is a worker's business: it gets what it needs as descriptors.
            for folder in (self.path, self.pools, self.logs, self.runs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.pools) as probe:
                probe.write(b"\0" * 4096)
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            raise exceptions.StartupError(
                f"[local] state_dir {self.path}: cannot be written to: {error.strerror}."
            ) from error

    def ids(self) -> list[str]:
        """Ids of all pools that have a file."""
        with _told("read", self.pools):
            return sorted(path.stem for path in self.pools.glob("*.json") if is_id(path.stem))

    def load(self, pool_id: str) -> Pool | None:
        """The pool, or None when there is none."""
        path = self._file(pool_id)
        try:
            with _told("read", path):
                content = json.loads(path.read_text())
            workers, claimed = (
                [WorkerEntry(**entry) for entry in content.pop(name)]
                for name in ("workers", "claimed")
            )
            return Pool(workers=workers, claimed=claimed, **content)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise exceptions.OrchestratorError(
                f"The state of the pool is damaged: {path} ({error}); end the workers that it "
                "names and delete it."
            ) from error

    def save(self, pool: Pool) -> None:
        """Replace the pool's file; it is on the disk when this returns. The lock must be held."""
        path = self._file(pool.id)
        draft = path.with_suffix(".tmp")  # one is enough: the lock is held
        with _told("write", path):
            try:
                with open(draft, "w") as file:
                    json.dump(asdict(pool), file, indent=1)
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(path)
            finally:
                draft.unlink(missing_ok=True)

    def uids(self) -> set[int]:
        """The user ids of all workers that stand in a pool's file."""
        found = set()
        for pool_id in self.ids():
            # Who has damaged a file has that pool's trouble alone.
            with contextlib.suppress(exceptions.OrchestratorError):
                pool = self.load(pool_id)
                workers = [] if pool is None else [*pool.workers, *pool.claimed]
                found |= {entry.uid for entry in workers if entry.uid is not None}
        return found

    def delete(self, pool_id: str) -> None:
        """Forget the pool. The lock must be held."""
        with _told("delete", self._file(pool_id)):
            self._file(pool_id).unlink(missing_ok=True)
            # What an engine left that was killed while it saved.
            self._file(pool_id).with_suffix(".tmp").unlink(missing_ok=True)
            self._file(pool_id).with_suffix(".lock").unlink(missing_ok=True)

    def log(self, worker_id: str) -> pathlib.Path:
        return self.logs / f"{_checked(worker_id)}.log"

    @contextlib.contextmanager
    def locked(self, pool_id: str) -> Iterator[None]:
        """Hold the pool's lock.

        :raises PoolBusy: another process or thread holds it.
        """
        path = self._file(pool_id).with_suffix(".lock")
        while True:
            with contextlib.ExitStack() as held:
                with _told("lock", path):
                    file = held.enter_context(open(path, "a"))
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError as error:
                        raise exceptions.PoolBusy(
                            f"Pool {pool_id} is being worked on by another engine."
                        ) from error
                    current = _is_at(file.fileno(), path)
                if current:
                    yield
                    return
                # Deleted with its pool between the two calls: a new file counts.

    def _file(self, pool_id: str) -> pathlib.Path:
        return self.pools / f"{_checked(pool_id)}.json"


def _checked(name: str) -> str:
    return str(uuid.UUID(name))


def is_id(name: str) -> bool:
    """Whether it is one that this service has made."""
    try:
        return _checked(name) == name
    except ValueError:
        return False


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _told(verb: str, path: pathlib.Path) -> Iterator[None]:
    """Turn what the file system refuses into words for the operator."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise exceptions.OrchestratorError(
            f"The host cannot {verb} the state of pools: [local] state_dir: {path}: "
            f"{error.strerror}"
        ) from error
