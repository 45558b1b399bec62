"""The API reference's samples, sent to the running service and compared with what it answers.

A sample is compared by its shape: the same keys, and values of the same types of JSON; a value
whose form the contract gives (an id, a time, a link) has that form.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from qinling import exceptions
from tests.fixtures import zips
from tests.fixtures.deployment import Client, Deployment

SOURCE = Path(__file__).parents[2] / "api-ref" / "source"
SAMPLES = SOURCE / "samples"

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text())


def form(value: Any) -> str:
    """What kind of value it is, as finely as the contract says it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if not isinstance(value, str):
        return type(value).__name__
    if _TIME.fullmatch(value):
        return "time"
    if value.startswith("http://"):
        return "link"
    try:
        uuid.UUID(value)
    except ValueError:
        return "text"
    return "id"


def same_shape(answer: Any, wanted: Any, place: str = "answer") -> None:
    """Compare an answer with a sample; what differs is named with its place."""
    if isinstance(wanted, dict):
        assert isinstance(answer, dict), place
        assert set(answer) == set(wanted), place
        for key in wanted:
            same_shape(answer[key], wanted[key], f"{place}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(answer, list), place
        assert answer, f"{place} is empty"
        for number, item in enumerate(answer):
            same_shape(item, wanted[0], f"{place}[{number}]")
    elif place.endswith(("project_id", "worker_name")):
        # Without Keystone the project has a name for its id; a local worker has an id for its name.
        assert isinstance(answer, str), place
    else:
        assert form(answer) == form(wanted), f"{place}: {answer!r}, and {wanted!r} in the sample"


def sample_code(content: bytes) -> dict[str, str]:
    return {"source": "package", "md5sum": hashlib.md5(content).hexdigest()}


class Life:
    """One runtime and its functions, from call to call; checked as the answers come."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id = ""
        self.function = ""
        self.alias = ""
        self.execution = ""

    def _checked(self, answer: requests.Response, status: int, name: str) -> Any:
        assert answer.status_code == status, answer.text
        assert answer.headers["x-openstack-request-id"].startswith("req-")
        assert answer.headers["Content-Type"].startswith("application/json")
        same_shape(answer.json(), sample(name))
        return answer.json()

    def _show(self, path: str, name: str, query: str = "") -> Any:
        return self._checked(self.client.call("GET", f"{path}{query}"), 200, name)

    def list_versions(self) -> None:
        self._show("/", "versions/list-versions-response.json")

    def show_version(self) -> None:
        self._show("/v1", "versions/show-version-response.json")

    def create(self) -> None:
        body = sample("runtimes/create-runtime-request.json")
        answer = self.client.call("POST", "/v1/runtimes", json=body)
        created = self._checked(answer, 201, "runtimes/create-runtime-response.json")
        assert created == created | body
        assert created["status"] == sample("runtimes/create-runtime-response.json")["status"]
        self.id = created["id"]
        self.client.wait_for(self.id, "available")

    def list_all(self) -> None:
        shown = self._show("/v1/runtimes", "runtimes/list-runtimes-response.json", f"?id={self.id}")
        assert [runtime["id"] for runtime in shown["runtimes"]] == [self.id]

    def list_page(self) -> None:
        other = self.client.create(image="python3", name="the next one", description="of two")
        try:
            self.client.wait_for(other["id"], "available")
            # As in its link, but for the cursor and the other runtimes that may be here.
            query = f"?status=available&limit=1&id=in:{self.id},{other['id']}"
            name = "runtimes/list-runtimes-page-response.json"
            page = self._show("/v1/runtimes", name, query)
            link = page["next"]
            assert link.startswith(f"{self.client.url}/v1/runtimes?status=available&limit=1&")
            assert "&marker=" in link
            assert "&cursor=" in link
            following = self.client.session.get(link, timeout=30).json()
            assert [runtime["id"] for runtime in following["runtimes"]] == [other["id"]]
        finally:
            self.client.delete(other["id"])
            self.client.wait_gone(other["id"])

    def show(self) -> None:
        shown = self._show(f"/v1/runtimes/{self.id}", "runtimes/show-runtime-response.json")
        assert shown["status"] == "available"

    def show_pool(self) -> None:
        name = "runtimes/show-runtime-pool-response.json"
        pool = self._show(f"/v1/runtimes/{self.id}/pool", name)
        assert pool["name"] == self.id

    def update(self) -> None:
        body = sample("runtimes/update-runtime-request.json")
        answer = self.client.update(self.id, **body)
        updated = self._checked(answer, 200, "runtimes/update-runtime-response.json")
        assert updated == updated | body
        assert updated["status"] == sample("runtimes/update-runtime-response.json")["status"]
        self.client.wait_for(self.id, "available")

    def create_function(self) -> None:
        """Its runtime and its package are those that are here."""
        content = zips.package()
        body = sample("functions/create-function-request.json")
        body |= {"runtime_id": self.id, "code": sample_code(content)}
        form = body | {"code": json.dumps(body["code"])}
        path = "/v1/functions"
        answer = self.client.call("POST", path, data=form, files={"package": content})
        created = self._checked(answer, 201, "functions/create-function-response.json")
        assert created == created | body
        self.function = f"{path}/{created['id']}"

    def create_image_function(self) -> None:
        body = sample("functions/create-image-function-request.json")
        answer = self.client.call("POST", "/v1/functions", json=body)
        created = self._checked(answer, 201, "functions/create-image-function-response.json")
        assert created == created | body
        assert self.client.call("DELETE", f"/v1/functions/{created['id']}").status_code == 204

    def list_functions(self) -> None:
        query = f"?runtime_id={self.id}"
        self._show("/v1/functions", "functions/list-functions-response.json", query)

    def show_function(self) -> None:
        self._show(self.function, "functions/show-function-response.json")

    def create_version(self) -> None:
        body = sample("function-versions/create-version-request.json")
        answer = self.client.call("POST", f"{self.function}/versions", json=body)
        name = "function-versions/create-version-response.json"
        created = self._checked(answer, 201, name)
        assert created == created | body

    def list_function_versions(self) -> None:
        self._show(f"{self.function}/versions", "function-versions/list-versions-response.json")

    def show_function_version(self) -> None:
        self._show(f"{self.function}/versions/1", "function-versions/show-version-response.json")

    def create_alias(self) -> None:
        body = sample("aliases/create-alias-request.json")
        body |= {"function_id": self.function.rpartition("/")[2]}
        answer = self.client.call("POST", "/v1/aliases", json=body)
        created = self._checked(answer, 201, "aliases/create-alias-response.json")
        assert created == created | body
        self.alias = f"/v1/aliases/{created['name']}"

    def list_aliases(self) -> None:
        self._show("/v1/aliases", "aliases/list-aliases-response.json", "?name=production")

    def show_alias(self) -> None:
        self._show(self.alias, "aliases/show-alias-response.json")

    def update_alias(self) -> None:
        """And delete it: what comes next deletes its function."""
        body = sample("aliases/update-alias-request.json")
        answer = self.client.call("PUT", self.alias, json=body)
        updated = self._checked(answer, 200, "aliases/update-alias-response.json")
        assert updated == updated | body
        assert self.client.call("DELETE", self.alias).status_code == 204

    def scale(self) -> None:
        body = sample("workers/scale-request.json")
        for action in ("scale_up", "scale_down"):
            answer = self.client.call("POST", f"{self.function}/{action}", json=body)
            assert answer.status_code == 202, answer.text
            assert answer.content == b""

    def run(self) -> None:
        """The function is the one that is here."""
        body = sample("executions/create-execution-request.json")
        body |= {"function_id": self.function.rpartition("/")[2]}
        answer = self.client.call("POST", "/v1/executions", json=body)
        created = self._checked(answer, 201, "executions/create-execution-response.json")
        assert created == created | body
        assert created["status"] == "success"
        # What the output is, is the function's affair.
        wanted = sample("executions/create-execution-response.json")["result"]
        assert set(json.loads(created["result"])) == set(json.loads(wanted))
        self.execution = f"/v1/executions/{created['id']}"

    def show_execution(self) -> None:
        self._show(self.execution, "executions/show-execution-response.json")

    def list_executions(self) -> None:
        query = f"?function_id={self.function.rpartition('/')[2]}"
        self._show("/v1/executions", "executions/list-executions-response.json", query)

    def list_workers(self) -> None:
        self._show(f"{self.function}/workers", "workers/list-workers-response.json")

    def update_function(self) -> None:
        """And delete it: what comes next deletes its runtime."""
        body = sample("functions/update-function-request.json")
        answer = self.client.call("PUT", self.function, data=body)
        updated = self._checked(answer, 200, "functions/update-function-response.json")
        assert updated == updated | body
        assert self.client.call("DELETE", self.function).status_code == 204

    def delete(self) -> None:
        head = (SAMPLES / "runtimes/delete-runtime-response.text").read_text().splitlines()
        answer = self.client.call("DELETE", f"/v1/runtimes/{self.id}")
        assert head[0] == f"HTTP/1.1 {answer.status_code} {answer.reason}"
        for line in head[1:]:
            name, _, value = line.partition(": ")
            assert answer.headers[name].partition("-")[0] == value.partition("-")[0]
        assert answer.content == b""
        self.client.wait_gone(self.id)

    def fail(self) -> None:
        name = "error-response.json"
        answer = self._checked(self.client.call("GET", f"/v1/runtimes/{self.id}"), 404, name)
        told = sample(name)["faultstring"]
        assert re.sub(r"[0-9a-f-]{36}", self.id, told) == answer["faultstring"]


#: Each sample, and the call that sends it, or whose answer it is; in the order of a life.
CHECKS: dict[str, Callable[[Life], None]] = {
    "versions/list-versions-response.json": Life.list_versions,
    "versions/show-version-response.json": Life.show_version,
    "runtimes/create-runtime-request.json": Life.create,
    "runtimes/create-runtime-response.json": Life.create,
    "runtimes/list-runtimes-response.json": Life.list_all,
    "runtimes/list-runtimes-page-response.json": Life.list_page,
    "runtimes/show-runtime-response.json": Life.show,
    "runtimes/show-runtime-pool-response.json": Life.show_pool,
    "runtimes/update-runtime-request.json": Life.update,
    "runtimes/update-runtime-response.json": Life.update,
    "functions/create-function-request.json": Life.create_function,
    "functions/create-function-response.json": Life.create_function,
    "functions/create-image-function-request.json": Life.create_image_function,
    "functions/create-image-function-response.json": Life.create_image_function,
    "functions/list-functions-response.json": Life.list_functions,
    "functions/show-function-response.json": Life.show_function,
    "function-versions/create-version-request.json": Life.create_version,
    "function-versions/create-version-response.json": Life.create_version,
    "function-versions/list-versions-response.json": Life.list_function_versions,
    "function-versions/show-version-response.json": Life.show_function_version,
    "aliases/create-alias-request.json": Life.create_alias,
    "aliases/create-alias-response.json": Life.create_alias,
    "aliases/list-aliases-response.json": Life.list_aliases,
    "aliases/show-alias-response.json": Life.show_alias,
    "aliases/update-alias-request.json": Life.update_alias,
    "aliases/update-alias-response.json": Life.update_alias,
    "executions/create-execution-request.json": Life.run,
    "executions/create-execution-response.json": Life.run,
    "executions/show-execution-response.json": Life.show_execution,
    "executions/list-executions-response.json": Life.list_executions,
    "workers/list-workers-response.json": Life.list_workers,
    "workers/scale-request.json": Life.scale,
    "functions/update-function-request.json": Life.update_function,
    "functions/update-function-response.json": Life.update_function,
    "runtimes/delete-runtime-response.text": Life.delete,
    "error-response.json": Life.fail,
}


def test_every_sample_has_its_check() -> None:
    files = {str(path.relative_to(SAMPLES)) for path in SAMPLES.rglob("*") if path.is_file()}
    assert files == set(CHECKS)


@pytest.fixture
def life(deployment: Deployment) -> Iterator[Life]:
    found = Life(deployment.client)
    yield found
    if found.alias:
        deployment.client.call("DELETE", found.alias)
    if found.function:
        deployment.client.call("DELETE", found.function)
    if found.id:
        path = f"/v1/runtimes/{found.id}"
        if deployment.client.call("DELETE", path).status_code == 204:
            deployment.client.wait_gone(found.id)


def test_the_samples_are_what_is_sent_and_answered(life: Life) -> None:
    for check in dict.fromkeys(CHECKS.values()):
        check(life)


def sources() -> str:
    return "\n".join(path.read_text() for path in sorted(SOURCE.glob("*.inc")))


def test_every_sample_is_shown_in_the_reference() -> None:
    shown = set(re.findall(r"literalinclude:: samples/(\S+)", sources()))
    # What a request that deletes is answered with is told in words.
    assert shown | {"runtimes/delete-runtime-response.text"} == set(CHECKS)


def test_every_refusal_of_the_reference_is_one_that_the_service_knows() -> None:
    known = {401} | {
        error.code
        for error in vars(exceptions).values()
        if isinstance(error, type) and issubclass(error, exceptions.QinlingError)
    }
    described = yaml.safe_load((SOURCE / "status.yaml").read_text())
    listed = {int(code) for code in re.findall(r"^   - (\d{3})\b", sources(), re.MULTILINE)}
    assert listed <= set(described)
    assert {code for code in described if code >= 400} <= known


def test_every_field_of_an_answer_is_described() -> None:
    parameters = yaml.safe_load((SOURCE / "parameters.yaml").read_text())
    described = dict(re.findall(r"^   - ([a-z][\w.-]*): ([\w-]+)$", sources(), re.MULTILINE))
    assert set(described.values()) <= set(parameters)
    for name in CHECKS:
        if name.endswith("-response.json") and not name.startswith(("versions/", "error-")):
            for field in fields(sample(name)):
                assert field in described, f"{name}: {field}"


def fields(value: Any) -> Iterator[str]:
    """The names of the fields of an object and of those within it."""
    if isinstance(value, list):
        for item in value:
            yield from fields(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            for name in fields(inner):
                yield f"{key}.{name}" if isinstance(inner, dict) else name


def test_every_call_of_the_reference_is_served_and_no_other(deployment: Deployment) -> None:
    documented: dict[str, set[str]] = {}
    for method, path in re.findall(r"^\.\. rest_method:: (\w+) (\S+)$", sources(), re.MULTILINE):
        documented.setdefault(path, set()).add(method)
    assert documented
    for path, methods in documented.items():
        url = re.sub(r"\{\w+\}", str(uuid.uuid4()), path)
        # The answer to a method that is nowhere names those that are there.
        answer = deployment.client.call("PATCH", url)
        assert answer.status_code == 405, path
        assert set(answer.headers["Allow"].split(", ")) - {"HEAD"} == methods, path
