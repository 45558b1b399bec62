"""``openstack function execution …`` of python-qinlingclient, and what an operator does to workers.

With the other modules it has each command on functions that the client has; jobs and webhooks are
not served yet.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.client import OpenStackClient
from tests.fixtures.deployment import Client, Distributed
from tests.fixtures.keystone import Keystone
from tests.fixtures.personas import Persona
from tests.fixtures.process import wait_until
from tests.functional.test_client import commands

#: Those that test_client_functions.py walks through.
ELSEWHERE = {
    *(f"function {verb}" for verb in ("create", "delete", "download", "list", "show", "update")),
    *(f"function alias {verb}" for verb in ("create", "delete", "list", "show", "update")),
    *(f"function version {verb}" for verb in ("create", "delete", "list", "show")),
}
COLUMNS = {
    *("id", "function_id", "function_version", "function_alias", "description", "input", "result"),
    *("status", "sync", "created_at", "updated_at", "project_id"),
}
SOURCE = """
def main(name="world", context=None):
    print("greeting", name)
    return f"hello {name}"
"""


class Walk:
    """A client that keeps in mind which commands it has run."""

    def __init__(self, client: OpenStackClient) -> None:
        self._client = client
        self.commands: set[str] = set()

    def json(self, command: str, *args: str) -> Any:
        self.commands.add(command)
        return self._client.json(*command.split(), *args)

    def says(self, command: str, *args: str) -> str:
        """What a command prints that must succeed."""
        self.commands.add(command)
        return self._client.run(*command.split(), *args, check=True).stdout

    def fails(self, words: str, command: str, *args: str) -> None:
        done = self._client.run(*command.split(), *args)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert words in said
        assert "Traceback" not in said


@pytest.fixture
def rest(guarded: Distributed, personas: dict[str, Persona]) -> Client:
    return personas["admin"].at(guarded.url)


@pytest.fixture
def function_id(rest: Client) -> Iterator[str]:
    """A function called ``greeter``, of the admin's own project."""
    runtime = rest.create(name="for executions")
    rest.wait_for(runtime["id"], "available")
    function = rest.create_function(runtime["id"], SOURCE, name="greeter", timeout=30)
    yield function["id"]
    for alias in rest.call("GET", "/v1/aliases").json()["function_aliases"]:
        rest.call("DELETE", f"/v1/aliases/{alias['name']}")
    assert rest.call("DELETE", f"/v1/functions/{function['id']}").status_code == 204
    rest.delete(runtime["id"])
    rest.wait_gone(runtime["id"])


def test_the_commands_on_executions_and_workers_work_for_an_admin(
    rest: Client, function_id: str, keystone: Keystone, personas: dict[str, Persona], tmp_path: Path
) -> None:
    admin = personas["admin"]
    assert admin.user is not None
    assert admin.project is not None
    walk = Walk(OpenStackClient(tmp_path, keystone.environment(admin.user, admin.project)))
    first = _executions(walk, function_id)
    _versions(walk, rest, function_id)
    _workers(walk, rest, function_id)

    said = walk.says("function execution delete", "--execution", first)
    assert f"Request to delete execution {first} has been accepted." in said
    walk.says("function execution delete", "--function", function_id)
    assert walk.json("function execution list", "--filter", f"function_id={function_id}") == []
    walk.fails(f"Execution {first} does not exist. (HTTP 404)", "function execution show", first)
    assert walk.commands | ELSEWHERE == commands("function ")


def _executions(walk: Walk, function_id: str) -> str:
    """Run the function and look at what came of it; an execution's id."""
    made = walk.json(
        "function execution create", "--function", "greeter", "--input", '{"name": "Ada"}'
    )
    assert set(made) == COLUMNS
    assert (made["function_id"], made["function_version"]) == (function_id, 0)
    assert (made["status"], made["sync"], made["input"]) == ("success", True, '{"name": "Ada"}')
    assert json.loads(made["result"])["output"] == "hello Ada"
    begun = walk.json("function execution create", "--function", function_id, "--async")
    assert (begun["status"], begun["sync"]) == ("running", False)

    def ended() -> Any:
        shown = walk.json("function execution show", begun["id"])
        return shown["status"] != "running" and shown

    assert json.loads(wait_until(ended, 30, "its end")["result"])["output"] == "hello world"
    assert walk.says("function execution log show", made["id"]).splitlines() == [
        f"Start execution: {made['id']}",
        "greeting Ada",
        f"Finished execution: {made['id']}",
    ]
    mine = "--filter", f"function_id={function_id}"
    rows = walk.json("function execution list", *mine)
    assert [row["Id"] for row in rows] == [made["id"], begun["id"]]
    assert {name.lower() for name in rows[0]} == COLUMNS
    assert walk.json("function execution list", *mine, "--filter", "status=neq:success") == []
    missing = "11111111-1111-4111-8111-111111111111"
    walk.fails("(HTTP 404)", "function execution create", "--function", missing)
    return str(made["id"])


def _versions(walk: Walk, rest: Client, function_id: str) -> None:
    """Run a version of it, by its number and by an alias, and let its workers go."""
    assert rest.call("POST", f"/v1/functions/{function_id}/versions", json={}).status_code == 201
    numbered = ("--function", function_id, "--function-version", "1")
    assert walk.json("function execution create", *numbered)["function_version"] == 1
    alias = {"name": "greet", "function_id": function_id, "function_version": 1}
    assert rest.call("POST", "/v1/aliases", json=alias).status_code == 201
    made = walk.json("function execution create", "--function-alias", "greet")
    assert (made["function_alias"], made["function_version"]) == ("greet", 1)
    assert made["status"] == "success"
    said = walk.says("function version detach", function_id, "1")
    assert "has been accepted" in said
    path = f"/v1/functions/{function_id}/workers?function_version=1"
    wait_until(lambda: not rest.call("GET", path).json()["workers"], 30, "no worker of version 1")


def _workers(walk: Walk, rest: Client, function_id: str) -> None:
    """More workers, and fewer, and none."""
    [row] = walk.json("function worker list", function_id)
    assert row == {"Function_id": function_id, "Worker_name": rest.workers(function_id)[0]}
    for command, workers in (("scaleup", 3), ("scaledown", 1), ("detach", 0)):
        count = () if command == "detach" else ("--count", "2")
        said = walk.says(f"function {command}", function_id, *count)
        assert f"function {function_id} has been accepted." in said
        what = f"{workers} workers after {command}"
        wait_until(lambda workers=workers: len(rest.workers(function_id)) == workers, 30, what)
    walk.fails("(HTTP 400)", "function scaleup", function_id, "--count", "1000")
