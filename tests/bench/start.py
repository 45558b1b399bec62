"""From the start of ``qinling-standalone`` to its first answer, beside a bare import.

The floor is a Python that imports the modules which qinling-standalone has when it serves, and
ends: the first start on a new folder makes the database and has more of them than later ones.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import report, wire
from tests.bench.report import Figure
from tests.bench.site import Site, say
from tests.fixtures.deployment import Standalone
from tests.fixtures.process import DIE_WITH_TESTS, Process, free_port

_FACTOR, _PLUS = 1.5, 0.7
_TIMES = 7
_ASK = wire.request("GET", "/v1/runtimes")

#: Prints those of the modules named on standard input that can be imported by their names.
_IMPORTABLE = """
import sys
for name in sys.stdin.read().split():
    try:
        exec(f"import {name}")
        print(name)
    except Exception:
        pass
"""


def start(site: Site) -> Iterator[Figure]:
    """A first start, and one with the state of an earlier one."""
    say("measuring the start of qinling-standalone")
    state = site.root / "modules"
    names = {"first": _modules(site, state), "later": _modules(site, state)}
    later = site.standalone()
    _first_answer(later)  # makes what later starts find
    samples: dict[str, list[float]] = {name: [] for name in names}
    floors: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(_TIMES):
        for name, modules in names.items():
            floors[name].append(_bare_import(modules))
            installation = site.standalone() if name == "first" else later
            samples[name].append(_first_answer(installation))
    for name, modules in names.items():
        yield report.against_floor(
            f"standalone, {name} start",
            samples[name],
            floors[name],
            _FACTOR,
            plus=_PLUS,
            unit="s",
            note=f"floor: a bare import of the same {len(modules)} modules",
        )


def _modules(site: Site, state: Path) -> list[str]:
    """What is imported when it serves, in that order, where it can be imported by name."""
    output = site.root / "modules.txt"
    arguments = [str(output), str(free_port()), "--state-dir", str(state)]
    program = Process(
        [sys.executable, "-m", "tests.bench.modules", *arguments],
        site.root / "modules.log",
        cwd=Path(__file__).parents[2],
    )
    with program:
        assert program.wait(60) == 0, program.log()
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _IMPORTABLE],
        input=output.read_text(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=site.root,
    )
    return found.stdout.split()


def _bare_import(modules: list[str]) -> float:
    """Seconds of a Python that does this and nothing else; not its end, which is not asked for."""
    code = f"import os\nimport {', '.join(modules)}\nos._exit(0)"
    began = time.perf_counter()
    subprocess.run(
        [*DIE_WITH_TESTS, sys.executable, "-W", "ignore", "-c", code], check=True, cwd="/"
    )
    return time.perf_counter() - began


def _first_answer(installation: Standalone) -> float:
    """Seconds from its start until it has answered a list of runtimes."""
    process = installation.process
    began = time.perf_counter()
    process.start()
    try:
        wire.wait_for_answer(installation.port, _ASK)
        took = time.perf_counter() - began
        process.terminate(30)
    finally:
        installation.close()
    return took
