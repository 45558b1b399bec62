"""Executions as their callers see them, on every kind of installation."""

import concurrent.futures
import hashlib
import json
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fixtures.deployment import Client, Deployment
from tests.fixtures.packages import package
from tests.fixtures.process import find_processes, wait_until
from tests.fixtures.worker import signal_worker

GREETER = """
import time

def main(name="world", sleep=0, context=None):
    print("greeting", name)
    time.sleep(sleep)
    return f"hello {name}"

def fail(**arguments):
    raise ValueError("it went wrong")

def late(context=None):
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def runtime_id(deployment: Deployment) -> Iterator[str]:
    """An available runtime that the tests of this module share."""
    client = deployment.client
    runtime = client.create()
    client.wait_for(runtime["id"], "available")
    yield runtime["id"]
    functions = client.call("GET", f"/v1/functions?runtime_id={runtime['id']}").json()
    for function in functions["functions"]:
        assert client.call("DELETE", f"/v1/functions/{function['id']}").status_code == 204
    client.delete(runtime["id"])
    client.wait_gone(runtime["id"])


@pytest.fixture(scope="module")
def greeter(deployment: Deployment, runtime_id: str) -> str:
    """A function's id."""
    return str(deployment.client.create_function(runtime_id, GREETER)["id"])


def output(execution: dict[str, Any]) -> Any:
    return json.loads(execution["result"])["output"]


def test_a_function_is_run_and_its_answer_and_log_are_kept(
    deployment: Deployment, greeter: str
) -> None:
    client = deployment.client
    execution = client.execute(greeter, input='{"name": "Ada"}', description="first")
    assert execution["status"] == "success"
    assert output(execution) == "hello Ada"
    assert json.loads(execution["result"])["duration"] >= 0
    assert execution["sync"] is True
    assert execution["description"] == "first"
    assert client.execution(execution["id"]) == execution
    id_ = execution["id"]
    assert client.log(id_) == f"Start execution: {id_}\ngreeting Ada\nFinished execution: {id_}\n"


def test_an_input_that_is_no_object_is_the_first_argument(
    deployment: Deployment, greeter: str
) -> None:
    assert output(deployment.client.execute(greeter, input="Ada")) == "hello Ada"


def test_an_asynchronous_execution_is_answered_at_once_and_ends(
    deployment: Deployment, greeter: str
) -> None:
    client = deployment.client
    execution = client.execute(greeter, sync=False, input='{"sleep": 0.5}')
    assert (execution["status"], execution["result"]) == ("running", None)
    ended = client.wait_ended(execution["id"])
    assert (ended["status"], output(ended)) == ("success", "hello world")


def test_a_request_that_is_sent_again_with_its_key_is_answered_again_and_run_once(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    function_id = client.create_function(runtime_id, GREETER, timeout=30)["id"]
    body = {"function_id": function_id, "input": '{"sleep": 2}'}
    headers = {"Idempotency-Key": str(uuid.uuid4())}

    def call() -> requests.Response:
        return Client(deployment.url).call("POST", "/v1/executions", json=body, headers=headers)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [answer.result() for answer in [pool.submit(call) for _ in range(4)]]
    [first] = [answer.json() for answer in answers if answer.status_code == 201]
    assert output(first) == "hello world"
    for answer in answers:
        if answer.status_code != 201:
            assert answer.status_code == 409
            assert first["id"] in answer.json()["faultstring"]
            assert int(answer.headers["Retry-After"]) > 0
    assert call().json() == first
    assert client.call("GET", f"/v1/functions/{function_id}").json()["count"] == 1


def test_executions_are_counted(deployment: Deployment, runtime_id: str) -> None:
    client = deployment.client
    function = client.create_function(runtime_id, GREETER)
    assert function["count"] == 0
    for _ in range(3):
        client.execute(function["id"])
    assert client.call("GET", f"/v1/functions/{function['id']}").json()["count"] == 3


def test_what_a_function_raises_is_its_output(deployment: Deployment, runtime_id: str) -> None:
    client = deployment.client
    function = client.create_function(runtime_id, GREETER, entry="main.fail")
    execution = client.execute(function["id"])
    assert (execution["status"], output(execution)) == ("failed", "it went wrong")
    assert "ValueError: it went wrong" in client.log(execution["id"])


def test_a_function_that_takes_too_long_is_stopped(deployment: Deployment, runtime_id: str) -> None:
    client = deployment.client
    function = client.create_function(runtime_id, GREETER, entry="main.late", timeout=1)
    execution = client.execute(function["id"])
    assert execution["status"] == "failed"
    assert "Function execution timeout" in output(execution)
    assert json.loads(execution["result"])["duration"] >= 1


# An API on a busy machine lets in eight callers that wait, and no more.
@pytest.mark.parametrize(
    ("at_once", "sync", "workers"), [(3, True, 1), (6, True, 2), (10, False, 4)]
)
def test_executions_that_overlap_get_as_few_workers_as_can_hold_them(
    deployment: Deployment, runtime_id: str, at_once: int, sync: bool, workers: int
) -> None:
    client = deployment.client
    function_id = client.create_function(runtime_id, GREETER, timeout=60)["id"]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        calls = [
            pool.submit(client.execute, function_id, sync=sync, input='{"sleep": 4}')
            for _ in range(at_once)
        ]
        begun = [call.result()["id"] for call in calls]
    assert {output(client.wait_ended(each)) for each in begun} == {"hello world"}
    # The last of them may be on its way still, when the others were soon enough.
    wait_until(lambda: len(client.workers(function_id)) >= workers, 30, f"{workers} workers")
    assert len(client.workers(function_id)) == workers
    client.call("POST", f"/v1/functions/{function_id}/detach")


def test_a_worker_that_was_killed_is_replaced_by_the_next_call(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    function = client.create_function(runtime_id, GREETER)
    client.execute(function["id"])
    [before] = client.workers(function["id"])
    killed = signal_worker(before, signal.SIGKILL)
    # What is sent to one that is dying is lost with it.
    wait_until(lambda: killed not in find_processes(before), 20, "its end")
    execution = client.execute(function["id"])
    assert execution["status"] == "success", execution
    wait_until(
        lambda: before not in client.workers(function["id"]), 20, "the row of the dead worker gone"
    )


#: Ends its worker's server: its slot's parent is a zygote, whose parent is the clean one.
KILLER = """
import os, signal, time

def main(kill=False):
    pid = os.getpid()
    for _ in range(3):
        pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    if kill:
        os.kill(pid, signal.SIGKILL)
        time.sleep(60)
    return "alive"
"""


def test_a_function_that_ends_its_worker_is_told_and_served_by_another(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    function = client.create_function(runtime_id, KILLER, timeout=60)
    for _ in range(2):
        execution = client.execute(function["id"], input='{"kill": true}')
        assert execution["status"] == "error"
        assert "Function execution failed." in output(execution)
        assert output(client.execute(function["id"])) == "alive"


def test_every_entry_that_is_accepted_reaches_its_module(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    for module in ("my-mod", "1", "été"):
        content = package(**{module: "def main(): return __name__"})
        function = client.create_function(runtime_id, content, entry=f"{module}.main")
        assert output(client.execute(function["id"])) == module
    function = client.create_function(runtime_id, GREETER, entry="main.1x")
    execution = client.execute(function["id"])
    assert (execution["status"], output(execution)) == (
        "failed",
        "Module main has no function 1x",
    )


def test_who_calls_a_function_whose_package_is_lost_is_told_so_at_once(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    content = package(main="def main(): return 'lost'")
    function = client.create_function(runtime_id, content)
    digest = hashlib.sha256(content).hexdigest()
    (path,) = (deployment.state_dir / "packages" / "zips").rglob(digest)
    path.unlink()
    for _ in range(2):
        execution = client.execute(function["id"])
        assert execution["status"] == "error"
        assert f"Package {digest} is not there" in output(execution)
        # And not after the minute that is for waiting.
        assert json.loads(execution["result"])["duration"] < 30
    content = package(main="def main(): return 'found'")
    path = f"/v1/functions/{function['id']}"
    assert client.call("PUT", path, files={"package": ("package", content)}).status_code == 200
    assert output(client.execute(function["id"])) == "found"


def test_an_update_that_was_answered_never_runs_old_code(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    function = client.create_function(runtime_id, "def main(): return 0")
    path = f"/v1/functions/{function['id']}"
    assert output(client.execute(function["id"])) == 0
    for number in range(1, 4):
        content = package(main=f"def main(): return {number}")
        answer = client.call("PUT", path, files={"package": ("package", content)})
        assert answer.status_code == 200, answer.text
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(client.execute, function["id"]) for _ in range(3)]
            assert {output(call.result()) for call in calls} == {number}


def test_what_waits_for_a_worker_while_its_function_is_updated_runs_the_new_code(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    function = client.create_function(
        runtime_id, "import time\ntime.sleep(3)\ndef main(): return 0"
    )
    execution = client.execute(function["id"], sync=False)
    wait_until(lambda: client.workers(function["id"]), 30, "a worker on its way")
    content = package(main="def main(): return 1")
    path = f"/v1/functions/{function['id']}"
    answer = client.call("PUT", path, files={"package": ("package", content)})
    assert answer.status_code == 200, answer.text
    ended = client.wait_ended(execution["id"], timeout=30)
    assert (ended["status"], output(ended)) == ("success", 1)


def test_a_function_has_as_many_workers_as_it_is_scaled_to(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    function_id = client.create_function(runtime_id, GREETER)["id"]

    def scale(how: str, body: dict[str, int] | None, workers: int) -> None:
        answer = client.call("POST", f"/v1/functions/{function_id}/{how}", json=body)
        assert answer.status_code == 202, answer.text
        what = f"{workers} workers after {how}"
        wait_until(lambda: len(client.workers(function_id)) == workers, 30, what)

    scale("scale_up", {"count": 1}, 1)
    scale("scale_up", {"count": 2}, 3)
    assert output(client.execute(function_id)) == "hello world"
    scale("scale_down", {"count": 1}, 2)
    # The last one is let go by detaching.
    scale("scale_down", {"count": 5}, 1)
    assert output(client.execute(function_id)) == "hello world"
    scale("detach", None, 0)
    assert output(client.execute(function_id)) == "hello world"


def test_a_running_execution_that_is_deleted_is_stopped_and_its_caller_told(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    function = client.create_function(runtime_id, GREETER, entry="main.late", timeout=50)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.execute, function["id"])
        found: list[dict[str, Any]] = []

        def begun() -> bool:
            path = f"/v1/executions?function_id={function['id']}"
            found[:] = client.call("GET", path).json()["executions"]
            return bool(found) and bool(client.workers(function["id"]))

        wait_until(begun, 20, "the execution under way")
        answer = client.call("DELETE", f"/v1/executions/{found[0]['id']}")
        assert answer.status_code == 204
        execution = call.result()
    assert execution["status"] == "error"
    assert "cancelled" in output(execution)
    assert client.call("GET", f"/v1/executions/{found[0]['id']}").status_code == 404


def test_executions_of_nothing_are_refused(deployment: Deployment) -> None:
    client = deployment.client
    answer = client.call("POST", "/v1/executions", json={})
    assert answer.status_code == 400
    assert "function_id" in answer.json()["faultstring"]
    unknown = "00000000-0000-0000-0000-000000000000"
    answer = client.call("POST", "/v1/executions", json={"function_id": unknown})
    assert answer.status_code == 404
    assert unknown in answer.json()["faultstring"]


def test_a_worker_that_is_let_go_runs_what_is_on_its_way_to_it(
    deployment: Deployment, runtime_id: str
) -> None:
    client = deployment.client
    function_id = client.create_function(runtime_id, GREETER)["id"]
    # One that has done nothing yet would end at once.
    client.call("POST", f"/v1/functions/{function_id}/scale_up", json={"count": 1})
    [worker_id] = wait_until(lambda: client.workers(function_id), 30, "a worker")
    slots = f"QINLING_WORKER_ID={worker_id}"
    wait_until(lambda: len(find_processes(slots)) >= 6, 30, "the function in it")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        signal_worker(worker_id, signal.SIGSTOP)
        try:
            call = pool.submit(Client(deployment.url).execute, function_id)
            path = f"/v1/executions?function_id={function_id}"
            wait_until(lambda: client.call("GET", path).json()["executions"], 30, "a call")
            client.call("POST", f"/v1/functions/{function_id}/detach")
            wait_until(lambda: worker_id not in client.workers(function_id), 30, "it let go")
        finally:
            signal_worker(worker_id, signal.SIGCONT)
        assert call.result()["status"] == "success"
