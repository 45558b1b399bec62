"""What a pod of an execution says of its run, in the words of a real cluster."""

import pytest

from qinling.orchestrator.kubernetes.runs import read

#: What a webhook has put into the pod: statuses are sorted by name.
INJECTED = {"name": "a-sidecar", "state": {"running": {}}}
TOO_LONG = "Pod was active on the node longer than the specified deadline"


def pod(phase: str, state: dict[str, object], **status: str) -> dict[str, object]:
    return {
        "metadata": {"name": "e", "uid": "u", "resourceVersion": "1"},
        "spec": {"containers": [{"name": "function", "image": "some/image"}]},
        "status": {
            "phase": phase,
            "containerStatuses": [INJECTED, {"name": "function", "state": state}],
            **status,
        },
    }


def ended(code: int, reason: str, **more: str) -> dict[str, object]:
    times = {"startedAt": "2026-11-23T17:31:35Z", "finishedAt": "2026-11-23T17:31:37Z"}
    return {"terminated": {"exitCode": code, "reason": reason, **times, **more}}


@pytest.mark.parametrize(
    ("item", "code", "exhausted", "words"),
    [
        (pod("Running", ended(0, "Completed")), 0, False, ""),
        (pod("Failed", ended(3, "Error")), 3, False, ""),
        (pod("Failed", ended(137, "OOMKilled")), 137, True, ""),
        (pod("Failed", ended(137, "Error")), 137, True, ""),
        (
            pod("Failed", ended(0, "Completed"), reason="DeadlineExceeded", message=TOO_LONG),
            *(None, False, "longer than the specified deadline"),
        ),
        (
            pod("Failed", ended(137, "Error"), reason="Evicted", message="low on memory"),
            *(None, False, "Evicted"),
        ),
        (
            pod(
                "Failed",
                ended(128, "StartError", startedAt="1970-01-01T00:00:00Z", message="no such file"),
            ),
            *(None, False, "its program cannot be started: no such file"),
        ),
    ],
)
def test_how_a_run_ended(
    item: dict[str, object], code: int | None, exhausted: bool, words: str
) -> None:
    run = read(item)
    assert run.ended
    assert (run.code, run.exhausted and run.code is not None) == (code, exhausted)
    assert words in run.reason


def test_what_keeps_a_run_from_beginning() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "connection refused"}}
    run = read(pod("Pending", waiting))
    assert (run.began, run.ended) == (0, 0)
    assert run.reason == "image some/image cannot be pulled: connection refused"


def test_the_log_of_an_evicted_pod_is_gone() -> None:
    assert read(pod("Failed", ended(1, "Error"))).has_log
    assert not read(pod("Failed", ended(137, "Error"), reason="Evicted")).has_log
