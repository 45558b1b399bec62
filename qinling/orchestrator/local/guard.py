"""Runs a command that knows no lifeline, and follows the lifeline in its place.

A program of its own, run by ``process.py`` around the command of every image
but the built-in one: ``python -I -S guard.py released|bound PROGRAM ARGUMENT...``
with the lifeline in ``QINLING_WORKER_LIFELINE_FD``. Standard library only, and
little of it, as there is one for each bound worker.

``released``: the worker is to outlive its engine, once it stands in the pool's
file. The guard waits for the lifeline's byte and then *becomes* the command.
Before that the command does not run at all, so there is nothing to leave behind.

``bound``: the worker must not outlive its engine, however that ends. The guard
starts the command, and at the lifeline's end of file it kills its process
group. That group is its own, so it cannot be mistaken for another one.
"""

import os
import select
import signal
import sys

RELEASED = "released"
BOUND = "bound"

# What shells say about a command that cannot be run.
_CANNOT_RUN = 127


def main(mode: str, *command: str) -> int:
    # The command gets no lifeline: the byte is taken, and two would follow one pipe.
    lifeline = int(os.environ.pop("QINLING_WORKER_LIFELINE_FD"))
    os.set_inheritable(lifeline, False)
    try:
        if mode == BOUND:
            return _run(lifeline, command)
        if os.read(lifeline, 1):
            os.execv(command[0], command)  # noqa: S606  # nosec B606  # no shell is wanted
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        return _CANNOT_RUN
    return 0


def _run(lifeline: int, command: tuple[str, ...]) -> int:
    """Run the command until it ends or the engine does; its exit code."""
    # They are sent to the whole group: the command decides what they mean.
    ignored = (signal.SIGTERM, signal.SIGINT)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    child = os.posix_spawn(command[0], command, os.environ, setsigdef=ignored)
    # Or a command that closes its socket would seem to listen still.
    os.close(int(os.environ["QINLING_WORKER_LISTEN_FD"]))
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    poll.register(ended, select.POLLIN)
    if lifeline in (descriptor for descriptor, _ in poll.poll()):
        os.killpg(0, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # Ended as the command did: its engine tells the operator by which signal.
        if -code in ignored:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
