"""The owner of running executions is killed with -9: how soon their rows have the true results.

The owner of one that a caller waits for is the API, of another one an engine, beside which there is
another engine then.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import requests

from tests.bench import functions, report
from tests.bench.functions import Runtime
from tests.bench.report import Figure
from tests.bench.rows import Table
from tests.bench.site import Site, say
from tests.fixtures.deployment import Client
from tests.fixtures.process import Process, wait_until

#: Executions at a time, and how long each of them runs (seconds).
_NUMBER = 3
_RUN = 3


def owners(site: Site) -> Iterator[Figure]:
    """From the kill to the end of executions that are with their workers then."""
    installation = site.distributed()
    table = Table(site.mariadb, installation.database)
    with functions.runtime(installation) as runtime, ThreadPoolExecutor(_NUMBER) as callers:
        say("measuring what becomes of executions whose API is killed")
        begun = _begin(runtime, table, callers, sync=True)
        yield _figure("API", table, begun, installation.api)
        installation.api.start()
        installation.wait_until_serving()
        say("measuring what becomes of executions whose engine is killed")
        begun = _begin(runtime, table, callers, sync=False)
        with installation.second_engine() as second:
            second.wait_for_line("The engine is running", timeout=30)
            yield _figure("engine", table, begun, installation.engine)
            installation.engine.start()


def _begin(
    runtime: Runtime, table: Table, callers: ThreadPoolExecutor, *, sync: bool
) -> Sequence[str]:
    """Ids of executions that were sent to a worker."""
    function_id = runtime.create(timeout=30)
    # From here on a worker has it.
    runtime.client.execute(function_id)
    body = {"function_id": function_id, "input": json.dumps({"seconds": _RUN}), "sync": sync}

    def call() -> None:
        with contextlib.suppress(requests.ConnectionError):
            Client(runtime.client.url).call("POST", "/v1/executions", json=body)

    for _ in range(_NUMBER):
        callers.submit(call)
    where = f"function_id = '{function_id}' AND status = 'running' AND worker_id IS NOT NULL"
    query = f"SELECT id FROM executions WHERE {where}"
    rows = wait_until(
        lambda: len(found := table.execute(query)) == _NUMBER and found, 30, "executions sent"
    )
    return [str(found) for (found,) in rows]


def _figure(name: str, table: Table, begun: Sequence[str], owner: Process) -> Figure:
    killed = time.monotonic()
    owner.kill()
    waiting, samples = set(begun), []
    while waiting:
        assert time.monotonic() < killed + 60, f"{waiting} have not ended"
        for execution_id in list(waiting):
            query = f"SELECT status, result FROM executions WHERE id = '{execution_id}'"
            [(status, result)] = table.execute(query)
            if status != "running":
                samples.append(time.monotonic() - killed)
                waiting.discard(execution_id)
                assert json.loads(str(result))["output"] == "Hello, World", result
        time.sleep(0.02)
    return report.at_most(f"{name} killed → true result", samples, 20, "s")
