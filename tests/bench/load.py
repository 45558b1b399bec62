"""How busy others keep the machine meanwhile: it explains a bad figure, and tells a good moment."""

import contextlib
import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class Others:
    """What processes that are none of the benchmark's do from now on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = _others()

    def seconds(self) -> float:
        """How long this has been watched."""
        return time.monotonic() - self._began

    def share(self) -> float:
        """What they have had of all processors, from 0 to 1."""
        spent = _others() - self._before
        return max(0.0, spent / (self.seconds() * (os.cpu_count() or 1)))


def _others() -> float:
    """Processor seconds of the whole machine since its start, but for those of our own."""
    # proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
    spent = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(spent) - spent[3] - spent[4] - _ours()) / _TICKS


def _ours() -> int:
    """Ticks of this process, its descendants and those of them that have ended."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            # proc_pid_stat(5), from the third field on; the name before may hold anything.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pid = int(entry.name)
            ticks[pid] = sum(int(field) for field in fields[11:15])
            children.setdefault(int(fields[1]), []).append(pid)
    found, waiting = 0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        found += ticks.get(pid, 0)
        waiting += children.get(pid, [])
    return found
