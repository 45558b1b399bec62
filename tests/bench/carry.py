"""What an engine needs that has 1,000 executions under way, for which nobody waits.

A stub stands for their workers, with one process, and the orchestrator is in memory: what the
executions themselves would take is not the engine's.
"""

import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from oslo_utils import timeutils

from qinling.db import models
from qinling.execution.keys import Keys
from tests.bench import pools, report, resync
from tests.bench.report import Figure
from tests.bench.rows import CALLER, Table
from tests.bench.site import Site, say
from tests.fixtures.deployment import SECRET
from tests.fixtures.process import Process, free_port, wait_until
from tests.unit.config import options

_OPEN = 1000
_WORKERS = 10
#: The limits of what is carried, so that it all is at the stub; one project gets three quarters of
#: the threads.
_OPTIONS = f"""
[engine]
execution_threads = {2 * _OPEN}
function_concurrency = {_OPEN // _WORKERS}
max_workers_per_function = {_WORKERS}
"""


def carry(site: Site) -> Iterator[Figure]:
    """The engine's memory while all are with their workers; then each gets its end."""
    key, port = secrets.token_bytes(32), free_port()
    program = [sys.executable, "-m", "tests.bench.stub_worker"]
    stub = Process(
        [*program, "--port", str(port), "--key", key.hex()],
        site.root / "stub.log",
        cwd=Path(__file__).parents[2],
    )
    with resync.table_of(site) as table:
        _fill(table, port, key)
        say(f"measuring an engine with {_OPEN} open executions")
        with (
            stub,
            resync.Engine(site, resync.config(site, table, _OPTIONS), "--complete") as engine,
        ):
            wait_until(lambda: stub.log_tail(1) == f"open: {_OPEN}", 60, "all open")
            sample = pools.resident(engine.pid, "Pss")
            note = f"resident: {pools.resident(engine.pid, 'Rss'):.1f} MB"
            stub.send_signal(signal.SIGUSR1)
            wait_until(lambda: _succeeded(table) == _OPEN, 60, "all ended", pause=0.2)
            engine.terminate(30)
    yield report.at_most(f"PSS, engine with {_OPEN:,} open", [sample], 300, "MB", note=note)


def _succeeded(table: Table) -> int:
    [(count,)] = table.execute("SELECT COUNT(*) FROM executions WHERE status = 'success'")
    return int(str(count))


def _fill(table: Table, port: int, key: bytes) -> None:
    """A function, workers that have it, and executions that nobody has taken."""
    table.fill(1)
    [(runtime_id,)] = table.execute("SELECT id FROM runtimes")
    now = timeutils.utcnow()
    conf = options()
    conf.set_override("secret", SECRET, group="execution")
    function_id = "00000000-0000-0000-0000-000000000001"
    owned = {"project_id": CALLER, "created_at": now}
    function = {
        "id": function_id,
        **owned,
        "runtime_id": runtime_id,
        "code": '{"source": "package"}',
        "entry": "main.main",
        "cpu": 100,
        "memory_size": 32 << 20,
        "timeout": 300,
        "count": _OPEN,
        "latest_version": 0,
        "revision": 1,
    }
    code = {"function_id": function_id, "function_version": 0}
    demand = {**code, "wanted": _WORKERS, "used_at": now, "settled": True}
    worker = {
        **code,
        "revision": 1,
        "runtime_id": runtime_id,
        "boot_id": "boot",
        "address": f"127.0.0.1:{port}",
        "key": Keys(conf).hide(key),
        "status": "ready",
        "claimed_at": now,
    }
    execution = {**owned, **code, "status": "running", "sync": False, "input": "x"}
    rows: dict[Any, list[dict[str, Any]]] = {
        models.Function: [function],
        models.Demand: [demand],
        models.Worker: [worker | {"id": f"worker-{number}"} for number in range(_WORKERS)],
        models.Execution: [execution | {"id": f"execution-{n}"} for n in range(_OPEN)],
    }
    engine = sa.create_engine(table.url)
    with engine.begin() as connection:
        for model, values in rows.items():
            connection.execute(sa.insert(model.__table__), values)
    engine.dispose()
