"""What objects say of a pool: given these objects, this is how it stands."""

from dataclasses import replace
from typing import Any

import pytest
from oslo_config import cfg

from qinling.orchestrator.base import PoolState
from qinling.orchestrator.kubernetes import names, observe
from qinling.orchestrator.kubernetes.manifests import Templates
from tests.unit.kubernetes.objects import (
    LATE,
    SPEC,
    Object,
    deployment,
    late,
    pod,
    refused,
    waiting,
)

EMPTY = {"replicas": 2, "updatedReplicas": 2, "unavailableReplicas": 2}
HALF = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1}

PULL = (
    'failed to pull and unpack image "docker.io/x/y:1": failed to resolve reference '
    '"docker.io/x/y:1": not found'
)
CAUSE = 'failed to resolve reference "docker.io/x/y:1": not found'
ENDED = {"terminated": {"exitCode": 3, "reason": "Error"}}


def state(
    conf: cfg.ConfigOpts,
    found: Object | None,
    *pods: Object,
    hints: dict[str, str] | None = None,
    lost: str = "",
    overdue: bool = False,
) -> PoolState:
    return observe.state(
        SPEC,
        None if found is None else observe.deployment(found),
        [observe.pod(one) for one in pods],
        hints or {},
        lost=lost,
        overdue=overdue,
    )


@pytest.fixture
def templates(conf: cfg.ConfigOpts) -> Templates:
    return Templates(conf)


def test_a_pool_that_is_not_there_has_nothing(conf: cfg.ConfigOpts) -> None:
    assert state(conf, None) == PoolState(total=2, available=0, ready=False)


def test_a_pool_is_ready_when_all_of_this_revision_are_and_nothing_older_is_left(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    assert state(conf, deployment(templates)) == PoolState(total=2, available=2, ready=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"observed": 2},
        {"counts": {"replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}},
        {"counts": {"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}},
        {"counts": HALF},
        {"counts": {"replicas": 4, "updatedReplicas": 4, "availableReplicas": 4}},
        {"deletionTimestamp": "2026-01-31T12:00:00Z"},
    ],
    ids=["not observed", "one more is ending", "rolling", "one is missing", "too many", "deleted"],
)
def test_a_pool_is_not_ready_before(
    conf: cfg.ConfigOpts, templates: Templates, changes: dict[str, Any]
) -> None:
    found = state(conf, deployment(templates, **changes))
    assert not found.ready
    assert not found.failed


def test_what_was_said_of_an_older_revision_or_generation_does_not_count(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    older = replace(SPEC, revision=SPEC.revision - 1)
    outgrown = state(conf, deployment(templates, older, LATE, counts=EMPTY))
    unobserved = state(conf, deployment(templates, SPEC, LATE, counts=EMPTY, observed=2))
    for found in (outgrown, unobserved):
        assert found == PoolState(total=2, available=0, ready=False)


def test_a_reason_stays_while_a_wake_has_not_been_observed(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    full = refused("exceeded quota: q")
    for observed in (3, 2):
        found = state(conf, deployment(templates, SPEC, full, counts=HALF, observed=observed))
        assert "quota" in (found.reason or "")


def test_a_pool_that_is_late_has_failed(conf: cfg.ConfigOpts, templates: Templates) -> None:
    found = state(conf, deployment(templates, SPEC, LATE, counts=HALF))
    assert found.failed
    assert found.available == 1
    assert "did not become ready in time" in (found.reason or "")


def test_what_was_told_before_the_apply_is_no_failure_of_it(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    for after, failed in ((-1, False), (0, True)):
        found = state(conf, deployment(templates, SPEC, late(after), counts=HALF))
        assert found.failed is failed
        assert (found.reason is not None) is failed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"observed": 2}, "does its controller manager run"),
        ({}, "did not become ready in time"),
    ],
    ids=["not even seen", "seen"],
)
def test_a_pool_of_which_nothing_is_told_has_failed_when_it_is_overdue(
    conf: cfg.ConfigOpts, templates: Templates, changes: dict[str, Any], words: str
) -> None:
    found = deployment(templates, counts=HALF, **changes)
    assert not state(conf, found).failed
    overdue = state(conf, found, overdue=True)
    assert overdue.failed
    assert words in (overdue.reason or "")


def test_a_pool_that_is_ready_or_of_an_older_revision_is_never_overdue(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    older = replace(SPEC, revision=SPEC.revision - 1)
    for found in (deployment(templates), deployment(templates, older, counts=HALF)):
        assert not state(conf, found, overdue=True).failed


def test_a_replica_set_that_may_not_be_made_says_why(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    message = 'replicasets.apps "runtime-x-7d9f" is forbidden: exceeded quota: sets'
    condition = {
        "type": "Progressing",
        "status": "False",
        "reason": "ReplicaSetCreateError",
        "message": message,
    }
    found = state(conf, deployment(templates, SPEC, condition, counts=HALF, observed=2))
    assert found.reason == "the quota of the namespace is used up: exceeded quota: sets"


def test_a_pool_that_was_whole_and_lost_a_worker_has_not_failed(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    found = state(conf, deployment(templates, counts=HALF))
    assert (found.failed, found.reason, found.available) == (False, None, 1)


#: Of a pod: what is told of it.
PODS: dict[str, tuple[Object, str]] = {
    "the image cannot be pulled": (
        waiting("ErrImagePull", PULL),
        f"image python3 cannot be pulled: {CAUSE}",
    ),
    "nor the next time": (
        waiting("ImagePullBackOff", f'Back-off pulling image "x/y:1": ErrImagePull: {PULL}'),
        f"image python3 cannot be pulled: {CAUSE}",
    ),
    "the image's name is none": (
        waiting("InvalidImageName", 'couldn\'t parse image name "A": invalid'),
        "image python3 cannot be pulled: couldn't parse image name",
    ),
    "it exits": (
        {"containerStatuses": [{"name": "worker", "state": ENDED, "restartCount": 0}]},
        "the worker of image python3 does not stay up: it exited with code 3",
    ),
    "it exits again and again": (
        waiting("CrashLoopBackOff", "back-off 10s", lastState=ENDED, restartCount=4),
        "does not stay up: it exited with code 3",
    ),
    "it needs more memory": (
        waiting("CrashLoopBackOff", lastState={"terminated": {"reason": "OOMKilled"}}),
        "does not stay up: it needs more memory than [kubernetes] worker_memory",
    ),
    "it cannot be run": (
        {
            "containerStatuses": [
                {
                    "name": "worker",
                    "state": {
                        "terminated": {
                            "exitCode": 128,
                            "reason": "StartError",
                            "message": "exec: no such file",
                        }
                    },
                }
            ]
        },
        "does not stay up: exec: no such file",
    ),
    "it cannot be configured": (
        waiting(
            "CreateContainerConfigError", "container has runAsNonRoot and image will run as root"
        ),
        "a worker cannot be started: CreateContainerConfigError: container has runAsNonRoot",
    ),
    "no node has room": (
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 Insufficient cpu.",
                }
            ]
        },
        "no node has room for a worker: 0/1 nodes are available: 1 Insufficient cpu.",
    ),
}


@pytest.mark.parametrize(("status", "words"), PODS.values(), ids=PODS)
def test_a_pod_in_trouble_says_why(
    conf: cfg.ConfigOpts, templates: Templates, status: Object, words: str
) -> None:
    found = state(conf, deployment(templates, counts=EMPTY), pod(**status))
    assert words in (found.reason or "")


@pytest.mark.parametrize(
    "status", [{}, waiting("ContainerCreating"), waiting("PodInitializing")], ids=str
)
def test_a_pod_that_is_only_starting_is_no_trouble(
    conf: cfg.ConfigOpts, templates: Templates, status: Object
) -> None:
    assert state(conf, deployment(templates, counts=EMPTY), pod(**status)).reason is None


def test_a_pod_that_came_up_after_all_is_no_trouble_any_more(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    status = {
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": "worker", "state": {"running": {}}, "lastState": ENDED, "restartCount": 2}
        ],
    }
    assert state(conf, deployment(templates, counts=HALF), pod(**status)).reason is None


def test_the_pod_that_was_made_last_is_the_one_that_counts(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    old = pod("old", created="2026-01-31T12:00:00Z", **waiting("ErrImagePull", "the old image"))
    new = pod("new", created="2026-01-31T12:00:09Z", **waiting("ErrImagePull", "the new image"))
    for order in ((old, new), (new, old)):
        found = state(conf, deployment(templates, counts=EMPTY), *order)
        assert "the new image" in (found.reason or "")


def test_what_an_older_template_came_to_is_no_reason_that_this_one_does_not_come_up(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    older = pod("older", created="2026-01-31T12:00:09Z", **waiting("CrashLoopBackOff"))
    older["metadata"]["annotations"][names.CONFIGURATION] = "another"
    found = deployment(templates, counts=EMPTY)
    assert state(conf, found, older).reason is None
    newer = pod("newer", **waiting("ErrImagePull", "it is not there"))
    assert "it is not there" in (state(conf, found, newer, older).reason or "")


def test_a_loss_is_told_while_nothing_else_keeps_the_pool_from_being_whole(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    found, why = deployment(templates, counts=EMPTY), "Evicted: The node was low on memory."
    assert state(conf, found, pod(), lost=why).reason == f"a worker was lost: {why}"
    failing = pod(**waiting("ErrImagePull", "it is not there"))
    assert "it is not there" in (state(conf, found, failing, lost=why).reason or "")


@pytest.mark.parametrize("text", ["9" * 12, str(2**31 - 2), "-1", "five", "\u0665"])
def test_a_revision_that_no_row_could_have_counts_for_nothing(
    templates: Templates, text: str
) -> None:
    found = deployment(templates)
    found["metadata"]["annotations"][names.REVISION] = text
    assert observe.deployment(found).revision == 0


def test_pods_that_are_ending_or_claimed_keep_no_pool_from_anything(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    ending = pod("ending", **waiting("ErrImagePull", PULL))
    ending["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    claimed = pod("claimed", **waiting("CrashLoopBackOff"))
    claimed["metadata"]["labels"]["qinling.openstack.org/state"] = "claimed"
    assert state(conf, deployment(templates, counts=EMPTY), ending, claimed).reason is None


REFUSALS = {
    "exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4": (
        "the quota of the namespace is used up: exceeded quota: q"
    ),
    'violates PodSecurity "restricted:latest": privileged': (
        "the pod security of the namespace refuses the workers: violates PodSecurity"
    ),
    'pod rejected: RuntimeClass "gvisor" not found': (
        'the cluster lacks what isolates untrusted workers: RuntimeClass "gvisor" not found'
    ),
    "the node wants a password": (
        "the cluster refuses to create workers: the node wants a password"
    ),
}


@pytest.mark.parametrize(("message", "words"), REFUSALS.items())
def test_a_replica_set_that_may_create_no_pod_says_why_and_names_no_pod(
    conf: cfg.ConfigOpts, templates: Templates, message: str, words: str
) -> None:
    found = state(conf, deployment(templates, SPEC, refused(message), counts=HALF))
    assert words in (found.reason or "")
    assert "abcde" not in (found.reason or "")


def test_the_end_of_the_log_is_told_with_a_crash(
    conf: cfg.ConfigOpts, templates: Templates
) -> None:
    crashed = pod(**waiting("CrashLoopBackOff", lastState=ENDED))
    hints = {"uid-of-pod-1": "Traceback | ImportError: flask"}
    found = state(conf, deployment(templates, counts=EMPTY), crashed, hints=hints)
    assert (found.reason or "").endswith("the end of its log: Traceback | ImportError: flask")


def test_a_reason_is_one_short_line(conf: cfg.ConfigOpts, templates: Templates) -> None:
    status = waiting("ErrImagePull", "two\nlines\x1b[31m and " + "x" * 5000)
    reason = state(conf, deployment(templates, counts=EMPTY), pod(**status)).reason or ""
    assert reason.isprintable()
    assert len(reason) < 700


def test_pods_that_differ_only_in_how_far_they_are_are_equal() -> None:
    first = observe.pod(pod(**waiting("ContainerCreating")))
    further = observe.pod(pod(conditions=[{"type": "PodScheduled", "status": "True"}]))
    broken = observe.pod(pod(**waiting("ErrImagePull", PULL)))
    again = observe.pod(
        pod(**waiting("ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {PULL}'))
    )
    assert first == further != broken == again
