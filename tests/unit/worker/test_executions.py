"""What a function is given, and what comes of it."""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qinling.worker import signing
from qinling.worker.executions import Executions
from tests.fixtures.process import wait_until
from tests.fixtures.worker import MB, Worker

ECHO = "def main(*args, **kwargs): kwargs.pop('context'); return [args, kwargs]"


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        (None, [[], {}]),
        ('{"a": 1, "b": {"c": [2]}}', [[], {"a": 1, "b": {"c": [2]}}]),
        (' {"a": 1}\n', [[], {"a": 1}]),
        ("words", [["words"], {}]),
        ("", [[""], {}]),
        ('["a"]', [['["a"]'], {}]),
        ("7", [["7"], {}]),
        ("{not json", [["{not json"], {}]),
        ('"\\ud800 €"', [['"\\ud800 €"'], {}]),
    ],
)
def test_a_json_object_becomes_keywords_and_anything_else_one_argument(
    worker: Worker, given: str | None, arguments: object
) -> None:
    worker.specialize(ECHO)
    answer = worker.run(given)
    assert (answer["status"], answer["output"]) == ("success", arguments)


@pytest.mark.parametrize(
    "source",
    [
        "def main(context): return context",
        "def main(a=1, *, context=None): return context",
        "def main(**all): return all['context']",
        "def main(a=1): return {'os_session': None}",
        "class C:\n def __call__(self, context): return context\nmain = C()",
        "import functools\ndef f(x, context): return context\nmain = functools.partial(f, 1)",
        """
import functools

def passing(function):
    @functools.wraps(function)
    def call(**named):
        return function(**named)
    return call

@passing
def main():
    return {'os_session': None}
""",
    ],
)
def test_a_function_gets_the_context_when_it_takes_one(worker: Worker, source: str) -> None:
    worker.specialize(source)
    answer = worker.run()
    assert (answer["status"], answer["output"]) == ("success", {"os_session": None})


def test_the_caller_cannot_make_up_the_context(worker: Worker) -> None:
    worker.specialize("def main(context): return context")
    assert worker.run('{"context": {"os_session": 1}}')["output"] == {"os_session": None}


def test_coroutines_run_too(worker: Worker) -> None:
    worker.specialize("import asyncio\nasync def main(n):\n await asyncio.sleep(0)\n return n + 1")
    assert worker.run('{"n": 1}')["output"] == 2
    assert worker.run('{"n": 2}')["output"] == 3


def test_modules_and_files_of_the_zip_are_there(worker: Worker) -> None:
    worker.specialize(
        {
            "app/main.py": "import vendored\ndef run(): return vendored.text()",
            "app/__init__.py": "",
            "vendored/__init__.py": "from vendored.inner import text",
            "vendored/inner.py": "def text(): return open('data/words.txt').read()",
            "data/words.txt": "words",
        },
        entry="app.main.run",
    )
    assert worker.run()["output"] == "words"


def test_standard_output_and_error_are_the_log_in_order(worker: Worker) -> None:
    worker.specialize(
        "import sys, subprocess, os\n"
        "def main():\n"
        "    print('one', end=' ')\n"
        "    print('two', file=sys.stderr)\n"
        "    subprocess.run(['sh', '-c', 'echo three; echo four >&2'])\n"
        "    os.write(1, b'fi\\xffve\\n')\n"
        "    sys.stdout.write('six')\n"
    )
    answer = worker.run()
    assert answer["log"] == "one two\nthree\nfour\nfi\ufffdve\nsix"
    # Nothing of it is in the next one.
    assert worker.run()["log"] == answer["log"]


def test_what_is_raised_is_the_output_and_the_traceback_is_in_the_log(worker: Worker) -> None:
    worker.specialize("def main(): inner()\ndef inner(): print('before'); raise KeyError('what')")
    answer = worker.run()
    assert (answer["status"], answer["output"]) == ("failed", "'what'")
    assert answer["log"].startswith("before\nTraceback (most recent call last):\n")
    assert 'main.py", line 2, in inner' in answer["log"]
    assert answer["log"].endswith("KeyError: 'what'\n")
    # The worker's own frames are nobody's business.
    assert "loading.py" not in answer["log"]


def test_sys_exit_is_a_failure_like_any_other(worker: Worker) -> None:
    worker.specialize("import sys\ndef main(): sys.exit('enough')")
    pids = worker.settle()
    assert worker.run()["output"] == "enough"
    assert worker.settle() == pids


NESTED = "def main():\n a = []\n for _ in range({} - 1): a = [a]\n return a"


def test_what_is_nested_as_deep_as_it_may_be_passes_both_ways(worker: Worker) -> None:
    worker.specialize("def main(a): return {'a': a}")
    given: dict[str, object] = {"a": "[[{"}
    for _ in range(63):
        given = {"a": given}
    answer = worker.run(json.dumps(given))
    assert (answer["status"], answer["output"]) == ("success", given)
    for levels in (1, 910, 1000, 100_000):
        text = '{"a":' * levels + json.dumps(given) + "}" * levels
        answer = worker.run(text)
        assert answer["status"] == "failed"
        assert answer["output"] == "input is nested deeper than 64 levels"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def main(): return object()", "no JSON"),
        ("def main(): return float('nan')", "no JSON"),
        ("def main():\n a = []\n a.append(a)\n return a", "no JSON"),
        ("def main(): return 'x' * 3_000_000", "larger than 2097152 bytes"),
        (NESTED.format(65), "result is nested deeper than 64 levels"),
        (NESTED.format(978), "result is nested deeper than 64 levels"),
        (NESTED.format(100_000), "result is nested deeper than 64 levels"),
        ("class E(Exception):\n def __str__(self): return 1 / 0\ndef main(): raise E", "Zero"),
    ],
)
def test_a_result_that_cannot_be_told_is_a_failure(worker: Worker, source: str, words: str) -> None:
    worker.specialize(source)
    answer = worker.run()
    assert answer["status"] == "failed"
    assert words in answer["output"]
    assert worker.run()["output"] == answer["output"]


def test_large_input_and_output_pass(worker: Worker) -> None:
    worker.specialize("def main(text): return text")
    text = "é" * (MB // 2)
    assert worker.run(json.dumps({"text": text}))["output"] == text
    assert worker.run("x" * MB)["output"] == "x" * MB


@pytest.mark.parametrize("printed", ["b'\\xff'", "'é'.encode()", "'x'.encode()"])
def test_a_log_is_cut_by_what_it_takes_as_text(worker: Worker, printed: str) -> None:
    worker.specialize(
        f"import os\ndef main():\n for n in range(16): os.write(1, {printed} * 65536)",
        max_log_size=MB - 1,
    )
    log = worker.run()["log"]
    assert MB - 200 < len(log.encode()) < MB
    assert log.endswith(" bytes more were printed.]\n")


def test_an_integer_that_no_reader_takes_is_told(worker: Worker) -> None:
    worker.specialize(
        "import sys\nsys.set_int_max_str_digits(0)\ndef main(digits): return 10 ** (digits - 1)"
    )
    assert worker.run('{"digits": 4300}')["output"] == 10**4299
    answer = worker.run('{"digits": 4301}')
    assert answer["status"] == "failed"
    assert "result is no JSON: Exceeds the limit" in answer["output"]


def test_an_object_becomes_keywords_however_long_a_number_in_it_is(worker: Worker) -> None:
    worker.specialize("def main(n, **more): return n % 10**9")
    assert worker.run('{"n": %s}' % ("7" * 5000))["output"] == 777777777


def test_a_large_log_is_cut_with_a_note(worker: Worker) -> None:
    worker.specialize(
        "def main():\n for n in range(10 * 1024): print('x' * 1023)\n raise ValueError('end')"
    )
    answer = worker.run()
    assert answer["output"] == "end"
    assert len(answer["log"].encode()) <= MB
    assert "\n[The log was cut here: " in answer["log"]
    assert answer["log"].startswith("x" * 1023 + "\n")
    assert answer["log"].endswith("ValueError: end\n")


def test_state_of_modules_lives_on_in_a_slot(worker: Worker) -> None:
    worker.specialize(
        "import os\ncount = 0\n"
        "def main():\n global count\n count += 1\n return [os.getpid(), count]",
        concurrency=1,
    )
    outputs = [worker.run()["output"] for _ in range(3)]
    assert [count for _, count in outputs] == [1, 2, 3]
    assert len({pid for pid, _ in outputs}) == 1


def test_as_many_run_at_once_as_were_agreed_and_one_more_is_refused(worker: Worker) -> None:
    worker.specialize("import time\ndef main(): time.sleep(0.5)")
    with ThreadPoolExecutor(4) as pool:
        requests = [worker.request() for _ in range(4)]
        answers = list(pool.map(lambda body: worker.ask("POST", "/execute", body), requests))
    assert sorted(status for status, _ in answers) == [200, 200, 200, 429]
    refused = next(
        body for body, (status, _) in zip(requests, answers, strict=True) if status == 429
    )
    # It was not run: it is not known, and may be sent again.
    assert worker.ask("GET", f"/executions/{refused['execution_id']}")[0] == 404
    assert worker.ask("POST", "/execute", refused)[0] == 200


def test_the_same_execution_is_joined_and_never_run_twice(worker: Worker) -> None:
    worker.specialize("import time, os\ndef main(): time.sleep(0.3); return os.urandom(4).hex()")
    body = worker.request()
    path = f"/executions/{body['execution_id']}"
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(worker.ask, "POST", "/execute", body) for _ in range(3)]
        wait_until(lambda: worker.ask("GET", path)[0] == 202, 10, "it runs", pause=0.001)
        answers = [each.result() for each in asked]
    assert answers[0][0] == 200
    assert answers[0] == answers[1] == answers[2]
    assert worker.ask("POST", "/execute", body) == answers[0]
    assert worker.ask("GET", path) == answers[0]
    # Acknowledged, it is forgotten; twice does no harm.
    assert worker.ask("DELETE", path) == (204, None)
    assert worker.ask("DELETE", path) == (204, None)
    assert worker.ask("GET", path)[0] == 404


def test_a_sender_that_hangs_up_finds_the_result_later(worker: Worker) -> None:
    worker.specialize("import time\ndef main(): time.sleep(0.2); return 7")
    body = worker.request()
    path = f"/executions/{body['execution_id']}"

    content = json.dumps(body).encode()
    assert worker.key is not None
    with contextlib.closing(worker.connect()) as connection:
        headers = signing.sign_request(worker.key, "POST", "/execute", content)
        connection.request("POST", "/execute", content, headers)
        wait_until(lambda: worker.ask("GET", path)[0] == 202, 10, "it runs")
    wait_until(lambda: worker.ask("GET", path)[0] == 200, 10, "an answer")
    assert worker.ask("GET", path)[1]["output"] == 7


def test_an_answer_is_there_when_its_sender_is_known_to_be_dead() -> None:
    """20 seconds later, in which others have had answers of hundreds of executions a second."""
    known = Executions(1)
    for number in range(10_000):
        execution, _ = known.begin(str(number))
        known.end(execution, bytes(250))
    first = known.get("0")
    assert first is not None
    assert first.answer == bytes(250)
    # Large ones are no reason to need more memory.
    for number in range(100):
        execution, _ = known.begin(f"large {number}")
        known.end(execution, bytes(MB))
    kept = [number for number in range(100) if known.get(f"large {number}")]
    assert kept == list(range(85, 100))
    assert known.get("9999") is None


def test_a_cancelled_execution_is_ended_and_says_so(worker: Worker) -> None:
    worker.specialize("import time\ndef main(): print('on'); time.sleep(60)")
    body = worker.request(timeout=60)
    path = f"/executions/{body['execution_id']}"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(worker.ask, "POST", "/execute", body)
        wait_until(lambda: worker.ask("GET", path)[0] == 202, 10, "it runs")
        assert worker.ask("DELETE", path)[0] == 204
        status, answer = asked.result(10)
    assert (status, answer["status"]) == (200, "cancelled")
    assert answer["duration"] < 10
    worker.settle()


def test_what_was_cancelled_before_it_came_is_not_run(worker: Worker) -> None:
    worker.specialize("def main(): print('ran')")
    body = worker.request()
    path = f"/executions/{body['execution_id']}"
    assert worker.ask("DELETE", path) == (204, None)
    for _ in range(2):
        status, answer = worker.ask("POST", "/execute", body)
        assert (status, answer["status"], answer["log"]) == (200, "cancelled", "")
    assert worker.ask("GET", path)[0] == 404
    # Another one is run.
    assert worker.ask("POST", "/execute", worker.request())[1]["status"] == "success"


def test_drained_it_ends_what_is_in_flight_and_takes_no_more(worker: Worker) -> None:
    worker.specialize("import time\ndef main(): time.sleep(0.5); return 7")
    body = worker.request()
    path = f"/executions/{body['execution_id']}"
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(worker.ask, "POST", "/execute", body)
        wait_until(lambda: worker.ask("GET", path)[0] == 202, 10, "it runs")
        for _ in range(2):
            status, answer = worker.ask("POST", "/drain")
            assert (status, answer["status"]) == (202, "draining")
        assert worker.ask("POST", "/execute", worker.request())[0] == 410
        # Liveness: whoever still runs something is not to be killed for it.
        status, health = worker.ask("GET", "/healthz")
        assert (status, health["status"]) == (200, "draining")
        assert asked.result()[1]["output"] == 7
    # The answer can be asked for still; acknowledged, there is nothing to wait for.
    assert worker.ask("GET", path)[1]["output"] == 7
    began = time.monotonic()
    assert worker.ask("DELETE", path)[0] == 204
    assert worker.process.wait(10) == 0
    assert time.monotonic() - began < 2
    assert worker.processes() == []


def test_terminated_with_all_of_its_group_it_does_the_same(worker: Worker) -> None:
    # As a local worker is, for the sake of what wraps it. Programs that functions run live on.
    worker.specialize(
        "import subprocess\ndef main(): return subprocess.run(['sleep', '0.5']).returncode + 7"
    )
    body = worker.request()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(worker.ask, "POST", "/execute", body)
        path = f"/executions/{body['execution_id']}"
        wait_until(lambda: worker.ask("GET", path)[0] == 202, 10, "it runs")
        os.killpg(worker.process.pid, signal.SIGTERM)
        assert asked.result()[1]["output"] == 7
    # Nobody acknowledges: it waits a little, and ends.
    assert worker.process.wait(10) == 0
    assert worker.processes() == []


def test_a_worker_that_is_killed_leaves_no_process_and_no_file(worker: Worker) -> None:
    worker.specialize(
        "import os, time\nhere = os.getcwd()\ndef main(): print(here); time.sleep(60)"
    )
    body = worker.request(timeout=60)

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            worker.ask("POST", "/execute", body)

    threading.Thread(target=ask, daemon=True).start()
    path = f"/executions/{body['execution_id']}"
    wait_until(lambda: worker.ask("GET", path)[0] == 202, 10, "it runs")
    folder = worker_folder(worker)
    worker.process.kill()
    worker.process.wait(10)
    wait_until(lambda: not worker.processes(), 10, "nobody is left")
    wait_until(lambda: not folder.exists(), 10, "nothing is left")


def worker_folder(worker: Worker) -> Path:
    folders = {Path(f"/proc/{pid}/cwd").readlink() for pid in worker.processes()} - {Path("/")}
    (folder,) = folders
    assert folder.exists()
    return folder
