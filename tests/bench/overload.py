"""Many callers: what they get in all, and what becomes of two and four times as much.

Clients, API, engine, workers, MariaDB and RabbitMQ share this host's processors.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.bench import arrivals, functions, report, wire
from tests.bench.arrivals import Sent, Stream
from tests.bench.report import Figure
from tests.bench.rows import Table
from tests.bench.site import Site, say

_CLIENTS = 8
_PARTS, _PART = 6, 2.0
_RATE = 200
_SECONDS = 10.0
#: Calls a second for a runtime, beside the executions.
_SHOWS = 10
#: Milliseconds of a call that waits for nothing, and what of the best is done in an overload.
_SOON = 250
_SHARE = 0.8


def overload(site: Site) -> Iterator[Figure]:
    """A closed loop of eight clients, and open loops beyond what those get."""
    installation = site.distributed()
    table = Table(site.mariadb, installation.database)
    port = installation.port
    with functions.runtime(installation) as runtime:
        function_id = runtime.create()
        body = {"function_id": function_id, "input": '{"name": "World"}'}
        message = wire.request("POST", "/v1/executions", body)
        say(f"measuring {_CLIENTS} clients")
        # The first ones bring the workers.
        rates = [_closed(port, message) for _ in range(_PARTS)][1:]
        capacity = report.percentile(rates, 50)
        goal = f"p50 ≥ {_RATE}/s, no failure"
        name = f"REST, {_CLIENTS} clients"
        yield Figure(name, goal, "/s", rates, capacity, _RATE, more=True)
        show = Stream("show", wire.request("GET", f"/v1/runtimes/{runtime.id}"), _SHOWS)
        for times in (2, 4):
            say(f"measuring {times} x {capacity:.0f} executions a second")
            execute = Stream("execute", message, times * capacity)
            # So many callers bring more workers: what that costs is over then.
            arrivals.send(port, [execute], _SECONDS)
            before = _statuses(table, function_id)
            sent = arrivals.send(port, [execute, show], _SECONDS)
            rows = _statuses(table, function_id) - before
            yield from _figures(f"{times} x capacity", sent, capacity, rows)


def _closed(port: int, message: bytes) -> float:
    """Executions a second of clients that wait for their answers; each succeeds."""
    ends = time.perf_counter() + _PART

    def client(_number: int) -> int:
        count = 0
        with wire.Connection(port) as connection:
            while time.perf_counter() < ends:
                assert json.loads(connection.call(message, 201))["status"] == "success"
                count += 1
        return count

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return sum(pool.map(client, range(_CLIENTS))) / _PART


def _statuses(table: Table, function_id: str) -> Counter[str]:
    """Executions of a function by their status."""
    rows = table.execute(
        f"SELECT status, COUNT(*) FROM executions WHERE function_id = '{function_id}' "
        "GROUP BY status"
    )
    return Counter({str(status): int(str(count)) for status, count in rows})


def _figures(name: str, sent: Sent, capacity: float, rows: Counter[str]) -> Iterator[Figure]:
    """
    :param rows: executions that were accepted meanwhile, by their status.
    """
    answered = sent.answered
    executions = answered["execute"]
    done = [each for each in executions if each.status == 201]
    succeeded = [each for each in done if json.loads(each.body)["status"] == "success"]
    refused = [each.took for each in executions if each.status == 429]
    others = Counter(each.status for each in executions if each.status not in (0, 201, 429))
    assert not others, f"answered with {others}"
    slow = report.percentile([each.took for each in done], 99)
    yield report.at_least(
        f"{name}: goodput",
        [len(succeeded) / _SECONDS],
        _SHARE * capacity,
        "/s",
        note=f"{len(executions) / _SECONDS:.0f}/s came, {len(refused) / _SECONDS:.0f}/s were "
        f"refused; p99 of the others {slow:.0f} ms; their sender used {sent.processor:.0%} of a "
        f"processor, and came to them p99 {report.percentile(sent.late, 99):.0f} ms late",
    )
    lost = rows.total() - rows["success"] + abs(rows.total() - len(succeeded))
    note = f"rows: {dict(rows)}, answers: {len(done)}"
    yield report.at_most(f"{name}: lost or failed", [lost], 0, "executions", note=note)
    if refused:
        yield report.at_rank(f"{name}: refusals", refused, 99, _SOON, "ms")
    unanswered = sum(not each.status for each in (*executions, *answered["show"]))
    yield report.at_most(f"{name}: without an answer", [unanswered], 0, "calls")
    shows = [each.took for each in answered["show"] if each.status == 200]
    yield report.at_rank(f"{name}: GET runtime", shows, 99, _SOON, "ms")
