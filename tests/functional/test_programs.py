"""The programs as an operator starts them: what they say, how they start, and how they end."""

import contextlib
import os
import re
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator

import pytest

from qinling.db import migration
from tests.fixtures.deployment import BIN
from tests.fixtures.host import API, ENGINE, EVERY, MANAGE, STANDALONE, Host, run
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import Process, free_port, wait_until

# What every program knows


@pytest.mark.parametrize("program", EVERY)
def test_a_program_tells_how_it_is_used(program: str) -> None:
    ended = run([BIN / program, "--help"])
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"usage: {program} ")
    assert "--config-file" in ended.out


@pytest.mark.parametrize("program", EVERY)
def test_a_program_tells_its_version(program: str) -> None:
    ended = run([BIN / program, "--version"])
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\S*\n", ended.out)


# A place where it cannot be


@contextlib.contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield


@pytest.mark.parametrize("program", [API, STANDALONE])
def test_a_port_that_is_in_use_is_named(ready: Host, program: str) -> None:
    with taken(ready.port):
        line = ready.run(program).line()
    assert str(ready.port) in line
    assert "in use" in line


@pytest.mark.parametrize("program", [API, STANDALONE])
def test_an_address_of_another_host_is_named(ready: Host, program: str) -> None:
    ready.groups["api"]["host"] = "203.0.113.1"
    arguments = ("--host", "203.0.113.1") if program == STANDALONE else ()
    assert "203.0.113.1" in ready.run(program, *arguments).line()


def test_a_folder_that_another_standalone_uses_is_named(
    host: Host, processes: list[Process]
) -> None:
    first = host.process(STANDALONE)
    processes.append(first)
    first.start()
    first.wait_for_line("^Qinling is serving", 60)
    host.port = free_port()
    line = host.run(STANDALONE).line()
    assert str(host.state_dir) in line
    assert "in use" in line
    assert first.terminate(30) == 0
    # The folder is free with its process, and not before.
    second = host.process(STANDALONE)
    processes.append(second)
    second.start()
    second.wait_for_line("^Qinling is serving", 60)
    second.kill()
    third = host.process(STANDALONE)
    processes.append(third)
    third.start()
    third.wait_for_line("^Qinling is serving", 60)


@pytest.mark.parametrize(
    ("program", "below"),
    [(ENGINE, False), (ENGINE, True), (STANDALONE, False), (STANDALONE, True)],
)
def test_a_folder_that_cannot_be_one_is_named(ready: Host, program: str, below: bool) -> None:
    ready.state_dir.write_text("a file")
    if below:
        ready.state_dir = ready.state_dir / "state"
        ready.groups["local"]["state_dir"] = str(ready.state_dir)
    assert str(ready.state_dir) in ready.run(program).line()


def test_a_second_host_with_the_same_database_is_refused_and_told_why(
    host: Host, processes: list[Process], mariadb: MariaDB
) -> None:
    mariadb.heal()
    database = mariadb.create_database()
    host.groups["database"]["connection"] = database
    host.migrate()
    first = host.process(ENGINE)
    processes.append(first)
    first.start()
    first.wait_for_line("The engine is running", 60)
    other = Host(host.root / "other")
    other.root.mkdir()
    other.groups |= {
        "database": {"connection": database},
        "engine": {"host": "that-host"},
    }
    line = other.run(ENGINE).line()
    for word in ("this-host", "that-host", "local", "database"):
        assert word in line
    # The same host may have as many as it likes.
    second = Process(host.command(ENGINE), host.root / "second.log")
    processes.append(second)
    second.start()
    second.wait_for_line("The engine is running", 60)
    # Those that ended in order are no reason any more.
    assert first.terminate(30) == 0
    assert "this-host" in other.run(ENGINE).line()
    assert second.terminate(30) == 0
    third = other.process(ENGINE)
    processes.append(third)
    third.start()
    third.wait_for_line("The engine is running", 60)
    assert third.terminate(30) == 0
    mariadb.drop_database(database)


# A start that goes well, and its end


@pytest.mark.parametrize(
    ("program", "number"),
    [
        (API, signal.SIGTERM),
        (ENGINE, signal.SIGTERM),
        (STANDALONE, signal.SIGTERM),
        (STANDALONE, signal.SIGINT),
    ],
)
def test_a_service_tells_systemd_that_it_is_ready_and_ends_in_order(
    ready: Host, processes: list[Process], program: str, number: signal.Signals
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        systemd.bind(f"{folder}/notify")
        systemd.settimeout(60)
        process = ready.process(program)
        process.env = {**os.environ, "NOTIFY_SOCKET": f"{folder}/notify"}
        processes.append(process)
        process.start()
        assert systemd.recv(100) == b"READY=1"
    if program != ENGINE:
        with socket.create_connection(("127.0.0.1", ready.port), timeout=20):
            pass
    process.send_signal(number)
    assert process.wait(30) == 0
    assert "Traceback" not in process.log()
    assert " ERROR qinling" not in process.log()


def test_a_standalone_that_was_told_to_end_while_it_starts_ends(
    host: Host, processes: list[Process]
) -> None:
    del host.groups["database"]
    process = host.process(STANDALONE)
    processes.append(process)
    process.start()
    wait_until((host.state_dir / "qinling.db").exists, 60, "the database's file")
    process.send_signal(signal.SIGTERM)
    # By the signal itself as long as nobody waits for it, and in order from then on.
    assert process.wait(60) in (0, -signal.SIGTERM)
    assert "Traceback" not in process.log()


def test_a_standalone_makes_its_database_and_keeps_it(host: Host, processes: list[Process]) -> None:
    del host.groups["database"]
    for _ in range(2):
        process = host.process(STANDALONE)
        processes.append(process)
        process.start()
        process.wait_for_line(rf"^Qinling is serving at http://127\.0\.0\.1:{host.port}$", 60)
        assert process.terminate(30) == 0
    database = host.state_dir / "qinling.db"
    # Workers may be other users, and the folder somebody's who lets them in.
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    host.groups["database"] = {"connection": f"sqlite:///{database}"}
    assert host.run(MANAGE, "current").out == f"{migration.head()}\n"
