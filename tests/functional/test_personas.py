"""Who may do what: every call by every persona, against a real Keystone (personas.yaml)."""

import contextlib
import re
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
import requests
import yaml

from qinling.api.controllers import root, routing
from qinling.api.middleware import health
from tests.fixtures import zips
from tests.fixtures.deployment import Client, Distributed
from tests.fixtures.keystone import Keystone
from tests.fixtures.personas import Persona

_FILE: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("personas.yaml").read_text())
PERSONAS = list(_FILE["personas"])
WITHOUT_PROJECT = "home"


@dataclass(frozen=True, slots=True)
class Call:
    """A row of the matrix; `statuses` has the personas, groups dissolved, in the file's order."""

    name: str
    method: str
    path: str
    body: dict[str, Any] | None
    statuses: list[tuple[str, int]]

    @property
    def changes(self) -> bool:
        return self.method != "GET"


def _dissolve(names: list[str]) -> Iterator[str]:
    for name in names:
        if name in _FILE["groups"]:
            yield from _dissolve(_FILE["groups"][name])
        else:
            yield name


def _call(row: dict[str, Any]) -> Call:
    method, path = row["call"].split()
    statuses = [
        (persona, status)
        for status, names in row["answers"].items()
        for persona in _dissolve(names)
    ]
    return Call(row["name"], method, path, row.get("body"), statuses)


CALLS = [_call(row) for row in _FILE["calls"]]


# The matrix is whole


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_a_call_has_one_status_for_each_persona(call: Call) -> None:
    assert Counter(persona for persona, _ in call.statuses) == Counter(PERSONAS)


def test_each_persona_is_somebody(personas: Mapping[str, Persona]) -> None:
    assert set(PERSONAS) <= set(personas)


def test_every_call_of_the_api_has_a_row() -> None:
    in_the_file = {
        (call.method, re.sub(r"\{[a-z]+\}|(?<=/)\d+", "*", call.path.partition("?")[0]))
        for call in CALLS
    }
    # The slash at the end is the matrix's own: the routing tables know parts of a URL.
    assert in_the_file - {("GET", "/v1/")} == set(_calls_of_the_code())


def _calls_of_the_code() -> Iterator[tuple[str, str]]:
    """Method and URL of each call, with a star for what stands for an id."""
    found = root.RootController(*(mock.Mock() for _ in range(5)))
    yield "GET", health.PATH
    yield from _routed("", found)
    for noun, controller in found._nouns.items():
        yield from _routed(f"/v1/{noun}", controller)


def _routed(prefix: str, controller: routing.Resource) -> Iterator[tuple[str, str]]:
    for _, parts, methods in controller.table():
        path = "/".join([prefix, *(part or "*" for part in parts)])
        for method in methods:
            yield method, path or "/"


# The matrix is true


class Things:
    """What personas call on, each made by the admin of the project that it is in."""

    #: By the names of the file: in which list they are, in whose project, and whether all see them.
    KINDS = {
        "public": ("runtimes", False, True),
        "foreign": ("runtimes", False, False),
        "own": ("runtimes", True, False),
        "mine": ("functions", True, False),
        "theirs": ("functions", False, False),
        "packed": ("functions", True, False),
        "sealed": ("functions", False, False),
        "ran": ("executions", True, False),
        "elsewhere": ("executions", False, False),
        "alias": ("aliases", True, False),
        "away": ("aliases", False, False),
    }

    def __init__(self, url: str, personas: Mapping[str, Persona]) -> None:
        makers = ("admin", "other_admin", "third_admin")
        self._makers = {self._project(personas[name]): personas[name].at(url) for name in makers}
        #: May see everything, and has nothing.
        self.watcher = personas["third_admin"].at(url)
        self._personas = personas
        self._shared: dict[tuple[str, str], str] = {}
        self._available: str | None = None

    @staticmethod
    def _project(persona: Persona) -> str:
        return persona.project.name if persona.project else WITHOUT_PROJECT

    def shared(self, kind: str, persona: Persona) -> str:
        """The id of one that nobody may change."""
        key = kind, self._place(kind, persona)
        if key not in self._shared:
            self._shared[key] = self.fresh(kind, persona)
        return self._shared[key]

    def fresh(self, kind: str, persona: Persona) -> str:
        """The id of a new one, which has come to rest: its image may be changed."""
        noun, _, public = self.KINDS[kind]
        maker = self._makers[self._place(kind, persona)]
        if kind in ("packed", "sealed"):
            return self._versioned(maker)
        if noun == "executions":
            package = self.shared("packed" if kind == "ran" else "sealed", persona)
            return str(maker.execute(package)["id"])
        if noun != "runtimes":
            code = {"source": "image", "image": "nowhere"}
            made = maker.call("POST", "/v1/functions", json={"code": code, "name": "as it was"})
            assert made.status_code == 201, made.text
            return self._named(maker, made.json()["id"]) if noun == "aliases" else made.json()["id"]
        # No worker ever starts for an image that this host does not have.
        runtime = maker.create(image="nowhere", name="as it was", is_public=public)
        self.watcher.wait_for(runtime["id"], "error")
        return str(runtime["id"])

    def _named(self, maker: Client, function_id: str) -> str:
        """The name of a new alias."""
        name = f"as it was {uuid.uuid4()}"
        body = {"name": name, "function_id": function_id}
        assert maker.call("POST", "/v1/aliases", json=body).status_code == 201
        return name

    def _versioned(self, maker: Client) -> str:
        """The id of a new function with a version, whose package was changed since."""
        if self._available is None:
            self._available = self.watcher.create(image="python3", name="available")["id"]
            self.watcher.wait_for(self._available, "available")
        form = {"runtime_id": self._available, "code": '{"source": "package"}'}
        package = {"package": zips.package({"main.py": "one"})}
        made = maker.call("POST", "/v1/functions", data=form, files=package)
        assert made.status_code == 201, made.text
        path = f"/v1/functions/{made.json()['id']}"
        assert maker.call("POST", f"{path}/versions", json={}).status_code == 201
        package = {"package": zips.package({"main.py": "two"})}
        assert maker.call("PUT", path, files=package).status_code == 200
        return str(made.json()["id"])

    def _place(self, kind: str, persona: Persona) -> str:
        """The project that it is in."""
        return self._project(persona) if self.KINDS[kind][1] else "elsewhere"

    def project_id(self, persona: Persona) -> str:
        project = persona.project or self._personas["member"].project
        assert project is not None
        return project.id

    def show(self, noun: str, key: str) -> dict[str, Any]:
        if noun == "aliases":
            (alias,) = _list(self.watcher, f"?all_projects=true&name={key}", noun)
            return alias
        answer = self.watcher.call("GET", f"/v1/{noun}/{key}")
        assert answer.status_code == 200, answer.text
        if noun == "functions":
            versions = self.watcher.call("GET", f"/v1/functions/{key}/versions")
            return answer.json() | versions.json()
        return dict(answer.json())

    def close(self) -> None:
        for runtime in _list(self.watcher, "?all_projects=true&image=has:nowhere"):
            self.watcher.call("DELETE", f"/v1/runtimes/{runtime['id']}")
        for maker in self._makers.values():
            for alias in _list(maker, noun="aliases"):
                maker.call("DELETE", f"/v1/aliases/{alias['name']}")
            for function in _list(maker, noun="functions"):
                maker.call("DELETE", f"/v1/functions/{function['id']}")
        if self._available is not None:
            self.watcher.delete(self._available)
            self.watcher.wait_gone(self._available)


@pytest.fixture(scope="module")
def things(guarded: Distributed, personas: Mapping[str, Persona]) -> Iterator[Things]:
    with contextlib.closing(Things(guarded.url, personas)) as found:
        yield found


def _list(client: Client, query: str = "", noun: str = "runtimes") -> list[dict[str, Any]]:
    answer = client.call("GET", f"/v1/{noun}{query}")
    assert answer.status_code == 200, answer.text
    (rows,) = [rows for key, rows in answer.json().items() if key != "next"]
    return cast(list[dict[str, Any]], rows)


@pytest.mark.parametrize(
    ("call", "name", "status"),
    [
        pytest.param(call, persona, status, id=f"{call.name}: {persona}")
        for call in CALLS
        for persona, status in call.statuses
    ],
)
def test_a_call_by_a_persona(
    call: Call,
    name: str,
    status: int,
    guarded: Distributed,
    personas: Mapping[str, Persona],
    things: Things,
    keystone: Keystone,
) -> None:
    persona = personas[name]
    kind = re.search(rf"\{{({'|'.join(Things.KINDS)})\}}", f"{call.path} {call.body}")
    names = {"project": things.project_id(persona)}
    before = noun = None
    if kind is not None:
        find = things.fresh if call.changes and status < 400 else things.shared
        names[kind[1]] = find(kind[1], persona)
        noun = Things.KINDS[kind[1]][0]
        before = things.show(noun, names[kind[1]])
    body = call.body and {
        key: value.format(**names) if isinstance(value, str) else value
        for key, value in call.body.items()
    }
    made = None
    if call.method == "POST" and call.path.count("/") == 2:
        made = f"{call.name} by {name}"
        # An execution has no name.
        label = "description" if noun == "functions" and "executions" in call.path else "name"
        body = {**(body or {}), label: made}
    answer = persona.at(guarded.url).call(call.method, call.path.format(**names), json=body)
    assert answer.status_code == status, answer.text
    if status >= 400:
        if status != 405:
            _assert_refusal(answer, keystone)
        if kind is not None:
            # Whatever was refused has not happened.
            assert noun is not None
            assert things.show(noun, names[kind[1]]) == before
        if made is not None:
            path = call.path.removeprefix("/v1/")
            assert _list(things.watcher, f"?all_projects=true&{label}={made}", path) == []
    elif made is not None:
        assert answer.json()["project_id"] == names["project"]
        path = call.path.removeprefix("/v1/")
        (row,) = _list(things.watcher, f"?all_projects=true&{label}={made}", path)
        assert row["id"] == answer.json()["id"]


def _assert_refusal(answer: requests.Response, keystone: Keystone) -> None:
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-openstack-request-id"].startswith("req-")
    fault = answer.json()
    assert set(fault) == {"faultcode", "faultstring", "debuginfo"}
    assert fault["faultcode"] == "Client"
    assert fault["debuginfo"] is None
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == f'Keystone uri="{keystone.url}"'
        assert "X-Auth-Token" in fault["faultstring"]
    elif answer.status_code == 403:
        assert "Operation not allowed" in fault["faultstring"]
    else:
        assert answer.status_code == 404
        assert "does not exist" in fault["faultstring"]


@pytest.mark.parametrize("path", ["/v1/runtimes/{runtime}", "/v1/runtimes"])
def test_what_is_the_operators_matter_in_a_reason_is_told_to_nobody_else(
    guarded: Distributed, personas: Mapping[str, Persona], things: Things, path: str
) -> None:
    runtime_id = things.shared("public", personas["member"])
    cause = "image nowhere is not on this host"
    for name, reason in (
        ("member", cause),
        ("reader", cause),
        ("other_member", cause),
        ("admin", f"{cause}: [local] images has no such name"),
    ):
        answer = personas[name].at(guarded.url).call("GET", path.format(runtime=runtime_id)).json()
        (shown,) = (one for one in answer.get("runtimes", [answer]) if one["id"] == runtime_id)
        assert shown["status_reason"] == reason, name


# What a list shows


@pytest.fixture(scope="module")
def everywhere(guarded: Distributed, personas: Mapping[str, Persona]) -> Iterator[dict[str, str]]:
    """A public and a private runtime in each of two projects: ids by name."""
    admins = {"home": personas["admin"], "away": personas["other_admin"]}
    made = {
        f"{kind} {place}": admin.at(guarded.url).create(
            image="nowhere", name=f"everywhere: {kind} {place}", is_public=kind == "public"
        )["id"]
        for place, admin in admins.items()
        for kind in ("public", "private")
    }
    yield made
    for runtime_id in made.values():
        admins["home"].at(guarded.url).delete(runtime_id)


@pytest.mark.parametrize(
    ("name", "query", "expected"),
    [
        ("member", "", {"public home", "private home", "public away"}),
        ("reader", "", {"public home", "private home", "public away"}),
        ("other_member", "", {"public home", "public away", "private away"}),
        # An admin's list is no longer than anybody's, until it is asked to be.
        ("admin", "", {"public home", "private home", "public away"}),
        ("other_admin", "", {"public home", "public away", "private away"}),
        (
            "admin",
            "all_projects=true",
            {"public home", "private home", "public away", "private away"},
        ),
        ("admin", "project_id={away}", {"public away", "private away"}),
        ("admin", "project_id=neq:{away}", {"public home", "private home"}),
        ("other_admin", "project_id={away}&is_public=false", {"private away"}),
        # A filter finds nothing that the list would not show.
        ("member", "is_public=false", {"private home"}),
        ("member", "id={private away}", set()),
        ("member", "id={private home}", {"private home"}),
    ],
)
def test_a_list_shows_the_own_and_the_public_ones(
    name: str,
    query: str,
    expected: set[str],
    guarded: Distributed,
    personas: Mapping[str, Persona],
    everywhere: dict[str, str],
) -> None:
    away = personas["other_admin"].project
    assert away is not None
    query = query.format_map({"away": away.id, **everywhere})
    own = "&name=has:everywhere" if query else "?name=has:everywhere"
    rows = _list(personas[name].at(guarded.url), f"?{query}{own}" if query else own)
    names = {runtime_id: kind for kind, runtime_id in everywhere.items()}
    assert {names[row["id"]] for row in rows} == expected


def test_no_page_leads_to_what_a_list_does_not_show(
    guarded: Distributed, personas: Mapping[str, Persona], everywhere: dict[str, str]
) -> None:
    """Paging one by one, from any marker, shows the member what the whole list shows."""
    member = personas["member"].at(guarded.url)
    whole = [row["id"] for row in _list(member, "?name=has:everywhere")]
    seen: list[str] = []
    path: str | None = "/v1/runtimes?name=has:everywhere&limit=1"
    while path is not None:
        page = member.call("GET", path).json()
        seen += [row["id"] for row in page["runtimes"]]
        path = page["next"].removeprefix(guarded.url) if "next" in page else None
    assert seen == whole
    assert everywhere["private away"] not in seen


def test_a_private_runtime_of_others_cannot_be_told_from_none(
    guarded: Distributed, personas: Mapping[str, Persona], everywhere: dict[str, str]
) -> None:
    """Nor by its words: what a stranger is told of an id does not depend on its being there."""
    member = personas["member"].at(guarded.url)
    there, nowhere = everywhere["private away"], "00000000-0000-4000-8000-000000000000"
    for method, path in [
        ("GET", ""),
        ("GET", "/pool"),
        ("PUT", ""),
        ("DELETE", ""),
    ]:
        answers = [
            member.call(method, f"/v1/runtimes/{one}{path}", json={}) for one in (there, nowhere)
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].text.replace(there, nowhere) == answers[1].text
