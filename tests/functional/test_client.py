"""The client that operators have: every ``openstack runtime …`` command of python-qinlingclient.

Each test walks through many of them. What the client does is its own affair and is told here where
it surprises: it looks up no runtime by its name, and sends no filter of ``runtime list``.
"""

import importlib.metadata
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.client import OpenStackClient
from tests.fixtures.deployment import Client, Deployment, Distributed
from tests.fixtures.keystone import Keystone
from tests.fixtures.personas import Persona
from tests.fixtures.process import venv_program

UNKNOWN = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")
COLUMNS = {
    *("id", "name", "image", "status", "description", "is_public", "trusted"),
    *("project_id", "created_at", "updated_at"),
}


def commands(prefix: str) -> set[str]:
    """The commands that the client has and that begin so, as its package lists them."""
    lib = venv_program(".venv-client", "openstack").parents[1] / "lib"
    packages = importlib.metadata.distributions(
        name="python-qinlingclient", path=[str(path) for path in lib.glob("python*/site-packages")]
    )
    names = {
        entry.name.replace("_", " ")
        for package in packages
        for entry in package.entry_points
        if entry.group == "openstack.function_engine.v1"
    }
    return {name for name in names if name.startswith(prefix)}


class Walk:
    """A client that keeps in mind which commands it has run."""

    def __init__(self, client: OpenStackClient) -> None:
        self._client = client
        self._commands: set[str] = set()

    def run(self, command: str, *args: str) -> subprocess.CompletedProcess[str]:
        self._commands.add(command)
        return self._client.run(*command.split(), *args)

    def json(self, command: str, *args: str) -> Any:
        """What a command prints that must succeed."""
        self._commands.add(command)
        return self._client.json(*command.split(), *args)

    def fails(self, words: str, command: str, *args: str) -> None:
        """Run a command that must fail, and tell why and with which status."""
        done = self.run(command, *args)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert words in said
        assert "Traceback" not in said

    def assert_complete(self) -> None:
        """The client has no command that was not run."""
        assert self._commands == commands("runtime ")


def _walk_as_operator(client: OpenStackClient, rest: Client) -> None:
    """All that an operator does with runtimes; `rest` is the same caller without the client."""
    walk = Walk(client)
    full = ("--name", "by the client", "--description", "with all of it", "--private")
    made = walk.json("runtime create", "python3", *full, "--untrusted")
    assert set(made) == COLUMNS
    assert (made["image"], made["status"]) == ("python3", "creating")
    assert (made["name"], made["description"]) == ("by the client", "with all of it")
    assert (made["is_public"], made["trusted"], made["updated_at"]) == (False, False, None)
    short = walk.json("runtime create", "python3")
    assert (short["name"], short["description"]) == (None, None)
    assert (short["is_public"], short["trusted"]) == (True, True)
    for one in (made, short):
        rest.wait_for(one["id"], "available")

    shown = walk.json("runtime show", made["id"])
    assert shown["status"] == "available"
    unchanging = COLUMNS - {"status", "updated_at"}
    assert {key: shown[key] for key in unchanging} == {key: made[key] for key in unchanging}
    pool = walk.json("runtime pool show", made["id"])
    assert pool == {"name": made["id"], "capacity": {"total": 2, "available": 2}}
    rows = {row["Id"]: row for row in walk.json("runtime list", "--filter", "name=has:the client")}
    assert {key.lower() for key in rows[made["id"]]} == COLUMNS
    assert rows[made["id"]]["Name"] == "by the client"
    assert rows[short["id"]]["Status"] == "available"

    deleted = walk.run("runtime delete", made["id"], short["id"])
    assert deleted.returncode == 0, deleted.stderr
    for one in (made, short):
        assert f"Request to delete runtime {one['id']} has been accepted." in deleted.stdout
        rest.wait_gone(one["id"])
    walk.fails(f"Runtime {made['id']} does not exist. (HTTP 404)", "runtime show", made["id"])
    walk.assert_complete()


def test_every_command_works_without_keystone(deployment: Deployment, tmp_path: Path) -> None:
    client = OpenStackClient.without_keystone(tmp_path, deployment.url)
    _walk_as_operator(client, deployment.client)


def test_every_command_works_for_an_admin_who_finds_the_service_in_the_catalog(
    guarded: Distributed, keystone: Keystone, personas: Mapping[str, Persona], tmp_path: Path
) -> None:
    client = _client(tmp_path, keystone, personas["admin"])
    _walk_as_operator(client, personas["admin"].at(guarded.url))


def test_the_url_of_the_service_may_be_given_in_place_of_the_catalogs(
    deployment: Deployment, tmp_path: Path
) -> None:
    options = ("--os-auth-type", "none", "--qinling-url", deployment.url)
    rows = OpenStackClient(tmp_path, options=options).json("runtime", "list")
    listed = deployment.client.call("GET", "/v1/runtimes").json()["runtimes"]
    assert [row["Id"] for row in rows] == [row["id"] for row in listed]


def _client(home: Path, keystone: Keystone, persona: Persona) -> OpenStackClient:
    assert persona.user is not None
    assert persona.project is not None
    return OpenStackClient(home, keystone.environment(persona.user, persona.project))


def test_mistakes_are_told_as_the_service_tells_them(
    deployment: Deployment, tmp_path: Path
) -> None:
    walk = Walk(OpenStackClient.without_keystone(tmp_path, deployment.url))
    walk.fails("(HTTP 400)", "runtime show", "a-name")
    walk.fails("image: it is empty. (HTTP 400)", "runtime create", "")
    done = walk.run("runtime delete", *UNKNOWN)
    assert done.returncode == 1
    for unknown in UNKNOWN:
        assert f"Runtime {unknown} does not exist. (HTTP 404)" in done.stdout


# Who is no operator


@pytest.fixture(scope="module")
def runtimes(guarded: Distributed, personas: Mapping[str, Persona]) -> Iterator[Mapping[str, str]]:
    """The ids of a public and a private runtime of the project ``home``."""
    admin = personas["admin"].at(guarded.url)
    made = {
        kind: admin.create(image="nowhere", name=kind, is_public=kind == "public")["id"]
        for kind in ("public", "private")
    }
    yield made
    for runtime_id in made.values():
        admin.delete(runtime_id)


def test_a_member_sees_and_is_told_what_is_not_theirs_to_do(
    guarded: Distributed,
    keystone: Keystone,
    personas: Mapping[str, Persona],
    runtimes: Mapping[str, str],
    tmp_path: Path,
) -> None:
    walk = Walk(_client(tmp_path, keystone, personas["member"]))
    listed = {row["Id"] for row in walk.json("runtime list")}
    assert set(runtimes.values()) <= listed
    assert walk.json("runtime show", runtimes["private"])["name"] == "private"
    refused = "Operation not allowed: runtime:{} is not granted to you by the policy. (HTTP 403)"
    walk.fails(refused.format("create"), "runtime create", "python3")
    walk.fails(refused.format("show_pool"), "runtime pool show", runtimes["private"])
    walk.fails(refused.format("delete"), "runtime delete", *runtimes.values())
    walk.assert_complete()
    _assert_untouched(guarded, personas, runtimes)


def test_a_stranger_sees_what_is_public_and_nothing_else(
    guarded: Distributed,
    keystone: Keystone,
    personas: Mapping[str, Persona],
    runtimes: Mapping[str, str],
    tmp_path: Path,
) -> None:
    walk = Walk(_client(tmp_path, keystone, personas["other_member"]))
    listed = {row["Id"] for row in walk.json("runtime list")}
    assert runtimes["public"] in listed
    assert runtimes["private"] not in listed
    missing = f"Runtime {runtimes['private']} does not exist. (HTTP 404)"
    walk.fails(missing, "runtime show", runtimes["private"])
    walk.fails(missing, "runtime pool show", runtimes["private"])
    done = walk.run("runtime delete", *runtimes.values())
    assert done.returncode == 1
    assert missing in done.stdout
    assert "Operation not allowed: runtime:delete" in done.stdout
    walk.fails("(HTTP 403)", "runtime create", "python3")
    walk.assert_complete()
    _assert_untouched(guarded, personas, runtimes)


def test_who_brings_no_token_of_this_keystone_is_told_so(
    guarded: Distributed, tmp_path: Path
) -> None:
    """A client that thinks there is no Keystone sends ``notused`` for a token."""
    walk = Walk(OpenStackClient.without_keystone(tmp_path, guarded.url))
    walk.fails("(HTTP 401)", "runtime list")


def _assert_untouched(
    guarded: Distributed, personas: Mapping[str, Persona], runtimes: Mapping[str, str]
) -> None:
    admin = personas["admin"].at(guarded.url)
    for kind, runtime_id in runtimes.items():
        shown = admin.show(runtime_id)
        assert shown["name"] == kind
        assert shown["status"] != "deleting"
