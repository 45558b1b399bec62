"""The processes below one process: who they are, what memory they hold, and their end.

For the supervisor, which judges and ends a slot with all that it has started,
and for zygotes, which end theirs when the supervisor is gone.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Set

_PAGE = os.sysconf("SC_PAGE_SIZE")

#: Bytes that are read of a list of children: more than any worker has.
_PIDS = 4096

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


def hide_memory() -> None:
    """Let nobody of the same user read this process's memory and environment."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Be the parent of descendants whose own parent has ended: none gets out of the tree."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def gain_nothing() -> None:
    """No program that is run from here gets a user's rights by being set-user-id."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def children(pid: int) -> list[int]:
    """Those of a process, ended ones that nobody has waited for included."""
    found: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for task in tasks:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
            found += map(int, file.read().split())
    return found


def open_children(pid: int) -> int:
    """A descriptor from which ``read_children`` reads those of a process that has one thread.

    Of this process as well: what it adopts is its first thread's.
    """
    return os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY)


def read_children(opened: int) -> bytes:
    """Their pids, with blanks between them; what has ended has none."""
    try:
        return os.pread(opened, _PIDS, 0)
    except ProcessLookupError:
        return b""


def tree(pid: int, most: int) -> list[int]:
    """A process and all below it, parents first; so many at most."""
    found = [pid]
    for each in found:
        if len(found) >= most:
            break
        found += children(each)
    return found[:most]


def kill_below(pid: int, spared: Set[int] = frozenset()) -> None:
    """End all below a process, which should not start more meanwhile.

    :param spared: children that live on, with all below them.

    Each is stopped before its children are looked for: one that forks as
    quickly as it can would have others by then, and leaves no processor to this
    one. As a signal takes a moment to arrive, the walk is made again until it
    finds nobody new. Children are ended before their parents: should this process
    be ended meanwhile, whoever ends it finds them still.
    """
    stopped: dict[int, None] = {}
    size = -1
    while size != len(stopped):
        size = len(stopped)
        found = [each for each in children(pid) if each not in spared]
        for each in found:
            if each not in stopped:
                _send(each, signal.SIGSTOP)
                stopped[each] = None
            found += children(each)
    for each in reversed(stopped):
        _send(each, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """End a process and all below it."""
    _send(pid, signal.SIGSTOP)
    kill_below(pid)
    _send(pid, signal.SIGKILL)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def resident(pid: int) -> int:
    """Bytes of memory that a process maps, those that it shares in full."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> tuple[int, int]:
    """The same, what is shared divided by the number of those who do (PSS); and that of files.

    The second: how much of it is in files that are memory. All in full, and nothing in files,
    where it may not be asked, as of a process that has hidden its memory.
    """
    found = {}
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss"):
                    name, size, _ = line.split()
                    found[name] = int(size) * 1024
    except OSError:
        pass
    return found.get(b"Pss:", 0) or resident(pid), found.get(b"Pss_Shmem:", 0)


def memory(pids: list[int], held: int, enough: int) -> int:
    """Bytes that processes hold together; exact only as to whether that is more than ``enough``.

    PSS costs the kernel a walk through all pages, so the cheap bound is asked first.

    :param held: bytes of files in memory, which may be mapped as well.
    """
    total = held + sum(map(resident, pids))
    if total > enough:
        total = mapped = 0
        for pid in pids:
            size, of_files = proportional(pid)
            total += size
            mapped += of_files
            if total > enough:
                return total
        total += max(held - mapped, 0)
    return total


def threads(pid: int) -> int:
    """0 when there is no such process."""
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


def open_threads(pid: int) -> int:
    """A descriptor for ``count_threads``, which costs a fifth of what ``threads`` does."""
    return os.open(f"/proc/{pid}/task", os.O_RDONLY | os.O_DIRECTORY)


def count_threads(opened: int) -> int:
    """0 when it has ended."""
    return os.fstat(opened).st_nlink - 2
