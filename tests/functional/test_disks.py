"""Disks that are full or read-only: when a program starts, and when it runs."""

import contextlib
import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.fixtures.deployment import Client
from tests.fixtures.host import ENGINE, STANDALONE, Host
from tests.fixtures.process import Process, find_executable, wait_until


def may_mount() -> bool:
    """Whether this user may mount, in a namespace that nobody else sees."""
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def on_a_disk(
    folder: Path, options: str, then: str = "true", size: str = "64k"
) -> list[str | Path]:
    """What to put before a command so that `folder` is a small disk of its own, for it alone.

    :param then: a shell command to run first, in the folder.
    """
    folder.mkdir()
    script = (
        f'mount -t tmpfs -o size={size} tmpfs "$0" && cd "$0" && {{ ' + then + "; } && cd / && "
        f'mount -o "remount,{options}" "$0" && exec "$@"'
    )
    return [find_executable("unshare"), "--mount", "sh", "-c", script, folder]


@pytest.mark.parametrize("program", [ENGINE, STANDALONE])
def test_a_full_disk_is_told_with_the_folder(ready: Host, program: str) -> None:
    if may_mount():
        fill = "{ head -c 1M /dev/zero >full 2>/dev/null || true; }"
        prefix = on_a_disk(ready.state_dir, "rw", fill)
    else:
        # No file may grow: the same to a program, but for the words.
        prefix = [find_executable("prlimit"), "--fsize=0", "--"]
    line = ready.run(program, prefix=prefix).line()
    assert str(ready.state_dir) in line or "disk" in line


@pytest.mark.parametrize("program", [ENGINE, STANDALONE])
def test_a_folder_that_is_read_only_is_named(ready: Host, program: str) -> None:
    if may_mount():
        prefix = on_a_disk(ready.state_dir, "ro")
    else:
        ready.state_dir.mkdir(mode=0o500)
        prefix = []
    assert str(ready.state_dir) in ready.run(program, prefix=prefix).line()


def fill_the_disk(process: Process, folder: Path) -> Callable[[], None]:
    """Leave no byte on the disk that the folder is for this process alone; returns the cure."""
    full = Path(f"/proc/{process.pid}/root{folder}/full")
    with full.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(512))
    return full.unlink


def let_no_file_grow(process: Process, _folder: Path) -> Callable[[], None]:
    """What a user may do who may not mount; to a program it is the same, but for the words."""
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    return lambda: resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before) and None


@pytest.mark.parametrize("break_it", [fill_the_disk, let_no_file_grow])
def test_a_disk_that_fills_up_while_the_service_runs_is_told_by_its_name(
    host: Host,
    processes: list[Process],
    break_it: Callable[[Process, Path], Callable[[], None]],
) -> None:
    del host.groups["database"]
    # A runtime that has come to its end, so that nothing but the test writes.
    host.groups["local"]["images"] = "none=/nonexistent/server"
    prefix: list[str | Path] = []
    if may_mount():
        prefix = on_a_disk(host.state_dir, "rw", size="2m")
    elif break_it is fill_the_disk:
        break_it = let_no_file_grow
    # Its log is a file, too: another process writes that one.
    piped = ["bash", "-c", 'exec "$@" > >(cat) 2>&1', "bash"]
    command = [*piped, *prefix, *host.command(STANDALONE)]
    process = Process(command, host.root / "standalone.log")
    processes.append(process)
    process.start()
    process.wait_for_line("^Qinling is serving", 60)
    client = Client(f"http://127.0.0.1:{host.port}")
    runtime = client.create(image="none/at/all", name="old")
    client.wait_for(runtime["id"], "error")

    cure = break_it(process, host.state_dir)
    before = len(process.log())
    refused = wait_until(
        lambda: [answer for answer in change(client, runtime["id"]) if answer.status_code != 200],
        20,
        "a change that finds no room",
    )
    for answer in [*refused, client.call("POST", "/v1/runtimes", json={"image": "none"})]:
        assert answer.status_code == 503, answer.text
        assert answer.headers["Retry-After"]
        fault = answer.json()["faultstring"]
        assert "disk" in fault, fault
    told = len(refused) + 1
    # It comes by way of another process.
    wait_until(lambda: process.log()[before:].count(" is refused: ") >= told, 10, "each told")
    log = process.log()[before:]
    assert "Traceback" not in log, log
    assert log.count(" is refused: ") == told
    assert "disk" in log

    cure()
    wait_until(lambda: change(client, runtime["id"])[-1].status_code == 200, 20, "well again")
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


def change(client: Client, runtime_id: str) -> list[requests.Response]:
    """Answers to changes that need some room each."""
    return [client.update(runtime_id, description=letter * 255) for letter in "abc"]
