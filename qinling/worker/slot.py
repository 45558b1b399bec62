"""What runs in a slot: executions of the function, one after the other.

The process was forked for this by a zygote. Whatever user code does to it can
spoil its own execution and no other one: the supervisor judges it from outside.
"""

import contextlib
import errno
import io
import os
import socket
import sys
from typing import NoReturn

from qinling.worker import channel, limits, loading, processes
from qinling.worker.function import DEPTH, FAILED, SPENT, Function


def serve(
    end: socket.socket, function: Function, folder: str, entry: loading.Entry | None
) -> NoReturn:
    """Greet, import where that is not done yet, and then execute until the supervisor is gone.

    The first message says whether the slot is ready: None, or why it is not; a
    traceback; and whether it is. The others are answers: status, output, traceback, and whether
    the process should not be used again.
    """
    own = os.getpid()
    processes.adopt_orphans()
    channel.greet(end)
    if entry is None:
        entry = _import(end, function, folder)
    limits.grow_by(function.memory_size, for_good=True)
    limits.limit_processes(for_good=True)
    end.sendall(channel.pack([None, "", True]))
    while True:
        try:
            given = channel.receive(end)
        except (channel.Broken, OSError):
            # The supervisor is gone, which would have ended what runs here.
            processes.kill_below(own)
            os._exit(0)
        answer = _execute(entry, given, function.max_result_size)
        if os.getpid() != own:
            # A child that was forked by the function and has returned from it.
            os._exit(0)
        try:
            end.sendall(answer)
        except OSError:
            os._exit(1)


def _import(end: socket.socket, function: Function, folder: str) -> loading.Entry:
    limits.grow_by(function.import_memory)
    limits.limit_processes()
    try:
        return loading.load(folder, function.entry)
    except loading.Unimportable as fault:
        with contextlib.suppress(OSError):
            end.sendall(channel.pack([str(fault)[: channel.TEXT], fault.trace, False]))
        os._exit(0)


def _execute(entry: loading.Entry, given: str | None, most: int) -> bytes:
    try:
        output = entry.call(given)
    except BaseException as error:
        return _failure(error, most)
    finally:
        _flush()
    _wait_for_ended()
    digits = sys.get_int_max_str_digits()
    try:
        # What the function has allowed itself none of those who read it would take.
        sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)
        body = channel.encode(output)
        if len(body) > most:
            return _refusal(f"larger than {most} bytes")
        if channel.is_deep(body):
            raise RecursionError
    except MemoryError as error:
        return _failure(error, most)
    except RecursionError:
        return _refusal(f"nested deeper than {DEPTH} levels")
    except Exception as error:
        # The function's own classes may raise anything here.
        return _refusal(f"no JSON: {error}")
    finally:
        sys.set_int_max_str_digits(digits)
    return channel.frame(b'["success", %b, "", false]' % body)


def _refusal(what: str) -> bytes:
    text = f"The function's result is {what}"
    return channel.pack([FAILED, text[: channel.TEXT], "", False])


def _failure(error: BaseException, most: int) -> bytes:
    status = SPENT if loading.is_exhaustion(error, _wait_for_ended()) else FAILED
    # Files that are open still, or memory that is held still, would fail the next one, too.
    spent = status == SPENT or getattr(error, "errno", None) == errno.EMFILE
    try:
        text = str(error)
        # As JSON a character may take twelve bytes.
        return channel.pack([status, text[: max(most // 12, 1)], loading.trace_of(error), spent])
    except BaseException as another:
        return channel.pack([status, type(another).__name__, "", True])


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _wait_for_ended() -> bool:
    """Take note of children that have ended; whether there were any at all."""
    found = False
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except OSError:
            return found
        found = True
        if not pid:
            return found


def take_output(descriptor: int) -> None:
    """Let standard output and error, of programs started from here, too, go there."""
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def open_streams() -> None:
    """Streams that keep nothing back: what is written in order arrives in order."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = io.FileIO(descriptor, "w", closefd=False)
        stream = io.TextIOWrapper(
            raw,  # as python -u has it
            "utf-8",
            errors="backslashreplace",
            newline="\n",
            write_through=True,
        )
        setattr(sys, name, stream)
