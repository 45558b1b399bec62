"""What a worker is told about its function, and what it says when an execution fails.

Read by the supervisor, passed on to the zygote and the slots, but for the key.
"""

import base64
import json
import re
from typing import Any, NamedTuple

#: What the contract has these outputs contain.
TIMEOUT = "Function execution timeout"
EXHAUSTED = "Function execution failed because of too much resource consumption"

#: How an execution ends, as a slot says it; the last is a failure, by exhaustion.
SUCCESS = "success"
FAILED = "failed"
SPENT = "spent"

#: ``module.function``, in any language. A module that is a file may be named as no identifier is.
ENTRY = re.compile(r"[\w-]+(?:\.[\w-]+)+")

#: Levels of lists and objects in JSON that is given or returned; as many as the API takes.
DEPTH = 64

_TEXT = ("worker_id", "boot_id", "function_id", "entry", "key")
_COUNTS = (
    "revision",
    "concurrency",
    "memory_size",
    "import_memory",
    "max_unpacked_size",
    "max_result_size",
    "max_log_size",
)


class Malformed(ValueError):
    """What a request says cannot be understood; the text says where."""


class NoRoom(Exception):
    """Here, and now, the package cannot be unpacked."""


class Conflict(Exception):
    """This worker has another function, or none may be given to it any more."""


class Unsigned(Exception):
    """A request was not made with the worker's key; the text says how that shows."""


class Function(NamedTuple):
    """The function of a worker. Sizes in bytes, ``import_timeout`` in seconds."""

    function_id: str
    revision: int
    entry: str
    concurrency: int
    memory_size: int
    import_memory: int
    import_timeout: float
    max_unpacked_size: int
    max_result_size: int
    max_log_size: int


class Order(NamedTuple):
    """A request to become the worker of a function."""

    worker_id: str
    boot_id: str
    key: bytes
    function: Function


def read_order(header: str) -> Order:
    """The order in a header: JSON in base64.

    :raises Malformed: naming the field that is missing or wrong.
    """
    try:
        said = json.loads(base64.b64decode(header, validate=True))
    except (ValueError, RecursionError):
        raise Malformed("the function is no JSON in base64") from None
    if not isinstance(said, dict):
        raise Malformed("the function is no JSON object")
    found: dict[str, Any] = {name: text(said, name) for name in _TEXT}
    found |= {name: count(said, name) for name in _COUNTS}
    found["import_timeout"] = seconds(said, "import_timeout")
    try:
        key = bytes.fromhex(found["key"])
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Malformed("key is not 64 hexadecimal digits")
    if not ENTRY.fullmatch(found["entry"]):
        raise Malformed("entry is not module.function")
    function = Function(**{name: found[name] for name in Function._fields})
    return Order(found["worker_id"], found["boot_id"], key, function)


def text(said: dict[str, Any], name: str) -> str:
    """:raises Malformed: it is missing or no text."""
    found = said.get(name)
    if not isinstance(found, str):
        raise Malformed(f"{name} is no text")
    return found


def texts(said: dict[str, Any], name: str) -> list[str]:
    """None of them where it is missing. :raises Malformed: it is no list of texts."""
    found = said.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Malformed(f"{name} is no list of texts")
    return found


def count(said: dict[str, Any], name: str) -> int:
    """:raises Malformed: it is missing or no integer above 0."""
    found = said.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise Malformed(f"{name} is no integer above 0")
    return found


def seconds(said: dict[str, Any], name: str) -> float:
    """:raises Malformed: it is missing or no number above 0."""
    found = said.get(name)
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 < found < 1e9:
        raise Malformed(f"{name} is no number above 0")
    return float(found)
