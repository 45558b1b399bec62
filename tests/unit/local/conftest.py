"""Worker processes for tests: real ones, none of which outlives its test."""

import contextlib
import json
import os
import shlex
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from oslo_config import cfg

from qinling.orchestrator import base
from qinling.orchestrator.local import driver as module
from qinling.orchestrator.local import process
from qinling.orchestrator.local.driver import LocalOrchestrator
from qinling.orchestrator.local.images import PYTHON_WORKER
from tests.fixtures.process import find_executable, wait_until

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
        users: process.Users | None = None,
        guarded: str | None = None,
    ) -> process.Started:
        worker_id = str(uuid.uuid4())
        log = tmp_path / f"{worker_id}.log"
        begun.append(process.start(worker_id, "python3", command, log, users, guarded))
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
    """The same, by the sessions that they are in: one for each worker."""
    found = set()
    for pid in pids(folder):
        with contextlib.suppress(ProcessLookupError):
            found.add(os.getsid(pid))
    return found


def end_all(folder: Path) -> None:
    for pid in pids(folder):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def count_files() -> int:
    """How many files this process has open."""
    return len(open_files())


def open_files() -> set[tuple[str, str]]:
    """The files that this process has open: their descriptors, and what they are."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        # The one of the listing itself is gone by then.
        with contextlib.suppress(FileNotFoundError):
            found.add((entry.name, str(entry.readlink())))
    return found


NODEJS = Path(__file__).parents[3] / "runtimes" / "nodejs" / "server"
SERVED = shlex.join(PYTHON_WORKER)
IMAGES = {
    "wrapped": f"/bin/sh -c {shlex.quote(f'{SERVED}; echo ended')}",
    "nodejs": f"{find_executable('node')} {NODEJS / 'main.js'}",
    "silent": "/bin/sleep 600",
    "stubborn": "/bin/sh -c \"trap '' TERM; /bin/sleep 600; :\"",
    "crashing": "/bin/sh -c 'echo out of luck; exit 3'",
    "missing": "/nonexistent/server",
}

Make = Callable[..., LocalOrchestrator]


@pytest.fixture
def make(conf: cfg.ConfigOpts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes an orchestrator, all of the same host; no worker outlives the test."""
    made: list[LocalOrchestrator] = []
    begun: list[process.Started] = []

    def start(*arguments: Any) -> process.Started:
        begun.append(process.start(*arguments))
        return begun[-1]

    # The children of an orchestrator that was stopped stay this process's.
    monkeypatch.setattr(module, "process", SimpleNamespace(**vars(process) | {"start": start}))
    conf.set_override("state_dir", str(tmp_path / "state"), group="local")
    images = [f"{name}={command}" for name, command in IMAGES.items()]
    conf.set_override("images", images, group="local")

    def make(
        bound: bool = False, key_digest: Callable[[str], str] | None = None, **options: Any
    ) -> LocalOrchestrator:
        for name, value in options.items():
            conf.set_override(name, value, group="local")
        made.append(LocalOrchestrator(conf, bound, key_digest))
        made[-1].start(lambda _: None)
        return made[-1]

    yield make
    for orchestrator in made:
        if not orchestrator._watch._loop.is_closed():
            orchestrator.stop()
    end_all(tmp_path)
    for started in begun:
        started.popen.wait(20)


def spec(image: str = "python3", size: int = 1, revision: int = 1, **change: Any) -> base.PoolSpec:
    change.setdefault("id", str(uuid.uuid4()))
    return base.PoolSpec(image=image, size=size, trusted=True, revision=revision, **change)


def settle(
    orchestrator: LocalOrchestrator,
    wanted: base.PoolSpec,
    done: Callable[[base.PoolState], bool] = lambda state: state.ready,
) -> base.PoolState:
    """Look at a pool until it is as wanted."""
    seen: list[base.PoolState] = []

    def look() -> bool:
        seen.append(orchestrator.apply(wanted))
        return done(seen[-1])

    wait_until(look, 20, f"pool of {wanted.image}")
    return seen[-1]


def workers(tmp_path: Path, pool_id: str) -> list[dict[str, Any]]:
    """The workers of a pool as its file names them."""
    content = json.loads((tmp_path / "state" / "pools" / f"{pool_id}.json").read_text())
    return list(content["workers"])


def remove(orchestrator: LocalOrchestrator, pool_id: str, revision: int | None = None) -> None:
    wait_until(lambda: orchestrator.remove(pool_id, revision), 20, "the pool's end")
