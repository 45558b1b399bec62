"""Programs that cannot start as they are configured: one clear line, and exit code 1."""

import json
import sys

import pytest

from tests.fixtures.deployment import BIN
from tests.fixtures.host import (
    API,
    ENGINE,
    EVERY,
    MANAGE,
    PROGRAMS,
    SOME,
    STANDALONE,
    STATUS,
    Host,
    run,
)
from tests.fixtures.mariadb import MariaDB
from tests.fixtures.process import free_port

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


#: Options of libraries: who reads it, its group, its name, and a value that is none. What is read
#: with the first files is in tests/unit/test_conf.py.
FOREIGN = [
    (STATUS, "database", "max_pool_size", "abc"),
    (STANDALONE, "healthcheck", "detailed", "perhaps"),
    (ENGINE, "oslo_messaging_rabbit", "rabbit_quorum_queue", "maybe"),
    (API, "oslo_messaging_rabbit", "heartbeat_timeout_threshold", "abc"),
    (API, "DEFAULT", "rpc_response_timeout", "abc"),
    (ENGINE, "DEFAULT", "executor_thread_pool_size", "abc"),
]


@pytest.mark.parametrize(("program", "group", "option", "value"), FOREIGN)
def test_a_bad_value_of_a_librarys_option_is_named_at_the_start(
    ready: Host, program: str, group: str, option: str, value: str
) -> None:
    ready.groups.setdefault(group, {})[option] = value
    line = ready.run(program).line()
    assert option in line
    assert value in line


def test_a_bad_value_for_the_check_of_tokens_is_named_at_the_start(ready: Host) -> None:
    ready.groups["pecan"]["auth_enable"] = "true"
    ready.groups["keystone_authtoken"] = {
        "auth_type": "password",
        "auth_url": "http://127.0.0.1:1",
        "www_authenticate_uri": "http://127.0.0.1:1",
        "include_service_catalog": "perhaps",
    }
    assert "include_service_catalog" in ready.run(API).line()


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


#: More of them are in tests/unit/db/test_errors.py.
@pytest.mark.parametrize(
    ("program", "url", "told"),
    [
        (API, "mysql+pymysql://q:secret@127.0.0.1:1/q?charset=utf8mb5", "charset"),
        (ENGINE, "mysql+pymysql://q:secret@127.0.0.1:1/q?nonsense=1", "nonsense"),
        (MANAGE, "mysql+pymysql://q:secret@127.0.0.1:1/q?ssl_ca=/nonexistent", "ssl_ca"),
        (STANDALONE, "sqlite:////etc/hosts", "not a database"),
        (MANAGE, "sqlite:////etc/hosts", "not a database"),
    ],
)
def test_a_database_that_no_driver_can_use_is_told(
    host: Host, program: str, url: str, told: str
) -> None:
    host.groups["database"]["connection"] = url
    line = host.run(program).line()
    assert told in line
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
    checks = json.loads(host.run(STATUS, "upgrade", "check", "--json").out)["checks"]
    assert checks == [
        {"check": check, "result": 0, "details": None} for check in ("database", "orchestrator")
    ]
