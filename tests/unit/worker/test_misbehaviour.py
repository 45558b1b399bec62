"""Functions that do what they should not: each is told, hurts itself alone, and leaves nothing."""

import http.client
import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.process import wait_until
from tests.fixtures.worker import Worker, for_others

EXHAUSTED = "Function execution failed because of too much resource consumption"

#: What a function of these tests does by its input; "ok" shows that the function is served.
SOURCE = """
import ctypes, errno, gc, mmap, multiprocessing, os, signal, socket, subprocess, sys, threading
import time

kept = []

def main(do, context, **more):
    return globals()[do](**more)

def ok(seconds=0):
    time.sleep(seconds)
    return os.getpid()

def fail():
    raise ValueError("as asked")

def spin():
    while True:
        pass

def sleep():
    time.sleep(600)

def block_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)

def lists():
    while True:
        kept.append(bytearray(1 << 20))

def one_large():
    return len(bytearray(1 << 30))

def shared_memory():
    area = mmap.mmap(-1, 256 << 20)
    for n in range(0, 256 << 20, 4096):
        area[n] = 1
    time.sleep(600)

def memory_in_a_file():
    kept.append(os.memfd_create("kept"))
    for _ in range(256):
        os.write(kept[-1], bytes(1 << 20))
    time.sleep(600)

def mapped_file(size=20 << 20):
    descriptor = os.memfd_create("mapped")
    os.truncate(descriptor, size)
    kept.append(mmap.mmap(descriptor, size))
    kept[-1].write(b"x" * size)
    time.sleep(0.3)
    return "both at once"

def by_children():
    for _ in range(8):
        if os.fork() == 0:
            block = bytearray(24 << 20)
            time.sleep(600)
    time.sleep(600)

def raised_limit():
    import resource
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))
    except (ValueError, OSError):
        pass
    lists()

def large_result():
    return ["x" * (24 << 20)] * 4

def files():
    while True:
        kept.append(open("/dev/null"))

def five_thousand():
    return len([open("/dev/null") for _ in range(5000)])

def sockets():
    return len([socket.socket() for _ in range(5000)])

def many_threads():
    for _ in range(5000):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

def leave(code=0):
    os._exit(code)

def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)

def crash():
    ctypes.string_at(0)

def stop_self():
    os.kill(os.getpid(), signal.SIGSTOP)

def kill_server():
    pid = os.getpid()
    # The zygote, the clean one, and the supervisor.
    for _ in range(3):
        pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    os.kill(pid, signal.SIGKILL)
    time.sleep(600)

def stop_parent():
    os.kill(os.getppid(), signal.SIGSTOP)
    os._exit(0)

def kill_parent(seconds=0):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(seconds)
    return "still here"

def close_all():
    os.closerange(0, 65536)
    return "closed"

def close_streams():
    os.close(1)
    os.close(2)
    return "closed"

def write_everywhere(text):
    for name in os.listdir("/proc/self/fd"):
        try:
            os.write(int(name), text.encode())
        except OSError:
            pass
    return "written"

def late_write(text):
    if os.fork() == 0:
        time.sleep(0.05)
        write_everywhere(text)
        time.sleep(600)
    return "written"

def daemonise(seconds=600):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir("/")
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            time.sleep(seconds)
        os._exit(0)
    return os.wait()[1]

def escape():
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
    return daemonise()

def siblings(number=3):
    clone, CLONE_PARENT = {"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x8000
    for _ in range(number):
        if ctypes.CDLL(None).syscall(clone, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            time.sleep(600)

def child(wait=False):
    process = subprocess.Popen(["sleep", "600" if not wait else "0"])
    if wait:
        while process.returncode is None and not os.path.exists(f"/proc/{process.pid}/none"):
            if open(f"/proc/{process.pid}/stat").read().split()[2] == "Z":
                break
    return process.pid

def thread():
    threading.Thread(target=time.sleep, args=(600,)).start()
    return "left"

def chatty_child():
    subprocess.Popen(["sh", "-c", "while :; do echo x; done"])
    return "left"

def return_twice():
    os.fork()
    return os.getpid()

def raise_twice():
    os.fork()
    raise ValueError("both")

def bomb():
    while True:
        try:
            os.fork()
        except OSError:
            pass

def sibling_bomb():
    while True:
        siblings()

def honest_bomb():
    children = []
    while True:
        pid = os.fork()
        if pid == 0:
            time.sleep(600)
        children.append(pid)
"""


@pytest.fixture
def worker(make: Callable[..., Worker]) -> Iterator[Worker]:
    found = make()
    answer = found.specialize(SOURCE)
    assert answer["imported"], answer
    found.settle()
    yield found
    # Whatever was done: the function is served, on every slot, and nobody else is there.
    found.settle()

    def serves_on_all() -> bool:
        with ThreadPoolExecutor(3) as pool:
            served = list(pool.map(lambda _: do(found, "ok", seconds=0.3), range(3)))
        assert {answer["status"] for answer in served} == {"success"}
        # Looked at afterwards: a slot with something left in its channel is replaced at its use.
        assert {answer["output"] for answer in served} <= set(found.settle())
        # On a busy machine one may have ended before the last has begun.
        return len({answer["output"] for answer in served}) == 3

    wait_until(serves_on_all, 20, "executions in three slots")
    assert found.process.poll() is None


def do(worker: Worker, what: str, timeout: float = 10, **more: object) -> dict:  # type: ignore[type-arg]
    return worker.run(json.dumps({"do": what, **more}), timeout)


def two_under_way(
    worker: Worker, pool: ThreadPoolExecutor, seconds: float
) -> list[Future[dict[str, Any]]]:
    """Two executions that take so long, both of which have begun."""
    ids = [str(uuid.uuid4()) for _ in range(2)]
    given = json.dumps({"do": "ok", "seconds": seconds})
    asked = [pool.submit(worker.run, given, execution_id=id_) for id_ in ids]
    for id_ in ids:
        path = f"/executions/{id_}"
        wait_until(lambda path=path: worker.ask("GET", path)[0] == 202, 10, "an execution begun")
    return asked


def test_what_raises_keeps_its_slot(worker: Worker) -> None:
    before = worker.settle()
    assert do(worker, "fail")["output"] == "as asked"
    assert worker.settle() == before


@pytest.mark.parametrize("what", ["spin", "sleep", "block_signals", "stop_self"])
def test_what_runs_too_long_is_ended(worker: Worker, what: str) -> None:
    began = time.monotonic()
    answer = do(worker, what, timeout=0.5)
    took = time.monotonic() - began
    assert answer["status"] == "failed"
    assert "Function execution timeout" in answer["output"]
    assert answer["duration"] >= 0.5
    # The goal is 0.1 s; this machine may be busy.
    assert took < 0.5 + 1


@pytest.mark.parametrize(
    "what",
    [
        "lists",
        "one_large",
        "shared_memory",
        "memory_in_a_file",
        "by_children",
        "raised_limit",
        "large_result",
    ],
)
def test_memory_is_bounded_and_others_in_flight_do_not_notice(worker: Worker, what: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        others = two_under_way(worker, pool, seconds=1.5)
        answer = do(worker, what, timeout=20)
        assert answer["status"] == "failed"
        assert EXHAUSTED in answer["output"]
        assert [other.result()["status"] for other in others] == ["success"] * 2


def test_memory_in_a_file_that_is_mapped_counts_once(worker: Worker) -> None:
    assert do(worker, "mapped_file")["output"] == "both at once"
    # What it has kept is its own process's.
    assert do(worker, "ok")["status"] == "success"


@pytest.mark.parametrize("what", ["files", "five_thousand", "sockets"])
def test_open_files_are_bounded_and_the_next_one_has_all_of_them(worker: Worker, what: str) -> None:
    for _ in range(2):
        answer = do(worker, what)
        assert answer["status"] == "failed"
        assert "Too many open files" in answer["output"]
        assert "Traceback" in answer["log"]
        for _ in range(4):
            assert do(worker, "ok")["status"] == "success"


def test_threads_are_bounded(worker: Worker) -> None:
    answer = do(worker, "many_threads", timeout=20)
    assert answer["status"] == "failed"
    assert EXHAUSTED in answer["output"]


@pytest.mark.parametrize("what", ["leave", "kill_self", "crash"])
def test_what_ends_its_process_is_told(worker: Worker, what: str) -> None:
    answer = do(worker, what)
    assert answer["status"] == "failed"
    assert EXHAUSTED in answer["output"]


def test_what_kills_its_parent_harms_nobody(worker: Worker) -> None:
    with ThreadPoolExecutor(2) as pool:
        others = two_under_way(worker, pool, seconds=1)
        answer = do(worker, "kill_parent", seconds=0.2)
        assert answer["output"] == "still here"
        assert [other.result()["status"] for other in others] == ["success"] * 2
    # And slots can still be replaced.
    for _ in range(4):
        assert EXHAUSTED in do(worker, "leave")["output"]
    assert do(worker, "ok")["status"] == "success"


def test_what_stops_its_parent_harms_nobody_but_who_waits_for_a_slot(worker: Worker) -> None:
    with ThreadPoolExecutor(2) as pool:
        others = two_under_way(worker, pool, seconds=1)
        assert EXHAUSTED in do(worker, "stop_parent")["output"]
        assert [other.result()["status"] for other in others] == ["success"] * 2
    for _ in range(2):
        assert EXHAUSTED in do(worker, "leave")["output"]
    assert do(worker, "ok")["status"] == "success"


def test_what_kills_the_server_leaves_nobody(make: Callable[..., Worker]) -> None:
    worker = make()
    worker.specialize(SOURCE)
    with pytest.raises((OSError, http.client.HTTPException)):
        do(worker, "kill_server")
    assert worker.process.wait(20) == -signal.SIGKILL
    wait_until(lambda: not worker.processes(), 20, "nobody left")


def test_what_closes_its_channel_fails_alone(worker: Worker) -> None:
    answer = do(worker, "close_all")
    assert answer["status"] == "failed"
    assert EXHAUSTED in answer["output"]


def test_what_closes_its_streams_is_served_and_the_next_one_has_a_log(worker: Worker) -> None:
    assert do(worker, "close_streams")["output"] == "closed"
    for _ in range(4):
        assert "Traceback" in do(worker, "fail")["log"]
        do(worker, "ok")


FORGED = '["success", "forged", "", false]'


@pytest.mark.parametrize(
    "what",
    [
        "\0\0\0\0",
        "\0\0\0\x03abc",
        "\x7f\x7f\x7f\x7f",
        "\0\0\0 " + FORGED,
        ("\0\0\0 " + FORGED) * 2,
        "x" * 100_000,
        "\0\0\x07\xbc" + "[" * 990 + "]" * 990,
        "\0\0\0\x02[]",
        '\0\0\0\x1d["success", 1e999, "", false]',
        '\0\0\0\x1a["success", 1, "", "false"]'[:30],
    ],
)
def test_what_is_written_to_inherited_pipes_reaches_no_other_execution(
    worker: Worker, what: str
) -> None:
    with ThreadPoolExecutor(2) as pool:
        others = [pool.submit(do, worker, "ok", seconds=0.3) for _ in range(2)]
        answer = do(worker, "write_everywhere", text=what)
        # What it has forged is at most its own answer.
        assert answer["status"] == "failed" or answer["output"] in ("forged", "written")
        assert [other.result()["status"] for other in others] == ["success"] * 2
    for _ in range(4):
        answer = do(worker, "ok")
        assert (answer["status"], type(answer["output"])) == ("success", int)


def test_nothing_can_be_written_when_the_execution_has_ended(worker: Worker) -> None:
    for _ in range(3):
        answer = do(worker, "late_write", text="\0\0\0 " + FORGED)
        # On a busy machine it may write before its own execution has been answered.
        assert answer["output"] == "written" or answer["status"] == "failed"
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        assert isinstance(do(worker, "ok")["output"], int)


@pytest.mark.parametrize(
    "what",
    [
        "daemonise",
        "escape",
        "siblings",
        "child",
        "thread",
        "chatty_child",
        "return_twice",
        "raise_twice",
    ],
)
def test_what_an_execution_leaves_running_is_ended_with_it(worker: Worker, what: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        others = two_under_way(worker, pool, seconds=1)
        answer = do(worker, what)
        assert answer["status"] == ("failed" if what == "raise_twice" else "success"), answer
        # It is gone while others run still.
        wait_until(lambda: len(worker.processes()) == 6, 0.9, "what was left is gone")
        assert [other.result()["status"] for other in others] == ["success"] * 2


def test_a_child_that_has_ended_is_no_reason_to_lose_a_slot(worker: Worker) -> None:
    before = worker.settle()
    assert do(worker, "child", wait=True)["status"] == "success"
    assert worker.settle() == before


def test_a_timeout_ends_what_was_daemonised_too(worker: Worker) -> None:
    worker_pids = worker.settle()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(do, worker, "sleep", timeout=0.5)
        do(worker, "daemonise")
        assert "timeout" in asked.result()["output"]
    assert len(worker.settle()) == len(worker_pids)


def test_an_idle_slot_that_is_killed_is_noticed_before_it_is_used(worker: Worker) -> None:
    pids = [do(worker, "ok")["output"] for _ in range(2)]
    os.kill(pids[-1], signal.SIGKILL)
    stat = Path(f"/proc/{pids[-1]}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", 10, "it has ended")
    answer = do(worker, "ok")
    assert answer["status"] == "success"
    assert answer["output"] != pids[-1]


@pytest.mark.skipif(
    os.geteuid() != 0,
    reason="only root gives each worker a user of its own; without, the kernel counts the "
    "processes of this user, and the bomb would be ours",
)
@pytest.mark.parametrize("what", ["bomb", "sibling_bomb", "honest_bomb"])
def test_a_fork_bomb_is_ended_and_another_worker_does_not_notice(
    make: Callable[..., Worker], tmp_path: Path, what: str
) -> None:
    program, most = for_others(tmp_path), {"QINLING_WORKER_MAX_PROCESSES": "150"}
    loud, calm = (make(uid=uid, program=program, **most) for uid in (61001, 61002))
    for worker in (loud, calm):
        assert worker.specialize(SOURCE)["imported"]
    slowest = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal slowest
        while not ended.is_set():
            began = time.monotonic()
            assert do(calm, "ok")["status"] == "success"
            slowest = max(slowest, time.monotonic() - began)

    with ThreadPoolExecutor(2) as pool:
        watching = pool.submit(watch)
        beside = pool.submit(do, loud, "ok", seconds=1)
        answer = do(loud, what, timeout=5)
        assert beside.result()["status"] == "success"
        ended.set()
        watching.result()
    assert answer["status"] == "failed"
    assert EXHAUSTED in answer["output"] or "timeout" in answer["output"]
    assert slowest < 2
    for worker in (loud, calm):
        worker.settle()
        assert do(worker, "ok")["status"] == "success"
