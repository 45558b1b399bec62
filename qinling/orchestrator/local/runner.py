"""Runs one image that is a function, to its end: a program of its own beside the engine.

``python -I -S …/runner.py FOLDER`` with what to run on its standard input, as JSON:
``command``, ``memory`` (bytes), ``processes``, ``lifetime`` (seconds), ``log`` (bytes of it that
are kept), ``uid_base`` (null, or a number: the command runs as this user, plus a port that is held
as long, so that nobody else has the same), and ``bound``: a descriptor whose end of file means
that the engine is gone and nothing may outlive it, or null.

Into the folder it writes ``begun.json``, ``log`` and at last ``end.json``. So whoever asks finds
how it ended, whatever has become of the engine that began it. A SIGTERM ends the run.
"""

import contextlib
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

# Found from where the package is, for these imports alone.
sys.path.insert(0, str(pathlib.Path(__file__).parents[3]))
from qinling import impersonation
from qinling.worker import processes
from qinling.worker.held import Held

del sys.path[0]

# Seconds between two looks at what the run uses.
_LOOK = 0.05
_PIECE = 65536
# Open files: the contract's number.
_FILES = 1024
# Bytes that it may map beyond its memory: a fence before what is looked at every now and then.
_BEYOND = 256 * 1024**2


def main(folder: pathlib.Path) -> None:
    said = sys.stdin.buffer.read()
    if not said:
        # The engine ended before it had said what to run.
        return
    spec = json.loads(said)
    stopped, stop = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(stop, b"."))
    processes.adopt_orphans()
    with contextlib.ExitStack() as held:
        uid = None
        if spec["uid_base"] is not None:
            listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            uid = spec["uid_base"] + listener.getsockname()[1]
        files = held.enter_context(_folder(uid))
        log = _Log(held.enter_context(open(folder / "log", "wb", buffering=0)), spec["log"])
        began = time.monotonic()
        _write(folder / "begun.json", {"pid": os.getpid(), "at": boot_time()})
        try:
            child = _start(spec, uid, files)
        except OSError as error:
            end: dict[str, Any] = {
                "code": None,
                "reason": f"its program cannot be started: {error.strerror}",
            }
        else:
            end = _follow(child, spec, stopped, log)
            child.wait()
        end["duration"] = time.monotonic() - began
    # It may have been removed meanwhile.
    with contextlib.suppress(FileNotFoundError):
        _write(folder / "end.json", end)


def boot_time() -> float:
    """Seconds since the host's start: nobody sets this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Log:
    """The beginning of what is printed, in a file, as it comes.

    :param room: bytes that are kept.
    """

    def __init__(self, file: BinaryIO, room: int) -> None:
        self._file = file
        self._room = room

    def add(self, output: bytes) -> None:
        self._room -= self._file.write(output[: self._room])


@contextlib.contextmanager
def _folder(uid: int | None) -> Iterator[str]:
    """A folder for the run's temporary files."""
    folder = tempfile.mkdtemp(prefix="qinling-")
    try:
        yield impersonation.make_inner(folder, uid)
    finally:
        try:
            impersonation.remove(folder, uid)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"The temporary files of a run, {folder}, are left: {error}", file=sys.stderr)


def _start(spec: dict[str, Any], uid: int | None, files: str) -> subprocess.Popen[bytes]:
    limits = [f"--nofile={_FILES}", "--core=0", f"--data={spec['memory'] + _BEYOND}"]
    if uid is not None:
        limits.append(f"--nproc={spec['processes']}")
    # prlimit(1) has the run's user id by then.
    words = ["prlimit", *limits, "--", *spec["command"]]
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={"PATH": os.defpath, "LANG": "C.UTF-8", "TMPDIR": files},
        start_new_session=True,
        user=uid,
        group=uid,
        extra_groups=None if uid is None else [],
    )


def _follow(
    child: subprocess.Popen[bytes], spec: dict[str, Any], stopped: int, log: _Log
) -> dict[str, Any]:
    """Read what it prints, until it has ended or has to; how it ended."""
    assert child.stdout is not None
    output = child.stdout.fileno()
    os.set_blocking(output, False)
    ended = os.pidfd_open(child.pid)
    bound = -1 if spec["bound"] is None else int(spec["bound"])
    poll = select.poll()
    for descriptor in (output, ended, stopped, *([bound] if bound >= 0 else [])):
        poll.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + spec["lifetime"]
    end: dict[str, Any] = {}
    files = Held()
    while not end:
        ready = {descriptor for descriptor, _ in poll.poll(_LOOK * 1000)}
        if output in ready and not _read(output, log):
            poll.unregister(output)
        if ended in ready:
            break
        if stopped in ready:
            end = {"code": None, "reason": "it was stopped"}
        elif bound in ready:
            end = {"code": None, "reason": "the engine that ran it has ended"}
        elif time.monotonic() > deadline:
            end = {"code": None, "reason": "nobody has ended it in time"}
        elif _exceeds(spec, files):
            end = {"code": 128 + signal.SIGKILL, "exhausted": True}
    processes.kill_below(os.getpid())
    code = child.wait()
    while _read(output, log):
        pass
    # As shells and containers tell it.
    code = 128 - code if code < 0 else code
    return end or {"code": code, "exhausted": code == 128 + signal.SIGKILL}


def _read(output: int, log: _Log) -> bool:
    """Take what was printed; False when there is no more, for now or for good."""
    try:
        piece = os.read(output, _PIECE)
    except BlockingIOError:
        return False
    log.add(piece)
    return bool(piece)


def _exceeds(spec: dict[str, Any], files: Held) -> bool:
    """Whether it has more processes or memory than it may."""
    most: int = spec["memory"]
    below = processes.tree(os.getpid(), spec["processes"] + 2)[1:]
    return len(below) > spec["processes"] or (
        processes.memory(below, files.look(below), most) > most
    )


def _write(path: pathlib.Path, content: dict[str, Any]) -> None:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content))
    draft.rename(path)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
