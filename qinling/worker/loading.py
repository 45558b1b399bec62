"""Imports a function's entry, and calls it.

Runs in a zygote and in slots: here is user code. Nothing of the supervisor's is
known to it.
"""

import errno
import importlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from qinling.worker import channel
from qinling.worker.function import DEPTH

#: Characters of a traceback that are kept, its end.
_TRACEBACK = 16384
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


def load(folder: str, entry: str) -> Entry:
    """Import the entry's module from a folder.

    :raises Unimportable: that fails, or there is no such function in it.
    """
    name, _, attribute = entry.rpartition(".")
    sys.path.insert(0, folder)
    sys.argv = [""]
    try:
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
