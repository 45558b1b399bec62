"""Functions whose import does what an import should not."""

import itertools
import os
import py_compile
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from qinling.worker import bytecode, loading, processes
from tests.fixtures.process import wait_until
from tests.fixtures.worker import MB, Worker

PID = "import os\ndef main(): return os.getpid()\n"


@pytest.mark.parametrize(
    ("source", "error", "log"),
    [
        ("raise ValueError('at once')", "ValueError: at once", "line 1, in <module>"),
        ("def main(:", "SyntaxError", "def main(:"),
        ("import nowhere", "No module named 'nowhere'", "ModuleNotFoundError"),
        ("import sys; sys.exit('enough')", "enough", "SystemExit"),
        ("def other(): pass", "has no function main", "has no function main"),
        ("main = 7", "has no function main", "has no function main"),
        ("import os; print('on'); os._exit(3)", "The import failed", "on\n"),
        ("import time; print('on'); time.sleep(600)", "longer than 1 s", "on\n"),
        ("while True: pass", "longer than 1 s", "longer than 1 s"),
        ("x = bytearray(1 << 30)", "MemoryError", "MemoryError"),
        (
            (
                "import mmap, time\na = mmap.mmap(-1, 300 << 20)\n"
                "for n in range(0, 300 << 20, 4096): a[n] = 1\ntime.sleep(600)"
            ),
            "too much memory",
            "too much memory",
        ),
        ("import os, time\nos.closerange(0, 99999)\ntime.sleep(600)", "import failed", "failed"),
        (
            (
                "import os\nfor n in os.listdir('/proc/self/fd'):\n"
                " try: os.write(int(n), b'\\0\\0\\0\\x02[]')\n except OSError: pass\n"
            ),
            "cannot",
            "",
        ),
    ],
)
def test_an_import_that_fails_is_told_in_every_execution(
    worker: Worker, source: str, error: str, log: str
) -> None:
    began = time.monotonic()
    answer = worker.specialize(source, import_timeout=1)
    assert time.monotonic() - began < 5
    assert answer["imported"] is False
    for _ in range(2):
        told = worker.run()
        assert told["status"] == "failed"
        assert told["output"] == answer["error"]
        assert log in told["log"]
    if error != "cannot":
        assert error in answer["error"]
    # Nobody is left but supervisor and clean zygote.
    wait_until(lambda: len(worker.processes()) == 2, 10, "nobody is left")
    assert worker.ask("POST", "/drain")[0] == 202
    assert worker.process.wait(20) == 0


@pytest.mark.parametrize(
    "source",
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True)"
            ".start()\n"
        ),
        "import socket\nkept = socket.create_server(('127.0.0.1', 0))\n",
        "import os\nkept = os.pipe()\n",
        "import select\nkept = select.epoll()\n",
        "import subprocess\nkept = subprocess.Popen(['sleep', '600'])\n",
    ],
)
def test_what_an_import_leaves_is_each_slots_own(worker: Worker, source: str) -> None:
    assert worker.specialize("count = 0\n" + source + PID + CHECK)["imported"]
    for _ in range(3):
        answer = worker.run()
        assert answer["status"] == "success", answer
        assert answer["output"] >= 1
    assert worker.run("leave")["status"] == "failed"
    assert worker.run()["status"] == "success"


CHECK = """
def main(do=None):
    if do == "leave":
        os._exit(0)
    return len(os.listdir("/proc/self/task"))
"""


def test_a_thread_of_the_import_runs_in_each_slot(worker: Worker) -> None:
    worker.specialize(
        "import threading, queue, time\n"
        "asked, done = queue.Queue(), queue.Queue()\n"
        "def work():\n    while True: done.put(asked.get() * 2)\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "def main(n): asked.put(n); return done.get(timeout=5)\n"
    )
    for n in range(4):
        assert worker.run(f'{{"n": {n}}}')["output"] == 2 * n


def test_a_worker_whose_function_cannot_be_imported_again_is_given_up(worker: Worker) -> None:
    source = (
        "import os, shutil, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "def main(): shutil.rmtree(os.getcwd()); os._exit(1)\n"
    )
    assert worker.specialize(source)["imported"]
    assert worker.run()["status"] == "failed"
    assert worker.process.wait(20) == 1
    assert worker.process.stderr is not None
    assert b"cannot be imported any more" in worker.process.stderr.read()


def test_a_function_that_can_be_there_only_once_is_served_by_one_slot(worker: Worker) -> None:
    """As one that serves its figures on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    source = (
        "import os, socket, time\n"
        f"kept = socket.create_server(('127.0.0.1', {port}))\n"
        "def main(leave=False):\n"
        "    if leave: os._exit(0)\n"
        "    time.sleep(0.1)\n"
        "    return os.getpid()\n"
    )
    assert worker.specialize(source)["imported"]
    seen = set()
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(lambda _: worker.run(), range(6)))
        assert {answer["status"] for answer in answers} == {"success"}, answers
        pids = {answer["output"] for answer in answers}
        assert len(pids) == 1
        seen |= pids
        # Its place is another one's then, and who waits has that.
        assert worker.run('{"leave": true}')["status"] == "failed"
    assert len(seen) == 2
    assert worker.process.poll() is None


def test_what_is_forked_shares_what_the_import_has_made(worker: Worker) -> None:
    worker.specialize("import os\nmade_in = os.getpid()\ndef main(): return made_in")
    assert len({worker.run()["output"] for _ in range(6)}) == 1


def test_what_is_there_is_compiled_while_the_rest_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As an image may have it.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name, value in (("path", list(sys.path)), ("argv", sys.argv)):
        monkeypatch.setattr(sys, name, value)
    monkeypatch.setattr(SourceFileLoader, "get_data", SourceFileLoader.get_data)

    def write(name: str, source: str, *, at: float = 1e9) -> Path:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
        os.utime(path, (at, at))
        return path

    for name in ("inner/whole", "part", "replaced", "brought"):
        write(name, "what = 'ahead'")
    write("wrong", "def")
    write("long", "#" * 100_000)
    write("coming", "")
    write(
        "it",
        "import inner.whole, part, replaced, brought\n"
        "def main(): return [m.what for m in (inner.whole, part, replaced, brought)]",
    )
    asked = itertools.count()
    made = bytecode.make_until(str(tmp_path), lambda _: next(asked) == 12)
    compiled = {Path(path).name.partition(".")[0] for path in made}
    assert compiled == {"whole", "part", "replaced", "brought", "it"}
    assert not list(tmp_path.rglob("*.pyc"))
    # Only who takes what was compiled sees another text than this one.
    whole = write("inner/whole", "what = 'after'")
    write("part", "what = 'part' + 'rest'")
    write("replaced", "what = 'after'", at=1e9 + 1e-3)
    brought = write("brought", "what = 'after'")
    py_compile.compile(str(brought))
    bytecode.offer(made)
    entry = loading.load(str(tmp_path), "it.main")
    assert entry.call(None) == ["ahead", "partrest", "after", "after"]

    class Cook(SourceFileLoader):
        def source_to_code(self, data: Any, path: Any, **_: Any) -> CodeType:
            return compile(data.replace(b"after", b"cooked"), path, "exec")

    # Nor does one who compiles in a way of its own.
    code = Cook("", str(whole)).get_code("")
    assert code is not None
    found: dict[str, str] = {}
    exec(code, found)
    assert found["what"] == "cooked"


def test_what_is_compiled_ahead_has_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        (tmp_path / f"large_{number}.py").write_text(f"what = {number}, '{'x' * 10_000}'")
    monkeypatch.setattr(bytecode, "_MOST", 35_000)
    asked = itertools.count()
    made = bytecode.make_until(str(tmp_path), lambda _: next(asked) == 100)
    assert len(made) == 4


@pytest.mark.parametrize(
    "source",
    ["", "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"],
)
def test_a_functions_own_code_leaves_the_processor_to_its_supervisor(
    worker: Worker, source: str
) -> None:
    # The thread has each slot import for itself.
    of_import = "import os\nat_import = os.nice(0)\n"
    worker.specialize(f"{of_import}{source}\ndef main(): return [at_import, os.nice(0)]")
    nice = os.getpriority(os.PRIO_PROCESS, worker.process.pid)
    assert worker.run()["output"] == [nice + 10, nice + 10]


def _ahead(worker: Worker) -> tuple[int, int]:
    """The clean zygote, and who waits for the first command."""
    (clean,) = processes.children(worker.process.pid)
    (waiting,) = wait_until(lambda: processes.children(clean), 10, "who waits")
    return clean, waiting


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    _wait_for_end(pid)


def _wait_for_end(pid: int) -> None:
    wait_until(lambda: not processes.resident(pid), 10, f"the end of {pid}")


def test_a_worker_does_without_the_process_that_waited_for_its_function(worker: Worker) -> None:
    _, waiting = _ahead(worker)
    _end(waiting)
    assert worker.specialize(PID)["imported"]
    assert worker.run()["status"] == "success"


def test_no_function_runs_where_its_supervisor_would_not_end_it(worker: Worker) -> None:
    clean, waiting = _ahead(worker)
    _end(clean)
    assert not worker.specialize(PID)["imported"]
    _wait_for_end(waiting)
    assert worker.process.wait(20) == 1


def test_the_import_has_memory_of_its_own(worker: Worker) -> None:
    # More than an execution may have; and an execution has all of its own beside.
    worker.specialize(
        "kept = bytearray(64 << 20)\ndef main(): return len(bytearray(16 << 20))",
        memory_size=32 * MB,
    )
    for _ in range(3):
        assert worker.run()["output"] == 16 << 20


#: Leaves a process in the zygote, and one beside it, with nothing that shows whose it is.
HIDDEN = """
import ctypes, os, sys

def start(fork):
    pid = fork()
    if pid == 0:
        os.setsid()
        os.closerange(0, 1024)
        os.execve("/bin/sleep", ["sleep", "600"], {})
    return pid

def clone():
    number, CLONE_PARENT, SIGCHLD = {"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x8000, 17
    return ctypes.CDLL(None).syscall(number, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0)

hidden = [start(fork) for fork in (os.fork, clone)]
sys.modules["qinling.worker.processes"].children = lambda pid: []

def main():
    return hidden
"""


def test_what_an_import_leaves_and_hides_is_no_slots_and_ends_with_it(worker: Worker) -> None:
    """The supervisor looks itself; the zygote could say whatever the function likes."""
    assert worker.specialize(HIDDEN, concurrency=2)["imported"]
    started = set()
    for _ in range(3):
        answer = worker.run()
        assert answer["status"] == "success", answer
        started.update(answer["output"])
    # Each slot has had its own, as the import was not shared.
    assert len(started) >= 4
    assert worker.ask("POST", "/drain")[0] == 202
    assert worker.process.wait(20) == 0
    wait_until(lambda: not any(map(is_running, started)), 10, "nobody is left")


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
