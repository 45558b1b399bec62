"""Executions of one caller: warm ones beside their floor, first ones, and those that time out."""

import json
import time
from collections.abc import Iterator

from tests.bench import beside, calls, functions, load, report, wire
from tests.bench.functions import PACKAGES, Runtime
from tests.bench.report import Figure
from tests.bench.site import Site, say
from tests.bench.worker import bare_worker

_FACTOR, _LATE_FACTOR = 1.8, 3
_WISH = 6
_FIRSTS = 40
#: Seconds that pool and engine are left alone before a first execution: the pool starts another
#: worker a moment after the last was claimed, and the one of the function before has its end.
_ALONE = 1.0
_TIMEOUTS = 10


def warm(site: Site) -> Iterator[Figure]:
    """Synchronous executions of a function that has a worker, one after the other.

    And beside them what they would be without all this, which no goal is set for.
    """
    installation = site.distributed()
    with functions.runtime(installation) as runtime, bare_worker() as port:
        for kind in PACKAGES:
            function_id = runtime.create(kind)
            runtime.client.execute(function_id)
            [worker_id] = runtime.client.workers(function_id)
            options = ("--worker-id", worker_id, "--worker-port", str(port))
            floor = site.floor(installation.database, "tests.bench.execution_floor", *options)
            with floor as floor_port, beside.served(kind) as others:
                say(f"measuring warm executions, {kind}")
                message = _message(function_id, name="World")
                taken = calls.in_turn(installation.port, floor_port, [message], 201, others)
            name = f"warm execution, {kind}"
            yield taken.against_floor(name, _FACTOR)
            yield _late(name, taken)
            for other, samples in taken.beside.items():
                note = beside.KINDS[other]
                yield report.beside(f"{name}: {other}", samples, "ms", note=note)


def _late(name: str, taken: calls.Taken) -> Figure:
    """The same by the slowest of a hundred."""
    late, floor = (report.percentile(each, 99) for each in (taken.samples, taken.floors))
    median = report.percentile(taken.samples, 50)
    return Figure(
        f"{name}, late ones",
        f"p99 ≤ {_LATE_FACTOR} x floor",
        "ms",
        taken.samples,
        late,
        _LATE_FACTOR * floor,
        taken.floors,
        f"by their p99 the ratio is {late / floor:.2f}; p50 {median:.1f} ms, where {_WISH} ms is "
        "the wish",
    )


def first(site: Site) -> Iterator[Figure]:
    """The first execution of a function, while the pool of its runtime is full."""
    installation = site.distributed()
    with (
        functions.runtime(installation) as runtime,
        wire.Connection(installation.port) as connection,
    ):
        for kind in PACKAGES:
            say(f"measuring first executions, {kind}")
            others = load.Others()
            samples = [_first(runtime, connection, kind) for _ in range(_FIRSTS)]
            note = f"others used {others.share():.0%} of the processors meanwhile"
            name = f"first execution, {kind}"
            yield report.at_rank(name, samples, 50, 60, "ms", note=note)
            yield report.at_rank(f"{name}, late ones", samples, 99, 150, "ms")


def _first(runtime: Runtime, connection: wire.Connection, kind: str) -> float:
    function_id = runtime.create(kind)
    time.sleep(_ALONE)
    runtime.wait_until_full()
    took = connection.timed(_message(function_id, name="World"), 201)
    runtime.remove(function_id)
    return took


def timeouts(site: Site) -> Iterator[Figure]:
    """How long after its time an execution's caller is told that it is over."""
    installation = site.distributed()
    with (
        functions.runtime(installation) as runtime,
        wire.Connection(installation.port) as connection,
    ):
        function_id = runtime.create(timeout=1)
        runtime.client.execute(function_id)
        say("measuring timeouts")
        samples = []
        for _ in range(_TIMEOUTS):
            began = time.perf_counter()
            answer = connection.call(_message(function_id, seconds=30), 201)
            samples.append((time.perf_counter() - began - 1) * 1000)
            assert "Function execution timeout" in json.loads(answer)["result"], answer
        yield report.at_most("timeout told after, beyond it", samples, 100, "ms")


def _message(function_id: str, **arguments: object) -> bytes:
    body = {"function_id": function_id, "input": json.dumps(arguments)}
    return wire.request("POST", "/v1/executions", body)
