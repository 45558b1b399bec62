"""Versions and aliases of functions as their callers see them, on every kind of installation."""

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.fixtures import zips
from tests.fixtures.deployment import Client, Deployment

NOBODY = "1a8d4c4a-3ddc-4a0a-9f64-0d7a3dbb5b5a"
ALIASES = "/v1/aliases"


def package(number: int) -> bytes:
    return zips.package({"main.py": f"NUMBER = {number}\n"})


class Function:
    """A function whose package is changed time and again."""

    def __init__(self, client: Client, runtime_id: str) -> None:
        self.client = client
        fields = {"runtime_id": runtime_id, "code": '{"source": "package"}'}
        files = {"package": package(0)}
        answer = client.call("POST", "/v1/functions", data=fields, files=files)
        assert answer.status_code == 201, answer.text
        self.id = answer.json()["id"]
        self.path = f"/v1/functions/{self.id}"
        self.versions = f"{self.path}/versions"

    def show(self) -> dict[str, Any]:
        return dict(self.client.call("GET", self.path).json())

    def change(self, number: int, **fields: Any) -> None:
        files = {"package": package(number)}
        answer = self.client.call("PUT", self.path, data=fields, files=files)
        assert answer.status_code == 200, answer.text

    def post(self, **body: Any) -> requests.Response:
        return self.client.call("POST", self.versions, json=body)

    def create(self, **body: Any) -> dict[str, Any]:
        answer = self.post(**body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def numbers(self, query: str = "") -> list[int]:
        answer = self.client.call("GET", f"{self.versions}{query}")
        assert answer.status_code == 200, answer.text
        return [version["version_number"] for version in answer.json()["function_versions"]]

    def close(self) -> None:
        for alias in self.client.call("GET", ALIASES).json()["function_aliases"]:
            if alias["function_id"] == self.id:
                self.client.call("DELETE", f"{ALIASES}/{alias['name']}")
        self.client.call("DELETE", self.path)


@pytest.fixture(scope="module")
def runtime(deployment: Deployment) -> Iterator[str]:
    made = deployment.client.create(name="for versions")["id"]
    deployment.client.wait_for(made, "available")
    yield made
    deployment.client.delete(made)
    deployment.client.wait_gone(made)


@pytest.fixture
def function(deployment: Deployment, runtime: str) -> Iterator[Function]:
    with contextlib.closing(Function(deployment.client, runtime)) as found:
        yield found


def refused(answer: requests.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    for word in words:
        assert word in answer.json()["faultstring"]


def stored(deployment: Deployment, number: int) -> bool:
    digest = hashlib.sha256(package(number)).hexdigest()
    return bool(list((deployment.state_dir / "packages" / "zips").rglob(digest)))


# Versions


def test_a_version_is_the_package_as_it_was(deployment: Deployment, function: Function) -> None:
    one = function.create(description="the first")
    assert one == {
        "id": one["id"],
        "function_id": function.id,
        "version_number": 1,
        "description": "the first",
        "count": 0,
        "project_id": "default",
        "created_at": one["created_at"],
        "updated_at": None,
    }
    assert function.client.call("GET", f"{function.versions}/1").json() == one
    assert function.show()["latest_version"] == 1
    assert function.show()["updated_at"] is None
    function.change(1)
    # As the clients send it.
    assert function.create(description=None)["version_number"] == 2
    function.change(2)
    assert function.numbers() == [1, 2]
    for number in (1, 2):
        path = f"{function.versions}/{number}?download=true"
        answer = function.client.call("GET", path)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/zip"
        disposition = f'attachment; filename="{function.id}_{number}"'
        assert answer.headers["Content-Disposition"] == disposition
        assert answer.content == package(number - 1)
    path = f"{function.versions}/1"
    assert function.client.call("DELETE", path).status_code == 204
    assert not stored(deployment, 0)
    assert stored(deployment, 1)
    refused(function.client.call("GET", path), 404, f"Version 1 of function {function.id}")
    refused(function.client.call("DELETE", path), 404)
    # A number is never given twice.
    assert function.create()["version_number"] == 3
    function.close()
    assert not any(stored(deployment, number) for number in range(3))
    refused(function.client.call("GET", function.versions), 404, function.id)


def test_there_is_a_version_only_of_what_is_new(function: Function) -> None:
    function.create()
    refused(function.post(), 403, "has not changed since its version 1")
    function.client.call("PUT", function.path, data={"cpu": 200, "name": "other"})
    refused(function.post(), 403, "has not changed")
    function.change(1)
    function.change(0)
    refused(function.post(), 403, "has not changed")
    function.change(2)
    assert function.create()["version_number"] == 2
    assert function.show()["latest_version"] == 2


def test_ten_versions_are_the_most(function: Function) -> None:
    for number in range(1, 11):
        assert function.create()["version_number"] == number
        function.change(number)
    refused(function.post(), 403, "has 10 versions")
    assert function.show()["latest_version"] == 10
    assert function.client.call("DELETE", f"{function.versions}/4").status_code == 204
    assert function.create()["version_number"] == 11
    assert function.numbers() == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert function.numbers("?version_number=gt:8&sort=version_number:desc") == [11, 10, 9]
    assert function.numbers("?marker=8") == [9, 10, 11]
    walked = []
    path = f"{function.versions}?limit=3"
    while path:
        page = function.client.call("GET", path).json()
        walked += [version["version_number"] for version in page["function_versions"]]
        path = page.get("next", "").removeprefix(function.client.url)
        assert f"marker={walked[-1]}&" in path or not path
    assert walked == function.numbers()
    refused(function.client.call("GET", f"{function.versions}?marker=4"), 400, "marker 4")
    refused(function.client.call("GET", f"{function.versions}?marker=a"), 400, "marker: 'a'")


def test_of_many_that_make_a_version_at_once_one_does(function: Function) -> None:
    together = threading.Barrier(4)

    def create(_number: int) -> int:
        together.wait(20)
        url = f"{function.client.url}{function.versions}"
        return requests.post(url, json={}, timeout=30).status_code

    with ThreadPoolExecutor(4) as pool:
        codes = sorted(pool.map(create, range(4)))
    assert codes == [201, 403, 403, 403]
    assert function.numbers() == [1]


def test_images_have_no_versions(deployment: Deployment) -> None:
    client = deployment.client
    code = {"source": "image", "image": "python3"}
    made = client.call("POST", "/v1/functions", json={"code": code}).json()["id"]
    path = f"/v1/functions/{made}/versions"
    refused(client.call("POST", path, json={}), 403, "only packages have versions")
    assert client.call("GET", path).json() == {"function_versions": []}
    client.call("DELETE", f"/v1/functions/{made}")


def test_what_is_no_version_is_not_there(function: Function) -> None:
    client = function.client
    for method in ("GET", "DELETE"):
        refused(client.call(method, f"{function.versions}/1"), 404, "Version 1 of")
        refused(client.call(method, f"{function.versions}/{10**17}"), 404, "does not exist")
        for name in ("one", "-1", "1.0", "9" * 40, "%C2%B2"):
            answer = client.call(method, f"{function.versions}/{name}")
            refused(answer, 400, "number: it is not a whole number")
        refused(client.call(method, f"/v1/functions/{NOBODY}/versions/1"), 404, NOBODY)
    refused(client.call("POST", f"/v1/functions/{NOBODY}/versions", json={}), 404, NOBODY)
    refused(client.call("PUT", f"{function.versions}/1", json={}), 405)
    for name in ("id", "function_id", "version_number", "count", "project_id", "created_at"):
        refused(function.post(**{name: 1}), 400, f"{name}: no client can set it")
    refused(function.post(package="x"), 400, "package: this call has no such attribute")


# Aliases


def test_an_alias_names_a_function_or_a_version_of_it(function: Function) -> None:
    client = function.client
    function.create()
    # As the clients send it.
    body = {
        "name": "prod.json",
        "function_id": function.id,
        "function_version": 0,
        "description": "",
    }
    made = client.call("POST", ALIASES, json=body)
    assert made.status_code == 201, made.text
    alias = made.json()
    assert alias == body | {
        "id": alias["id"],
        "project_id": "default",
        "created_at": alias["created_at"],
        "updated_at": None,
    }
    path = f"{ALIASES}/prod.json"
    assert client.call("GET", path).json() == alias
    assert alias in client.call("GET", ALIASES).json()["function_aliases"]
    sent = {"function_id": None, "function_version": "1", "description": None}
    changed = client.call("PUT", path, json=sent)
    assert changed.status_code == 200, changed.text
    assert changed.json() == alias | {
        "function_version": 1,
        "updated_at": changed.json()["updated_at"],
    }
    assert changed.json()["updated_at"] > alias["created_at"]
    assert client.call("PUT", path, json={}).json() == changed.json()
    assert client.call("DELETE", path).status_code == 204
    refused(client.call("GET", path), 404, "Alias prod.json does not exist")
    for method in ("PUT", "DELETE"):
        refused(client.call(method, path, json={}), 404, "Alias prod.json")


@pytest.mark.parametrize("name", ["prod", "a b", "蛇 🐍", "%2F", "x" * 255, "null", "-", "a.b.zip"])
def test_an_alias_is_found_by_any_name(function: Function, name: str) -> None:
    client = function.client
    body = {"name": name, "function_id": function.id}
    assert client.call("POST", ALIASES, json=body).json()["name"] == name
    path = f"{ALIASES}/{requests.utils.quote(name, safe='')}"
    assert client.call("GET", path).json()["name"] == name
    assert client.call("DELETE", path).status_code == 204


def test_a_name_is_given_once(function: Function) -> None:
    client = function.client
    body = {"name": "once", "function_id": function.id}
    together = threading.Barrier(4)

    def create(_number: int) -> int:
        together.wait(20)
        return requests.post(f"{client.url}{ALIASES}", json=body, timeout=30).status_code

    with ThreadPoolExecutor(4) as pool:
        codes = sorted(pool.map(create, range(4)))
    assert codes == [201, 409, 409, 409]
    refused(client.call("POST", ALIASES, json=body), 409, "name: there is an alias 'once'")
    # To the letter.
    assert client.call("POST", ALIASES, json=body | {"name": "Once"}).status_code == 201


def test_what_is_aliased_stays(function: Function) -> None:
    client = function.client
    function.create()
    body = {"name": "stays", "function_id": function.id, "function_version": 1}
    assert client.call("POST", ALIASES, json=body).status_code == 201
    refused(client.call("DELETE", f"{function.versions}/1"), 403, "while aliases use it", "stays")
    refused(client.call("DELETE", function.path), 403, "while aliases use it", "stays")
    assert function.numbers() == [1]
    client.call("PUT", f"{ALIASES}/stays", json={"function_version": 0})
    assert client.call("DELETE", f"{function.versions}/1").status_code == 204
    refused(client.call("DELETE", function.path), 403, "while aliases use it")
    assert client.call("DELETE", f"{ALIASES}/stays").status_code == 204
    assert client.call("DELETE", function.path).status_code == 204


def test_an_alias_of_nothing_is_refused(function: Function) -> None:
    client = function.client
    good = {"name": "nothing", "function_id": function.id}
    for wrong, status, words in (
        ({"function_id": NOBODY}, 404, f"Function {NOBODY}"),
        ({"function_version": 1}, 404, "Version 1 of function"),
        ({"function_version": -1}, 400, "function_version: "),
        ({"function_version": "one"}, 400, "function_version: "),
        ({"function_version": 1.5}, 400, "function_version: "),
        ({"function_version": True}, 400, "function_version: "),
        ({"function_id": "x"}, 400, "function_id: it is not a UUID"),
        ({"function_id": None}, 400, "function_id: it is required"),
        ({"name": None}, 400, "name: it is required"),
        ({"name": ""}, 400, "name: it is empty"),
        ({"name": "a/b"}, 400, "name: it has a slash"),
        ({"name": ".."}, 400, "name: "),
        ({"name": "a\n"}, 400, "name: "),
        ({"name": "x" * 256}, 400, "name: "),
        ({"name": 5}, 400, "name: "),
        ({"project_id": "x"}, 400, "project_id: no client"),
    ):
        refused(client.call("POST", ALIASES, json=good | wrong), status, words)
    assert client.call("POST", ALIASES, json=good).status_code == 201
    path = f"{ALIASES}/nothing"
    refused(client.call("PUT", path, json={"function_version": 3}), 404, "Version 3")
    refused(client.call("PUT", path, json={"function_id": NOBODY}), 404, f"Function {NOBODY}")
    refused(client.call("PUT", path, json={"name": "new"}), 400, "name: no client")
    assert client.call("GET", path).json()["updated_at"] is None


def test_aliases_are_listed_in_pages_by_their_names(function: Function) -> None:
    client = function.client
    names = [f"page {number}" for number in range(5)]
    for name in names:
        client.call("POST", ALIASES, json={"name": name, "function_id": function.id})
    query = f"?function_id={function.id}&limit=2"
    walked: list[str] = []
    path = f"{ALIASES}{query}"
    while path:
        page = client.call("GET", path).json()
        walked += [alias["name"] for alias in page["function_aliases"]]
        path = page.get("next", "").removeprefix(client.url)
    assert walked == names
    after = client.call("GET", f"{ALIASES}{query}&marker=page 3").json()["function_aliases"]
    assert [alias["name"] for alias in after] == ["page 4"]
    refused(client.call("GET", f"{ALIASES}?marker=nobody"), 400, "marker nobody")
