"""Tokens, and what is not one: what a client claims, a Keystone that is away, a policy file."""

import contextlib
import http.server
import re
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import requests

from tests.fixtures.deployment import BIN, Client, Deployment, Distributed
from tests.fixtures.keystone import Keystone
from tests.fixtures.personas import Persona, ask_for_token
from tests.fixtures.process import Process, free_port, wait_until

LIST = "/v1/runtimes"
#: Seconds within which a call is answered while Keystone is not: two attempts of 5 s, and a margin.
BOUND = 15.0


def _assert_fault(answer: requests.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    fault = answer.json()
    assert fault["faultcode"] == ("Client" if status < 500 else "Server")
    assert words in fault["faultstring"]
    assert fault["debuginfo"] is None


# What a client claims counts for nothing

CLAIMS = {
    "X-Identity-Status": "Confirmed",
    "X-Roles": "admin",
    "X-Role": "admin",
    "X_Roles": "admin",
    "X-Is-Admin-Project": "True",
    "X-Project-Id": "{elsewhere}",
    "X-Tenant-Id": "{elsewhere}",
    "X-Tenant": "elsewhere",
    "X-Project-Name": "elsewhere",
    "X-Tenant-Name": "elsewhere",
    "X-Project-Domain-Id": "default",
    "X-User-Id": "{admin}",
    "X-User": "admin",
    "X-User-Name": "admin",
    "X-User-Domain-Id": "default",
    "X-Domain-Id": "default",
    "X-Domain-Name": "Default",
    "OpenStack-System-Scope": "all",
    "X-Service-Identity-Status": "Confirmed",
    "X-Service-Roles": "service,admin",
    "X-Service-User-Id": "{admin}",
    "X-Service-Project-Id": "{elsewhere}",
    "X-Service-Catalog": "[]",
    "X-Auth-Project-Id": "{elsewhere}",
    "X-HTTP-Method-Override": "DELETE",
    "Remote-User": "admin",
}


@pytest.fixture(scope="module")
def claims(keystone: Keystone, personas: Mapping[str, Persona]) -> dict[str, str]:
    """The headers with which somebody would be an admin in another project."""
    project = personas["third_admin"].project
    assert project is not None
    return {
        name: value.format(elsewhere=project.id, admin=keystone.admin.id)
        for name, value in CLAIMS.items()
    }


@pytest.fixture(scope="module")
def foreign(guarded: Distributed, personas: Mapping[str, Persona]) -> Iterator[str]:
    """The id of a private runtime of the project ``elsewhere``."""
    owner = personas["third_admin"].at(guarded.url)
    runtime = owner.create(image="nowhere", is_public=False)
    yield runtime["id"]
    owner.delete(runtime["id"])


@pytest.mark.parametrize("name", ["all of them", *CLAIMS])
def test_claims_are_no_token(name: str, guarded: Distributed, claims: dict[str, str]) -> None:
    sent = claims if name == "all of them" else {name: claims[name]}
    for method in ("GET", "POST"):
        answer = Client(guarded.url, sent).call(method, LIST, json={"image": "nowhere"})
        _assert_fault(answer, 401, "X-Auth-Token")


@pytest.mark.parametrize("name", ["all of them", *CLAIMS])
def test_claims_add_nothing_to_a_token(
    name: str,
    guarded: Distributed,
    personas: Mapping[str, Persona],
    claims: dict[str, str],
    foreign: str,
) -> None:
    """Nor do they take anything away: a member stays a member, of the token's project."""
    sent = claims if name == "all of them" else {name: claims[name]}
    member = Client(guarded.url, personas["member"].headers | sent)
    _assert_fault(member.call("POST", LIST, json={"image": "nowhere"}), 403, "not allowed")
    _assert_fault(member.call("GET", f"{LIST}?all_projects=1"), 403, "not allowed")
    _assert_fault(member.call("GET", f"{LIST}/{foreign}"), 404, foreign)
    listed = member.call("GET", LIST)
    assert listed.status_code == 200, listed.text
    assert foreign not in listed.text


def test_an_admin_creates_in_the_project_of_the_token_whatever_is_claimed(
    guarded: Distributed, personas: Mapping[str, Persona], claims: dict[str, str]
) -> None:
    admin = personas["admin"]
    assert admin.project is not None
    runtime = Client(guarded.url, admin.headers | claims).create(image="nowhere")
    assert runtime["project_id"] == admin.project.id
    admin.at(guarded.url).delete(runtime["id"])


def test_claims_count_for_nothing_without_keystone(
    deployment: Deployment, claims: dict[str, str]
) -> None:
    """There every caller is an admin of the project ``default``, also who claims to be less."""
    less = {"X-Roles": "reader", "X-Is-Admin-Project": "False", "X-Service-Token": "x"}
    for sent in (claims, claims | less, {"X-Auth-Token": "notused"}):
        caller = Client(deployment.url, sent)
        runtime = caller.create(image="nowhere", is_public=False)
        assert runtime["project_id"] == "default"
        assert deployment.client.show(runtime["id"])["id"] == runtime["id"]
        assert caller.call("GET", f"{LIST}?all_projects=true").status_code == 200
        caller.delete(runtime["id"])


@pytest.mark.parametrize("service", ["member", "admin", "bad_token", "expired_token"])
def test_a_service_token_that_is_none_of_a_service_opens_nothing(
    service: str, guarded: Distributed, personas: Mapping[str, Persona]
) -> None:
    """A real one lets an expired token pass; a user's own in its place lets nothing pass."""
    for user in ("no_token", "expired_token", "bad_token", "member"):
        sent = personas[user].headers | {"X-Service-Token": personas[service].token or ""}
        _assert_fault(Client(guarded.url, sent).call("GET", LIST), 401, "X-Auth-Token")


@pytest.mark.parametrize(
    "token",
    ["", "\xa0", "\xff\xfe", "a b", "a,b", '"', "x" * 40_000, "gAAAAAB" + "A" * 200],
    ids=["empty", "no-break", "latin-1", "two", "list", "quote", "long", "forged"],
)
def test_what_is_no_token_is_told_so(token: str, guarded: Distributed) -> None:
    headers = {"X-Auth-Token": token.encode("latin-1")}
    answer = Client(guarded.url).call("GET", LIST, headers=headers)
    _assert_fault(answer, 401, "X-Auth-Token")


# The life of a token


def test_a_revoked_token_is_none(
    guarded: Distributed, keystone: Keystone, personas: Mapping[str, Persona]
) -> None:
    member = personas["member"]
    assert member.user is not None
    token = keystone.token(member.user, member.project)
    caller = Client(guarded.url, {"X-Auth-Token": token})
    assert caller.call("GET", LIST).status_code == 200
    keystone.revoke(token)
    _assert_fault(caller.call("GET", LIST), 401, "X-Auth-Token")


def test_an_application_credential_does_what_its_access_rules_say(
    guarded: Distributed, keystone: Keystone, personas: Mapping[str, Persona]
) -> None:
    """Its owner, an admin, may do more than the list that the rules allow."""
    admin = personas["admin"]
    assert admin.user is not None
    rules = [{"service": "function-engine", "method": "GET", "path": LIST}]
    made = requests.post(
        f"{keystone.url}/users/{admin.user.id}/application_credentials",
        json={"application_credential": {"name": "lister", "access_rules": rules}},
        headers=admin.headers,
        timeout=30,
    )
    assert made.status_code == 201, made.text
    credential = {key: made.json()["application_credential"][key] for key in ("id", "secret")}
    method = "application_credential"
    token = ask_for_token(keystone, {"methods": [method], method: credential})
    caller = Client(guarded.url, {"X-Auth-Token": token})
    assert caller.call("GET", LIST).status_code == 200
    _assert_fault(caller.call("POST", LIST, json={"image": "nowhere"}), 401, "X-Auth-Token")


def test_no_log_has_a_token_or_a_password(
    guarded: Distributed, keystone: Keystone, personas: Mapping[str, Persona]
) -> None:
    """Also while debugging, which this installation does; a refused token is one too."""
    tokens = {persona.token for persona in personas.values() if persona.token is not None}
    for persona in personas.values():
        persona.at(guarded.url).call("GET", LIST)
    member = Client(
        guarded.url,
        personas["expired_token"].headers | {"X-Service-Token": personas["member"].token or ""},
    )
    member.call("GET", LIST)
    admin = personas["admin"].at(guarded.url)
    made = admin.call("POST", LIST, json={"image": "nowhere"})
    # The request went all the way, and the logs are those of these processes. Deleted at once, its
    # runtime might be looked at once only, for the request that deletes it.
    for process in (guarded.api, guarded.engine):
        _wait_for_word(process, made.headers["x-openstack-request-id"])
    admin.delete(made.json()["id"])
    for process in (guarded.api, guarded.engine):
        log = process.log()
        assert "DEBUG" in log
        assert keystone.middleware_options()["password"] not in log
        for token in tokens:
            # Nor a good part of it. What they begin with they have in common.
            assert token[-24:] not in log


def _wait_for_word(process: Process, word: str) -> None:
    wait_until(lambda: word in process.log(), 10, f"{word} in the log of {process}")


# Keystone away


@pytest.fixture
def fresh_token(keystone: Keystone, personas: Mapping[str, Persona]) -> Iterator[str]:
    """A good token that nobody has seen yet; Keystone serves again when the test has ended."""
    member = personas["member"]
    assert member.user is not None
    yield keystone.token(member.user, member.project)
    keystone.heal()


def _assert_away(client: Client) -> None:
    began = time.monotonic()
    answer = client.call("GET", LIST)
    assert time.monotonic() - began < BOUND
    _assert_fault(answer, 503, "try again")
    assert re.fullmatch("[1-9][0-9]*", answer.headers["Retry-After"])


@pytest.mark.parametrize("how", ["stopped", "hanging"])
def test_while_keystone_is_away_calls_are_told_to_try_again_and_then_served(
    how: str, guarded: Distributed, keystone: Keystone, fresh_token: str
) -> None:
    member = Client(guarded.url, {"X-Auth-Token": fresh_token})
    if how == "stopped":
        keystone.stop()
    else:
        keystone.pause()
    _assert_away(member)
    # What needs no token needs no Keystone, and who brings none learns it at once.
    began = time.monotonic()
    anybody = Client(guarded.url)
    for path in ("/", "/v1", "/healthcheck"):
        assert anybody.call("GET", path).status_code == 200
    _assert_fault(anybody.call("GET", LIST), 401, "X-Auth-Token")
    assert time.monotonic() - began < 2
    keystone.heal()
    assert member.call("GET", LIST).status_code == 200


def test_calls_that_wait_for_a_hanging_keystone_let_others_through(
    guarded: Distributed, keystone: Keystone, fresh_token: str
) -> None:
    keystone.pause()
    answers: list[int] = []

    def ask() -> None:
        client = Client(guarded.url, {"X-Auth-Token": fresh_token})
        answers.append(client.call("GET", LIST).status_code)

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    began = time.monotonic()
    assert Client(guarded.url).call("GET", "/v1").status_code == 200
    assert time.monotonic() - began < 2
    for thread in asking:
        thread.join(BOUND)
    assert answers == [503] * 8


@contextlib.contextmanager
def _api(
    installation: Distributed, folder: Path, options: Mapping[str, Mapping[str, str]]
) -> Iterator[Client]:
    """One more API of an installation, with options of its own."""
    port = free_port()
    config = folder / "own.conf"
    groups = {"api": {"port": str(port)}, **options}
    config.write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in values.items())
            for group, values in groups.items()
        )
    )
    files = ("--config-file", installation.config, "--config-file", config)
    with Process([BIN / "qinling-api", *files], folder / "qinling-api.log") as process:
        process.wait_for_line(r"Serving at http://", timeout=30)
        yield Client(f"http://127.0.0.1:{port}")


def test_an_api_that_starts_before_keystone_serves_when_keystone_does(
    guarded: Distributed, keystone: Keystone, fresh_token: str, tmp_path: Path
) -> None:
    keystone.stop()
    with _api(guarded, tmp_path, {}) as client:
        client.session.headers["X-Auth-Token"] = fresh_token
        _assert_away(client)
        keystone.start()
        assert client.call("GET", LIST).status_code == 200


class _NoKeystone(http.server.BaseHTTPRequestHandler):
    """What a proxy says whose Keystone is away: OK, and a page about it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>Please come back later.</html>")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


def test_an_answer_that_is_none_of_keystones_is_told_as_keystone_away(
    guarded: Distributed, fresh_token: str, tmp_path: Path
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NoKeystone) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{proxy.server_port}/v3"
        with _api(guarded, tmp_path, {"keystone_authtoken": {"auth_url": url}}) as client:
            client.session.headers["X-Auth-Token"] = fresh_token
            _assert_away(client)
        proxy.shutdown()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "auth_type is not set"),
        ({"auth_type": "telepathy"}, "telepathy"),
        ({"auth_type": "password"}, "auth_url"),
        ({"auth_type": "none", "http_connect_timeout": "soon"}, "http_connect_timeout"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value) or "nothing",
)
def test_a_service_that_could_check_no_token_does_not_start(
    options: dict[str, str], words: str, tmp_path: Path
) -> None:
    config = tmp_path / "own.conf"
    lines = [f"{name} = {value}" for name, value in options.items()]
    config.write_text("\n".join(["[pecan]", "auth_enable = true", "[keystone_authtoken]", *lines]))
    said = _last_words(config, tmp_path)
    assert said.startswith("[keystone_authtoken]: ")
    assert words in said


def _last_words(config: Path, folder: Path) -> str:
    """The line with which a service says why it does not start."""
    arguments = ("--config-file", config, "--port", "0", "--state-dir", folder / "state")
    log = folder / "qinling-standalone.log"
    with Process([BIN / "qinling-standalone", *arguments], log) as process:
        assert process.wait(30) == 1
    assert "Traceback" not in process.log()
    return process.log().splitlines()[-1]


# The policy file


def test_a_policy_file_opens_and_closes_what_it_names_and_is_read_again(
    guarded: Distributed, personas: Mapping[str, Persona], tmp_path: Path, foreign: str
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text('"runtime:create": "rule:project_member"\n"runtime:list": "rule:admin"\n')
    with _api(guarded, tmp_path, {"oslo_policy": {"policy_file": str(policy)}}) as client:
        member, reader, admin = (
            personas[name].at(client.url) for name in ("member", "reader", "admin")
        )
        runtime = member.create(image="nowhere")
        project = personas["member"].project
        assert project is not None
        assert runtime["project_id"] == project.id
        _assert_fault(reader.call("POST", LIST, json={"image": "nowhere"}), 403, "runtime:create")
        _assert_fault(member.call("GET", LIST), 403, "Operation not allowed: runtime:list")
        assert admin.call("GET", LIST).status_code == 200
        # What it does not name is as it was.
        assert member.show(runtime["id"])["image"] == "nowhere"
        _assert_fault(member.call("DELETE", f"{LIST}/{runtime['id']}"), 403, "runtime:delete")
        _assert_fault(member.call("GET", f"{LIST}/{foreign}"), 404, foreign)
        policy.write_text('"runtime:delete": "rule:project_member"\n')
        wait_until(
            lambda: member.call("DELETE", f"{LIST}/{runtime['id']}").status_code == 204,
            5,
            "the changed policy",
        )
        _assert_fault(member.call("POST", LIST, json={"image": "nowhere"}), 403, "runtime:create")


def test_what_a_policy_gives_to_the_members_of_a_project_ends_with_the_project(
    guarded: Distributed, personas: Mapping[str, Persona], tmp_path: Path
) -> None:
    """``project_member`` means the runtime's project: a public one of others is not theirs."""
    policy = tmp_path / "policy.yaml"
    names = ("update", "delete", "show_pool")
    policy.write_text("".join(f'"runtime:{name}": "rule:project_member"\n' for name in names))
    own, others = (
        personas[name].at(guarded.url).create(image="nowhere") for name in ("admin", "other_admin")
    )
    with _api(guarded, tmp_path, {"oslo_policy": {"policy_file": str(policy)}}) as client:
        member = personas["member"].at(client.url)
        for method, path in [("GET", "/pool"), ("PUT", ""), ("DELETE", "")]:
            refused = member.call(method, f"{LIST}/{others['id']}{path}", json={"name": "mine"})
            _assert_fault(refused, 403, "Operation not allowed")
            done = member.call(method, f"{LIST}/{own['id']}{path}", json={"name": "mine"})
            assert done.status_code in (200, 204), done.text
    personas["other_admin"].at(guarded.url).delete(others["id"])


@pytest.mark.parametrize("content", ['"runtime:list": [[', "- runtime:list\n", "words"])
def test_a_service_whose_policy_file_is_none_does_not_start(content: str, tmp_path: Path) -> None:
    """What it was to close would be open."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(content)
    config = tmp_path / "own.conf"
    config.write_text(f"[oslo_policy]\npolicy_file = {policy}\n")
    assert f"policy_file {policy}: " in _last_words(config, tmp_path)
