"""``tools/demo.sh``: it tells its steps, and leaves nothing behind however it ends."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.process import Process, find_processes, wait_until

DEMO = Path(__file__).parents[2] / "tools" / "demo.py"


@contextlib.contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[Process]:
    """The demo, as the script runs it once it has installed what it needs."""
    process = Process(
        [sys.executable, "-u", DEMO, *arguments],
        folder / "demo.log",
        env={**os.environ, "TMPDIR": str(folder)},
    )
    with process:
        yield process
    for pid in find_processes(f"{folder}/qinling-demo-"):
        os.kill(pid, signal.SIGKILL)


def left(folder: Path) -> list[object]:
    """The processes and folders that it has left behind."""
    return [*find_processes(f"{folder}/qinling-demo-"), *folder.glob("qinling-demo-*")]


def test_a_demo_of_the_steps_alone_tells_them_and_ends(tmp_path: Path) -> None:
    with demo(tmp_path, "--once") as process:
        assert process.wait(120) == 0
        said = process.log()
        assert [line[0] for line in said.splitlines() if line[1] == "."] == list("0123456")
        assert "answers 'hello Qinling'" in said
        assert "| greeting Qinling" in said
        assert left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("line", ["^Serving at ", "^1. POST"])
def test_a_demo_that_is_told_to_end_takes_its_service_and_its_folder_along(
    tmp_path: Path, line: str, number: signal.Signals
) -> None:
    with demo(tmp_path) as process:
        process.wait_for_line(line, 120)
        assert left(tmp_path)
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.log().endswith("Ended.\n")
        assert left(tmp_path) == []


def test_a_demo_that_is_killed_takes_its_service_along(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        process.wait_for_line("^Serving at ", 120)
        assert find_processes(f"{tmp_path}/qinling-demo-")
        process.kill()
        wait_until(lambda: not find_processes(f"{tmp_path}/qinling-demo-"), 30, "the service's end")
