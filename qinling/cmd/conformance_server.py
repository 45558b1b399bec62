"""A server under test, as ``qinling-conformance`` starts, asks and ends it."""

import base64
import contextlib
import http.client
import io
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qinling.worker import signing

HOST = "127.0.0.1"
# Seconds that an idle worker may take to end, and between two questions.
END = 5.0
_PAUSE = 0.05
# Seconds for a container to be removed in.
_REMOVAL = 60.0
#: Seconds of an execution's timeout, and that an answer may take beyond it.
TIMEOUT = 2.0
_MORE = 5.0
CONCURRENCY = 2
_MB = 1 << 20

# The function, for the languages that there are runtimes for.
_PYTHON = """
import time

def main(do, text="", seconds=0, **_):
    print(do)
    time.sleep(seconds)
    if do == "raise":
        raise ValueError(text)
    return text
"""
_JAVASCRIPT = """
exports.main = async ({ do: what, text = '', seconds = 0 }) => {
  console.log(what)
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
  if (what === 'raise') throw new Error(text)
  return text
}
"""
GOOD = {"main.py": _PYTHON, "main.js": _JAVASCRIPT}
BROKEN = {"main.py": "raise ValueError('as asked')", "main.js": "throw new Error('as asked')"}


class Broken(Exception):
    """A point of the contract that was not met."""


@dataclass(frozen=True, slots=True)
class Program:
    """What is under test, and how long it may take to be ready (seconds).

    :ivar image: of a container, which ``command`` runs: ``docker``, or what takes the same.
    """

    command: Sequence[str]
    startup: float
    image: str | None = None

    def line(self, worker_id: str) -> list[str]:
        """What starts it. A container is shut in as a pod is, and has the worker's name."""
        if self.image is None:
            return [*self.command]
        variables = (f"--env=QINLING_WORKER_{name}" for name in ("ID", "HOST", "PORT"))
        shut_in = "--read-only", "--tmpfs=/tmp", "--user=65532:65532", "--cap-drop=ALL"
        named = f"--name={worker_id}", "--rm", "--network=host"
        return [*self.command, "run", *named, *variables, *shut_in, self.image]

    def end(self, process: subprocess.Popen[bytes], worker_id: str) -> None:
        """Leave nothing of it, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self.image is not None:
            # That was the client; the container is no child of it.
            subprocess.run(
                [*self.command, "rm", "--force", worker_id],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_REMOVAL,
                check=False,
            )


class Server:
    """One run of the server under test."""

    def __init__(self, program: Program, package: bytes) -> None:
        self.worker_id = str(uuid.uuid4())
        self.program = program
        self.package = package
        self.order: dict[str, Any] = {}
        self.key: bytes | None = None
        with socket.create_server((HOST, 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            program.line(self.worker_id),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=os.environ
            | {
                "QINLING_WORKER_ID": self.worker_id,
                "QINLING_WORKER_HOST": HOST,
                "QINLING_WORKER_PORT": str(self.port),
            },
        )

    def close(self) -> None:
        self.program.end(self.process, self.worker_id)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        wait: float = END,
    ) -> tuple[int, Any]:
        """Status and JSON of an answer; the JSON is None where there is none.

        :param headers: in place of a signature, which is there once there is a key.
        """
        key, nonce = self.key if headers is None else None, ""
        if key is not None:
            headers = signing.sign_request(key, method, path, body)
            nonce = headers[signing.NONCE]
        connection = http.client.HTTPConnection(HOST, self.port, timeout=wait)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            content = answer.read()
        if key is not None and answer.status != 401:
            try:
                signing.check_answer(key, answer.status, nonce, answer.headers.get, content)
            except signing.Unsigned as error:
                raise Broken(f"the answer to {method} {path}: {error}") from error
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, None

    def specialize(self, package: bytes | None = None, **other: Any) -> tuple[int, Any]:
        """Give it the function; the same one as before but for what is given."""
        if not self.order:
            self.order = {
                "worker_id": self.worker_id,
                "boot_id": self.wait_ready()["boot_id"],
                "function_id": str(uuid.uuid4()),
                "revision": 1,
                "entry": "main.main",
                "key": secrets.token_hex(signing.KEY_SIZE),
                "concurrency": CONCURRENCY,
                "memory_size": 128 * _MB,
                "import_memory": 128 * _MB,
                "import_timeout": 10,
                "max_unpacked_size": _MB,
                "max_result_size": _MB,
                "max_log_size": _MB,
            }
        said = base64.b64encode(json.dumps(self.order | other).encode()).decode()
        status, answer = self.ask(
            "POST",
            "/specialize",
            self.package if package is None else package,
            {"Content-Type": "application/zip", "Qinling-Function": said},
            10 + _MORE,
        )
        if status == 200:
            self.key = bytes.fromhex(self.order["key"])
        return status, answer

    def request(self, given: Mapping[str, Any] | str | None, **other: Any) -> dict[str, Any]:
        """What ``/execute`` is told."""
        return {
            **{name: self.order[name] for name in ("worker_id", "boot_id", "revision")},
            "execution_id": str(uuid.uuid4()),
            "input": json.dumps(given) if isinstance(given, Mapping) else given,
            "timeout": TIMEOUT,
            **other,
        }

    def execute(self, request: Mapping[str, Any]) -> tuple[int, Any]:
        return self.ask("POST", "/execute", json.dumps(request).encode(), wait=TIMEOUT + _MORE)

    def run(self, given: Mapping[str, Any] | str | None, **expected: Any) -> dict[str, Any]:
        """Execute, with the result expected.

        :raises Broken: it is another one.
        """
        request = self.request(given)
        status, answer = self.execute(request)
        found = answer if isinstance(answer, dict) else {}
        if status != 200 or found.get("execution_id") != request["execution_id"]:
            raise Broken(f"/execute answers {status}, {answer}")
        for name, value in expected.items():
            if found.get(name) != value:
                raise Broken(f"{name} of the answer is {found.get(name)!r} and not {value!r}")
        return found

    def wait_for(self, path: str, status: int) -> Any:
        """What a URL answers, once that has the status."""
        deadline = time.monotonic() + END
        while True:
            found, answer = self.ask("GET", path)
            if found == status:
                return answer
            if time.monotonic() > deadline:
                raise Broken(f"GET {path} answers {found} and not {status}")
            time.sleep(_PAUSE)

    def wait_ready(self) -> dict[str, Any]:
        """Its health, as soon as it is ready.

        :raises Broken: it is not in time.
        """
        deadline = time.monotonic() + self.program.startup
        last = "nobody listens"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Broken(f"it ended with code {self.process.returncode} before it was ready")
            try:
                status, health = self.ask("GET", "/healthz")
                if status == 200 and isinstance(health, dict):
                    return health
                last = f"it answers {status}"
            except OSError as error:
                last = error.strerror or str(error)
            time.sleep(_PAUSE)
        raise Broken(f"it is not ready after {self.program.startup:g} s: {last}")

    def wait_end(self) -> None:
        """:raises Broken: it has not ended in time, or not well."""
        try:
            code = self.process.wait(END)
        except subprocess.TimeoutExpired as error:
            raise Broken(f"it is idle and has not ended after {END:g} s") from error
        if code != 0:
            raise Broken(f"it ended with code {code} and not with 0")


def read(connection: http.client.HTTPConnection) -> tuple[int, Any]:
    """The next answer on a connection."""
    answer = connection.getresponse()
    content = answer.read()
    try:
        return answer.status, json.loads(content)
    except ValueError:
        return answer.status, None


def pack(files: Mapping[str, str]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as found:
        for name, text in files.items():
            found.writestr(name, text)
    return archive.getvalue()
