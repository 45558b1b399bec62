"""Real pools of three workers on this host: how soon they are there, and what memory all takes."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import report, wire
from tests.bench.report import Figure
from tests.bench.site import Site, say
from tests.fixtures.deployment import Deployment

_TIMES = 15
_BODY = {"image": "python3", "name": "a runtime"}
_MB = 1_000_000
#: Seconds without a call after which a process counts as idle.
_IDLE = 5.0


def available(site: Site) -> Iterator[Figure]:
    """From the call that creates a runtime to the first that shows it ``available``."""
    for name, installation in (
        ("distributed", site.distributed()),
        ("standalone", site.running(site.standalone())),
    ):
        say(f"measuring create → available, {name}")
        _create(installation)  # the engine may still have casts of other figures to read
        samples = [_create(installation) for _ in range(_TIMES)]
        yield report.at_most(f"create → available, {name}", samples, 1, "s")


def _create(installation: Deployment) -> float:
    with wire.Connection(installation.port) as connection:
        began = time.perf_counter()
        answer = json.loads(connection.call(wire.request("POST", "/v1/runtimes", _BODY), 201))
        message = wire.request("GET", f"/v1/runtimes/{answer['id']}")
        while answer["status"] == "creating":
            time.sleep(0.005)
            answer = json.loads(connection.call(message, 200))
        took = time.perf_counter() - began
    assert answer["status"] == "available", answer
    assert installation.client.pool(answer["id"]) == {"total": 3, "available": 3}
    installation.client.delete(answer["id"])
    installation.client.wait_gone(answer["id"])
    return took


def memory(site: Site) -> Iterator[Figure]:
    """API, engine and workers when nobody asks for anything, having served."""
    installation = site.distributed()
    client = installation.client
    runtime = client.create()
    client.wait_for(runtime["id"], "available")
    workers = installation.wait_for_workers(3)
    for _ in range(100):
        client.show(runtime["id"])
    say("measuring memory")
    time.sleep(_IDLE)
    for name, pids, allowed in (
        ("api", [installation.api.pid], 130),
        ("engine", [installation.engine.pid], 130),
        ("worker", sorted(workers), 15),
    ):
        note = f"resident: {max(resident(pid, 'Rss') for pid in pids):.1f} MB"
        samples = [resident(pid, "Pss") for pid in pids]
        yield report.at_most(f"idle PSS, {name}", samples, allowed, "MB", note=note)
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


def resident(pid: int, kind: str) -> float:
    """MB (10⁶ bytes) of a process's memory; ``Pss`` shares out what others map too."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{kind}:\s+(\d+) kB$", rollup, re.MULTILINE)
    assert found is not None, rollup
    return int(found[1]) * 1024 / _MB
