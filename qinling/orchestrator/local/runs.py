"""Runs of images that are functions, on this host: a process each, and a folder for what it does.

``runner.py`` runs the operator's command for the image. It holds a lock on a file in
the folder as long as it lives, which no pid that is used again can be mistaken for. So any engine
of this host can follow a run that another one has begun, and read how it ended.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from qinling import exceptions
from qinling.orchestrator import base
from qinling.orchestrator.local import process, state
from qinling.orchestrator.local.images import Images

_RUNNER = (sys.executable, "-I", "-S", str(pathlib.Path(__file__).with_name("runner.py")))
_LOCK = "lock"
# What the name of a folder that is being removed ends with.
_GONE = ".gone"
# User ids of workers: theirs is one for each port.
_WORKERS = 65536
# Seconds between looks for a run that begins, which it does within some tens of milliseconds.
_LOOK = 0.01
# Seconds that a runner gets for its end.
_PATIENCE = 5.0


class Runs:
    """Implements ``base.Runs``.

    :param folder: of the folders of runs. :param most: bytes of a log that are kept.
    :param processes: of a run, threads counted where it has a user of its own.
    :param bound: no run may outlive this process.
    """

    def __init__(
        self, folder: pathlib.Path, images: Images, most: int, processes: int, bound: bool
    ) -> None:
        self._folder = folder
        self._images = images
        self._most = most
        self._processes = processes
        self._uid_base: int | None = None
        # Its other end is closed with this process, however that ends.
        self._lifeline = os.pipe() if bound else None
        self._lock = threading.Lock()
        # The runners that this process has begun, by run: to be waited for when they have ended.
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, uid_base: int | None) -> None:
        """
        :param uid_base: of the users of workers; runs get those behind them, one each, as what is
            left of a worker is ended by its user id. None when there are none to be given away.
        """
        self._uid_base = None if uid_base is None else uid_base + _WORKERS

    def let_end(self) -> None:
        """Have the runs end that may not outlive this process."""
        if self._lifeline is not None:
            os.close(self._lifeline[1])
            self._lifeline = None

    def begin(self, spec: base.RunSpec) -> None:
        command = self._images.program(spec.image)
        if command is None:
            raise exceptions.RunRefused(
                f"image {spec.image} is not on this host: [local] images has no such name"
            )
        program = shutil.which(command[0])
        if program is None:
            raise exceptions.RunRefused(f"cannot run {command[0]}: no such program")
        folder = self._of(spec.id)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return
        said = {
            "command": [program, *command[1:], *spec.arguments],
            "memory": spec.memory,
            "processes": self._processes,
            "lifetime": spec.lifetime,
            "log": self._most,
            "uid_base": self._uid_base,
            "bound": None if self._lifeline is None else self._lifeline[0],
        }
        try:
            self._start(folder, said)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise exceptions.OrchestratorError(
                f"cannot run {command[0]}: {error.strerror or error}"
            ) from error

    def _start(self, folder: pathlib.Path, said: dict[str, Any]) -> None:
        with open(folder / _LOCK, "wb") as lock, open(folder / "trouble", "wb") as trouble:
            fcntl.flock(lock, fcntl.LOCK_EX)
            inherited = [lock.fileno()]
            if self._lifeline is not None:
                inherited.append(self._lifeline[0])
            popen = subprocess.Popen(
                [*_RUNNER, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=trouble,
                pass_fds=inherited,
                cwd="/",
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                start_new_session=True,
            )
        with self._lock:
            ended = [each for each, child in self._children.items() if child.poll() is not None]
            for each in ended:
                del self._children[each]
            self._children[folder.name] = popen
        assert popen.stdin is not None
        with contextlib.suppress(BrokenPipeError), popen.stdin:
            popen.stdin.write(json.dumps(said).encode())

    def find(self, run_id: str) -> bool:
        return self._of(run_id).exists()

    def wait(self, run_id: str, seconds: float, *, for_end: bool) -> base.RunState | None:
        deadline = time.monotonic() + seconds
        while True:
            state = self._state(run_id)
            left = deadline - time.monotonic()
            if state is None or state.end is not None or left <= 0:
                return state
            if state.running_for is None:
                time.sleep(min(_LOOK, left))
            elif not for_end:
                return state
            else:
                with _runner(self._of(run_id)) as runner:
                    if runner is not None:
                        _wait(runner, left)

    def log(self, run_id: str, most: int) -> bytes:
        try:
            with open(self._of(run_id) / "log", "rb") as file:
                return file.read(most)
        except FileNotFoundError:
            return b""

    def remove(self, run_id: str) -> None:
        folder = self._of(run_id)
        gone = folder.with_suffix(_GONE)
        # What has not begun by then cannot any more, as that is noted in the folder first.
        with contextlib.suppress(FileNotFoundError):
            folder.rename(gone)
        _stop(gone)
        shutil.rmtree(gone, ignore_errors=True)
        with self._lock:
            child = self._children.pop(run_id, None)
        if child is not None:
            child.wait(_PATIENCE)

    def ids(self) -> list[str]:
        # Those too whose removal was cut off.
        names = {path.name.removesuffix(_GONE) for path in self._folder.iterdir()}
        return [name for name in names if state.is_id(name)]

    def _of(self, run_id: str) -> pathlib.Path:
        return self._folder / str(uuid.UUID(run_id))

    def _state(self, run_id: str) -> base.RunState | None:
        folder = self._of(run_id)
        if not folder.exists():
            return None
        # Asked first: what has ended since has written how.
        lives = _lives(folder)
        end = _read(folder / "end.json")
        if end is not None:
            return base.RunState(end=base.RunEnd(**end))
        if not lives:
            return base.RunState(end=base.RunEnd(None, 0.0, reason="its process was lost"))
        begun = _read(folder / "begun.json")
        if begun is None:
            return base.RunState()
        return base.RunState(time.clock_gettime(time.CLOCK_BOOTTIME) - begun["at"])


@contextlib.contextmanager
def _runner(folder: pathlib.Path) -> Iterator[int | None]:
    """A descriptor of the process that runs what is in a folder, None when there is none."""
    begun = _read(folder / "begun.json")
    try:
        runner = None if begun is None else os.pidfd_open(begun["pid"])
    except ProcessLookupError:
        runner = None
    if runner is None:
        yield None
        return
    try:
        # Only now is it known that the pid was its own when it was opened.
        yield runner if _lives(folder) else None
    finally:
        os.close(runner)


def _stop(folder: pathlib.Path) -> None:
    with _runner(folder) as runner:
        if runner is not None:
            process.send(runner, signal.SIGTERM)
            if not _wait(runner, _PATIENCE):
                process.send(runner, signal.SIGKILL)


def _lives(folder: pathlib.Path) -> bool:
    """Whether the runner of a folder is there: it holds the lock all its life."""
    try:
        with open(folder / _LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """What a runner has written; it replaces its files in whole."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found


def _wait(pidfd: int, seconds: float) -> bool:
    """Wait for the end of a process; whether it came."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
