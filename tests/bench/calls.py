"""``GET /v1/runtimes/{id}`` and ``POST /v1/runtimes`` beside their floor.

One caller, one call at a time, on connections that are kept open. The two servers are asked in
turn, some calls each: within such a block the API pays for what it still does after an answer, as
sending the cast.

While others use the processors too, a ratio tells of caches more than of code. So it is measured in
bursts, and those count in which others did least; both sides of a burst count, or neither.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench import load, report, wire
from tests.bench.report import Figure
from tests.bench.site import Site, say

_FACTOR = 1.8
_BLOCK = 10
_BURST = 100
_WARM_UP = 100
_ROWS = 1000
#: Calls of each kind in bursts that others left alone, and what counts as that.
_CALLS = 2000
_ALONE = 0.1
#: Where that is not had within so many seconds, the quietest bursts with so many calls count.
_LONGEST = 60.0
_LEAST = 500


def show(site: Site) -> Iterator[Figure]:
    """``GET`` of some of 1,000 runtimes."""
    with site.api_alone() as (installation, table), site.floor(installation.database) as floor:
        table.fill(_ROWS)
        say("measuring GET /v1/runtimes/{id}")
        ids = table.execute(f"SELECT id FROM runtimes LIMIT {_BURST}")
        messages = [wire.request("GET", f"/v1/runtimes/{runtime_id}") for (runtime_id,) in ids]
        taken = in_turn(installation.port, floor, messages, 200)
        yield taken.against_floor("GET runtime", _FACTOR)


def create(site: Site) -> Iterator[Figure]:
    """``POST`` of a runtime; no engine does anything about it, as it would on a host of its own."""
    with site.api_alone() as (installation, _table), site.floor(installation.database) as floor:
        say("measuring POST /v1/runtimes")
        body = {"image": "python3", "name": "a runtime", "description": "What it is for"}
        message = wire.request("POST", "/v1/runtimes", body)
        taken = in_turn(installation.port, floor, [message], 201)
        yield taken.against_floor("POST runtime", _FACTOR)


@dataclass(frozen=True, slots=True)
class Taken:
    """Milliseconds of the calls that count, and what there is to say about them.

    :ivar beside: those of others that were asked too, by their names.
    """

    samples: list[float]
    floors: list[float]
    beside: Mapping[str, list[float]]
    note: str

    def against_floor(self, name: str, factor: float) -> Figure:
        return report.against_floor(name, self.samples, self.floors, factor, note=self.note)


@dataclass(frozen=True, slots=True)
class _Burst:
    """Milliseconds of the calls, and what others had of the processors meanwhile."""

    samples: list[float]
    floors: list[float]
    beside: Mapping[str, list[float]]
    others: float


#: Makes a call and returns the milliseconds that it took.
Timed = Callable[[], float]


def in_turn(
    port: int,
    floor_port: int,
    messages: Sequence[bytes],
    status: int,
    beside: Mapping[str, Timed] | None = None,
) -> Taken:
    """Ask two servers the same in turn, whose answers have this status.

    :param beside: others that are asked as often, by their names.
    """
    beside = beside or {}
    bursts: list[_Burst] = []
    ends = time.monotonic() + _LONGEST
    with wire.Connection(port) as api, wire.Connection(floor_port) as floor:
        for timed in beside.values():
            for _ in range(_WARM_UP):
                timed()
        _warm_up(api, floor, messages[0], status, _WARM_UP)
        while _calls(bursts) < _CALLS and time.monotonic() < ends:
            bursts.append(_burst(api, floor, messages, status, beside))
            if bursts[-1].others > _ALONE:
                time.sleep(0.2)
    bursts.sort(key=lambda burst: burst.others)
    counted = [burst for burst in bursts if burst.others <= _ALONE]
    counted = bursts[: max(len(counted), _LEAST // _BURST)]
    return Taken(
        [sample for burst in counted for sample in burst.samples],
        [sample for burst in counted for sample in burst.floors],
        {name: [each for burst in counted for each in burst.beside[name]] for name in beside},
        f"others used up to {counted[-1].others:.0%} of the processors meanwhile",
    )


def _calls(bursts: Sequence[_Burst]) -> int:
    return sum(len(burst.samples) for burst in bursts if burst.others <= _ALONE)


def _burst(
    api: wire.Connection,
    floor: wire.Connection,
    messages: Sequence[bytes],
    status: int,
    beside: Mapping[str, Timed],
) -> _Burst:
    samples: list[float] = []
    floors: list[float] = []
    others = load.Others()
    for start in range(0, _BURST, _BLOCK):
        block = [messages[n % len(messages)] for n in range(start, start + _BLOCK)]
        samples += [api.timed(message, status) for message in block]
        floors += [floor.timed(message, status) for message in block]
    # Not between the two, whose caches they would cool, and not those of both alike.
    besides = {name: [timed() for _ in range(_BURST)] for name, timed in beside.items()}
    found = _Burst(samples, floors, besides, others.share())
    if beside:
        _warm_up(api, floor, messages[0], status, _BLOCK)
    return found


def _warm_up(
    api: wire.Connection, floor: wire.Connection, message: bytes, status: int, times: int
) -> None:
    for _ in range(times):
        api.call(message, status)
        floor.call(message, status)
