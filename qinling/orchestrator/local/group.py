"""All processes of one worker.

A worker leads a process group, whose number is its leader's pid, and what it
starts is in that group unless it leaves it. A wrapper around a server has ended
when the server has, so a worker is gone when nobody of its group lives.

Numbers of groups are used again, as pids are, and a wrong guess would end a
stranger. Each process is therefore held by a pidfd before it is looked at, and
signalled through it, never by a number. It belongs to the worker if its group
has the right number *and* one of these is true afterwards:

* The leader is still there, that is, the number still has the leader's start
  time. It may have ended, as long as nobody has waited for it; its engine does
  that last. Until then the kernel gives the number to nobody else.
* The number is nobody's pid any more and the process bears the worker's mark:
  the user id that this worker alone has, or, where workers have none of their
  own, the worker's id in its environment, which only the worker's descendants
  inherit.

If the number is another process's pid, our group is empty: the kernel does not
give out a pid that is a living group's number.
"""

import os
import pathlib

from qinling.orchestrator.local import process
from qinling.orchestrator.local.state import WorkerEntry


def members(entry: WorkerEntry) -> list[int]:
    """Descriptors of the living processes of a worker's group, to be closed by the caller."""
    if entry.boot != process.BOOT_ID or not _has_members(entry.pid):
        return []
    names = (folder.name for folder in pathlib.Path("/proc").iterdir())
    held = (_hold(entry, int(name)) for name in names if name.isdigit())
    return [pidfd for pidfd in held if pidfd is not None]


def _has_members(number: int) -> bool:
    """Whether there is such a group, ours or not: mostly there is not, and no need to look."""
    try:
        os.killpg(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _hold(entry: WorkerEntry, pid: int) -> int | None:
    """A descriptor of a process if it lives and is the worker's, else None."""
    if not _is_in(pid, entry.pid):
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if _is_in(pid, entry.pid) and _is_ours(entry, pid) and not process.has_ended(pidfd):
        return pidfd
    os.close(pidfd)
    return None


def _is_in(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def _is_ours(entry: WorkerEntry, pid: int) -> bool:
    leader = process.start_time(entry.pid)
    return _bears_mark(entry, pid) if leader is None else leader == entry.started


def _bears_mark(entry: WorkerEntry, pid: int) -> bool:
    folder = pathlib.Path(f"/proc/{pid}")
    try:
        if entry.uid is not None:
            return folder.stat().st_uid == entry.uid
        mark = f"{process.ID_VARIABLE}={entry.id}".encode()
        return mark in (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
