"""What the engine itself costs, with an orchestrator that costs nothing.

How long it takes after a restart until everything that was under way is settled, and what
processor time it takes to look at each settled runtime once in ten minutes.
"""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench import report
from tests.bench.report import Figure
from tests.bench.rows import Table
from tests.bench.site import Site, say
from tests.fixtures.process import Process, wait_until

_UNSETTLED = 1000
_RESTARTS = 3
_SETTLED = 10_000
#: Within which each settled runtime is to be looked at, in seconds.
_WITHIN = 600.0
#: The default of ``[engine] settled_interval``, and the one of the run that shows a whole round.
_INTERVAL = 540.0
_SHORT_INTERVAL = 20.0
_WINDOW = 60.0


@dataclass(frozen=True, slots=True)
class _Said:
    """What the engine tells of itself: looks, at how many pools, CPU seconds, at what time."""

    looks: int
    pools: int
    cpu: float
    now: float


class Engine(Process):
    """The program `tests.bench.engine`."""

    def __init__(self, site: Site, file: Path, *options: str) -> None:
        program = [sys.executable, "-m", "tests.bench.engine", "--config-file", str(file)]
        super().__init__(
            [*program, *options], site.root / "engine.log", cwd=Path(__file__).parents[2]
        )
        self._asked = 0

    def started_at(self) -> float:
        """When its engine was started, once it was."""
        return float(self.wait_for_line(r"^started (\S+)$", 30)[1])

    def ask(self) -> _Said:
        self._asked += 1
        self.send_signal(signal.SIGUSR1)

        def answers() -> list[str]:
            found = [line for line in self.log_since_start().splitlines() if line[:1] == "{"]
            return found if len(found) >= self._asked else []

        return _Said(**json.loads(wait_until(answers, 30, "the engine's answer")[-1]))


@contextlib.contextmanager
def table_of(site: Site) -> Iterator[Table]:
    """A database of its own."""
    table = Table.in_new_database(site.mariadb)
    yield table
    site.mariadb.drop_database(table.url)


def config(site: Site, table: Table, options: str = "") -> Path:
    """The configuration of an engine on it."""
    bus = f"[DEFAULT]\ntransport_url = {site.rabbitmq.url()}\n"
    return table.write_config(site.root / "engine.conf", bus + options)


def restart(site: Site) -> Iterator[Figure]:
    """1,000 rows on their way when an engine starts: creating, upgrading and deleting ones."""
    whole: list[float] = []
    engine_only: list[float] = []
    cpu: list[float] = []
    with table_of(site) as table:
        file = config(site, table)
        say(f"measuring {_UNSETTLED} unsettled rows after a restart")
        for _ in range(_RESTARTS):
            table.fill(
                _UNSETTLED,
                status="ELT(1 + seq % 6, 'deleting', 'upgrading', "
                "'creating', 'creating', 'creating', 'creating')",
                previous_image="IF(seq % 6 = 1, 'python3:old', NULL)",
                settled="0",
                pool_total="0",
                pool_available="0",
            )
            left = _UNSETTLED - table.count("status = 'deleting'")
            began = time.monotonic()
            with Engine(site, file) as engine:
                wait_until(lambda: not table.count("settled = 0"), 120, "all rows settled")
                ended = time.monotonic()
                whole.append(ended - began)
                engine_only.append(ended - engine.started_at())
                cpu.append(engine.ask().cpu)
                engine.terminate(30)
            assert table.count("status = 'available' AND pool_available = 3") == left
            table.clear()
    used = report.percentile(cpu, 50)
    note = f"1/6 deleting, 1/6 upgrading, the others creating; {used:.1f} s of processor time"
    yield report.at_most("restart, 1,000 unsettled", whole, 10, "s", note=note)
    yield report.at_most("… from Engine.start", engine_only, 10, "s")


def settled(site: Site) -> Iterator[Figure]:
    """10,000 settled runtimes at the default interval, and one whole round at a short one."""
    with table_of(site) as table:
        table.fill(_SETTLED)
        yield from _cpu(site, table)
        yield from _round(site, table)


def _cpu(site: Site, table: Table) -> Iterator[Figure]:
    say(f"measuring the engine's processor time with {_SETTLED} settled rows, for {_WINDOW:.0f} s")
    with Engine(site, config(site, table), "--complete") as engine:
        # Past what a start costs.
        engine.wait_for_line("The engine is running", 30)
        time.sleep(10)
        first = engine.ask()
        time.sleep(_WINDOW)
        last = engine.ask()
        engine.terminate(30)
    seconds = last.now - first.now
    cpu = (last.cpu - first.cpu) / seconds * 100
    looks = last.looks - first.looks
    per_look = (last.cpu - first.cpu) / max(looks, 1) * 1000
    note = (
        f"{seconds:.0f} s of the default interval; {per_look:.2f} ms of processor time per look, "
        "all that an idle engine does included"
    )
    yield report.at_most(f"CPU, {_SETTLED:,} settled", [cpu], 5, "%", note=note)
    # One engine looks at each row once per round.
    rate = _SETTLED / _WITHIN
    yield Figure(
        "… looks per second",
        f"≥ {rate:.1f}/s",
        "/s",
        [looks / seconds],
        judged=-looks / seconds,
        allowed=-rate,
        note=f"{looks} looks, at {last.pools - first.pools} rows not seen before",
    )


def _round(site: Site, table: Table) -> Iterator[Figure]:
    say(f"measuring a whole round in {_SHORT_INTERVAL:.0f} s")
    options = f"[engine]\nsettled_interval = {_SHORT_INTERVAL}\n"
    with Engine(site, config(site, table, options), "--complete") as engine:
        started = engine.started_at()
        wait_until(lambda: engine.ask().pools == _SETTLED, 120, "each row looked at", pause=0.2)
        seconds = time.monotonic() - started
        engine.terminate(30)
    factor = _INTERVAL / _SHORT_INTERVAL
    yield report.at_most(
        "… each looked at once",
        [seconds * factor],
        _WITHIN,
        "s",
        note=f"took {seconds:.1f} s with settled_interval {_SHORT_INTERVAL:.0f} s; x {factor:.0f}",
    )
