"""Commands that know no lifeline are tied to their engine all the same."""

import os
import signal
from pathlib import Path

import pytest

from qinling.orchestrator.local import guard
from tests.fixtures.process import wait_until
from tests.unit.local.conftest import SLEEPER, STUBBORN, WRAPPER, Start, log_of, pids

TELL = ("/bin/sh", "-c", "echo told; env; ls -l /proc/$$/fd; exec /bin/sleep 600")


def test_nothing_runs_before_the_worker_stands_in_the_pools_file(
    start: Start, tmp_path: Path
) -> None:
    started = start(TELL, guarded=guard.RELEASED)
    started.abandon()
    assert started.popen.wait(20) == 0
    assert log_of(tmp_path, started) == ""


def test_a_released_worker_becomes_the_command_and_lives_on(start: Start, tmp_path: Path) -> None:
    started = start(TELL, guarded=guard.RELEASED)
    started.release()
    comm = Path(f"/proc/{started.entry.pid}/comm")
    wait_until(lambda: comm.read_text() == "sleep\n", 20, "the command")
    assert pids(tmp_path) == {started.entry.pid}
    told = log_of(tmp_path, started)
    assert f"QINLING_WORKER_ID={started.entry.id}\n" in told
    assert "socket:" in told
    # A byte that is taken cannot be read again: the command would see the end of the pipe.
    assert "LIFELINE" not in told
    assert "pipe:" not in told


@pytest.mark.parametrize("command", [SLEEPER, WRAPPER, STUBBORN])
def test_a_bound_worker_ends_with_its_engine_whatever_it_minds(
    start: Start, tmp_path: Path, command: tuple[str, ...]
) -> None:
    started, other = start(command, guarded=guard.BOUND), start(SLEEPER, guarded=guard.BOUND)
    processes = 2 if command == SLEEPER else 3
    wait_until(lambda: len(pids(tmp_path)) == processes + 2, 20, "all of both")
    started.abandon()
    assert started.popen.wait(20) == -signal.SIGKILL
    wait_until(lambda: len(pids(tmp_path)) == 2, 20, "the end of one")
    assert other.popen.poll() is None


def test_a_bound_command_gets_what_it_needs_and_nothing_of_the_guard(
    start: Start, tmp_path: Path
) -> None:
    started = start(TELL, guarded=guard.BOUND)
    wait_until(lambda: "pwd" in log_of(tmp_path, started).lower(), 20, "the environment")
    wait_until(lambda: "socket:" in log_of(tmp_path, started), 20, "the files")
    told = log_of(tmp_path, started)
    assert "LIFELINE" not in told
    assert "pipe:" not in told
    assert "pidfd" not in told
    # The guard holds no socket, or nobody would notice that its command has closed it.
    files = Path(f"/proc/{started.entry.pid}/fd")
    wait_until(
        lambda: not any("socket:" in str(file.readlink()) for file in files.iterdir()),
        20,
        "the socket closed",
    )


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 3", 3), ("kill -SEGV $$", -signal.SIGSEGV), ("kill -TERM $$", -signal.SIGTERM)],
)
def test_a_bound_worker_ends_as_its_command_does(start: Start, script: str, code: int) -> None:
    assert start(("/bin/sh", "-c", script), guarded=guard.BOUND).popen.wait(20) == code


def test_what_a_group_is_told_the_command_decides_upon(start: Start, tmp_path: Path) -> None:
    script = "trap 'echo drained; exit 5' TERM; echo up; while :; do /bin/sleep 600; done"
    started = start(("/bin/sh", "-c", script), guarded=guard.BOUND)
    wait_until(lambda: "up" in log_of(tmp_path, started), 20, "the command")
    wait_until(lambda: len(pids(tmp_path)) == 3, 20, "all of it")
    os.killpg(started.entry.pid, signal.SIGTERM)
    assert started.popen.wait(20) == 5
    assert log_of(tmp_path, started).splitlines()[-1] == "drained"


@pytest.mark.parametrize("mode", [guard.RELEASED, guard.BOUND])
def test_a_program_that_the_kernel_refuses_is_told(start: Start, tmp_path: Path, mode: str) -> None:
    program = tmp_path / "no-program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    started = start((str(program),), guarded=mode)
    if mode == guard.RELEASED:
        started.release()
    assert started.popen.wait(20) == 127
    assert log_of(tmp_path, started) == f"cannot run {program}: Exec format error\n"
