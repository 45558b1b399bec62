"""The main job, through the real HTTP API: a runtime's life, told step by step.

Called by ``tools/demo.sh``. Starts ``qinling-standalone`` on a free port with a
state folder of its own and ends it again; standard library only.
"""

import argparse
import contextlib
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
from collections.abc import Callable, Iterator
from typing import Any

BIN = pathlib.Path(sys.executable).parent
DEADLINE = 60  # seconds that any one step may take


class Failed(Exception):
    """A step did not end as it should."""


def call(url: str, method: str = "GET", body: dict[str, Any] | None = None) -> Any:
    """The JSON that a call answers; None for an empty answer or 404."""
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise Failed(f"{method} {url} answered {error.code}: {error.read().decode()}") from error
    return json.loads(content) if content else None


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
    image = "openstackqinling/python3-runtime:2"
    changed = call(f"{runtimes}/{runtime['id']}", "PUT", {"image": image})
    print(f"3. PUT image {image}: {changed['status']}")
    until("available", lambda: status(runtime, "available"))
    print("4. it is available with new workers")
    show_pool(base, state, runtime["id"])
    call(f"{runtimes}/{runtime['id']}", "DELETE")
    until("the end", lambda: call(f"{runtimes}/{runtime['id']}") is None)
    print("5. DELETE: the runtime and its workers are gone")


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
