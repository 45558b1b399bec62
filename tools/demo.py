"""The main job, through the real HTTP API: a runtime, and a function in it, told step by step.

Called by ``tools/demo.sh``. Starts ``qinling-standalone`` on a free port with a
state folder of its own and ends it again; standard library only.
"""

import argparse
import contextlib
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

BIN = pathlib.Path(sys.executable).parent
DEADLINE = 60  # seconds that any one step may take

FUNCTION = """\
def main(name="world", **kwargs):
    print("greeting", name)
    return f"hello {name}"
"""


class Failed(Exception):
    """A step did not end as it should."""


def call(url: str, method: str = "GET", body: dict[str, Any] | None = None) -> Any:
    """The JSON that a call answers; None for an empty answer or 404."""
    content = None if body is None else json.dumps(body).encode()
    answer = send(url, method, content, "application/json")
    return json.loads(answer) if answer else None


def send(url: str, method: str, body: bytes | None, content_type: str) -> bytes | None:
    """What a call answers; None for 404."""
    headers = {"Content-Type": content_type}
    request = urllib.request.Request(url, method=method, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            content: bytes = answer.read()
            return content
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Failed(f"{method} {url} answered {error.code}: {error.read().decode()}") from error


def upload(base: str, runtime_id: str, source: str) -> Any:
    """The function that is made of a module ``main``: its zip goes as a part of a form."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as made:
        made.writestr("main.py", source)
    boundary = uuid.uuid4().hex
    fields = {"name": "greet", "runtime_id": runtime_id, "code": '{"source": "package"}'}
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts.append(('name="package"; filename="greet.zip"', package.getvalue()))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
        for head, value in parts
    )
    content_type = f"multipart/form-data; boundary={boundary}"
    answer = send(
        f"{base}/v1/functions", "POST", body + f"--{boundary}--\r\n".encode(), content_type
    )
    return json.loads(answer or b"{}")


def show_function(base: str, runtime_id: str) -> None:
    """Upload a function, run it, and show its answer and its log."""
    function = upload(base, runtime_id, FUNCTION)
    print(f"3. POST /v1/functions: function {function['id']}, entry {function['entry']}")
    for word in ("first", "next"):
        began = time.monotonic()
        body = {"function_id": function["id"], "input": json.dumps({"name": "Qinling"})}
        execution = call(f"{base}/v1/executions", "POST", body)
        seconds = time.monotonic() - began
        if execution["status"] != "success":
            raise Failed(f"the execution ended so: {execution['status']}, {execution['result']}")
        output = json.loads(execution["result"])["output"]
        print(f"   the {word} execution answers {output!r} after {seconds * 1000:.0f} ms")
    log = send(f"{base}/v1/executions/{execution['id']}/log", "GET", None, "application/json")
    for line in (log or b"").decode().splitlines():
        print(f"   | {line}")
    call(f"{base}/v1/functions/{function['id']}", "DELETE")


def until(what: str, condition: Callable[[], Any]) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise Failed(f"{what} did not happen within {DEADLINE} s")


@contextlib.contextmanager
def service(state: str, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running qinling-standalone and its URL."""
    # Where the demo is killed, its service ends too.
    command = ["setpriv", "--pdeathsig", "TERM", "--", BIN / "qinling-standalone"]
    command += ["--port", str(port), "--state-dir", state]
    with open(pathlib.Path(state) / "log", "w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            line = process.stdout.readline() if process.stdout else ""
            if (found := re.search(r"http://\S+", line)) is None:
                raise Failed(
                    f"qinling-standalone did not start: {pathlib.Path(log.name).read_text()}"
                )
            yield process, found[0]
        finally:
            process.terminate()
            process.wait(timeout=30)


def show_pool(base: str, state: str, runtime_id: str) -> None:
    """Tell the pool's capacity, and let each of its workers answer for itself."""
    pool = call(f"{base}/v1/runtimes/{runtime_id}/pool")["capacity"]
    print(f"   pool: {pool['available']} of {pool['total']} workers are warm")
    entries = json.loads((pathlib.Path(state) / "pools" / f"{runtime_id}.json").read_text())
    for worker in entries["workers"]:
        answer = call(f"http://127.0.0.1:{worker['port']}/healthz")
        if answer["worker_id"] != worker["id"]:
            raise Failed(f"worker {worker['id']} answers as {answer['worker_id']}")
        print(f"   worker {answer['worker_id']} (pid {worker['pid']}) answers: {answer['status']}")


def steps(base: str, state: str) -> None:
    runtimes = f"{base}/v1/runtimes"

    def status(runtime: dict[str, Any], wanted: str) -> Any:
        shown = call(f"{runtimes}/{runtime['id']}")
        if shown["status"] == "error":
            raise Failed(f"the runtime is in error: {shown['status_reason']}")
        return shown if shown["status"] == wanted else None

    began = time.monotonic()
    runtime = call(runtimes, "POST", {"name": "demo", "image": "python3"})
    print(f"1. POST /v1/runtimes: runtime {runtime['id']} is {runtime['status']}")
    until("available", lambda: status(runtime, "available"))
    print(f"2. it is available after {time.monotonic() - began:.2f} s")
    show_pool(base, state, runtime["id"])
    show_function(base, runtime["id"])
    image = "openstackqinling/python3-runtime:2"
    changed = call(f"{runtimes}/{runtime['id']}", "PUT", {"image": image})
    print(f"4. PUT image {image}: {changed['status']}")
    until("available", lambda: status(runtime, "available"))
    print("5. it is available with new workers")
    show_pool(base, state, runtime["id"])
    call(f"{runtimes}/{runtime['id']}", "DELETE")
    until("the end", lambda: call(f"{runtimes}/{runtime['id']}") is None)
    print("6. DELETE: the runtime and its workers are gone")


def end(_number: int, _frame: Any) -> None:
    """What Ctrl-C does, once: whatever comes while it tidies up changes nothing."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    parser = argparse.ArgumentParser(prog="tools/demo.sh", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the steps")
    parser.add_argument("--port", type=int, default=0, help="TCP port; any free one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="qinling-demo-") as state:
        try:
            with service(state, options.port) as (process, base):
                print(f"0. qinling-standalone serves at {base}")
                steps(base, state)
                if not options.once:
                    print(f"Serving at {base} until Ctrl-C. Try: curl {base}/v1/runtimes")
                    process.wait()
        except Failed as error:
            print(f"The demo failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("Ended.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
