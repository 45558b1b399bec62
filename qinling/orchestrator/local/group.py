"""All processes of one worker.

A worker leads a session, whose number is its leader's pid, and what it starts
is in that session unless it leaves it, as what daemonises does. A wrapper around a
server has ended when the server has, so a worker is gone when none of its
processes lives.

Numbers of sessions are used again, as pids are, and a wrong guess would end a
stranger. Each process is therefore held by a pidfd before it is looked at, and
signalled through it, never by a number. It belongs to the worker if it bears
the worker's mark: the user id that this worker alone has, which nothing takes
off, or, where workers have none of their own, the worker's id in its environment,
which only the worker's descendants inherit. It belongs to it as well if its session has
the right number *and* the leader is still there, that is, the number still has
the leader's start time. It may have ended, as long as nobody has waited for it;
its engine does that last. Until then the kernel gives the number to nobody else.
"""

import contextlib
import os
import pathlib
import signal
import subprocess

from qinling import impersonation
from qinling.orchestrator.local import process
from qinling.orchestrator.local.state import WorkerEntry


def members(entry: WorkerEntry) -> list[int]:
    """Descriptors of the living processes of a worker's session, to be closed by the caller."""
    return list(_held(entry))


def strays(entry: WorkerEntry) -> list[int]:
    """The same, of those that bear its mark and have left its session."""
    return list(_held(entry, inside=False, outside=True))


def everybody(entry: WorkerEntry) -> list[int]:
    """The same, of both."""
    return list(_held(entry, outside=True))


def terminate(entry: WorkerEntry) -> None:
    """Tell it to end: its server and what wraps that, which are its process group.

    What runs functions is in a group of its own, and the server's to end.
    """
    for descriptor, pid in _held(entry).items():
        if _group(pid) == entry.pid:
            process.send(descriptor, signal.SIGTERM)
        os.close(descriptor)


def kill(entry: WorkerEntry) -> None:
    """End all of it at once."""
    if entry.uid is not None and entry.boot == process.BOOT_ID:
        # In the kernel, in one go, so that nobody who forks meanwhile gets away. The shell spares
        # itself.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            impersonation.run_as(entry.uid, "/bin/sh", "-c", "kill -KILL -1")
    for descriptor in everybody(entry):
        process.send(descriptor, signal.SIGKILL)
        os.close(descriptor)


def _held(entry: WorkerEntry, *, inside: bool = True, outside: bool = False) -> dict[int, int]:
    """Descriptors, and the pids that they hold: of who is inside its session, outside, or both."""
    if entry.boot != process.BOOT_ID:
        return {}
    names = (folder.name for folder in pathlib.Path("/proc").iterdir())
    pids = (int(name) for name in names if name.isdigit())
    held = {_hold(entry, pid, inside, outside): pid for pid in pids}
    return {pidfd: pid for pidfd, pid in held.items() if pidfd is not None}


def _hold(entry: WorkerEntry, pid: int, inside: bool, outside: bool) -> int | None:
    """A descriptor of a process if it lives and is the worker's, else None."""
    if not _may_be(entry, pid, inside, outside):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if (
        _may_be(entry, pid, inside, outside)
        and _is_ours(entry, pid)
        and not process.has_ended(pidfd)
    ):
        return pidfd
    os.close(pidfd)
    return None


def _may_be(entry: WorkerEntry, pid: int, inside: bool, outside: bool) -> bool:
    """Before anything is proved: whether it is in the session, or bears the mark outside of it."""
    try:
        is_inside = os.getsid(pid) == entry.pid
    except ProcessLookupError:
        return False
    return inside if is_inside else outside and _bears_mark(entry, pid)


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _is_ours(entry: WorkerEntry, pid: int) -> bool:
    return process.start_time(entry.pid) == entry.started or _bears_mark(entry, pid)


def _bears_mark(entry: WorkerEntry, pid: int) -> bool:
    folder = pathlib.Path(f"/proc/{pid}")
    try:
        if entry.uid is not None:
            # Not the folder's owner: that is root for who has hidden its memory.
            return _real_uid((folder / "status").read_bytes()) == entry.uid
        mark = f"{process.ID_VARIABLE}={entry.id}".encode()
        return mark in (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _real_uid(status: bytes) -> int:
    """Of a process's status; in it nothing that the process chooses has a line of its own."""
    return int(status.partition(b"\nUid:")[2].split(None, 1)[0])
