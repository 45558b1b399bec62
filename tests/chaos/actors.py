"""Who acts on an installation: clients, and the hand that kills and stops its processes."""

import contextlib
import heapq
import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import requests

from tests.chaos.history import Call, Execution, Harm, History, Refusal, now
from tests.chaos.plan import Blow
from tests.chaos.sites import Site
from tests.fixtures.deployment import Client
from tests.fixtures.packages import package
from tests.fixtures.process import Process
from tests.fixtures.worker import signal_worker

#: Seconds that an answer may take: a worker is waited for, and an API may be asleep.
PATIENCE = 120.0
#: Seconds that a function sleeps, now and then.
_NAPS = (0.0,) * 16 + (0.02, 0.05, 0.3, 1.0)
#: Seconds after an answer that did not come, or said to try again.
_PAUSE = 0.1

_SOURCE = """
import os, time

def main(key, nap):
    runs = os.open({path!r}, os.O_WRONLY | os.O_APPEND)
    os.write(runs, f"{{key}} {number} {{os.environ['QINLING_WORKER_ID']}}\\n".encode())
    os.close(runs)
    time.sleep(nap)
    return [key, {number}]
"""


class Function:
    """A function whose code has a number, and writes it down where it runs.

    :param runs: the file that it writes to.
    """

    def __init__(self, client: Client, runtime_id: str, runs: Path) -> None:
        self._runs = runs
        self._changing = threading.Lock()
        self._tried = 0
        #: The newest code whose update was answered.
        self.number = 0
        self.id: str = client.create_function(runtime_id, self._package(), timeout=60)["id"]

    def update(self, ask: Callable[[bytes], bool]) -> None:
        """Give it its next code; one at a time, so that they come in order."""
        with self._changing:
            self._tried += 1
            if ask(self._package()):
                self.number = self._tried

    def _package(self) -> bytes:
        return package(main=_SOURCE.format(path=str(self._runs), number=self._tried))


class Caller:
    """One client of an installation, with all that it does written down.

    :param urls: of the APIs; it goes to the next one when one does not answer.
    :param patience: how long it waits for what an execution comes to (seconds).
    """

    def __init__(
        self, name: str, urls: Sequence[str], history: History, patience: float = PATIENCE
    ) -> None:
        self._apis = itertools.cycle([Client(url) for url in urls])
        self._api = next(self._apis)
        self._history = history
        self._patience = patience
        self._names = (f"{name}-{number}" for number in itertools.count(1))

    def ask(
        self, method: str, path: str, *expected: int, **options: object
    ) -> requests.Response | None:
        """The answer as it should be; None when it was another one, or none."""
        try:
            answer = self._api.call(method, path, **{"timeout": PATIENCE} | options)
        except requests.RequestException:
            self._api = next(self._apis)
            return None
        if answer.status_code in expected:
            return answer
        later = answer.headers.get("Retry-After")
        refusal = Refusal(f"{method} {path}", answer.status_code, answer.text, later)
        self._history.refusals.append(refusal)
        return None

    def call(self, function: Function, *, sync: bool, nap: float = 0.0) -> Execution | None:
        """Run a function, and remember that."""
        key, number = next(self._names), function.number
        body = {
            "function_id": function.id,
            "sync": sync,
            "input": json.dumps({"key": key, "nap": nap}),
        }
        answer = self.ask("POST", "/v1/executions", 201, json=body, timeout=self._patience)
        execution = None if answer is None else answer.json()
        self._history.calls.append(Call(key, function.id, sync, number, execution))
        return execution

    def look(self, execution_id: str) -> Execution | None:
        """Look at an execution, and remember what was shown."""
        answer = self.ask("GET", f"/v1/executions/{execution_id}", 200)
        execution = None if answer is None else answer.json()
        if execution is not None:
            self._history.shown.append(execution)
        return execution

    def update(self, function: Function) -> bool:
        """Whether it was answered."""
        answered = False

        def put(content: bytes) -> bool:
            nonlocal answered
            path, files = f"/v1/functions/{function.id}", {"package": ("package", content)}
            answered = self.ask("PUT", path, 200, files=files) is not None
            return answered

        function.update(put)
        return answered

    def scale(self, function: Function, how: str) -> bool:
        """``scale_up``, ``scale_down`` or ``detach``; whether it was answered."""
        body = None if how == "detach" else {"count": 1}
        # 400: it has as many as it may have.
        expected = (202, 400) if how == "scale_up" else (202,)
        path = f"/v1/functions/{function.id}/{how}"
        return self.ask("POST", path, *expected, json=body) is not None


#: What a client does next, and how often it does that in a thousand times. An update and a detach
#: cost every worker of a function.
_DEEDS = {"sync": 600, "async": 240, "look": 130, "update": 8, "detach": 5, "scale": 17}


class Customer(threading.Thread):
    """Does this and that with functions, as its seed has it, until it is told to stop."""

    def __init__(
        self,
        name: str,
        seed: int,
        caller: Caller,
        functions: Sequence[Function],
        stop: threading.Event,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._chance = random.Random(f"{seed}/{name}")
        self._caller = caller
        self._functions = functions
        self._stop_asked = stop
        self._begun: list[str] = []

    def run(self) -> None:
        while not self._stop_asked.is_set():
            [deed] = self._chance.choices(list(_DEEDS), list(_DEEDS.values()))
            if not self._do(deed, self._chance.choice(self._functions)):
                self._stop_asked.wait(_PAUSE)

    def _do(self, deed: str, function: Function) -> bool:
        if deed == "update":
            return self._caller.update(function)
        if deed == "detach":
            return self._caller.scale(function, "detach")
        if deed == "scale":
            return self._caller.scale(function, self._chance.choice(("scale_up", "scale_down")))
        if deed == "look":
            return not self._begun or bool(self._caller.look(self._chance.choice(self._begun)))
        nap = self._chance.choice(_NAPS)
        execution = self._caller.call(function, sync=deed == "sync", nap=nap)
        if execution is not None and deed == "async":
            self._begun.append(execution["id"])
        return execution is not None


class Hand(threading.Thread):
    """Kills and stops processes as planned, and makes all of them run again at the end."""

    def __init__(self, site: Site, planned: Sequence[Blow], history: History) -> None:
        super().__init__(name="hand", daemon=True)
        self._site = site
        self._history = history
        self._stopping = threading.Event()
        # What has ended though nobody had touched it.
        self.wrong: list[str] = []
        # What is to be done, by when: blows, and what mends them.
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._now = 0.0
        for blow in planned:
            self._at(blow.at, lambda blow=blow: self._strike(blow))
        # Programs that are not as they should be, and whether they were killed.
        self._struck: dict[Process, bool] = {}

    def run(self) -> None:
        began = time.monotonic()
        while self._due:
            at, _, work = heapq.heappop(self._due)
            if self._stopping.wait(max(at - (time.monotonic() - began), 0.0)):
                return
            self._now = at
            work()

    def stop(self) -> None:
        """Do no more, and mend what was done."""
        self._stopping.set()
        self.join()
        for worker_id in self._site.workers():
            _signal(worker_id, signal.SIGCONT)
        for process in list(self._struck):
            self._mend(process)
        for service in self._site.services:
            service.wait_until_answering()

    def _at(self, at: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), work))

    def _strike(self, blow: Blow) -> None:
        if blow.kind == "worker":
            workers = sorted(self._site.workers())
            if workers:
                self._strike_worker(workers[int(blow.which * len(workers))], blow)
            return
        standing = [each for each in self._site.programs[blow.kind] if each not in self._struck]
        if not standing:
            return
        process = standing[int(blow.which * len(standing))]
        if not process.running:
            self.wrong.append(f"{process} has ended by itself:\n{process.log_tail()}")
            return
        self._struck[process] = blow.kill
        self._remember(blow, process.log_path.stem)
        process.send_signal(signal.SIGKILL if blow.kill else signal.SIGSTOP)
        self._at(self._now + blow.seconds, lambda: self._mend(process))

    def _strike_worker(self, worker_id: str, blow: Blow) -> None:
        self._remember(blow, worker_id)
        _signal(worker_id, signal.SIGKILL if blow.kill else signal.SIGSTOP)
        if not blow.kill:
            self._at(self._now + blow.seconds, lambda: _signal(worker_id, signal.SIGCONT))

    def _remember(self, blow: Blow, name: str) -> None:
        seconds = None if blow.kill else blow.seconds
        self._history.harms.append(Harm(now(), blow.kind, name, seconds))

    def _mend(self, process: Process) -> None:
        if self._struck.pop(process):
            process.wait()
            process.start()
        else:
            process.resume()


def _signal(worker_id: str, number: signal.Signals) -> None:
    # It may be gone by now.
    with contextlib.suppress(ValueError, ProcessLookupError):
        signal_worker(worker_id, number)
