"""Functions that are images, as their callers see them, on every kind of installation.

The image ``tool`` runs whatever its arguments say.
"""

import concurrent.futures
import json
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.deployment import Client, Deployment, Distributed
from tests.fixtures.process import find_processes, wait_until

Object = dict[str, Any]

LOG_LIMIT = 1048576


def create(client: Client, image: str = "tool", **fields: str | int) -> str:
    """A function that is an image; its id."""
    code = json.dumps({"source": "image", "image": image})
    answer = client.call("POST", "/v1/functions", data={"code": code, **fields})
    assert answer.status_code == 201, answer.text
    shown = answer.json()
    assert (shown["runtime_id"], shown["entry"]) == (None, None)
    return str(shown["id"])


@pytest.fixture(scope="module")
def tool(deployment: Deployment) -> str:
    return create(deployment.client, timeout=60)


def result(execution: Object) -> Object:
    return dict(json.loads(execution["result"]))


def printed(client: Client, execution: Object) -> str:
    """Its log without the lines around it."""
    id_, log = execution["id"], client.log(execution["id"])
    first, last = f"Start execution: {id_}\n", f"Finished execution: {id_}\n"
    assert log.startswith(first)
    assert log.endswith(last)
    return log[len(first) : -len(last)]


def arguments(*words: str) -> str:
    return json.dumps(words)


def test_an_image_gets_its_input_as_arguments_and_what_it_prints_is_the_log(
    deployment: Deployment, tool: str
) -> None:
    client = deployment.client
    execution = client.execute(tool, input=" echo  one two\n")
    assert execution["status"] == "success"
    assert list(result(execution)) == ["duration"]
    assert printed(client, execution) == "one two\n"
    words = ["a b", "", "$(HOSTNAME)", "$$HOME", "*", "'", "ä"]
    execution = client.execute(tool, input=arguments("printf", "<%s>\\n", *words))
    assert execution["status"] == "success", execution
    assert printed(client, execution).splitlines() == [f"<{word}>" for word in words]


def test_an_exit_code_other_than_0_has_failed(deployment: Deployment, tool: str) -> None:
    client = deployment.client
    execution = client.execute(tool, input=arguments("sh", "-c", "echo bad >&2; exit 3"))
    assert execution["status"] == "failed"
    assert "code 3" in result(execution)["output"]
    assert result(execution)["duration"] >= 0
    assert printed(client, execution) == "bad\n"


def test_an_image_that_runs_too_long_is_stopped(deployment: Deployment) -> None:
    client = deployment.client
    function_id, mark = create(client, timeout=1), str(uuid.uuid4())
    script = f"echo begun; sleep 100 # {mark}\n:"
    execution = client.execute(function_id, input=arguments("sh", "-c", script))
    assert execution["status"] == "failed"
    assert "Function execution timeout" in result(execution)["output"]
    assert 1 <= result(execution)["duration"] < 3
    assert printed(client, execution) == "begun\n"
    wait_until(lambda: not find_processes(mark), 20, "its end")


def test_an_asynchronous_run_is_answered_at_once(deployment: Deployment, tool: str) -> None:
    client = deployment.client
    execution = client.execute(tool, sync=False, input="sleep 0.5")
    assert (execution["status"], execution["result"]) == ("running", None)
    assert client.wait_ended(execution["id"])["status"] == "success"


def test_a_run_that_is_deleted_is_stopped_and_its_caller_told(deployment: Deployment) -> None:
    client = deployment.client
    function_id, mark = create(client, timeout=100), str(uuid.uuid4())
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        script = f"sleep 100 # {mark}\n:"
        call = pool.submit(
            Client(deployment.url).execute, function_id, input=arguments("sh", "-c", script)
        )
        wait_until(lambda: find_processes(mark), 30, "its begin")
        [row] = client.call("GET", f"/v1/executions?function_id={function_id}").json()["executions"]
        assert client.call("DELETE", f"/v1/executions/{row['id']}").status_code == 204
        execution = call.result()
    assert execution["status"] == "error"
    assert "cancelled" in result(execution)["output"]
    wait_until(lambda: not find_processes(mark), 20, "its end")


def test_a_log_is_cut_with_a_note(deployment: Deployment, tool: str) -> None:
    script = f"yes | head -c {LOG_LIMIT + 5000}"
    execution = deployment.client.execute(tool, input=arguments("sh", "-c", script))
    assert execution["status"] == "success"
    log = printed(deployment.client, execution)
    assert len(log) <= LOG_LIMIT + 1
    assert "The log was cut here" in log[-200:]


def test_an_argument_that_no_program_can_be_given_is_refused(
    deployment: Deployment, tool: str
) -> None:
    body = {"function_id": tool, "input": '["a\\u0000b"]'}
    answer = deployment.client.call("POST", "/v1/executions", json=body)
    assert answer.status_code == 400
    assert "input" in answer.json()["faultstring"]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which any user may write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


def check_true_end(deployment: Deployment, folder: Path) -> None:
    """A run whose engine is killed, seen from another engine."""
    assert isinstance(deployment, Distributed)
    client, runs = deployment.client, folder / "runs"
    script = f"echo begun >> {runs}; sleep 2; echo done; exit 7"
    function_id = create(client, timeout=60)
    execution = client.execute(function_id, sync=False, input=arguments("sh", "-c", script))
    wait_until(runs.exists, 30, "its begin")
    deployment.engine.send_signal(signal.SIGKILL)
    deployment.engine.wait()
    deployment.engine.start()
    ended = client.wait_ended(execution["id"])
    assert ended["status"] == "failed"
    assert "code 7" in result(ended)["output"]
    assert 1 <= result(ended)["duration"] < 10
    assert printed(client, ended) == "done\n"
    assert runs.read_text() == "begun\n"


@pytest.mark.parametrize("deployment", ["distributed"], indirect=True)
def test_a_run_whose_engine_was_killed_has_its_true_end_and_runs_once(
    deployment: Deployment, open_folder: Path
) -> None:
    check_true_end(deployment, open_folder)
