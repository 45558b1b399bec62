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
from typing import Self

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
#: Seconds between two looks at what is to be done, and as ``RestartSec`` of the units has it.
_LOOK_EVERY = 0.05
_RESTART = 2.0
#: What a program says that finds no database as it starts.
_NO_DATABASE = "The database cannot be reached"

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
    """Kills and stops processes as planned, and makes all of them run again at the end.

    Meanwhile it does what systemd does with the units in ``etc/systemd``: a program that finds no
    database as it starts is started again.
    """

    def __init__(self, site: Site, planned: Sequence[Blow], history: History) -> None:
        super().__init__(name="hand", daemon=True)
        self._site = site
        self._history = history
        self._ended = threading.Event()
        self._working = threading.Lock()
        # What has ended though nobody had touched it.
        self.wrong: list[str] = []
        # What is to be done, by when: blows, and what mends them.
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        for blow in planned:
            self._in(blow.at, lambda blow=blow: self._strike(blow))
        # Programs that are not as they should be, and what makes them so again.
        self._struck: dict[Process, Callable[[], None]] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self.join()
        self._mend_all()

    def run(self) -> None:
        while not self._ended.wait(_LOOK_EVERY):
            with self._working:
                while self._due and self._due[0][0] <= time.monotonic():
                    heapq.heappop(self._due)[2]()
                self._look()

    def rest(self) -> None:
        """Break no more, and mend what is broken; what falls now is looked after still."""
        with self._working:
            self._due.clear()
            for worker_id in self._site.workers():
                _signal(worker_id, signal.SIGCONT)
            self._mend_all()
        for service in self._site.services:
            service.wait_until_answering()

    def _in(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), work))

    def _strike(self, blow: Blow) -> None:
        if blow.kind == "worker":
            workers = sorted(self._site.workers())
            if workers:
                self._strike_worker(workers[int(blow.which * len(workers))], blow)
            return
        programs = self._site.programs[blow.kind]
        standing = [each for each in programs if each not in self._struck and each.running]
        if not standing:
            return
        process = standing[int(blow.which * len(standing))]
        self._remember(blow, process.log_path.stem)
        process.send_signal(signal.SIGKILL if blow.kill else signal.SIGSTOP)
        self._is_struck(process, blow.seconds, process.start if blow.kill else process.resume)

    def _strike_worker(self, worker_id: str, blow: Blow) -> None:
        self._remember(blow, worker_id)
        _signal(worker_id, signal.SIGKILL if blow.kill else signal.SIGSTOP)
        if not blow.kill:
            self._in(blow.seconds, lambda: _signal(worker_id, signal.SIGCONT))

    def _remember(self, blow: Blow, name: str) -> None:
        seconds = None if blow.kill else blow.seconds
        self._history.harms.append(Harm(now(), blow.kind, name, seconds))

    def _is_struck(self, process: Process, seconds: float, mend: Callable[[], None]) -> None:
        self._struck[process] = mend
        self._in(seconds, lambda: self._mend(process))

    def _mend(self, process: Process) -> None:
        mend = self._struck.pop(process)
        if mend == process.start:
            process.wait()
        mend()

    def _mend_all(self) -> None:
        for process in list(self._struck):
            self._mend(process)

    def _look(self) -> None:
        """See to what has ended by itself."""
        for process in itertools.chain.from_iterable(self._site.programs.values()):
            if process.running or process in self._struck:
                continue
            if _NO_DATABASE not in process.log_since_start():
                self.wrong.append(f"{process} has ended by itself:\n{process.log_tail()}")
            self._is_struck(process, _RESTART, process.start)


def _signal(worker_id: str, number: signal.Signals) -> None:
    # It may be gone by now.
    with contextlib.suppress(ValueError, ProcessLookupError):
        signal_worker(worker_id, number)
