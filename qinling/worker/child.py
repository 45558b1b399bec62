"""A process that runs user code, as the supervisor sees it: from outside.

A zygote that imports, and a slot that executes, are asked one thing at a time
and watched while they are at it: until when, with how much memory, and how many
processes. None of their own is trusted with that.
"""

import contextlib
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from qinling.worker import channel, held, processes
from qinling.worker.log import Log

#: Seconds between two looks at what a busy child holds.
_LOOK = 0.05
#: Processes, and threads of all of them, that one child may have, itself included.
_PROCESSES = 64
_THREADS = 512
#: Seconds that a killed process may take to be gone.
_VANISH = 5.0
_CHUNK = 65536
#: Bytes that are read of a log once its execution has ended: as much as a pipe can hold.
_PIPE = 1 << 20


class Late(Exception):
    """It has not answered by the deadline."""


class Exhausted(Exception):
    """It held too much memory, or too many processes."""


class Gone(Exception):
    """It has ended, or said what cannot be; the text says which."""


class Child:
    """One such process. The caller has forked it with the other ends of what this one made.

    :param most: bytes of an answer.
    :param look: called as often as it is looked at while it is busy.
    """

    def __init__(self, most: int, look: Callable[[], None]) -> None:
        self._look_beside = look
        self._held = held.Held()
        self._end, self._their_end = socket.socketpair()
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._output, self._their_output = os.pipe()
        os.set_blocking(self._output, False)
        self._reader = channel.Reader(self._end, most)
        self._poll = select.poll()
        self._poll.register(self._end, select.POLLIN)
        self._poll.register(self._output, select.POLLIN)
        self._fds = self._end.fileno(), self._output
        self._mute = False
        self._pidfd = -1
        self._children = -1
        self._threads = -1
        self.pid = 0

    @property
    def theirs(self) -> list[int]:
        """The descriptors that the process must be given."""
        return [self._their_end.fileno(), self._their_output]

    def meet(self, patience: float) -> None:
        """Wait until the process is there.

        :param patience: seconds.
        :raises Late, Gone: it is not.
        """
        self._their_end.close()
        os.close(self._their_output)
        self._their_output = -1
        self._end.settimeout(patience)
        try:
            self.pid = channel.greeting(self._end)
            self._pidfd = os.pidfd_open(self.pid)
            self._children = processes.open_children(self.pid)
            self._threads = processes.open_threads(self.pid)
        except TimeoutError:
            raise Late("it does not come") from None
        except (channel.Broken, OSError) as error:
            raise Gone(f"a process could not be started: {error}") from None
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        self._end.setblocking(False)
        self._poll.register(self._pidfd, select.POLLIN)

    def command(self, message: bytes, ends: list[int]) -> None:
        """:raises OSError: it is gone."""
        socket.send_fds(self._end, [message], ends)

    def ask(self, message: bytes, deadline: float, memory: int, log: Log) -> Any:
        """Send a message, if there is one, and wait for the answer.

        :param deadline: of the monotonic clock.
        :param memory: bytes that it and all below it may hold together.
        :raises Late, Exhausted, Gone: it must be killed then.
        """
        try:
            return self._ask(message, deadline, memory, log)
        except channel.Broken as error:
            raise Gone(str(error)) from None
        finally:
            self._read_output(log, _PIPE)

    def _ask(self, message: bytes, deadline: float, memory: int, log: Log) -> Any:
        end, output = self._fds
        unsent = self._send(message, message) if message else message
        look_at = time.monotonic() + _LOOK
        while True:
            now = time.monotonic()
            if now >= deadline:
                raise Late
            if now >= look_at:
                self._look(memory)
                look_at = now + _LOOK
            wait = math.ceil((min(deadline, look_at) - now) * 1000)
            events = dict(self._poll.poll(wait))
            if output in events:
                self._read_output(log, _CHUNK)
            happened = events.get(end, 0)
            if happened & select.POLLOUT:
                unsent = self._send(unsent, message)
            if happened & ~select.POLLOUT:
                whole, answer = self._reader.read()
                if whole:
                    return answer
            elif self._pidfd in events:
                raise Gone("its process has ended")

    def _send(self, unsent: bytes, message: bytes) -> bytes:
        """What is left to be sent: a process that does not read must not hold up this one."""
        try:
            left = unsent[self._end.send(unsent) :]
        except BlockingIOError:
            left = unsent
        except ConnectionError:
            raise channel.Broken("it has closed its channel") from None
        if left or unsent is not message:
            self._poll.modify(self._end, select.POLLIN | (select.POLLOUT if left else 0))
        return left

    def _look(self, memory: int) -> None:
        self._look_beside()
        pids = processes.tree(self.pid, _PROCESSES + 1)
        if len(pids) > _PROCESSES or sum(map(processes.threads, pids)) > _THREADS:
            raise Exhausted("too many processes")
        if processes.memory(pids, self._held.look(pids), memory) > memory:
            raise Exhausted("too much memory")

    def _read_output(self, log: Log, most: int) -> None:
        while most > 0 and not self._mute:
            try:
                found = os.read(self._output, _CHUNK)
            except BlockingIOError:
                return
            if not found:
                # It has closed both of its streams; poll would tell so for ever.
                self._poll.unregister(self._output)
                self._mute = True
            log.add(found)
            most -= len(found)

    def is_quiet(self) -> bool:
        """Whether it is there and has said nothing that it was not asked."""
        return not self._poll.poll(0)

    def is_sound(self) -> bool:
        """Whether nothing runs that its execution has started; it may not be quiet all the same."""
        return self.threads() == 1 and not self.children() and not self._mute

    def threads(self) -> int:
        """How many it has; none when it has ended."""
        return processes.count_threads(self._threads)

    def children(self) -> bytes:
        """The pids of those of its first thread, with blanks between them."""
        return processes.read_children(self._children)

    def memory(self) -> int:
        """Bytes that it holds, what it shares with others in full."""
        return processes.resident(self.pid) + held.size([self.pid])

    def kill(self) -> None:
        """End it and all below it, whatever they do, from any thread."""
        if self._pidfd >= 0 and not self.has_ended():
            processes.kill_tree(self.pid)

    def send(self, number: signal.Signals) -> None:
        """A signal to it alone; nothing happens when it is gone, or not there yet."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, number)

    def end_alone(self) -> None:
        """End it, and not who is below it; wait for that."""
        self.send(signal.SIGKILL)
        self._wait_for_end()

    def _wait_for_end(self) -> None:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll(_VANISH * 1000)

    def has_ended(self) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Kill it and wait for its end; what it held is free then."""
        self.kill()
        if self._pidfd >= 0:
            self._wait_for_end()
        self._end.close()
        self._their_end.close()
        os.close(self._output)
        for each in (self._pidfd, self._children, self._threads, self._their_output):
            if each >= 0:
                os.close(each)
        self._pidfd = -1
