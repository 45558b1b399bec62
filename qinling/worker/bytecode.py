"""Bytecode of a function that is made while the rest of its package is unpacked.

One processor unpacks and another one compiles. What is made stays in memory: to make a file, and
to remove it, takes as long as to compile a module, and images often say that no bytecode is to be
written at all. Imports find it where there is none on the disk.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from typing import Any, NamedTuple

#: Seconds between two looks at what is there of a function.
_LOOK = 0.001
#: Bytes of a module that is compiled before it is known whether it is wanted: some milliseconds.
#: Such a file is written at once.
_SOURCE = 65536
#: Bytes of bytecode from which on no more is made: the memory is the import's.
_MOST = 16 << 20


class Made(NamedTuple):
    """What Python would write for a source, and when that was written and how long it is."""

    source: str
    written: tuple[int, int]
    content: bytes

    def is_fresh(self) -> bool:
        """Whether the source is still that one."""
        with contextlib.suppress(OSError):
            return _written(os.stat(self.source)) == self.written
        return False


def make_until(folder: str, is_there: Callable[[float], bool]) -> dict[str, Made]:
    """Compile what is there of a function already, until all of it is.

    :param is_there: waits so many seconds for that.
    :returns: bytecode by the path at which Python looks for it.
    """
    made: dict[str, Made] = {}
    size = 0
    known: set[str] = set()
    found: list[tuple[str, os.stat_result]] = []
    # Else none is made.
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while not is_there(0 if found else _LOOK):
            found = _sources(folder, known) if size < _MOST else []
            for path, status in found:
                known.add(path)
                if status.st_size <= _SOURCE:
                    maker = _Maker(path, _written(status), made)
                    with contextlib.suppress(Exception):
                        maker.get_code("")
                    size += maker.size
                if size >= _MOST or is_there(0):
                    break
    sys.dont_write_bytecode = writes_none
    return made


def offer(made: Mapping[str, Made]) -> None:
    """Let imports find it, from now on in this process and in those that are forked from it.

    Only where nothing else is: not in place of what the package brings, nor for a loader that
    compiles in a way of its own.
    """
    read = SourceFileLoader.get_data

    def get_data(self: SourceFileLoader, path: str) -> bytes:
        try:
            return read(self, path)
        except FileNotFoundError:
            found = made.get(path) if type(self) is SourceFileLoader else None
            if found is None or not found.is_fresh():
                raise
            return found.content

    SourceFileLoader.get_data = get_data  # type: ignore[method-assign,assignment]


class _Maker(SourceFileLoader):
    """Keeps what others write."""

    def __init__(self, path: str, written: tuple[int, int], made: dict[str, Made]) -> None:
        super().__init__("", path)
        self._written = written
        self._made = made
        #: Bytes of what it has made.
        self.size = 0

    def set_data(self, path: str, data: Any, **_: Any) -> None:
        self._made[path] = Made(self.path, self._written, bytes(data))
        self.size = len(data)


def _sources(folder: str, known: set[str]) -> list[tuple[str, os.stat_result]]:
    """Those that are not known, but for those that are yet to be written."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py") and path not in known:
                status = os.stat(path)
                if status.st_size:
                    found.append((path, status))
    return found


def _written(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_size
