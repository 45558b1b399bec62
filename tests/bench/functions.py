"""Functions to measure with: one that does next to nothing, and one that brings 5 MB along."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fixtures.deployment import Client, Deployment
from tests.fixtures.process import wait_until
from tests.fixtures.worker import pack

MAIN = """
import time

def main(name="World", seconds=0):
    time.sleep(seconds)
    return "Hello, " + name
"""
_MODULES = 20
_DATA = 5_000_000
#: A module of a dependency: 4 kB of code as people write it.
_MODULE = "".join(
    f"def function_{number}(first, second=None):\n"
    f'    """What function {number} is for."""\n'
    "    if second is None:\n"
    "        return [each for each in first if each]\n"
    f"    return {{'number': {number}, 'first': first, 'second': second}}\n\n"
    for number in range(20)
)


def _large() -> bytes:
    """A package with a folder of modules that are imported, and of data that does not shrink."""
    names = [f"part_{number}" for number in range(_MODULES)]
    files: dict[str, str | bytes] = {f"dependency/{name}.py": _MODULE for name in names}
    files["dependency/__init__.py"] = "".join(f"from . import {name}\n" for name in names)
    files["dependency/data.bin"] = random.Random(0).randbytes(_DATA)
    files["main.py"] = f"import dependency\n{MAIN}"
    return pack(files)


#: Packages by what figures call them.
PACKAGES = {"trivial": pack({"main.py": MAIN}), "5 MB": _large()}


@dataclass(frozen=True, slots=True)
class Runtime:
    """An available runtime of an installation."""

    id: str
    client: Client

    def create(self, kind: str = "trivial", **fields: str | int) -> str:
        """A new function, which no worker has; its id."""
        return str(self.client.create_function(self.id, PACKAGES[kind], **fields)["id"])

    def wait_until_full(self) -> None:
        """Wait until all workers of the pool are free, as one that others leave alone is."""

        def full() -> bool:
            capacity = self.client.pool(self.id)
            return capacity["available"] == capacity["total"] > 0

        wait_until(full, 60, "a full pool")

    def remove(self, function_id: str) -> None:
        answer = self.client.call("DELETE", f"/v1/functions/{function_id}")
        assert answer.status_code == 204, answer.text


@contextlib.contextmanager
def runtime(installation: Deployment) -> Iterator[Runtime]:
    """A runtime, removed with its functions."""
    client = installation.client
    found = Runtime(client.create()["id"], client)
    client.wait_for(found.id, "available")
    try:
        yield found
    finally:
        path = f"/v1/functions?runtime_id={found.id}"
        for function in client.call("GET", path).json()["functions"]:
            found.remove(function["id"])
        client.delete(found.id)
        client.wait_gone(found.id)
