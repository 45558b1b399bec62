"""``openstack function …`` of python-qinlingclient: functions, their versions and aliases.

What only the client does is told here where it surprises: ``--file`` makes a zip of one file, an
update names the source beside the fields and loses what Swift needs, and a name is looked up in
the whole list.
"""

import json
from pathlib import Path

from tests.fixtures import zips
from tests.fixtures.client import OpenStackClient
from tests.fixtures.deployment import Client, Deployment, Distributed
from tests.fixtures.keystone import Keystone
from tests.fixtures.personas import Persona

COLUMNS = {
    *("id", "name", "description", "count", "code", "runtime_id", "entry", "project_id"),
    *("created_at", "updated_at", "cpu", "memory_size", "timeout"),
}


class Walk:
    """All that an owner of functions does."""

    def __init__(self, client: OpenStackClient, rest: Client, operator: Client, home: Path) -> None:
        self._client = client
        self._rest = rest
        self._operator = operator
        self._home = home

    def __call__(self) -> None:
        runtime = self._operator.create(name="of the client")
        self._operator.wait_for(runtime["id"], "available")
        try:
            self._walk(runtime)
        finally:
            for function in self._rest.call("GET", "/v1/functions").json()["functions"]:
                self._rest.call("DELETE", f"/v1/functions/{function['id']}")
            self._operator.delete(runtime["id"])
            self._operator.wait_gone(runtime["id"])

    def _walk(self, runtime: dict[str, str]) -> None:
        run, home = self._client.json, self._home
        (home / "main.py").write_text(zips.MAIN)
        package = home / "package.zip"
        package.write_bytes(zips.package({"lib/run.py": "", "lib/__init__.py": ""}))

        file = ("--runtime", runtime["id"], "--name", "one", "--file", str(home / "main.py"))
        one = run("function", "create", *file)
        assert set(one) == COLUMNS
        assert (one["name"], one["entry"], one["runtime_id"]) == ("one", "main.main", runtime["id"])
        assert (one["cpu"], one["memory_size"], one["timeout"]) == (100, 33554432, 5)
        code = one["code"] if isinstance(one["code"], dict) else json.loads(one["code"])
        assert code["source"] == "package"
        assert len(code["md5sum"]) == 32
        limits = ("--cpu", "200", "--memory-size", "67108864", "--timeout", "7")
        two = run(
            *("function", "create", "--runtime", runtime["id"], "--package", str(package)),
            *("--entry", "lib.run.go", *limits),
        )
        assert (two["cpu"], two["memory_size"], two["timeout"]) == (200, 67108864, 7)
        image = run("function", "create", "--image", "python3", "--name", "an image")
        assert (image["runtime_id"], image["entry"]) == (None, None)

        rows = {row["Id"]: row for row in run("function", "list")}
        assert {one["id"], two["id"], image["id"]} <= set(rows)
        assert {name.lower() for name in rows[one["id"]]} == COLUMNS
        assert run("function", "show", "one")["id"] == one["id"]

        renamed = run("function", "update", "one", "--name", "three", "--cpu", "300")
        assert (renamed["name"], renamed["cpu"], renamed["code"]) == ("three", 300, one["code"])
        changed = run(
            *("function", "update", one["id"], "--package", str(package)),
            *("--entry", "lib.run.go", "--description", "moved"),
        )
        assert changed["code"] != one["code"]
        assert (changed["entry"], changed["description"]) == ("lib.run.go", "moved")
        self._fails("package: it is the one", "update", one["id"], "--package", str(package))
        self._fails(
            "swift: container and object are lost",
            "update",
            one["id"],
            "--container",
            "a",
            "--object",
            "b",
        )
        swift = ("--runtime", runtime["id"], "--container", "a", "--object", "b")
        self._fails("Swift are not served yet", "create", *swift)

        target = home / "downloaded.zip"
        self._client.run("function", "download", "three", "-o", str(target), check=True)
        assert target.read_bytes() == package.read_bytes()
        self._fails("has no package", "download", image["id"])

        self._walk_versions(one["id"])
        deleted = self._client.run("function", "delete", one["id"], two["id"], "an image")
        assert deleted.returncode == 0, deleted.stderr
        assert run("function", "list") == []
        self._fails("does not exist. (HTTP 404)", "show", one["id"])

    def _walk_versions(self, function_id: str) -> None:
        """Versions and aliases of a function of that id, all gone at the end."""
        run = self._client.json
        version = run("function", "version", "create", "three", "--description", "the first")
        assert (version["version_number"], version["description"]) == (1, "the first")
        assert version["count"] == 0
        rows = run("function", "version", "list", function_id)
        assert [row["Version_number"] for row in rows] == [1]
        assert run("function", "version", "show", function_id, "1")["id"] == version["id"]
        self._fails("has not changed since", "version", "create", function_id)

        made = run("function", "alias", "create", "prod", "--function", function_id)
        assert (made["name"], made["function_id"]) == ("prod", function_id)
        assert (made["function_version"], made["description"]) == (0, "")
        moved = run("function", "alias", "update", "prod", "--function-version", "1")
        assert (moved["function_version"], moved["function_id"]) == (1, function_id)
        assert [row["Name"] for row in run("function", "alias", "list")] == ["prod"]
        assert run("function", "alias", "show", "prod")["function_version"] == 1
        self._fails("while aliases use it", "version", "delete", function_id, "1")

        for command in (("alias", "delete", "prod"), ("version", "delete", function_id, "1")):
            done = self._client.run("function", *command)
            assert done.returncode == 0, done.stderr
        self._fails("Alias prod does not exist. (HTTP 404)", "alias", "show", "prod")

    def _fails(self, words: str, *command: str) -> None:
        done = self._client.run("function", *command)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert words in said
        assert "Traceback" not in said


def test_the_commands_on_functions_work_without_keystone(
    deployment: Deployment, tmp_path: Path
) -> None:
    client = OpenStackClient.without_keystone(tmp_path, deployment.url)
    Walk(client, deployment.client, deployment.client, tmp_path)()


def test_the_commands_on_functions_work_for_a_member_who_finds_the_service_in_the_catalog(
    guarded: Distributed, keystone: Keystone, personas: dict[str, Persona], tmp_path: Path
) -> None:
    member = personas["member"]
    assert member.user is not None
    assert member.project is not None
    client = OpenStackClient(tmp_path, keystone.environment(member.user, member.project))
    rest, operator = member.at(guarded.url), personas["admin"].at(guarded.url)
    Walk(client, rest, operator, tmp_path)()
