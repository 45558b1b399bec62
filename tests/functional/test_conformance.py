"""``qinling-conformance``: who keeps the contract passes, and each broken point is named."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import qinling
from tests.fixtures.process import find_executable, find_processes, wait_until
from tests.fixtures.worker import pack

ROOT = Path(__file__).parents[2]
CHECK = Path(sys.executable).parent / "qinling-conformance"

#: The worker of this repository, but for what a test breaks in it.
SERVER = """
import json, sys, time
sys.path.insert(0, ROOT)
from qinling.worker import __main__ as program, executions, executor, handler, server, signing

Handler, Server, Executions = handler.Handler, server.WorkerServer, executions.Executions
Executor, identity, code = executor.Executor, Server.identity, lambda code: code
answer, call, run = Handler._answer, Handler._call, Executor.run

def changed(name, value):
    def run_and_change(*arguments):
        return json.dumps(json.loads(run(*arguments)) | {name: value}).encode()
    return run_and_change

def closing(self):
    understood = parse(self)
    self.close_connection = True
    return understood

def renamed(self, execution_id):
    return begin(self, execution_id + str(time.time()))

BREAK
sys.exit(code(program.main()))
"""

#: What is broken, the points to be checked, and words of what they say.
BROKEN = [
    (
        'Server.identity = lambda self: identity(self) | {"worker_id": "me"}',
        {"is_healthy": "worker_id is 'me'"},
    ),
    (
        'Server.identity = lambda self: identity(self) | {"boot_id": "1"}',
        {"is_another_boot": "two starts had the same boot_id"},
    ),
    (
        'Server.identity = lambda self: identity(self) | {"boot_id": None}',
        {"is_healthy": "boot_id is missing"},
    ),
    (
        "parse = Handler.parse_request\nHandler.parse_request = closing",
        {"keeps_connections": "the connection was closed"},
    ),
    (
        "import socketserver\nServer.process_request = socketserver.BaseServer.process_request",
        {"answers_beside_the_silent": "TimeoutError"},
    ),
    ("handler._Refusal = ValueError", {"refuses_the_unknown": "RemoteDisconnected"}),
    ("Server.drain = lambda self: None", dict.fromkeys(("drains", "ends_on_sigterm"), "not ended")),
    ("code = lambda code: 3", {"drains": "it ended with code 3 and not with 0"}),
    ("sys.exit(5)", {"is_healthy": "it ended with code 5 before it was ready"}),
    ("server._is_same = lambda *_: True", {"takes_a_function": "it answers 200 and not 409"}),
    ("signing.Nonces.add = lambda *_: None", {"is_asked_by_its_own": "it answers 200 and not 401"}),
    (
        "signing.check_request = lambda *given: given[3](signing.NONCE) or '-'",
        {"is_asked_by_its_own": "it answers 200 and not 401"},
    ),
    (
        'signing.sign_answer = lambda *_: "0" * 64',
        {"executes": "the signature is missing or wrong"},
    ),
    (
        'Executor.run = changed("log", "")',
        {
            "executes": "the log is ''",
            "tells_of_a_failure": "not in output and log",
            "tells_of_a_broken_import": "no traceback",
        },
    ),
    (
        'Executor.run = changed("output", "x")',
        {
            "executes": "output of the answer is 'x'",
            "tells_of_a_failure": "not in output and log",
            "ends_what_takes_too_long": "it is told as 'x'",
        },
    ),
    (
        'Executor.run = changed("status", "success")',
        {
            "tells_of_a_failure": "status of the answer is 'success'",
            "ends_what_takes_too_long": "status of the answer is 'success'",
            "cancels": "status is not 'cancelled'",
        },
    ),
    ('Executor.run = changed("execution_id", "x")', {"executes": "/execute answers 200"}),
    ('Executor.run = changed("duration", None)', {"executes": "duration is missing"}),
    (
        "init = Executions.__init__\nExecutions.__init__ = lambda self, most: init(self, 100)",
        {"refuses_more_than_it_may_run": "it answers 200 and not 429"},
    ),
    (
        "Executions.remove = lambda *_: None",
        {
            "knows_executions": "it answers 200 and not 404",
            "cancels": "status is not 'cancelled'",
            "cancels_what_comes_later": "status is not 'cancelled'",
        },
    ),
    (
        "Executions.acknowledge = lambda *_: None",
        dict.fromkeys(
            ("forgets_what_is_acknowledged", "drains_at_once"), "it answers 200 and not 404"
        ),
    ),
    (
        "Executions.acknowledge = lambda self, ids=(): [self.remove(each) for each in ids]",
        {"forgets_what_is_acknowledged": "status is not 'success'"},
    ),
    ("Executions.close = lambda self: None", {"drains_when_it_is_done": "and not 410"}),
    (
        'Server.identity = lambda self: identity(self) | {"status": "ready"}',
        {"drains_when_it_is_done": "status is not 'draining'"},
    ),
    ("Executions.get = lambda *_: None", {"knows_executions": "answers 404 and not 202"}),
    (
        "begin = Executions.begin\nExecutions.begin = renamed",
        {"knows_executions": "answers 404 and not 202"},
    ),
]


def check(
    *command: str | Path, only: Sequence[str | Path] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECK, "--startup", "10", *only, shlex.join(map(str, command))],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_the_worker_as_the_dockerfile_copies_it_keeps_the_contract(tmp_path: Path) -> None:
    dockerfile = (ROOT / "runtimes" / "python3" / "Dockerfile").read_text()
    assert "COPY qinling/worker /usr/local/lib/qinling/worker\n" in dockerfile
    assert '"-I", "-S", "/usr/local/lib/qinling/worker"]' in dockerfile
    there = tmp_path / "lib" / "qinling" / "worker"
    shutil.copytree(
        Path(qinling.__file__).parent / "worker", there, ignore=shutil.ignore_patterns("*.pyc")
    )
    done = check("python3", "-I", "-S", there)
    assert done.returncode == 0, done.stdout
    assert "BROKEN" not in done.stdout
    assert done.stdout.count("ok ") == 22


def test_the_server_for_nodejs_as_its_dockerfile_copies_it_keeps_the_contract(
    tmp_path: Path,
) -> None:
    dockerfile = (ROOT / "runtimes" / "nodejs" / "Dockerfile").read_text()
    assert "COPY runtimes/nodejs/server /usr/local/lib/qinling/nodejs\n" in dockerfile
    assert '"qinling-node", "/usr/local/lib/qinling/nodejs/main.js"]' in dockerfile
    there = tmp_path / "lib" / "qinling" / "nodejs"
    shutil.copytree(ROOT / "runtimes" / "nodejs" / "server", there)
    done = check(find_executable("node"), there / "main.js")
    assert done.returncode == 0, done.stdout
    assert "BROKEN" not in done.stdout
    assert done.stdout.count("ok ") == 22


def server(tmp_path: Path, broken: str) -> Path:
    found = tmp_path / "server.py"
    found.write_text(SERVER.replace("BREAK", broken).replace("ROOT", repr(str(ROOT))))
    return found


def test_a_server_with_nothing_broken_passes(tmp_path: Path) -> None:
    done = check(sys.executable, server(tmp_path, ""))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("broken", "points"), BROKEN, ids=[broken for broken, _ in BROKEN])
def test_each_point_that_is_broken_is_named(
    tmp_path: Path, broken: str, points: dict[str, str]
) -> None:
    only = [word for point in points for word in ("--only", point)]
    done = check(sys.executable, server(tmp_path, broken), only=only)
    assert done.returncode == 1
    assert done.stdout.count("BROKEN") == len(points), done.stdout
    for words in points.values():
        assert words in done.stdout, done.stdout
    assert "Traceback" not in done.stdout


def test_a_function_in_another_language_can_be_given(tmp_path: Path) -> None:
    package = tmp_path / "function.zip"
    package.write_bytes(pack({"main.py": "def main(**_): return 'mine'"}))
    done = check(
        sys.executable, server(tmp_path, ""), only=["--package", package, "--only", "executes"]
    )
    assert done.returncode == 1
    assert "output of the answer is 'mine'" in done.stdout


#: In docker's place, which there is not everywhere: a client, and what it starts is no child of it.
DOCKER = """#!PYTHON
import os, pathlib, signal, subprocess, sys
_, verb, *words = sys.argv
assert os.environ["DOCKER_HOST"] == "tcp://192.0.2.1"
if verb == "run":
    assert {"--cap-drop=ALL", "--env=QINLING_WORKER_PORT"} < set(words) and words[-1] == "an/image"
    (name,) = (word.partition("=")[2] for word in words if word.startswith("--name="))
    server = subprocess.Popen([sys.executable, SERVER], start_new_session=True)
    pathlib.Path(RUNS, name).write_text(str(server.pid))
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    sys.exit(server.wait())
assert (verb, words[0]) == ("rm", "--force")
try:
    os.killpg(int(pathlib.Path(RUNS, words[1]).read_text()), signal.SIGKILL)
except ProcessLookupError:
    sys.exit(1)
"""


def test_an_image_is_run_by_docker_which_is_left_with_no_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    docker = tmp_path / "docker"
    program = DOCKER.replace("PYTHON", sys.executable).replace("RUNS", repr(str(runs)))
    docker.write_text(program.replace("SERVER", repr(str(server(tmp_path, "")))))
    docker.chmod(0o700)
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1")
    points = ["--only", "is_another_boot", "--only", "ends_on_sigterm"]
    done = check(docker, only=["--image", "an/image", *points])
    assert done.returncode == 0, done.stdout
    assert len(list(runs.iterdir())) == 3
    wait_until(lambda: find_processes(str(tmp_path / "server.py")) == [], 10, "no server left")
