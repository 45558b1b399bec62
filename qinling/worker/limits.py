"""The limits that the kernel holds a slot to: the first fence.

The supervisor, which no function can reach, holds the second one: it counts
memory and processes of a slot's whole tree.
"""

import os
import resource
import threading

#: Open files of a function; the contract's number.
FILES = 1024
#: Of a thread that a function starts; the usual 8 MiB each would count as data.
_STACK = 512 * 1024
#: The supervisor comes first: hundreds of processes that fork would let it wait for minutes.
_NICE = 10
#: How many processes and threads the worker's user may have; unset where others have it too.
PROCESSES_VARIABLE = "QINLING_WORKER_MAX_PROCESSES"

_PAGE = os.sysconf("SC_PAGE_SIZE")


def common() -> None:
    """What holds for the import and for slots alike."""
    _lower(resource.RLIMIT_NOFILE, FILES)
    _lower(resource.RLIMIT_CORE, 0)
    threading.stack_size(_STACK)


def step_back() -> None:
    """Before a function's own code runs: let the supervisor have the processor first."""
    os.nice(_NICE)


def limit_processes(*, for_good: bool = False) -> None:
    """Hold the user to its number of processes, which others that it runs count for, too."""
    said = os.environ.get(PROCESSES_VARIABLE)
    if said is not None:
        most = int(said)
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most if for_good else hard))


def free_processes() -> None:
    """Let a zygote fork slots while another slot has brought the user to that number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))


def grow_by(size: int, *, for_good: bool = False) -> None:
    """Let this process's private memory grow by so many bytes from what it has now."""
    with open("/proc/self/statm", "rb") as file:
        # Data and stack, in pages: what RLIMIT_DATA is compared with, but for the stack.
        now = int(file.read().split()[5]) * _PAGE
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = now + size if hard == resource.RLIM_INFINITY else min(now + size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most if for_good else hard))


def _lower(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))
