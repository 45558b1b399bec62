"""What the mains share: one process that runs until it is told to end.

The main thread waits for a signal and everything else runs in threads. Nothing
forks, so what a program starts it also stops.
"""

import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from oslo_log import log

from qinling import conf as configuration
from qinling import exceptions

LOG = log.getLogger(__name__)


class Part(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


class Process:
    """What runs in this process, until a signal or a fault ends it."""

    def __init__(self) -> None:
        self._ending = False
        self._fault: exceptions.StartupError | None = None
        # The kernel may hand a signal to any thread, and Python calls its handler when the main
        # thread happens to wake: it waits for what Python writes here when a signal has come.
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)

    def fail(self, fault: exceptions.StartupError) -> None:
        """End because a part cannot go on. Safe from any thread."""
        self._fault = fault
        self._end()
        # Where there is no room, there is a word already.
        with contextlib.suppress(BlockingIOError):
            self._wake.send(b".")

    def _end(self, *_signal: object) -> None:
        self._ending = True

    def run(self, parts: Sequence[Part], ready: Callable[[], None]) -> int:
        """Start parts in order, tell that they are ready, stop them in reverse.

        :returns: the exit code: 0 after SIGTERM or SIGINT, 1 when a part cannot start or go on.
        """
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        started: list[Part] = []
        try:
            for part in parts:
                if self._ending:
                    break
                part.start()
                started.append(part)
        except exceptions.StartupError as error:
            self.fail(error)
        if not self._ending:
            ready()
            _notify_systemd()
        while not self._ending:
            self._woken.recv(1)
        LOG.info("Stopping.")
        for part in reversed(started):
            part.stop()
        return 0 if self._fault is None else configuration.fail(self._fault)


def main(prepare: Callable[[Sequence[str]], int]) -> int:
    """Run a program on the command line; one line and code 1 if it cannot start."""
    try:
        return prepare(sys.argv[1:])
    except exceptions.QinlingError as error:
        return configuration.fail(error)


def _notify_systemd() -> None:
    from oslo_service import systemd

    systemd.notify_once()
