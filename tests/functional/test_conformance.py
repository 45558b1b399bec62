"""``qinling-conformance``: who keeps the contract passes, and each broken point is named."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qinling
from tests.fixtures.worker import pack

ROOT = Path(__file__).parents[2]
CHECK = Path(sys.executable).parent / "qinling-conformance"

#: The worker of this repository, but for what a test breaks in it.
SERVER = """
import json, sys
sys.path.insert(0, ROOT)
from qinling.worker import __main__ as program, executions, executor, handler, server, signing

Handler, Server, Executions = handler.Handler, server.WorkerServer, executions.Executions
Executor, identity, code = executor.Executor, Server.identity, lambda code: code
answer, call, run = Handler._answer, Handler._call, Executor.run

def changed(name, value):
    def run_and_change(*arguments):
        return json.dumps(json.loads(run(*arguments)) | {name: value}).encode()
    return run_and_change

BREAK
sys.exit(code(program.main()))
"""

#: What is broken, and words of the points that say so.
BROKEN = {
    'Server.identity = lambda self: identity(self) | {"worker_id": "me"}': ["worker_id is 'me'"],
    'Server.identity = lambda self: identity(self) | {"boot_id": "1"}': ["had the same boot_id"],
    'Server.identity = lambda self: identity(self) | {"boot_id": None}': ["boot_id is missing"],
    'Handler.protocol_version = "HTTP/1.0"\n'
    "Handler.parse_request = lambda self: handler.RequestHandler.parse_request(self) and ("
    "setattr(self, 'close_connection', True) or True)": ["the connection was closed"],
    "import socketserver\nServer.process_request = socketserver.BaseServer.process_request": [
        "A client that connects and says nothing"
    ],
    "Server.drain = lambda self: None": ["it is idle and has not ended"],
    "code = lambda code: 3": ["it ended with code 3 and not with 0"],
    "sys.exit(5)": ["it ended with code 5 before it was ready"],
    "server._is_same = lambda *_: True": ["it answers 200 and not 409"],
    "signing.Nonces.add = lambda *_: None": ["it answers 200 and not 401"],
    "signing.check_request = lambda *_: _[3](signing.NONCE)": ["was seen before, is 401"],
    'signing.sign_answer = lambda *_: "0" * 64': ["the signature is missing or wrong"],
    'Executor.run = changed("log", "")': ["the log is ''", "no traceback"],
    'Executor.run = changed("output", "x")': ["output of the answer is 'x'", "it is told as 'x'"],
    'Executor.run = changed("status", "success")': ["status of the answer is 'success'"],
    'Executor.run = changed("execution_id", "x")': ["/execute answers 200"],
    'Executor.run = changed("duration", None)': ["duration is missing"],
    "init = Executions.__init__\nExecutions.__init__ = lambda self, most: init(self, 100)": [
        "it answers 200 and not 429"
    ],
    "Executions.remove = lambda *_: None": ["it answers 200 and not 404", "cancelled"],
    "Executions.close = lambda self: None": ["it answers 200 and not 410"],
    "Executions.get = lambda *_: None": ["answers 404 and not 202"],
}


def check(*command: str | Path, package: Path | None = None) -> subprocess.CompletedProcess[str]:
    more = [] if package is None else ["--package", package]
    return subprocess.run(
        [CHECK, "--startup", "10", *more, shlex.join(map(str, command))],
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
    assert done.stdout.count("ok ") == 19


def server(tmp_path: Path, broken: str) -> Path:
    found = tmp_path / "server.py"
    found.write_text(SERVER.replace("BREAK", broken).replace("ROOT", repr(str(ROOT))))
    return found


def test_a_server_with_nothing_broken_passes(tmp_path: Path) -> None:
    done = check(sys.executable, server(tmp_path, ""))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("broken", "words"), BROKEN.items(), ids=BROKEN)
def test_each_point_that_is_broken_is_named(tmp_path: Path, broken: str, words: list[str]) -> None:
    done = check(sys.executable, server(tmp_path, broken))
    assert done.returncode == 1
    for word in words:
        assert word in done.stdout, done.stdout
    assert "Traceback" not in done.stdout


def test_a_function_in_another_language_can_be_given(tmp_path: Path) -> None:
    package = tmp_path / "function.zip"
    package.write_bytes(pack({"main.py": "def main(**_): return 'mine'"}))
    done = check(sys.executable, server(tmp_path, ""), package=package)
    assert done.returncode == 1
    assert "output of the answer is 'mine'" in done.stdout
