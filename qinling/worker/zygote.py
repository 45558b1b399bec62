"""Processes that are there to be forked.

The *clean* zygote is forked from the supervisor before that has a key or runs a
thread, and forks zygotes. A zygote imports the function, unless it is told not
to, and forks slots. Only what is forked from a zygote runs executions, so who
kills its parent hits a zygote, which is replaced.

Each follows one socket: a command, with the descriptors of the new process, is
a message. Nobody answers: the new process greets over its own socket. The first
zygote is forked before its command comes, which it takes itself: with a function
come those who wait for it.

What zygotes and slots need is imported before the clean one is forked: each
process has it then, and nobody waits for that while a function is loaded.
"""

import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from qinling.worker import bytecode, channel, limits, loading, processes, slot
from qinling.worker.function import Function

#: Bytes of a command, at most.
_COMMAND = 65536


class CleanZygote:
    """As the supervisor has it.

    :param folder: where the function will be; removed when all has ended.
    """

    def __init__(self, folder: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.folder = folder
        self.pid = os.fork()
        if self.pid == 0:
            with _ForGood():
                _be_clean(theirs, folder)
        theirs.close()

    def fork(self, function: Function, imports: bool, ends: list[int]) -> None:
        """Fork a zygote; ``ends`` are its control socket and its log.

        :raises OSError: the clean zygote is gone.
        """
        command = {"function": function, "imports": imports}
        socket.send_fds(self._control, [json.dumps(command).encode()], ends)

    def end(self) -> None:
        """End it, in order, and wait for that: it removes the folder."""
        self._control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


#: The command of a zygote: fork a slot. Its descriptors are a slot's channel and its log.
FORK_SLOT = b"{}"
#: What a zygote that imports the function is told once the function is there.
IMPORT = channel.pack(None)


class _ForGood(contextlib.AbstractContextManager[None]):
    """What a forked process does, it does in here: the stack below is its parent's."""

    def __exit__(self, *exc_info: object) -> NoReturn:
        try:
            if exc_info[1] is not None:
                traceback.print_exc()
        finally:
            # Nobody may be there to read it.
            os._exit(1)


def _wait_ahead(control: socket.socket, run: Callable[[Any, list[int]], None]) -> None:
    """Fork one that takes the first command itself; returns when it has, or has ended."""
    taken, takes = os.pipe()
    clean = os.getpid()
    # Without one the first command is followed as any other.
    with contextlib.suppress(OSError):
        if os.fork() == 0:
            with _ForGood():
                os.close(taken)
                found = _receive(control)
                # The supervisor ends who is below the clean zygote, and nobody beside it.
                if found is None or os.getppid() != clean:
                    os._exit(0)
                control.close()
                os.close(takes)
                run(*found)
    os.close(takes)
    os.read(taken, 1)
    os.close(taken)


def _follow(control: socket.socket, run: Callable[[Any, list[int]], None]) -> None:
    """Fork for each command; returns when the supervisor is gone, or has closed its end."""
    while True:
        if (found := _receive(control)) is None:
            # Killed, as it seems: nobody else is there to end what it has left.
            processes.kill_below(os.getpid())
            return
        command, ends = found
        # Only here, before a fork: until then the supervisor must find a pid to be who it was.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        # Without a process to be had, the ends are closed and the supervisor knows.
        with contextlib.suppress(BlockingIOError):
            if os.fork() == 0:
                with _ForGood():
                    control.close()
                    run(command, ends)
        for each in ends:
            os.close(each)


def _receive(control: socket.socket) -> tuple[Any, list[int]] | None:
    """The next command and its descriptors; None when there will be none."""
    try:
        message, ends, _, _ = socket.recv_fds(control, _COMMAND, 2)
    except ConnectionError:
        return None
    return (json.loads(message), ends) if message else None


def _be_clean(control: socket.socket, folder: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        # The supervisor decides what they mean. Not SIG_IGN: a program that a function runs
        # would inherit it.
        signal.signal(number, _do_nothing)
    # Or those that are sent to the supervisor's group would end such a program.
    os.setpgid(0, 0)
    # The worker's own socket and lifeline are none of a function's business.
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != control.fileno():
            with contextlib.suppress(OSError):
                os.close(int(name))
    for variable in ("LISTEN_FD", "LIFELINE_FD", "HOST", "PORT", "KEY_DIGEST"):
        os.environ.pop(f"QINLING_WORKER_{variable}", None)

    def be_zygote(command: Any, ends: list[int]) -> None:
        _be_zygote(socket.socket(fileno=ends[0]), ends[1], folder, command)

    _wait_ahead(control, be_zygote)
    _follow(control, be_zygote)
    if os.path.exists(folder):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _do_nothing(*_: object) -> None:
    pass


def _be_zygote(control: socket.socket, log: int, folder: str, command: Any) -> None:
    slot.take_output(log)
    slot.open_streams()
    channel.greet(control)
    function = Function(*command["function"])
    processes.gain_nothing()
    limits.common()
    if command["imports"]:
        entry = _import(control, folder, function)
    else:
        limits.step_back()
        os.chdir(folder)
        entry = None
    # Collections in a slot leave alone what it shares with others.
    gc.freeze()

    def be_slot(_: Any, ends: list[int]) -> None:
        slot.take_output(ends[1])
        slot.serve(socket.socket(fileno=ends[0]), function, folder, entry)

    _follow(control, be_slot)
    os._exit(0)


def _import(control: socket.socket, folder: str, function: Function) -> loading.Entry:
    """Says over the socket how it went: error or None, traceback, whether slots can be forked."""
    limits.grow_by(function.import_memory)
    limits.limit_processes()
    made = bytecode.make_until(folder, channel.waiter(control))
    try:
        channel.receive(control)
    except channel.Broken:
        # There is none: what was sent could not be unpacked.
        os._exit(0)
    limits.step_back()
    # What that has left is not the function's.
    limits.grow_by(function.import_memory)
    os.chdir(folder)
    before = _alive()
    bytecode.offer(made)
    # Slots have in memory what is compiled here; on the disk it would serve nobody.
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        entry = loading.load(folder, function.entry)
    except loading.Unimportable as fault:
        control.sendall(channel.pack([str(fault)[: channel.TEXT], fault.trace, False]))
        os._exit(0)
    sys.dont_write_bytecode = writes_none
    # Threads do not come along in a fork; sockets and children would be shared by all slots.
    limits.free_processes()
    control.sendall(channel.pack([None, "", _alive() == before]))
    return entry


def _alive() -> tuple[int, list[str], list[int]]:
    """Threads, what is open beside files, and children."""
    opened = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            opened.append(os.readlink(f"/proc/self/fd/{name}"))
    kinds = ("socket:", "pipe:", "anon_inode:")
    live = sorted(each for each in opened if each.startswith(kinds))
    return processes.threads(os.getpid()), live, processes.children(os.getpid())
