"""What watches tell, compared by what happened and in which order.

Two servers never write the same number of versions on the way. A milestone is what one version says
that matters; whatever the recorded watch told of an object must be told here too, in that order.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from tests.functional.kubernetes.recording import Names, Object

Milestone = tuple[Any, ...]


def milestones(events: Iterable[tuple[str, Object]], names: Names) -> list[Milestone]:
    """Of one object, without repetitions."""
    found: list[Milestone] = []
    spec: Object = {}
    for kind, told in events:
        # A recording leaves out what has not changed.
        spec = spec | told.get("spec", {})
        seen = {**told, "spec": spec}
        milestone = _milestone("DELETED" if kind == "DELETED" else "", seen, names)
        if not found or found[-1] != milestone:
            found.append(milestone)
    return found


def missing(recorded: Sequence[Milestone], ours: Sequence[Milestone]) -> Milestone | None:
    """The first recorded milestone that does not come in its turn."""
    left = iter(ours)
    return next((milestone for milestone in recorded if milestone not in left), None)


def _milestone(kind: str, seen: Object, names: Names) -> Milestone:
    metadata = seen["metadata"]
    ending = "deletionTimestamp" in metadata
    owners = tuple(owner["kind"] for owner in metadata.get("ownerReferences", ()))
    tell = _TELLERS.get(seen["kind"], lambda _: ())
    labels = metadata.get("labels", {})
    return (kind, ending, owners, labels.get("pool"), *map(names.plain, map(str, tell(seen))))


def _pod(pod: Object) -> Milestone:
    status = pod["status"]
    conditions = {found["type"]: found["status"] for found in status.get("conditions", ())}
    states = status.get("containerStatuses", ())
    terminated = states[0]["state"].get("terminated", {}) if states else {}
    return status["phase"], conditions.get("Ready"), terminated.get("exitCode")


def _deployment(deployment: Object) -> Milestone:
    # Of failures its ReplicaSets tell.
    return tuple(
        condition["reason"]
        for condition in deployment["status"].get("conditions", ())
        if condition["type"] == "Progressing"
    )


def _replica_set(found: Object) -> Milestone:
    conditions = found["status"].get("conditions", ())
    return found["spec"].get("replicas"), *(condition["reason"] for condition in conditions)


_TELLERS = {"Deployment": _deployment, "Pod": _pod, "ReplicaSet": _replica_set}
