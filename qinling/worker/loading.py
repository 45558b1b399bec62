"""Imports a function's entry, and calls it.

Runs in a zygote and in slots: here is user code. Nothing of the supervisor's is
known to it.
"""

import contextlib
import errno
import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from typing import Any, NamedTuple

from qinling.worker import channel
from qinling.worker.function import DEPTH

#: Characters of a traceback that are kept, its end.
_TRACEBACK = 16384
#: Seconds between two looks at what is there of a function.
_LOOK = 0.001
#: Bytes of a module that is compiled before it is known whether it is wanted: some milliseconds.
_SOURCE = 65536
_CO_VARKEYWORDS = 0x08
_CO_COROUTINE = 0x80
#: What a function is given beside its input: no session without Keystone.
_CONTEXT = "context"


class Unimportable(Exception):
    """The entry cannot be had; the text says why, ``trace`` is for the log."""

    def __init__(self, text: str, trace: str) -> None:
        super().__init__(text)
        self.trace = trace


class Entry(NamedTuple):
    """What an execution calls."""

    function: Callable[..., Any]
    takes_context: bool

    def call(self, given: str | None) -> Any:
        """Run the function to its end; a coroutine as well."""
        positional, named = _arguments(given)
        if self.takes_context:
            named[_CONTEXT] = {"os_session": None}
        found = self.function(*positional, **named)
        if hasattr(found, "__await__"):
            import asyncio

            return asyncio.run(_wait_for(found))
        return found


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def _arguments(given: str | None) -> tuple[list[str], dict[str, Any]]:
    """A JSON object becomes keyword arguments; anything else is one positional argument."""
    if given is None:
        return [], {}
    if given.lstrip()[:1] == "{":
        digits = sys.get_int_max_str_digits()
        try:
            # Python's own limit would make a text of an object with a longer number in it.
            sys.set_int_max_str_digits(0)
            named = json.loads(given)
        except ValueError:
            return [given], {}
        except RecursionError:
            named = None
        finally:
            sys.set_int_max_str_digits(digits)
        if named is None or channel.is_deep(given.encode(errors="replace")):
            raise ValueError(f"input is nested deeper than {DEPTH} levels")
        return [], named
    return [given], {}


def compile_until(folder: str, is_there: Callable[[float], bool]) -> dict[str, bytes]:
    """Compile what is there of a function already, until all of it is.

    One processor unpacks and another one compiles. An import makes its own bytecode of a module
    that was not whole yet: that one had another size.

    :param is_there: waits so many seconds for that.
    :returns: the bytecode by the path at which Python looks for it. It stays in memory: to make
        and remove a file takes as long as to compile a module.
    """
    made: dict[str, bytes] = {}
    known: set[str] = set()
    found: set[str] = set()
    # Else it is not made at all: images often say that none is to be written.
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while not is_there(0 if found else _LOOK):
            found = set(_sources(folder)) - known
            known |= found
            for path in found:
                with contextlib.suppress(Exception):
                    if os.path.getsize(path) <= _SOURCE:
                        _Compiler(path, made).get_code("")
                if is_there(0):
                    break
    sys.dont_write_bytecode = writes_none
    return made


class _Compiler(SourceFileLoader):
    """Keeps bytecode in a dictionary."""

    def __init__(self, path: str, made: dict[str, bytes]) -> None:
        super().__init__("", path)
        self._made = made

    def set_data(self, path: str, data: Any, **_: Any) -> None:
        self._made[path] = bytes(data)


@contextlib.contextmanager
def _offered(bytecode: Mapping[str, bytes]) -> Iterator[None]:
    """Let imports find bytecode as if it were on the disk."""
    read = SourceFileLoader.get_data

    def get_data(self: SourceFileLoader, path: str) -> bytes:
        found = bytecode.get(path)
        return read(self, path) if found is None else found

    SourceFileLoader.get_data = get_data  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        # It is inherited.
        del SourceFileLoader.get_data


def _sources(folder: str) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        yield from (os.path.join(place, name) for name in names if name.endswith(".py"))


def load(folder: str, entry: str, bytecode: Mapping[str, bytes] | None = None) -> Entry:
    """Import the entry's module from a folder.

    :param bytecode: that was made of it ahead.
    :raises Unimportable: that fails, or there is no such function in it.
    """
    name, _, attribute = entry.rpartition(".")
    sys.path.insert(0, folder)
    sys.argv = [""]
    try:
        with _offered(bytecode or {}):
            module = importlib.import_module(name)
    except BaseException as error:
        text = f"Module {name} cannot be imported: {type(error).__name__}: {error}"
        raise Unimportable(text, trace_of(error)) from None
    function = getattr(module, attribute, None)
    if not callable(function):
        text = f"Module {name} has no function {attribute}"
        raise Unimportable(text, text + "\n")
    return Entry(function, _takes_context(function))


def _takes_context(function: Callable[..., Any]) -> bool:
    inner: Any = function
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    code = getattr(inner, "__code__", None)
    if code is None:
        return _signature_takes_context(inner)
    if code.co_flags & _CO_COROUTINE:
        # Loaded once here and not in each slot.
        import asyncio  # noqa: F401
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return _CONTEXT in names[code.co_posonlyargcount :] or bool(code.co_flags & _CO_VARKEYWORDS)


def _signature_takes_context(function: Callable[..., Any]) -> bool:
    """Of what is no plain function: slower, and rarely asked."""
    import inspect

    try:
        inspect.signature(function).bind_partial(**{_CONTEXT: None})
    except (TypeError, ValueError):
        return False
    return True


def trace_of(error: BaseException) -> str:
    """The traceback, without the frames of the worker's own that came before."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_globals.get("__package__") == __package__:
        frame = frame.tb_next
    try:
        text = "".join(traceback.format_exception(type(error), error, frame))
    except Exception:
        # An exception may be made so that it cannot be shown.
        text = f"{type(error).__name__} (its traceback cannot be shown)\n"
    return text[-_TRACEBACK:]


def is_exhaustion(error: BaseException, has_children: bool) -> bool:
    """Whether this is what running out of memory or processes looks like from within."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        # A socket that does not block says EAGAIN, too; who has no children did not fork.
        return error.errno == errno.ENOMEM or (error.errno == errno.EAGAIN and has_children)
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)
