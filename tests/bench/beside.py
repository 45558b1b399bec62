"""What there is without this service: the same function in a plain Flask app behind gunicorn.

It has as many processes as a worker has slots. It writes nothing down and asks nobody whether he
may; nothing bounds what the function takes, and nothing keeps it from what was there before.
"""

import contextlib
import importlib.util
import io
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from qinling.conf import engine
from tests.bench import wire
from tests.bench.functions import PACKAGES
from tests.bench.site import say
from tests.fixtures.deployment import BIN
from tests.fixtures.process import Process, free_port

#: Its kinds of workers by what figures call them, and what each does with a connection.
KINDS = {
    "gunicorn sync": "closes the connection after each answer, so that each call makes one",
    "gunicorn gthread": "keeps the connection open",
}
_CHECKOUT = Path(__file__).parents[2]
_MESSAGE = wire.request("POST", "/", {"name": "World"})


@contextlib.contextmanager
def served(package: str) -> Iterator[dict[str, Callable[[], float]]]:
    """Make calls of a function in each of `KINDS`, which return the milliseconds that they took.

    :param package: one of ``functions.PACKAGES``.
    :returns: none where there is no Flask, which only the benchmark requires.
    """
    if importlib.util.find_spec("flask") is None:
        say("Flask is not installed (the extra `bench`): nothing stands beside warm executions")
        yield {}
        return
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qinling-beside-")))
        with zipfile.ZipFile(io.BytesIO(PACKAGES[package])) as archive:
            archive.extractall(folder / "function")
        ports = {kind: stack.enter_context(_gunicorn(kind, folder)) for kind in KINDS}
        kept = stack.enter_context(wire.Connection(ports["gunicorn gthread"]))
        yield {
            "gunicorn sync": lambda: _timed_anew(ports["gunicorn sync"]),
            "gunicorn gthread": lambda: kept.timed(_MESSAGE, 200),
        }


@contextlib.contextmanager
def _gunicorn(kind: str, folder: Path) -> Iterator[int]:
    """A server of the function that was unpacked there; its port."""
    port = free_port()
    command = [
        BIN / "gunicorn",
        f"--worker-class={kind.split()[-1]}",
        f"--workers={_slots()}",
        "--threads=1",
        "--keep-alive=60",
        "--no-control-socket",
        f"--bind=127.0.0.1:{port}",
        f"tests.bench.flask_app:make({str(folder / 'function')!r})",
    ]
    with Process(command, folder / f"{kind}.log", cwd=_CHECKOUT):
        wire.wait_for_answer(port, _MESSAGE)
        yield port


def _slots() -> int:
    return next(int(each.default) for each in engine.OPTS if each.name == "function_concurrency")


def _timed_anew(port: int) -> float:
    began = time.perf_counter()
    with wire.Connection(port) as connection:
        connection.call(_MESSAGE, 200)
    return (time.perf_counter() - began) * 1000
