"""What objects of the cluster say of a pool: how full it is, and what is wrong. Pure.

A Deployment that was whole once never says that its pool cannot refill, and the
events of its ReplicaSet end after some two dozen. So the reasons are read from
``ReplicaFailure`` and from the pods themselves.
"""

import datetime as dt
import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qinling.orchestrator import base
from qinling.orchestrator.kubernetes import manifests, names

Object = Mapping[str, Any]

# Reasons of a waiting container: it is only starting, or its image is not to be had.
_STARTING = frozenset({"ContainerCreating", "PodInitializing"})
_PULL = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
    }
)
# Phases of a pod that is over.
_ENDED = ("Failed", "Succeeded")
# Words that are put around the cause of a failed pull, and those of a refused
# pod, which name another pod each time.
_AROUND_PULL = re.compile(
    r'^(?:Back-off pulling image "[^"]*"(?:: )?|ErrImagePull: |ImagePullBackOff: '
    r'|rpc error: code = \w+ desc = |failed to pull and unpack image "[^"]*": )+'
)
_AROUND_REFUSAL = re.compile(
    r'^(?:pods|replicasets\.apps) "[^"]*" is forbidden: (?:pod rejected: )?'
)
_LONGEST = 600  # characters of a reason
# No runtime is changed so often. What is higher was written by hand, and no row could outgrow it.
_HIGHEST_REVISION = 2**30


class Trouble(enum.Enum):
    """What keeps a pod from being ready."""

    IMAGE = enum.auto()
    CRASH = enum.auto()
    CONTAINER = enum.auto()
    NODE = enum.auto()
    LOST = enum.auto()


@dataclass(frozen=True, slots=True)
class Deployment:
    """What matters of a Deployment. ``version`` guards writes and makes no difference."""

    name: str
    uid: str
    version: str = field(compare=False)
    generation: int
    revision: int
    # When it was first applied for this revision (seconds since 1970), 0 when that is not known.
    since: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    template: "Template"
    ending: bool
    spec: Object
    # Of the status: whether it speaks of this generation, and what it says.
    observed: bool
    replicas: int
    updated: int
    available: int
    # When it was told that the progress deadline is over (seconds since 1970), 0 when it is not.
    told_late: int
    refusal: str | None

    @property
    def late(self) -> bool:
        """Whether the deadline of what was asked for last is over.

        A ReplicaSet that failed once and is taken again keeps what was told then.
        """
        return self.told_late > 0 and self.told_late >= self.since


@dataclass(frozen=True, slots=True)
class Template:
    """Which of its pool's templates a pod was made of: the configuration, and the attempt at it."""

    configuration: str | None = None
    attempt: str | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """What matters of a pod; two that differ only in how far they have come are equal.

    ``version`` guards writes. ``message`` is Kubernetes' word on the trouble;
    ``restarts`` tells one crash from the next. ``usable``: a free one can be
    claimed, a claimed one is not on its way out. ``lost``: why a claimed one is
    not the worker any more that it was, "" while it is. ``asked`` and ``has``: limits
    as they should be, and are. ``obstacle``: why they are not the same, where that
    is known.
    """

    name: str
    uid: str
    version: str = field(compare=False)
    free: bool
    template: Template = Template()
    claimed: bool = False
    usable: bool = False
    lost: str = ""
    trouble: Trouble | None = None
    message: str = ""
    restarts: int = 0
    created: str = field(default="", compare=False)
    ending: bool = field(default=False, compare=False)
    ready: bool = field(default=False, compare=False)
    image: str = field(default="", compare=False)
    address: str = field(default="", compare=False)
    node: str = field(default="", compare=False)
    asked: Mapping[str, str] = field(default_factory=dict, compare=False)
    has: Mapping[str, str] = field(default_factory=dict, compare=False)
    obstacle: str = field(default="", compare=False)


def deployment(item: Object) -> Deployment:
    """A Deployment as it came from the API."""
    meta, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    annotations = meta.get("annotations") or {}
    progress, failure = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    refused = progress if progress.get("reason") == "ReplicaSetCreateError" else None
    if failure.get("status") == "True":
        refused = failure
    generation = int(meta.get("generation") or 0)
    revision = _number(annotations, names.REVISION)
    return Deployment(
        name=meta["name"],
        uid=meta["uid"],
        version=meta["resourceVersion"],
        generation=generation,
        revision=revision if revision <= _HIGHEST_REVISION else 0,
        since=_number(annotations, names.SINCE),
        labels=meta.get("labels") or {},
        annotations=annotations,
        template=_template(spec["template"].get("metadata") or {}),
        ending="deletionTimestamp" in meta,
        spec=spec,
        observed=int(status.get("observedGeneration") or 0) >= generation,
        replicas=int(status.get("replicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        told_late=_told(progress) if progress.get("reason") == "ProgressDeadlineExceeded" else 0,
        refusal=None if refused is None else _refused(refused),
    )


def _template(meta: Object) -> Template:
    annotations = meta.get("annotations") or {}
    return Template(annotations.get(names.CONFIGURATION), annotations.get(names.ATTEMPT))


def _number(annotations: Mapping[str, str], name: str) -> int:
    """A number that Qinling has noted; 0 when somebody took it away, or wrote rubbish."""
    text = annotations.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _told(condition: Object) -> int:
    """When a condition was told, in seconds since 1970."""
    return int(dt.datetime.fromisoformat(condition["lastUpdateTime"]).timestamp())


def _refused(condition: Object) -> str:
    """What a ReplicaSet that may create no pod was told."""
    cause = _AROUND_REFUSAL.sub("", str(condition.get("message") or "it is not said why"))
    if cause.startswith("exceeded quota"):
        return f"the quota of the namespace is used up: {cause}"
    if cause.startswith("violates PodSecurity"):
        return f"the pod security of the namespace refuses the workers: {cause}"
    if cause.startswith("RuntimeClass"):
        return f"the cluster lacks what isolates untrusted workers: {cause}"
    return f"the cluster refuses to create workers: {cause}"


def pod(item: Object, container: str = manifests.CONTAINER) -> Pod:
    """A pod as it came from the API.

    :param container: the name of Qinling's own in it; others may have been put beside it.
    """
    meta, status = item["metadata"], item.get("status") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    containers = status.get("containerStatuses") or []
    ready = conditions.get("Ready", {}).get("status") == "True"
    ending = "deletionTimestamp" in meta
    trouble, message = (None, "") if ready else _trouble(status, conditions, containers)
    worker = named(container, containers)
    owned = (meta.get("labels") or {}).get(names.STATE)
    claimed = owned == names.CLAIMED
    return Pod(
        name=meta["name"],
        uid=meta["uid"],
        version=meta["resourceVersion"],
        free=owned == names.FREE,
        template=_template(meta),
        claimed=claimed,
        usable=not ending and (claimed or ready),
        lost=_lost(meta, status, worker) if claimed else "",
        trouble=trouble,
        message=message,
        restarts=_restarts(worker),
        created=meta.get("creationTimestamp") or "",
        ending=ending,
        ready=ready,
        image=_image(item["spec"], container),
        address=status.get("podIP") or "",
        node=item["spec"].get("nodeName") or "",
        asked=_limits(named(container, item["spec"]["containers"])),
        has=_limits(worker),
        obstacle=_obstacle(meta, status, conditions),
    )


def named(name: str, containers: Iterable[Object]) -> Object:
    """A container, or its status, by its name; an empty one where there is none.

    Statuses are sorted by name, whatever the order in the pod.
    """
    return next((one for one in containers if one["name"] == name), {})


def _limits(container: Object) -> Mapping[str, str]:
    return (container.get("resources") or {}).get("limits") or {}


def _obstacle(meta: Object, status: Object, conditions: Mapping[str, Object]) -> str:
    """What keeps a pod from being resized, as far as its kubelet has looked at what was asked.

    Kubernetes 1.33 does not tell what its kubelet has looked at: there a word on it counts at once.
    """
    generation = int(meta.get("generation") or 0)
    if int(status.get("observedGeneration") or generation) < generation:
        return ""
    for kind in ("PodResizePending", "PodResizeInProgress"):
        told = conditions.get(kind) or {}
        if told.get("status") == "True" and told.get("reason"):
            return f"{told['reason']}: {told.get('message') or 'it is not said why'}"
    return ""


def _restarts(worker: Object) -> int:
    return int(worker.get("restartCount") or 0)


def _image(spec: Object, container: str) -> str:
    return str(named(container, spec["containers"]).get("image"))


def _lost(meta: Object, status: Object, worker: Object) -> str:
    """Why a claimed worker is not what was claimed any more.

    It may serve again: a container that ended is started anew, and is empty.
    """
    if status.get("phase") in _ENDED:
        return _why_ended(status)
    runs = not worker or "running" in (worker.get("state") or {})
    before = _number(meta.get("annotations") or {}, names.RESTARTS)
    if runs and _restarts(worker) == before:
        return ""
    ended = _last_end(worker)
    return "its container was started anew" if ended is None else _end(ended)


def _why_ended(status: Object) -> str:
    """Why a pod is over, which nothing starts anew."""
    return f"{status.get('reason') or status['phase']}: {status.get('message') or ''}"


def _trouble(
    status: Object, conditions: Mapping[str, Object], containers: Sequence[Object]
) -> tuple[Trouble | None, str]:
    """What keeps a pod from being ready; None while it is only starting."""
    if status.get("phase") in _ENDED:
        # Evicted, as a rule; that its container was killed then is no crash.
        return Trouble.LOST, _why_ended(status)
    states = [entry.get("state") or {} for entry in containers]
    waiting: Object = next((state["waiting"] for state in states if state.get("waiting")), {})
    reason = str(waiting.get("reason") or "")
    if reason in _PULL:
        return Trouble.IMAGE, _AROUND_PULL.sub("", str(waiting.get("message") or "")) or reason
    ended = [last for entry in containers if (last := _last_end(entry)) is not None]
    if ended:
        return Trouble.CRASH, _end(ended[0])
    if reason and reason not in _STARTING:
        return Trouble.CONTAINER, f"{reason}: {waiting.get('message') or 'no more is known'}"
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return Trouble.NODE, str(scheduled.get("message") or scheduled.get("reason") or "")
    return None, ""


def _last_end(container: Object) -> Object | None:
    """How a container ended last, None when it never has."""
    for state in ("state", "lastState"):
        ended: Object | None = (container.get(state) or {}).get("terminated")
        if ended is not None:
            return ended
    return None


def _end(terminated: Object) -> str:
    if terminated.get("reason") == "OOMKilled":
        return "it needs more memory than [kubernetes] worker_memory gives it"
    if terminated.get("message"):
        return str(terminated["message"])
    if terminated.get("signal"):
        return f"it was ended by signal {terminated['signal']}"
    return f"it exited with code {terminated.get('exitCode')}"


def state(
    spec: base.PoolSpec,
    found: Deployment | None,
    pods: Iterable[Pod],
    hints: Mapping[str, str],
    *,
    lost: str,
    overdue: bool,
) -> base.PoolState:
    """A pool, seen as the answer to a spec.

    :param hints: more words on a pod's trouble, by the pod's uid. :param lost: how
        a worker of it ended that nobody was to end. :param overdue: it should be
        up by now, whatever Kubernetes says.
    """
    if found is None:
        return base.PoolState(total=spec.size, available=0, ready=False)
    available = min(found.available, spec.size)
    asked = found.revision == spec.revision and not found.ending
    # Counts and deadlines are of what was asked for last; troubles of pods are what they are.
    current = asked and found.observed
    if current and found.updated == found.replicas == found.available == spec.size:
        return base.PoolState(total=spec.size, available=available, ready=True)
    reason = None
    if found.ending:
        reason = "its Deployment was deleted, and is made anew when it has gone"
    elif asked:
        reason = _reason(spec, found, pods, hints, lost, overdue)
    return base.PoolState(
        total=spec.size,
        available=available,
        ready=False,
        failed=(current and found.late) or (asked and overdue),
        reason=None if reason is None else short(reason),
    )


def claimable(owner: Deployment, pods: Iterable[Pod]) -> list[Pod]:
    """The workers that may be claimed, those first that are of the image asked for last.

    While that comes up there are old ones, which serve as well as those that were
    claimed just before. Nodes may be told to pull an image from elsewhere.
    """
    image = _image(owner.spec["template"]["spec"], manifests.CONTAINER)
    free = [one for one in pods if one.free and one.usable and one.address]
    return sorted(free, key=lambda one: (one.image != image, one.created, one.name))


def starting(found: Deployment | None, pods: Iterable[Pod]) -> list[Pod]:
    """The free workers of a pool's present template that are not ready, and are to be."""
    return [
        one
        for one in pods
        if one.free and not (one.ending or one.ready or one.trouble is Trouble.LOST)
        if found is not None and one.template == found.template
    ]


def lost(pods: Iterable[Pod]) -> list[Pod]:
    """The free workers that are over, as evicted ones; nobody but Qinling deletes them."""
    return [one for one in pods if one.free and not one.ending and one.trouble is Trouble.LOST]


def _reason(
    spec: base.PoolSpec,
    found: Deployment,
    pods: Iterable[Pod],
    hints: Mapping[str, str],
    lost: str,
    overdue: bool,
) -> str | None:
    """What keeps a pool from being whole, in one sentence that names the cause."""
    if found.refusal is not None:
        return found.refusal
    if overdue and not found.observed:
        return "Kubernetes does nothing about its Deployment: does its controller manager run?"
    waiting = starting(found, pods)
    troubled = [one for one in waiting if one.trouble is not None]
    if troubled:
        worst = max(troubled, key=lambda one: (one.created, one.name))
        return _sentence(spec, worst, hints.get(worst.uid, ""))
    for one in waiting:
        if one.uid in hints:
            return f"a worker cannot be started: {hints[one.uid]}"
    if lost:
        return f"a worker was lost: {lost}"
    if overdue or (found.late and found.observed):
        return "its workers did not become ready in time, and Kubernetes does not say why"
    return None


def _sentence(spec: base.PoolSpec, one: Pod, hint: str) -> str:
    match one.trouble:
        case Trouble.IMAGE:
            return f"image {spec.image} cannot be pulled: {one.message}"
        case Trouble.CRASH:
            said = f"; the end of its log: {hint}" if hint else ""
            return f"the worker of image {spec.image} does not stay up: {one.message}{said}"
        case Trouble.NODE:
            return f"no node has room for a worker: {one.message}"
        case _:
            return f"a worker cannot be started: {one.message}"


def short(text: str) -> str:
    """One line of printable characters, of bounded length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
