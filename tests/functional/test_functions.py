"""A function as its callers see it, on every kind of installation."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fixtures import zips
from tests.fixtures.deployment import Client, Deployment, Distributed, Standalone
from tests.fixtures.process import wait_until

FUNCTIONS = "/v1/functions"
NOBODY = "1a8d4c4a-3ddc-4a0a-9f64-0d7a3dbb5b5a"
MIB = 1024**2


@pytest.fixture(scope="module")
def runtime(deployment: Deployment) -> Iterator[str]:
    """The id of a runtime that is available."""
    made = deployment.client.create(name="for functions")["id"]
    deployment.client.wait_for(made, "available")
    yield made
    deployment.client.delete(made)
    deployment.client.wait_gone(made)


class Functions:
    """Calls on functions; what was made is deleted at the end."""

    def __init__(self, client: Client, runtime_id: str) -> None:
        self.client = client
        self.runtime_id = runtime_id
        self._made: list[str] = []

    def post(self, package: bytes | None = None, **fields: Any) -> requests.Response:
        """Send a form; with a package, unless it is None, and the code and runtime of one."""
        files = None if package is None else {"package": ("package.zip", package)}
        if package is not None:
            fields = {"runtime_id": self.runtime_id, "code": '{"source": "package"}'} | fields
        answer = self.client.call("POST", FUNCTIONS, data=fields, files=files)
        if answer.status_code == 201:
            self._made.append(answer.json()["id"])
        return answer

    def create(self, package: bytes | None = None, **fields: Any) -> dict[str, Any]:
        answer = self.post(zips.package() if package is None else package, **fields)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def create_image(self, **fields: Any) -> dict[str, Any]:
        answer = self.post(code='{"source": "image", "image": "python3"}', **fields)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def put(
        self, function_id: str, package: bytes | None = None, **fields: Any
    ) -> requests.Response:
        files = None if package is None else {"package": ("package.zip", package)}
        return self.client.call("PUT", f"{FUNCTIONS}/{function_id}", data=fields, files=files)

    def show(self, function_id: str) -> dict[str, Any]:
        answer = self.client.call("GET", f"{FUNCTIONS}/{function_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def download(self, function_id: str) -> requests.Response:
        return self.client.call("GET", f"{FUNCTIONS}/{function_id}?download=true")

    def delete(self, function_id: str) -> None:
        answer = self.client.call("DELETE", f"{FUNCTIONS}/{function_id}")
        assert answer.status_code == 204, answer.text

    def close(self) -> None:
        for function_id in self._made:
            self.client.call("DELETE", f"{FUNCTIONS}/{function_id}")


@pytest.fixture
def functions(deployment: Deployment, runtime: str) -> Iterator[Functions]:
    with contextlib.closing(Functions(deployment.client, runtime)) as found:
        yield found


def refused(answer: requests.Response, *words: str, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    fault = answer.json()
    assert set(fault) == {"faultcode", "faultstring", "debuginfo"}
    for word in words:
        assert word in fault["faultstring"]
    return str(fault["faultstring"])


def stored(deployment: Deployment) -> set[str]:
    """The digests of the packages in the store."""
    folder = deployment.state_dir / "packages"
    return {path.name for path in (folder / "zips").rglob("*") if path.is_file()}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


# Creation


def test_a_function_has_all_its_fields_and_the_defaults(functions: Functions) -> None:
    content = zips.package()
    made = functions.create(content)
    assert made == {
        "id": made["id"],
        "name": None,
        "description": None,
        "runtime_id": functions.runtime_id,
        "code": {"source": "package", "md5sum": md5(content)},
        "entry": "main.main",
        "cpu": 100,
        "memory_size": 33554432,
        "timeout": 5,
        "count": 0,
        "latest_version": 0,
        "project_id": "default",
        "created_at": made["created_at"],
        "updated_at": None,
    }
    assert functions.show(made["id"]) == made
    listed = functions.client.call("GET", FUNCTIONS).json()["functions"]
    assert made in listed


def test_what_a_client_asks_for_is_what_it_gets(functions: Functions) -> None:
    content = zips.package({"lib/a.py": "", "lib/__init__.py": ""})
    asked = {
        "name": "ünï 🐍",
        "description": "two\r\n\tlines",
        "entry": "lib.a.run",
        "cpu": 300,
        "memory_size": 134217728,
        "timeout": 300,
    }
    code = json.dumps({"source": "package", "md5sum": md5(content).upper()})
    made = functions.create(content, code=code, **asked)
    assert {name: made[name] for name in asked} == asked
    assert made["code"]["md5sum"] == md5(content)


def test_an_image_is_a_function_without_runtime_and_entry(functions: Functions) -> None:
    made = functions.create_image(name="image", entry="a.b", timeout=9)
    assert made["code"] == {"source": "image", "image": "python3"}
    assert (made["runtime_id"], made["entry"], made["timeout"]) == (None, None, 9)
    assert functions.show(made["id"]) == made
    refused(functions.download(made["id"]), "has no package", status=405)


def test_json_bodies_are_taken_too(functions: Functions) -> None:
    code = {"source": "image", "image": "python3"}
    for given in (code, json.dumps(code)):
        body = {"code": given, "timeout": 7, "name": "", "entry": None}
        answer = functions.client.call("POST", FUNCTIONS, json=body)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert (made["timeout"], made["name"]) == (7, "")
        path = f"{FUNCTIONS}/{made['id']}"
        assert functions.client.call("PUT", path, json={"timeout": 8}).json()["timeout"] == 8
        functions.delete(made["id"])


def test_a_package_is_downloaded_as_it_came(functions: Functions) -> None:
    content = zips.package({"main.py": zips.MAIN, "data": bytes(range(256)) * 8000}, 0)
    made = functions.create(content)
    for query in ("true", "True", "1"):
        answer = functions.client.call("GET", f"{FUNCTIONS}/{made['id']}?download={query}")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/zip"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{made["id"]}"'
        assert answer.headers["Content-Length"] == str(len(content))
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["x-openstack-request-id"].startswith("req-")
        assert answer.content == content
    head = functions.client.call("HEAD", f"{FUNCTIONS}/{made['id']}?download=true")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(content)))
    shown = functions.client.call("GET", f"{FUNCTIONS}/{made['id']}?download=false")
    assert shown.json() == made
    path = f"{FUNCTIONS}/{made['id']}"
    refused(functions.client.call("GET", f"{path}?download=maybe"), "download: 'maybe'")
    refused(functions.client.call("GET", f"{path}?upload=true"), "'upload'")


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("cpu", 100, 300), ("memory_size", 33554432, 134217728), ("timeout", 1, 300)],
)
def test_bounds_are_told_and_kept(functions: Functions, name: str, least: int, most: int) -> None:
    made = functions.create_image()
    for value in (least, most):
        assert functions.create_image(**{name: value})[name] == value
        assert functions.put(made["id"], **{name: value}).json()[name] == value
    for value in (0, least - 1, most + 1, 10**18 - 1):
        told = f"{name}: {value} is not between {least} and {most}"
        code = '{"source": "image", "image": "python3"}'
        refused(functions.post(code=code, **{name: value}), told)
        refused(functions.put(made["id"], **{name: value}), told)
    for value in ("-1", "1.5", "1e2", "a", "0x10", " 100", "9" * 5000, "\u0661"):
        refused(functions.put(made["id"], **{name: value}), f"{name}: it is not a whole number")


# Refusals


@pytest.mark.parametrize("kind", zips.BAD)
def test_a_bad_package_is_refused_and_nothing_of_it_stays(
    deployment: Deployment, functions: Functions, kind: str
) -> None:
    made = functions.create()
    before = stored(deployment)
    make, words = zips.BAD[kind]
    content = make()
    refused(functions.post(content), "package: ", words)
    refused(functions.put(made["id"], content), "package: ", words)
    assert functions.show(made["id"]) == made
    assert stored(deployment) == before
    assert not list((deployment.state_dir / "packages" / "incoming").iterdir())


CODES = {
    "none": (None, "code: it is required"),
    "no JSON": ("package", "code: it is not JSON"),
    "a list": ("[]", "code: it is not a JSON object"),
    "nested": ("[" * 20_000, "code: it is not JSON"),
    "no source": ("{}", "code: its source"),
    "another source": ('{"source": "ftp"}', "code: its source"),
    "a list for a source": ('{"source": ["package"]}', "code: its source"),
    "swift": (
        '{"source": "swift", "swift": {"container": "a", "object": "b"}}',
        "Swift are not served yet",
    ),
    "another word": ('{"source": "package", "image": "a"}', "code: 'image' does not go with"),
    "no sum": ('{"source": "package", "md5sum": "xyz"}', "code: it is not an MD5"),
    "a number for a sum": ('{"source": "package", "md5sum": 5}', "code: it is not an MD5"),
    "another sum": (json.dumps({"source": "package", "md5sum": "0" * 32}), "code: the md5sum is"),
    "an image too": ('{"source": "image"}', "code: its image is missing"),
    "no image's name": ('{"source": "image", "image": "A B"}', "not the name of an image"),
    "an image with a package": ('{"source": "image", "image": "a"}', "package: "),
}


@pytest.mark.parametrize("kind", CODES)
def test_a_code_that_is_none_is_refused(
    deployment: Deployment, functions: Functions, kind: str
) -> None:
    before = stored(deployment)
    code, words = CODES[kind]
    refused(functions.post(zips.package(), code=code), words)
    assert stored(deployment) == before


@pytest.mark.parametrize("entry", ["main", ".main", "main.", "a b.c", "main..x", "../x.y", "a/b.c"])
def test_an_entry_that_is_none_is_refused(functions: Functions, entry: str) -> None:
    made = functions.create()
    refused(functions.post(zips.package(), entry=entry), "entry: ", "is not module.function")
    refused(functions.put(made["id"], entry=entry), "entry: ", "is not module.function")


def test_an_entry_that_is_not_in_the_package_is_refused(functions: Functions) -> None:
    made = functions.create(zips.package({"main.py": "", "other.py": ""}))
    refused(functions.post(zips.package(), entry="other.main"), "entry: package has no file")
    refused(functions.put(made["id"], entry="third.main"), "entry: package has no file")
    refused(functions.put(made["id"], zips.package({"x.py": ""})), "entry: ", "'main.main'")
    assert functions.show(made["id"]) == made
    assert functions.put(made["id"], entry="other.main").json()["entry"] == "other.main"
    moved = functions.put(made["id"], zips.package({"x.py": ""}), entry="x.main")
    assert moved.json()["entry"] == "x.main"


@pytest.mark.parametrize(
    "name", ["id", "count", "latest_version", "project_id", "created_at", "updated_at"]
)
def test_what_only_the_service_sets_is_refused(functions: Functions, name: str) -> None:
    made = functions.create()
    for body in ({name: "1"}, {name: 1}):
        refused(functions.post(zips.package(), **body), f"{name}: no client can set it")
        refused(functions.put(made["id"], **body), f"{name}: no client can set it")
    refused(functions.put(made["id"], runtime_id=functions.runtime_id), "runtime_id: no client")
    refused(functions.put(made["id"], colour="red"), "colour: this call has no such attribute")


def test_a_package_needs_a_file_and_a_runtime(functions: Functions) -> None:
    code = '{"source": "package"}'
    given = {"code": code, "runtime_id": functions.runtime_id}
    for words in ({"data": given}, {"json": given}, {"data": given | {"package": ""}}):
        answer = functions.client.call("POST", FUNCTIONS, **words)
        refused(answer, "package: it is required")
    for words in ({"data": given | {"package": "PK"}}, {"json": given | {"package": "PK"}}):
        answer = functions.client.call("POST", FUNCTIONS, **words)
        refused(answer, "package: it must be a file part")
    answer = functions.client.call(
        "POST", FUNCTIONS, data={"code": code}, files={"package": zips.package()}
    )
    refused(answer, "runtime_id: it is required")
    for runtime_id, words in ((NOBODY, "does not exist"), ("python3", "it is not a UUID")):
        refused(functions.post(zips.package(), runtime_id=runtime_id), "runtime_id: ", words)


def test_a_runtime_that_is_not_available_takes_no_functions(functions: Functions) -> None:
    client = functions.client
    broken = client.create(image="nowhere/to/be:found")["id"]
    refused(functions.post(zips.package(), runtime_id=broken), "runtime_id: ", "not available")
    client.wait_for(broken, "error")
    refused(functions.post(zips.package(), runtime_id=broken), "is error, and not available")
    client.delete(broken)
    client.wait_gone(broken)


def test_a_runtime_stays_while_functions_use_it(functions: Functions) -> None:
    made = functions.create()
    path = f"/v1/runtimes/{functions.runtime_id}"
    answer = functions.client.call("DELETE", path)
    refused(answer, "cannot be deleted while functions use it", status=403)
    assert functions.client.show(functions.runtime_id)["status"] == "available"
    functions.delete(made["id"])


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_an_unknown_function_is_not_there(functions: Functions, method: str) -> None:
    answer = functions.client.call(method, f"{FUNCTIONS}/{NOBODY}")
    refused(answer, f"Function {NOBODY} does not exist", status=404)
    refused(functions.client.call(method, f"{FUNCTIONS}/a-name"))


# Changes


def test_what_clients_in_the_field_send_for_a_change(functions: Functions) -> None:
    old, new = zips.package(), zips.package({"main.py": "def main(): pass\n"})
    made = functions.create(old, description="kept", cpu=200)
    changed = functions.put(made["id"], name="n3", description="", entry="").json()
    assert changed == made | {"name": "n3", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > made["created_at"]
    for source in ({"source": "package"}, {"source": "package", "md5sum": ""}):
        refused(functions.put(made["id"], old, **source), "package: it is the one that")
    replaced = functions.put(made["id"], new, source="package").json()
    assert replaced["code"] == {"source": "package", "md5sum": md5(new)}
    assert functions.download(made["id"]).content == new
    lost = functions.put(made["id"], source="swift", swift="container")
    refused(lost, "swift: ", "Swift are not served yet")
    assert functions.show(made["id"]) == replaced


def test_a_change_of_nothing_changes_nothing(functions: Functions) -> None:
    made = functions.create(name="same")
    for fields in ({}, {"name": "same"}, {"cpu": 100}, {"code": '{"source": "package"}'}):
        answer = functions.put(made["id"], **fields)
        assert (answer.status_code, answer.json()) == (200, made)


def test_the_source_of_a_function_cannot_change(functions: Functions) -> None:
    image, package = functions.create_image(), functions.create()
    as_image, as_package = '{"source": "image", "image": "new"}', '{"source": "package"}'
    refused(functions.put(package["id"], code=as_image), "code: ", "cannot change")
    refused(functions.put(image["id"], code=as_package), "code: ", "cannot change")
    refused(functions.put(image["id"], code=as_image), "code: it cannot change")
    refused(functions.put(image["id"], zips.package()), "package: it cannot change")
    refused(functions.put(image["id"], entry="a.b"), "entry: it cannot change")
    assert functions.put(image["id"], name="may").json()["name"] == "may"


def test_a_sum_without_its_package_is_refused(functions: Functions) -> None:
    content = zips.package()
    made = functions.create(content)
    same = json.dumps({"source": "package", "md5sum": md5(content)})
    other = json.dumps({"source": "package", "md5sum": "0" * 32})
    refused(functions.put(made["id"], code=same), "code: the md5sum is the one")
    refused(functions.put(made["id"], code=other), "package: it is required")
    wrong = functions.put(made["id"], zips.package({"main.py": ""}), code=other)
    refused(wrong, f"the md5sum is {'0' * 32}")


def test_of_many_changes_at_once_each_is_made(functions: Functions) -> None:
    made = functions.create()
    together = threading.Barrier(4)

    def change(fields: dict[str, Any]) -> int:
        together.wait(20)
        with requests.Session() as session:
            url = f"{functions.client.url}{FUNCTIONS}/{made['id']}"
            return session.put(url, data=fields, timeout=30).status_code

    wanted = {"cpu": 200, "memory_size": 67108864, "timeout": 9, "name": "all"}
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(change, [{name: value} for name, value in wanted.items()]))
    assert codes == [200] * 4
    after = functions.show(made["id"])
    assert {name: after[name] for name in wanted} == wanted


# Packages in the store


def test_functions_with_the_same_package_share_it_until_the_last_has_gone(
    deployment: Deployment, functions: Functions
) -> None:
    content = zips.package({"main.py": "shared"})
    digest = hashlib.sha256(content).hexdigest()
    one, other = functions.create(content), functions.create(content)
    assert digest in stored(deployment)
    functions.delete(one["id"])
    assert functions.download(other["id"]).content == content
    assert functions.put(other["id"], zips.package({"main.py": "alone"})).status_code == 200
    assert digest not in stored(deployment)


def test_a_package_that_is_uploaded_while_it_is_deleted_elsewhere_is_there(
    deployment: Deployment, functions: Functions
) -> None:
    content = zips.package({"main.py": "contended"})

    def come_and_go(_number: int) -> None:
        with contextlib.closing(Functions(Client(deployment.url), functions.runtime_id)) as mine:
            for _ in range(8):
                made = mine.create(content)
                assert mine.download(made["id"]).content == content
                mine.delete(made["id"])
            mine.client.session.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    assert hashlib.sha256(content).hexdigest() not in stored(deployment)


def test_a_package_that_was_damaged_is_an_error_in_the_log_and_not_delivered(
    deployment: Deployment, functions: Functions
) -> None:
    content = zips.package({"main.py": "damaged"})
    digest = hashlib.sha256(content).hexdigest()
    made = functions.create(content)
    (path,) = (deployment.state_dir / "packages" / "zips").rglob(digest)
    path.write_bytes(content[:-1])
    answer = functions.download(made["id"])
    assert answer.status_code == 500
    assert answer.json()["faultcode"] == "Server"
    assert isinstance(deployment, Standalone | Distributed)
    process = deployment.api if isinstance(deployment, Distributed) else deployment.process
    assert f"Package {digest} is damaged" in process.log()
    # The same again heals it.
    functions.create(content)
    assert functions.download(made["id"]).content == content


# Sizes


def large(size: int) -> bytes:
    """A package of exactly so many bytes."""
    empty = len(zips.package({"main.py": "", "data": ""}, 0))
    return zips.package({"main.py": "", "data": bytes(size - empty)}, 0)


def test_the_limits_of_packages_and_bodies_are_where_they_are_said_to_be(
    functions: Functions,
) -> None:
    content = large(51 * MIB)
    made = functions.create(content)
    assert functions.download(made["id"]).content == content
    refused(functions.post(large(51 * MIB + 1)), "package: it is larger than the 53477376 bytes")
    too_large = functions.post(bytes(52 * MIB + 1))
    refused(too_large, "54525952", status=413)
    text = functions.post(zips.package(), description="x" * 40_000)
    refused(text, "32768", status=413)


def test_eight_large_uploads_at_once_take_little_memory(standalone: Standalone) -> None:
    client = standalone.client
    runtime_id = client.create()["id"]
    client.wait_for(runtime_id, "available")
    with contextlib.closing(Functions(client, runtime_id)) as functions:
        functions.create()
        before = resident(standalone.process.pid)
        content = large(50 * MIB)
        peak = before
        with ThreadPoolExecutor(8) as pool:
            uploads = [pool.submit(upload, standalone.url, runtime_id, content) for _ in range(8)]
            while not all(one.done() for one in uploads):
                peak = max(peak, resident(standalone.process.pid))
                threading.Event().wait(0.01)
        assert [one.result() for one in uploads] == [201] * 8
    assert (peak - before) / MIB < 60


def upload(url: str, runtime_id: str, content: bytes) -> int:
    fields = {"runtime_id": runtime_id, "code": '{"source": "package"}'}
    return requests.post(
        f"{url}{FUNCTIONS}", data=fields, files={"package": content}, timeout=120
    ).status_code


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_client_that_leaves_in_the_middle_of_an_upload_leaves_nothing(
    deployment: Deployment, functions: Functions
) -> None:
    before = stored(deployment)

    def pieces() -> Iterator[bytes]:
        yield b'--X\r\nContent-Disposition: form-data; name="package"; filename="a"\r\n\r\n'
        yield bytes(3 * MIB)
        raise ConnectionAbortedError

    with requests.Session() as session, pytest.raises(requests.ConnectionError):
        session.post(
            f"{functions.client.url}{FUNCTIONS}",
            data=pieces(),
            headers={"Content-Type": "multipart/form-data; boundary=X"},
            timeout=30,
        )
    incoming = deployment.state_dir / "packages" / "incoming"
    wait_until(lambda: not list(incoming.iterdir()), 20, "the upload's end")
    assert stored(deployment) == before


def test_a_worker_that_waits_for_a_function_takes_nothing_from_others_on_its_host(
    deployment: Deployment, runtime: str
) -> None:
    pool = json.loads((deployment.state_dir / "pools" / f"{runtime}.json").read_text())
    for worker in pool["workers"]:
        url = f"http://127.0.0.1:{worker['port']}/drain"
        assert requests.post(url, timeout=20).status_code == 401
