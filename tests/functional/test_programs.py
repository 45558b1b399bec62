"""The programs as an operator starts them: what they say, above all when they cannot start."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from qinling.db import migration
from tests.fixtures.deployment import BIN
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import Process, find_executable, free_port, wait_until

#: Each program, with what it needs on its command line to do its work.
PROGRAMS = {
    "qinling-api": (),
    "qinling-engine": (),
    "qinling-standalone": (),
    "qinling-db-manage": ("check",),
    "qinling-status": ("upgrade", "check"),
}
API, ENGINE, STANDALONE, MANAGE, STATUS = PROGRAMS
EVERY = tuple(PROGRAMS)
#: Those that differ in how they come to their configuration.
SOME = (API, MANAGE, STATUS)

_LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ \d+ (INFO|WARNING) .*")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    program: str
    code: int
    out: str
    err: str

    def line(self) -> str:
        """The one line in which it told why it could not start.

        What it logged before (with a time, and no error) is no part of that.
        """
        said = [line for line in self.err.splitlines() if not _LOG_LINE.fullmatch(line)]
        assert len(said) == 1, f"{self.program} said:\n{self.err}"
        assert self.code == 1, f"{self.program}: exit code {self.code}, {said[0]}"
        assert self.out == ""
        return said[0]


class Host:
    """A host with a configuration and a database, on which programs are started.

    :ivar groups: the configuration; a test changes it before it starts something.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state_dir = root / "state"
        self.port = free_port()
        self.config = root / "qinling.conf"
        self.groups: dict[str, dict[str, str]] = {
            "DEFAULT": {"transport_url": f"rabbit://127.0.0.1:{free_port()}/"},
            "database": {"connection": f"sqlite:///{root / 'qinling.db'}"},
            "pecan": {"auth_enable": "false"},
            "api": {"port": str(self.port)},
            "engine": {"host": "this-host"},
            "local": {"state_dir": str(self.state_dir)},
        }

    def command(self, program: str, *arguments: str) -> list[str | Path]:
        lines: list[str] = []
        for group, values in self.groups.items():
            lines += [f"[{group}]", *(f"{name} = {value}" for name, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n")
        more: tuple[str | Path, ...] = ()
        if program == STANDALONE:
            more = ("--port", str(self.port), "--state-dir", self.state_dir)
        arguments = arguments or PROGRAMS[program]
        return [BIN / program, "--config-file", self.config, *more, *arguments]

    def run(self, program: str, *arguments: str, prefix: Sequence[str | Path] = ()) -> Ended:
        """Run a program that ends by itself."""
        return run([*prefix, *self.command(program, *arguments)])

    def process(self, program: str) -> Process:
        """A program that goes on, not started."""
        return Process(self.command(program), self.root / f"{program}.log")

    def migrate(self) -> None:
        assert self.run(MANAGE, "upgrade").code == 0


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Ended:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env=None if env is None else {**os.environ, **env},
    )
    return Ended(Path(command[0]).name, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with an empty database."""
    return Host(tmp_path)


@pytest.fixture
def ready(host: Host) -> Host:
    """A host whose database has its tables."""
    host.migrate()
    return host


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """What a test puts here ends with it."""
    started: list[Process] = []
    yield started
    for process in started:
        process.close()


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


# A mistake in the configuration


@pytest.mark.parametrize("program", EVERY)
def test_an_unknown_option_on_the_command_line_is_named(host: Host, program: str) -> None:
    assert "--nonsense" in host.run(program, *PROGRAMS[program], "--nonsense").line()


@pytest.mark.parametrize("program", [MANAGE, STATUS])
@pytest.mark.parametrize("arguments", [(), ("nonsense",)], ids=["none", "unknown"])
def test_a_command_that_there_is_not_is_named(
    host: Host, program: str, arguments: tuple[str, ...]
) -> None:
    line = run([*host.command(program, "x")[:3], *arguments]).line()
    assert "command" in line
    assert all(argument in line for argument in arguments)


@pytest.mark.parametrize("program", SOME)
def test_a_bad_value_in_a_file_is_named_with_its_option(host: Host, program: str) -> None:
    host.groups["api"]["threads"] = "many"
    line = host.run(program).line()
    assert "threads" in line
    assert "many" in line


@pytest.mark.parametrize("program", SOME)
def test_a_file_that_is_not_there_is_named(host: Host, program: str) -> None:
    command = [BIN / program, "--config-file", host.root / "missing.conf", *PROGRAMS[program]]
    assert "missing.conf" in run(command).line()


@pytest.mark.parametrize("program", SOME)
def test_a_file_that_cannot_be_read_is_named(host: Host, program: str) -> None:
    command = [BIN / program, "--config-file", host.root, *PROGRAMS[program]]
    assert str(host.root) in run(command).line()


@pytest.mark.parametrize("program", [ENGINE, STANDALONE])
def test_an_unknown_driver_is_named(ready: Host, program: str) -> None:
    ready.groups["orchestrator"] = {"driver": "teleport"}
    line = ready.run(program).line()
    assert "[orchestrator] driver" in line
    assert "teleport" in line


@pytest.mark.parametrize(
    ("program", "images"), [(ENGINE, "python3"), (STANDALONE, "x='/bin/unclosed")]
)
def test_malformed_images_are_named(ready: Host, program: str, images: str) -> None:
    ready.groups["local"]["images"] = images
    line = ready.run(program).line()
    assert "[local] images" in line
    assert images.partition("=")[0] in line


@pytest.mark.parametrize(
    ("program", "url"), [(API, "teleport://host/"), (ENGINE, "rabbit://host:port/")]
)
def test_a_bus_that_no_driver_serves_is_named(ready: Host, program: str, url: str) -> None:
    ready.groups["DEFAULT"]["transport_url"] = url
    assert "transport_url" in ready.run(program).line()


@pytest.mark.parametrize("program", [API, STANDALONE])
def test_a_policy_file_that_cannot_be_understood_is_named(ready: Host, program: str) -> None:
    policies = ready.root / "policy.yaml"
    policies.write_text("runtime:create: [unclosed\n")
    ready.groups["oslo_policy"] = {"policy_file": str(policies)}
    assert str(policies) in ready.run(program).line()


def test_a_keystone_that_is_not_configured_is_named(ready: Host) -> None:
    ready.groups["pecan"]["auth_enable"] = "true"
    assert "[keystone_authtoken]" in ready.run(API).line()


def test_a_web_server_that_imports_the_application_is_told_the_same_way(host: Host) -> None:
    host.command(API)
    environment = {"OS_QINLING_CONFIG_FILES": str(host.config)}
    command = [sys.executable, "-c", "import qinling.wsgi.api"]
    assert "qinling-db-manage upgrade" in run(command, environment).line()


# A database that is not as it must be


@pytest.mark.parametrize("program", [API, ENGINE, MANAGE])
def test_a_database_that_is_not_named_is_told_with_the_option(host: Host, program: str) -> None:
    del host.groups["database"]
    assert "[database] connection" in host.run(program).line()


@pytest.mark.parametrize(
    ("program", "url"),
    [
        (API, "nonsense"),
        (ENGINE, "oracel://host/qinling"),
        (STANDALONE, "nonsense"),
        (MANAGE, "oracel://host/qinling"),
    ],
)
def test_a_database_that_nothing_serves_is_told_with_the_option(
    host: Host, program: str, url: str
) -> None:
    host.groups["database"]["connection"] = url
    assert "[database] connection" in host.run(program).line()


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (API, ()),
        (ENGINE, ()),
        (STANDALONE, ()),
        (MANAGE, ("upgrade",)),
        (MANAGE, ("current",)),
        (MANAGE, ("check",)),
    ],
)
def test_a_database_that_cannot_be_reached_is_told(
    host: Host, program: str, arguments: tuple[str, ...]
) -> None:
    url = f"mysql+pymysql://qinling:secret@127.0.0.1:{free_port()}/qinling"
    host.groups["database"]["connection"] = url
    line = host.run(program, *arguments).line()
    assert "database" in line.lower()
    assert "secret" not in line


def test_a_database_that_lets_nobody_in_is_told_with_its_reason(
    host: Host, mariadb: MariaDB
) -> None:
    mariadb.heal()
    made = mariadb.create_database()
    user, _, place = made.partition("@")
    host.groups["database"]["connection"] = f"{user}x@{place}"
    assert "Access denied" in host.run(API).line()
    host.groups["database"]["connection"] = made.replace("?", "_missing?")
    assert "Unknown database" in host.run(API).line()
    mariadb.drop_database(made)


@pytest.mark.parametrize("program", [API, ENGINE, MANAGE])
def test_a_database_without_tables_names_the_command_that_makes_them(
    host: Host, program: str
) -> None:
    assert "qinling-db-manage upgrade" in host.run(program).line()


def test_the_status_tells_whether_a_database_is_ready_both_ways(host: Host) -> None:
    ended = host.run(STATUS)
    assert ended.code == 2  # as of every upgrade check that fails
    assert "Failure" in ended.out
    assert "qinling-db-manage" in ended.out
    host.migrate()
    ended = host.run(STATUS)
    assert ended.code == 0
    assert "Success" in ended.out
    [check] = json.loads(host.run(STATUS, "upgrade", "check", "--json").out)["checks"]
    assert check == {"check": "database", "result": 0, "details": None}


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


def may_mount() -> bool:
    """Whether this user may mount, in a namespace that nobody else sees."""
    done = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def on_a_disk(folder: Path, options: str, then: str = "true") -> list[str | Path]:
    """What to put before a command so that `folder` is a small disk of its own, for it alone.

    :param then: a shell command to run first, in the folder.
    """
    folder.mkdir()
    script = (
        'mount -t tmpfs -o size=64k tmpfs "$0" && cd "$0" && { ' + then + "; } && cd / && "
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
    host.groups["database"] = {"connection": f"sqlite:///{host.state_dir / 'qinling.db'}"}
    assert host.run(MANAGE, "current").out == f"{migration.head()}\n"
