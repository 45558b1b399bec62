"""Memory that open files are, whether anybody maps it or not.

What is written to a ``memfd``, to a file below ``/dev/shm`` or to one of another
file system in memory that was removed, stays for as long as a descriptor does.
"""

import contextlib
import os
import time

#: How much of the time goes into it: one who has opened thousands of files is asked less often.
_SHARE = 0.05
_BLOCK = 512
_SHARED = "/dev/shm"  # noqa: S108  # nosec B108
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def _file_systems() -> tuple[frozenset[int], frozenset[int]]:
    """Devices of which all files count, and those of which the removed ones do."""
    descriptor = os.memfd_create("")
    whole = {os.fstat(descriptor).st_dev}
    os.close(descriptor)
    others: set[int] = set()
    with open("/proc/self/mountinfo") as file:
        for line in file:
            # Described in proc_pid_mountinfo(5): the device, where it is mounted, and behind a
            # hyphen its kind.
            before, _, after = line.partition(" - ")
            fields = before.split()
            if after.split()[0] in _IN_MEMORY:
                major, _, minor = fields[2].partition(":")
                device = os.makedev(int(major), int(minor))
                (whole if fields[4] == _SHARED else others).add(device)
    return frozenset(whole), frozenset(others)


_WHOLE, _OTHERS = _file_systems()


class Held:
    """What one child and all below it hold so."""

    def __init__(self) -> None:
        self._size = 0
        self._next = 0.0

    def look(self, pids: list[int]) -> int:
        """Bytes; those of a moment ago where it would take too long to ask again."""
        began = time.monotonic()
        if began >= self._next:
            self._size = size(pids)
            took = time.monotonic() - began
            self._next = began + took / _SHARE
        return self._size


def size(pids: list[int]) -> int:
    """Bytes in files that these processes have open; each file once."""
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        # It may have ended, or have hidden itself as what keeps secrets does.
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    each = os.stat(f"/proc/{pid}/fd/{name}")
                    if each.st_dev in _WHOLE or (each.st_dev in _OTHERS and not each.st_nlink):
                        found[each.st_dev, each.st_ino] = each.st_blocks * _BLOCK
    return sum(found.values())
