"""``qinling-engine`` with an orchestrator in memory: a program of its own.

Prints ``started <seconds>`` (the monotonic clock, which all processes of a host share) before the
engine starts. At SIGUSR1 it prints, as a line of JSON, how many looks at how many pools there were
and what processor time it has used.
"""

import json
import signal
import sys
import threading
import time
from collections.abc import Sequence

from oslo_config import cfg

from qinling import conf, rpc
from qinling.cmd import service
from qinling.db import api as db_api
from qinling.engine import service as engine_service
from tests.bench.memory import MemoryOrchestrator

OPTIONS = [
    cfg.BoolOpt("complete", default=False, help="All pools are there already."),
]


def _tell(driver: MemoryOrchestrator) -> None:
    while True:
        signal.sigwait([signal.SIGUSR1])
        said = {
            "looks": driver.looks.total(),
            "pools": len(driver.looks),
            "cpu": time.process_time(),
            "now": time.monotonic(),
        }
        print(json.dumps(said), flush=True)


def prepare(argv: Sequence[str]) -> int:
    options = conf.load(argv, "bench-engine", extra=OPTIONS)
    db = db_api.Database(options)
    db.check()
    driver = MemoryOrchestrator(complete=options.complete)
    process = service.Process()
    engine = engine_service.Engine(options, db, driver, "bench-engine", process.fail)
    bus = rpc.EngineServer(options, engine.look_at_runtime, engine.look_at_function)

    threading.Thread(target=_tell, args=(driver,), daemon=True).start()
    print(f"started {time.monotonic()}", flush=True)
    return process.run([engine, bus], lambda: print("The engine is running.", flush=True))


if __name__ == "__main__":
    # Before there are other threads, which inherit it: one of them waits for the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    sys.exit(service.main(prepare))
