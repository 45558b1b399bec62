"""One seed on one installation: from its first function to its empty end."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.chaos import checker, plan
from tests.chaos.actors import PATIENCE, Caller, Customer, Function, Hand
from tests.chaos.history import Aftermath, History, Run
from tests.chaos.sites import POOL, Site
from tests.fixtures.process import wait_until

CLIENTS = 8
FUNCTIONS = 3
#: Seconds that some clients wait for what an execution comes to; they never know it then.
_LITTLE_PATIENCE = 3.0
#: Seconds after the last fault, with all services there, in which everything serves again.
SERVES_WITHIN = 10.0
#: Seconds in which what had lost its owner has its end: until the lease is lost, and asked for.
_ENDS_WITHIN = 60.0
#: Seconds in which no worker is left that nobody knows of: a claim that was cut short has a grace.
_TIDY_WITHIN = 90.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a trial has found.

    :ivar summary: what there was. :ivar breaches: what is wrong, empty when nothing is.
    """

    summary: str
    breaches: list[str]
    harms: list[str]


def runs_file(folder: Path) -> Path:
    """An empty file in a folder that every worker may pass, for every worker to write to."""
    path = folder / "runs"
    path.touch()
    path.chmod(0o666)
    return path


def run(site: Site, runs: Path, seed: int, seconds: float) -> Verdict:
    """Put an installation under load and faults for so many seconds, and judge it.

    :param runs: an empty file that workers may write to.
    """
    operator = site.deployment.client
    runtime = operator.create()
    operator.wait_for(runtime["id"], "available")
    functions = [Function(operator, runtime["id"], runs) for _ in range(FUNCTIONS)]
    history = History()
    breaches = _storm(site, functions, history, seed, seconds)
    dead = [each for kind in site.programs.values() for each in kind if not each.running]
    if dead:
        breaches += [f"{each} has ended:\n{each.log_tail()}" for each in dead]
        return Verdict("the installation has ended", breaches, list(map(str, history.harms)))
    breaches += _late(_wait_ended, site)
    breaches += _late(_wait_tidy, site)
    found = _aftermath(site, functions, runs)
    breaches += checker.check(history, found)
    breaches += _late(_clear, site, functions, runtime["id"])
    return Verdict(checker.summary(history, found), breaches, list(map(str, history.harms)))


def _storm(
    site: Site, functions: list[Function], history: History, seed: int, seconds: float
) -> list[str]:
    """Load and faults, and then as much time as it may take to be well again."""
    stop = threading.Event()
    hand = Hand(site, plan.blows(seed, seconds, ("worker", *site.programs)), history)
    customers = []
    for number in range(CLIENTS):
        name = f"client-{number}"
        # Half of them begin at each API.
        urls = site.urls if number % 2 else site.urls[::-1]
        # And half of those there have little patience.
        patience = PATIENCE if number % 4 < 2 else _LITTLE_PATIENCE
        caller = Caller(name, urls, history, patience)
        customers.append(Customer(name, seed, caller, functions, stop))
    with hand:
        for each in customers:
            each.start()
        try:
            time.sleep(seconds)
        finally:
            stop.set()
        hand.rest()
        breaches = _serves_again(site, functions, history)
        for each in customers:
            each.join(_ENDS_WITHIN)
            if each.is_alive():
                breaches.append(f"{each.name} is still without an answer")
    return hand.wrong + breaches


def _serves_again(site: Site, functions: list[Function], history: History) -> list[str]:
    """Every function through every API, both ways, from when all processes run again."""
    deadline = time.monotonic() + SERVES_WITHIN

    def served(url: str, function: Function, sync: bool) -> str | None:
        caller = Caller(f"after-{url[-5:]}-{function.id[:8]}-{sync}", [url], history)
        while time.monotonic() < deadline:
            execution = caller.call(function, sync=sync)
            while execution is not None and execution["status"] == "running":
                time.sleep(0.1)
                execution = caller.look(execution["id"]) or execution
                if time.monotonic() > deadline:
                    break
            if execution is not None and execution["status"] == "success":
                break
            time.sleep(0.1)
        if time.monotonic() <= deadline:
            return None
        way = "synchronously" if sync else "asynchronously"
        return f"{url} did not serve function {function.id} {way} within {SERVES_WITHIN:g} s"

    with ThreadPoolExecutor(16) as pool:
        asked = [
            pool.submit(served, url, function, sync)
            for url in site.urls
            for function in functions
            for sync in (True, False)
        ]
        return [said for each in asked if (said := each.result()) is not None]


def _late(what: object, *arguments: object) -> list[str]:
    """Wait for something; what it was when it did not come."""
    assert callable(what)
    try:
        what(*arguments)
    except (AssertionError, requests.RequestException) as error:
        return [str(error)]
    return []


def _wait_ended(site: Site) -> None:
    path = "/v1/executions?status=running"

    def ended() -> bool:
        left = site.deployment.client.call("GET", path).json()["executions"]
        assert left == [] or time.monotonic() < deadline, f"for ever under way: {left}"
        return left == []

    deadline = time.monotonic() + _ENDS_WITHIN
    wait_until(ended, _ENDS_WITHIN + 5, "the ends of all executions", pause=0.2)


def _wait_tidy(site: Site) -> None:
    """Wait until the workers that live are those of the pool, and those that have a row."""
    said = ""

    def tidy() -> bool:
        nonlocal said
        alive, rows = site.workers(), {row[0] for row in site.query("SELECT id FROM workers")}
        draining = site.query("SELECT id FROM workers WHERE status = 'draining'")
        said = f"alive {sorted(alive)}, rows {sorted(rows)}, draining {draining}"
        return rows <= alive and len(alive - rows) == POOL and not draining

    try:
        wait_until(tidy, _TIDY_WITHIN, "no worker of nobody's", pause=0.2)
    except AssertionError as error:
        raise AssertionError(f"{error}; {said}") from None


def _aftermath(site: Site, functions: list[Function], runs: Path) -> Aftermath:
    client = site.deployment.client
    return Aftermath(
        rows=client.call("GET", "/v1/executions").json()["executions"],
        workers={row[0]: row[1] for row in site.query("SELECT id, worker_id FROM executions")},
        runs=[Run.parse(line) for line in runs.read_text().splitlines()],
        counts={
            function.id: client.call("GET", f"/v1/functions/{function.id}").json()["count"]
            for function in functions
        },
    )


def _clear(site: Site, functions: list[Function], runtime_id: str) -> None:
    """Delete all, and wait until no worker is left."""
    client = site.deployment.client
    for function in functions:
        answer = client.call("DELETE", f"/v1/functions/{function.id}")
        assert answer.status_code == 204, answer.text
    client.delete(runtime_id)
    client.wait_gone(runtime_id)
    wait_until(lambda: not site.workers(), 60, "the end of all workers")
