"""Worker processes for tests: real ones, none of which outlives its test."""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qinling.orchestrator.local import process
from qinling.orchestrator.local.images import PYTHON_WORKER

SLEEPER = ("/bin/sleep", "600")
#: A shell that runs on beside what it has started; all of it ends at a SIGTERM.
WRAPPER = ("/bin/sh", "-c", "/bin/sleep 600; echo ended")
#: The same, and what it starts bears no mark of the worker.
UNMARKED = ("/bin/sh", "-c", "env -i /bin/sleep 600; echo ended")
#: As WRAPPER, and none of it minds a SIGTERM. Its word is out when that is so.
STUBBORN = ("/bin/sh", "-c", "trap '' TERM; echo stubborn; /bin/sleep 600; echo ended")

Start = Callable[..., process.Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker; whatever becomes of it, it ends with the test."""
    begun: list[process.Started] = []

    def start(
        command: tuple[str, ...] = PYTHON_WORKER,
        uid_base: int | None = None,
        guarded: str | None = None,
    ) -> process.Started:
        worker_id = str(uuid.uuid4())
        log = tmp_path / f"{worker_id}.log"
        begun.append(process.start(worker_id, "python3", command, log, uid_base, guarded))
        return begun[-1]

    yield start
    for started in begun:
        if started.popen.returncode is None:
            started.kill()
    end_all(tmp_path)


def log_of(tmp_path: Path, started: process.Started) -> str:
    return (tmp_path / f"{started.entry.id}.log").read_text()


def pids(folder: Path) -> set[int]:
    """The living processes whose output goes to a log below a folder: all of all workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "fd" / "1").readlink().is_relative_to(folder):
                    found.add(int(entry.name))
    return found


def leaders(folder: Path) -> set[int]:
    """The same, by the groups that they are in: one for each worker."""
    found = set()
    for pid in pids(folder):
        with contextlib.suppress(ProcessLookupError):
            found.add(os.getpgid(pid))
    return found


def end_all(folder: Path) -> None:
    for pid in pids(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def count_files() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))
