"""``qinling-conformance``: who keeps the contract passes, and each broken point is named."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import qinling

ROOT = Path(__file__).parents[2]
CHECK = Path(sys.executable).parent / "qinling-conformance"

#: A server that keeps the contract but for what a test breaks in it.
SERVER = """
import http.server, json, os, signal, sys, threading, uuid

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200, {"worker_id": ID, "boot_id": BOOT, "status": "ready"})
        else:
            self.answer(404, {})
    def do_POST(self):
        self.answer(202, {})
        threading.Thread(target=server.shutdown).start()
    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

ID, BOOT, CODE = os.environ["QINLING_WORKER_ID"], str(uuid.uuid4()), 0
Server = http.server.ThreadingHTTPServer
Server.daemon_threads = True
BREAK
address = os.environ["QINLING_WORKER_HOST"], int(os.environ["QINLING_WORKER_PORT"])
server = Server(address, Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(0.05)
sys.exit(CODE)
"""

#: What is broken, and words of the points that say so.
BROKEN = {
    'ID = "somebody"': ["worker_id is 'somebody'"],
    "BOOT = str(1)": ["two starts had the same boot_id"],
    "BOOT = None": ["boot_id is missing"],
    'Handler.protocol_version = "HTTP/1.0"': ["the connection was closed after an answer"],
    "Server = http.server.HTTPServer": ["A client that connects and says nothing"],
    "Handler.do_POST = lambda self: self.answer(202, {})": ["it is idle and has not ended"],
    "Handler.do_POST = Handler.do_GET": ["it answers 404"],
    "CODE = 3": ["it ended with code 3 and not with 0"],
    "sys.exit(5)": ["it ended with code 5 before it was ready"],
}


def check(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECK, "--startup", "10", shlex.join(map(str, command))],
        capture_output=True,
        text=True,
        timeout=120,
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
    assert done.stdout.count("ok ") == 8


def test_another_server_that_keeps_the_contract_passes(tmp_path: Path) -> None:
    server = tmp_path / "server.py"
    server.write_text(SERVER.replace("BREAK", ""))
    done = check(sys.executable, server)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("broken", "words"), BROKEN.items(), ids=BROKEN)
def test_each_point_that_is_broken_is_named(tmp_path: Path, broken: str, words: list[str]) -> None:
    server = tmp_path / "server.py"
    server.write_text(SERVER.replace("BREAK", broken))
    done = check(sys.executable, server)
    assert done.returncode == 1
    for word in words:
        assert word in done.stdout, done.stdout
    assert "Traceback" not in done.stdout
