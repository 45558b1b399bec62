"""``GET /v1/runtimes/{id}`` and ``POST /v1/runtimes`` beside their floor.

One caller, one call at a time, on connections that are kept open. The two servers are asked in
turn, some calls each: within such a block the API pays for what it still does after an answer, as
sending the cast.
"""

import time
from collections.abc import Iterator, Sequence

from tests.bench import report, wire
from tests.bench.report import Figure
from tests.bench.site import Site, say

_FACTOR = 1.8
_BLOCK = 10
_WARM_UP = 100
_CALLS = 2000
_ROWS = 1000
#: Seconds after which a busy machine has to do with fewer calls.
_LONGEST = 25.0


def show(site: Site) -> Iterator[Figure]:
    """``GET`` of one of 1,000 runtimes."""
    with site.api_alone() as (installation, table), site.floor(installation.database) as floor:
        table.fill(_ROWS)
        say("measuring GET /v1/runtimes/{id}")
        ids = [row[0] for row in table.execute("SELECT id FROM runtimes")]
        messages = [wire.request("GET", f"/v1/runtimes/{runtime_id}") for runtime_id in ids]
        samples, floors = _in_turn(installation.port, floor, messages, 200)
    yield report.against_floor("GET runtime", samples, floors, _FACTOR)


def create(site: Site) -> Iterator[Figure]:
    """``POST`` of a runtime; no engine does anything about it, as it would on a host of its own."""
    with site.api_alone() as (installation, _table), site.floor(installation.database) as floor:
        say("measuring POST /v1/runtimes")
        body = {"image": "python3", "name": "a runtime", "description": "What it is for"}
        message = wire.request("POST", "/v1/runtimes", body)
        samples, floors = _in_turn(installation.port, floor, [message], 201)
    yield report.against_floor("POST runtime", samples, floors, _FACTOR)


def _in_turn(
    port: int, floor_port: int, messages: Sequence[bytes], status: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of the calls on either port."""
    samples: list[float] = []
    floors: list[float] = []
    with wire.Connection(port) as api, wire.Connection(floor_port) as floor:
        for _ in range(_WARM_UP):
            api.call(messages[0], status)
            floor.call(messages[0], status)
        ends = time.monotonic() + _LONGEST
        for start in range(0, _CALLS, _BLOCK):
            if time.monotonic() > ends:
                break
            block = [messages[n % len(messages)] for n in range(start, start + _BLOCK)]
            samples += [api.timed(message, status) for message in block]
            floors += [floor.timed(message, status) for message in block]
    return samples, floors
