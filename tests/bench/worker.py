"""A worker alone, beside the bare parts of one: ``http.server`` and a pipe to a process.

Executions on connections that are kept open, all limits on, signed and acknowledged by nobody. The
floor has the same server, reads the same bytes and answers as many, which a forked process echoes.
The two are asked in turn. And what a slot costs that is killed: until another one is there.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from qinling.worker import signing
from tests.bench import echo, report, wire
from tests.bench.report import Figure
from tests.bench.site import Site, say
from tests.fixtures.process import free_port
from tests.fixtures.worker import Worker

_FUNCTION = "def main(name): return 'Hello, ' + name"
_GIVEN = json.dumps({"name": "World"})
_BLOCKS = 20
_BLOCK = 200
_WARM_UP = 300
#: A worker is to do this share of what its bare parts do.
_SHARE = 0.4
_KILLS = 30
_TICKS = os.sysconf("SC_CLK_TCK")


def worker(_site: Site) -> Iterator[Figure]:
    """Throughput with one and three connections, processor time, and a slot's replacement."""
    with Worker() as found, bare_worker() as port:
        found.specialize(_FUNCTION)
        asked = _Asked(found)
        floor = _Floor(port, len(asked.message()))
        for connections in (1, 3):
            say(f"measuring a worker alone, {connections} connections")
            yield _against_floor(asked, floor, connections, found)
        say("measuring the replacement of a slot")
    with Worker() as found:
        found.specialize("import os\ndef main(): return os.getpid()", concurrency=1)
        samples = [_replaced(found) for _ in range(_KILLS)]
        median = report.percentile(samples, 50)
        yield Figure("slot killed → slot ready", "p50 ≤ 20 ms", "ms", samples, median, 20)


@contextlib.contextmanager
def bare_worker() -> Iterator[int]:
    """A worker's bare parts; its port."""
    port = free_port()
    program = [sys.executable, "-I", "-S", str(Path(echo.__file__)), str(port), "3"]
    process = subprocess.Popen(program, start_new_session=True)
    try:
        wire.wait_for_answer(port, _Floor(port, 700).message())
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class _Asked:
    """Executions of a worker, as its control plane asks for them."""

    def __init__(self, found: Worker) -> None:
        self.port = found.port
        self._worker = found

    def message(self) -> bytes:
        body = json.dumps(self._worker.request(_GIVEN)).encode()
        assert self._worker.key is not None
        headers = signing.sign_request(self._worker.key, "POST", "/execute", body)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (
            "POST /execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"{head}Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


class _Floor:
    """The same number of bytes."""

    def __init__(self, port: int, size: int) -> None:
        self.port = port
        head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300\r\nX-Filler: "
        self._message = head + b"x" * (size - len(head) - 304) + b"\r\n\r\n" + b"x" * 300

    def message(self) -> bytes:
        return self._message


def _against_floor(asked: _Asked, floor: _Floor, connections: int, found: Worker) -> Figure:
    """Judged by milliseconds per execution, of all connections together."""
    samples: list[float] = []
    floors: list[float] = []
    for each in (asked, floor):
        _block(each, connections, _WARM_UP)
    used = 0.0
    for _ in range(_BLOCKS):
        before = _cpu(found.processes())
        samples.append(_block(asked, connections, _BLOCK))
        used += _cpu(found.processes()) - before
        floors.append(_block(floor, connections, _BLOCK))
    rate, floor_rate = (1000 / report.percentile(each, 50) for each in (samples, floors))
    thousand = 1000 * used / (_BLOCKS * _BLOCK)
    return report.against_floor(
        f"worker alone, {connections} connections",
        samples,
        floors,
        1 / _SHARE,
        note=f"{rate:.0f}/s, floor {floor_rate:.0f}/s: {rate / floor_rate:.0%}; "
        f"{thousand:.2f} CPU seconds per 1,000 executions",
    )


def _block(asked: _Asked | _Floor, connections: int, number: int) -> float:
    """Milliseconds per call, the calls of all connections together."""
    each = number // connections
    work = [[asked.message() for _ in range(each)] for _ in range(connections)]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(connections) as pool:
        ends = [stack.enter_context(wire.Connection(asked.port)) for _ in range(connections)]
        began = time.perf_counter()
        for _ in pool.map(_calls, ends, work):
            pass
        return (time.perf_counter() - began) * 1000 / (each * connections)


def _calls(connection: wire.Connection, messages: list[bytes]) -> None:
    for message in messages:
        connection.call(message, 200)


def _cpu(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def _replaced(found: Worker) -> float:
    """Milliseconds from a slot's death to the answer of the next one, less an execution's."""
    pid = found.run()["output"]
    began = time.perf_counter()
    assert found.run()["output"] == pid
    usual = time.perf_counter() - began
    os.kill(pid, signal.SIGKILL)
    began = time.perf_counter()
    while (answer := found.run())["status"] != "success":
        # It was sent to the slot before that was dead.
        pass
    assert answer["output"] != pid
    return (time.perf_counter() - began - usual) * 1000
