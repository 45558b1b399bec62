"""The orchestrator on Kubernetes: applies pools, and tells what the watches have seen of them.

Nothing is written on a guess: each write names the version that was seen, so
that of two engines, or of one that slept, the one with the older sight is
refused. Nothing is read but through the watches, so that a pool that is as it
should be costs no request.
"""

import hashlib
import json
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from oslo_config import cfg
from oslo_log import log

from qinling import exceptions
from qinling.orchestrator import base
from qinling.orchestrator.kubernetes import check, manifests, names, observe
from qinling.orchestrator.kubernetes.claims import Claims
from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.kubernetes.following import Following
from qinling.orchestrator.kubernetes.hints import Hints
from qinling.orchestrator.kubernetes.lost import Lost
from qinling.orchestrator.kubernetes.manifests import Manifest
from qinling.orchestrator.kubernetes.nodes import Nodes
from qinling.orchestrator.kubernetes.observe import Deployment
from qinling.orchestrator.kubernetes.policy import Policy
from qinling.orchestrator.kubernetes.runs import Runs
from qinling.orchestrator.kubernetes.seen import Seen
from qinling.orchestrator.kubernetes.wake import Waker
from qinling.orchestrator.kubernetes.watch import Watcher

LOG = log.getLogger(__name__)

# No object has this version: a name that is taken is a conflict, any other is created.
_ABSENT = "1"
_NOT_FOUND, _CONFLICT, _INVALID = 404, 409, 422
# Seconds after which the cluster is asked again for a pool that it refused, at first and at most.
_ASK_AGAIN = 1.0
_ASK_AGAIN_AT_MOST = 60.0
_STOP_TIMEOUT = 5.0
# Connections that are kept beside those of the threads that reconcile: for the watches, for workers
# that get their functions, and for runs of images.
_MORE = 48
# Seconds that clocks may differ. What is said to have been applied after that has no time to fail.
_SKEW = 3600
_BACKGROUND = {"propagationPolicy": "Background"}


@dataclass(frozen=True, slots=True)
class _Applied:
    """What this process found to be there: the body, by its digest, and its generation."""

    digest: str
    uid: str
    generation: int


@dataclass(frozen=True, slots=True)
class _Refused:
    """What the cluster refused, by its digest, why, since when, and until when it is not asked."""

    digest: str
    reason: str
    since: float
    pause: float
    until: float


class KubernetesOrchestrator:
    """Implements ``base.Orchestrator`` with one Deployment per pool."""

    one_host = False

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        options = conf.kubernetes
        self._namespace = options.namespace
        self._relist = conf.engine.settled_interval
        self._deadline: int = options.progress_deadline
        self._proxied: bool = options.worker_access == "proxy"
        self._untrusted = options.untrusted_runtime_class
        self._client = Client(conf, connections=conf.engine.reconcile_threads + _MORE)
        self._templates = manifests.Templates(conf)
        self._deployments_path = f"/apis/apps/v1/namespaces/{options.namespace}/deployments"
        self._sets_path = f"/apis/apps/v1/namespaces/{options.namespace}/replicasets"
        self._pods_path = f"/api/v1/namespaces/{options.namespace}/pods"
        self._policy = Policy(
            self._client, options.namespace, self._templates.network_policy(), self._relist
        )
        self._hints = Hints(self._client, options.namespace)
        self._lost = Lost()
        self._applied: dict[str, _Applied] = {}
        self._refused: dict[str, _Refused] = {}

    def start(self, notify: base.Notify) -> None:
        self._notify = notify
        self._following = Following(notify, self._back)
        self._waker = Waker(notify)
        self._deployments: Seen[Deployment] = Seen(observe.deployment, notify)
        self._pods: Seen[observe.Pod] = Seen(observe.pod, notify)
        self._nodes = Nodes(self._client, self._relist, self._node_changed)
        self._claims = Claims(
            self._client,
            self._pods_path,
            self._pods,
            self._find,
            self._nodes.is_cordoned,
            proxied=self._proxied,
        )
        self.runs = Runs(
            self._client, self._pods_path, self._templates, self._policy.keep, self._relist
        )
        self._following.start(
            self._watcher(self._deployments_path, self._deployments),
            self._watcher(self._pods_path, self._pods),
        )
        self.runs.start()
        self._nodes.start()

    def stop(self) -> None:
        self._nodes.stop(_STOP_TIMEOUT)
        self.runs.stop(_STOP_TIMEOUT)
        self._following.stop(_STOP_TIMEOUT)

    def _watcher(self, path: str, seen: Seen[Any]) -> Watcher:
        return Watcher(self._client, path, seen, self._following.synced, self._relist)

    def check(self) -> list[str]:
        policy, needed = self._policy, check.PERMISSIONS
        if self._proxied:
            needed += check.PROXY_PERMISSIONS
        return list(
            check.problems(self._client, self._namespace, needed, policy.path, policy.content)
        )

    def apply(self, spec: base.PoolSpec) -> base.PoolState:
        if not (spec.trusted or self._untrusted):
            return _unlike(
                spec,
                None,
                "the runtime is not trusted, and there is no [kubernetes] "
                "untrusted_runtime_class to isolate its workers",
                failed=True,
            )
        self._following.check(spec.id)
        found = self._find(spec.id)
        _check_revision(spec.id, found, spec.revision)
        if found is None or not found.ending:
            refusal = self._settle(spec, found)
            if refusal is not None:
                now = time.monotonic()
                # A moment's refusal, as while permissions are put anew, is no failure.
                failed = now - refusal.since >= self._deadline
                pause = max(refusal.until - now, 0.1)
                return _unlike(spec, found, refusal.reason, failed=failed, retry_in=pause)
            found = self._find(spec.id)
        pods = self._pods.of(spec.id)
        self._clear(spec.id, found, pods)
        lost = self._lost.message(spec.id, found)
        hints = self._hints.of(spec.id, observe.starting(found, pods))
        state = observe.state(spec, found, pods, hints, lost=lost, overdue=self._is_overdue(found))
        self._lost.see(spec.id, whole=state.ready)
        cause = None if found is None or state.ready else found.refusal
        return replace(state, retry_in=self._waker.look(spec.id, cause))

    def remove(self, pool_id: str, revision: int | None) -> bool:
        self._following.check(pool_id)
        try:
            return self._remove(pool_id, revision)
        except exceptions.ClusterRefusal as error:
            raise exceptions.ClusterRefusal(
                f"the cluster refuses to remove the pool ({error.status}): {error}", error.status
            ) from error

    def _remove(self, pool_id: str, revision: int | None) -> bool:
        # What is not seen may only not be seen yet.
        found = self._find(pool_id) or self._look(pool_id)
        if revision is not None:
            _check_revision(pool_id, found, revision)
        # Somebody may have made more of them, under other names.
        there = self._deployments.of(pool_id)
        for one in there:
            if not one.ending:
                self._delete(self._deployments, self._deployments_path, one, "Foreground")
        return False if there else self._remove_left(pool_id)

    def claim(self, pool_id: str) -> base.Worker | None:
        self._following.check(pool_id)
        return self._claims.claim(pool_id)

    def claimed(self, pool_id: str, known: Collection[str] = ()) -> dict[str, bool]:
        self._following.check(pool_id)
        return self._claims.claimed(pool_id, known)

    def resize(
        self,
        pool_id: str,
        worker_id: str,
        *,
        memory: tuple[int, int] | None = None,
        cpu: int | None = None,
    ) -> bool:
        self._following.check(pool_id)
        wanted = self._templates.resized(memory, cpu)
        return self._claims.resize(pool_id, worker_id, wanted)

    def release(self, pool_id: str, worker_id: str) -> bool:
        self._following.check(pool_id)
        return self._claims.release(pool_id, worker_id)

    def pools(self) -> list[str]:
        self._following.check(None)
        asked = {*self._applied, *self._refused}
        there = {*self._deployments.pools(), *self._pods.pools()}
        for pool_id in asked - there:
            # Nobody asks for a pool again that another engine has removed.
            refused = self._refused.get(pool_id)
            if refused is None or time.monotonic() > refused.until + _ASK_AGAIN_AT_MOST:
                self._forget(pool_id)
        return sorted(there)

    def _deployment_path(self, pool_id: str) -> str:
        return f"{self._deployments_path}/{names.deployment(pool_id)}"

    def _find(self, pool_id: str) -> Deployment | None:
        return self._deployments.get(pool_id, names.deployment(pool_id))

    def _look(self, pool_id: str) -> Deployment | None:
        """Ask the cluster itself, past the watch."""
        before = self._find(pool_id)
        try:
            item = self._client.get(self._deployment_path(pool_id))
        except exceptions.ClusterRefusal as error:
            if error.status != _NOT_FOUND:
                raise
            if before is not None:
                self._deployments.forget(names.deployment(pool_id), before.uid)
            return None
        if names.pool_of(item) != pool_id:
            raise exceptions.ClusterRefusal(
                f"Deployment {names.deployment(pool_id)} does not carry Qinling's labels, and is "
                "left alone; remove it, or give Qinling a namespace of its own.",
                _CONFLICT,
            )
        self._deployments.put(item)
        return self._find(pool_id)

    def _look_if_overtaken(self, pool_id: str, error: exceptions.ClusterRefusal) -> None:
        """:raises PoolBusy: what was there is not what had been seen; it is seen now."""
        if _is_conflict(error):
            self._look(pool_id)
            raise exceptions.PoolBusy(
                f"Pool {pool_id} has been changed meanwhile: {error}"
            ) from error

    def _node_changed(self, name: str) -> None:
        for pool_id in self._pods.pools():
            if any(pod.claimed and pod.node == name for pod in self._pods.of(pool_id)):
                self._notify(pool_id)

    def _back(self) -> None:
        self._client.well()
        self._policy.doubt()

    def _settle(self, spec: base.PoolSpec, found: Deployment | None) -> _Refused | None:
        """Apply the spec where it is not there yet; the refusal, if the cluster refuses it."""
        digest = _digest(self._templates.deployment(spec, {}))
        wanted = self._templates.deployment(spec, self._carried(spec, found))
        there = found is not None and self._is_there(spec, found, wanted, digest)
        if there and self._policy.is_kept():
            return None
        refused = self._refused.get(spec.id)
        if refused is not None and refused.digest != digest:
            refused = None
        if refused is not None and time.monotonic() < refused.until:
            return refused
        try:
            self._policy.keep()
            item = None if there else self._write(spec.id, wanted, found)
        except exceptions.ClusterRefusal as error:
            self._look_if_overtaken(spec.id, error)
            reason = f"the cluster refuses the pool ({error.status}): {error}"
            pause = min(refused.pause * 2, _ASK_AGAIN_AT_MOST) if refused else _ASK_AGAIN
            now = time.monotonic()
            since = refused.since if refused else now
            self._refused[spec.id] = _Refused(digest, reason, since, pause, now + pause)
            return self._refused[spec.id]
        self._refused.pop(spec.id, None)
        self._waker.woken(spec.id)
        if item is not None:
            self._deployments.put(item)
            made = observe.deployment(item)
            self._applied[spec.id] = _Applied(digest, made.uid, made.generation)
        return None

    def _write(self, pool_id: str, wanted: Manifest, found: Deployment | None) -> Manifest:
        """Have the Deployment as wanted; what it is then.

        Applying takes nothing away that others have put in, and two members of a
        union (as ``value`` beside ``valueFrom``) are refused. What it does not put
        right is replaced, once: what differs after that is the cluster's own way.
        """
        path = self._deployment_path(pool_id)
        if found is None:
            return self._client.apply(path, _guarded(wanted, None))
        try:
            item = self._client.apply(path, _guarded(wanted, found))
        except exceptions.ClusterRefusal as error:
            if error.status != _INVALID or _is_conflict(error):
                raise
        else:
            if _is_as(item, wanted):
                return item
            found = observe.deployment(item)
        try:
            return self._client.merge(path, _guarded(manifests.alone(wanted, found.spec), found))
        except exceptions.ClusterRefusal as error:
            if error.status != _NOT_FOUND:
                raise
            # It was there a moment ago: whoever has removed it came first.
            raise exceptions.ClusterRefusal(str(error), _CONFLICT) from error

    def _carried(self, spec: base.PoolSpec, found: Deployment | None) -> dict[str, str]:
        """Annotations of the pool that go on, or change."""
        now = int(time.time())
        if found is None:
            return {names.SINCE: str(now)}
        carried = {}
        if found.template.attempt is not None:
            carried[names.ATTEMPT] = found.template.attempt
        if found.revision == spec.revision and 0 < found.since <= now + _SKEW:
            carried[names.SINCE] = str(found.since)
        else:
            # Later than what Kubernetes has told before, whatever its clock says.
            carried[names.SINCE] = str(max(now, found.told_late + 1))
            if found.late and found.available < spec.size:
                # What failed may be what is asked for now, and its pods wait for minutes by then.
                # Where the pool is whole, its image is gone back to, and its workers stay.
                carried[names.ATTEMPT] = str(spec.revision)
        if names.WAKE in found.annotations:
            carried[names.WAKE] = found.annotations[names.WAKE]
        if found.refusal is not None and self._waker.is_due(spec.id):
            carried[names.WAKE] = str(time.time_ns())
        return carried

    def _is_overdue(self, found: Deployment | None) -> bool:
        """Whether a pool should be up by now, whatever Kubernetes says of it, or does not.

        Kubernetes counts from the last progress, and its controllers may be away.
        This counts from the apply: one deadline is theirs, and in another one they
        were not alone, as the cluster was followed all the time.
        """
        if found is None or not found.since:
            return False
        theirs = max(found.since + self._deadline, self._following.since)
        return time.time() >= theirs + self._deadline

    def _is_there(
        self, spec: base.PoolSpec, found: Deployment, wanted: Manifest, digest: str
    ) -> bool:
        there = _Applied(digest, found.uid, found.generation)
        before = self._applied.get(spec.id)
        meta = {"labels": found.labels, "annotations": found.annotations}
        if _is_as({"metadata": meta, "spec": found.spec}, wanted):
            self._applied[spec.id] = there
            return True
        if before is None or before.digest != digest or before.uid != found.uid:
            return False
        if before.generation == found.generation:
            # It was applied, and the cluster has its own way to write it.
            return names.WAKE not in wanted["metadata"]["annotations"] or (
                wanted["metadata"]["annotations"][names.WAKE] == found.annotations.get(names.WAKE)
            )
        ours = wanted["spec"]["template"]["metadata"]["annotations"][names.CONFIGURATION]
        if found.template.configuration == ours or found.revision != spec.revision:
            return False
        LOG.warning(
            "Pool %s is kept by another engine with another configuration; it is left as it is.",
            spec.id,
        )
        self._applied[spec.id] = there
        return True

    def _remove_left(self, pool_id: str) -> bool:
        """Remove what has lost its Deployment, as by ``kubectl delete --cascade=orphan``."""
        left = self._pods.of(pool_id)
        if left and all(one.ending for one in left):
            return False
        selector = {"labelSelector": f"{names.SELECTOR},{names.RUNTIME}={pool_id}"}
        # ReplicaSets first, which would make other pods; nobody sees one that has none.
        self._client.delete(self._sets_path, _BACKGROUND, selector)
        if left:
            self._client.delete(self._pods_path, _BACKGROUND, selector)
            return False
        self._forget(pool_id)
        return True

    def _clear(self, pool_id: str, found: Deployment | None, pods: Collection[observe.Pod]) -> None:
        """Delete the workers that are over."""
        for one in observe.lost(pods):
            LOG.warning("Worker %s, pod %s, is lost: %s", one.uid, one.name, one.message)
            if found is not None and one.template == found.template:
                self._lost.add(pool_id, one)
            self._delete(self._pods, self._pods_path, one, "Background")

    def _delete(
        self, seen: Seen[Any], path: str, one: Deployment | observe.Pod, propagation: str
    ) -> None:
        """Delete just this object, and none that has its name meanwhile."""
        options = {"propagationPolicy": propagation, "preconditions": {"uid": one.uid}}
        try:
            self._client.delete(f"{path}/{one.name}", options)
        except exceptions.ClusterRefusal as error:
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise
            seen.forget(one.name, one.uid)

    def _forget(self, pool_id: str) -> None:
        self._lost.forget(pool_id)
        self._applied.pop(pool_id, None)
        self._refused.pop(pool_id, None)
        self._hints.forget(pool_id)
        self._waker.gone(pool_id)


def _unlike(
    spec: base.PoolSpec,
    found: Deployment | None,
    reason: str,
    *,
    failed: bool,
    retry_in: float | None = None,
) -> base.PoolState:
    """It is not as asked; what is there works on."""
    return base.PoolState(
        total=spec.size,
        available=0 if found is None else min(found.available, spec.size),
        ready=False,
        failed=failed,
        reason=observe.short(reason),
        retry_in=retry_in,
    )


def _check_revision(pool_id: str, found: Deployment | None, revision: int) -> None:
    if found is not None and found.revision > revision:
        raise exceptions.StaleRevision(
            f"Pool {pool_id} is at revision {found.revision}, not {revision}.",
            revision=found.revision,
        )


def _guarded(wanted: Manifest, found: Deployment | None) -> Manifest:
    """The body with what it must find: the very version that was seen, or nothing.

    A version guards nothing where the name is gone, as applying creates it
    then; the uid does.
    """
    guard = (
        {"resourceVersion": _ABSENT}
        if found is None
        else {"resourceVersion": found.version, "uid": found.uid}
    )
    return {**wanted, "metadata": {**wanted["metadata"], **guard}}


def _is_conflict(error: exceptions.ClusterRefusal) -> bool:
    """Whether what was there is not what had been seen. Another uid is told as 422."""
    return error.status == _CONFLICT or (error.status == _INVALID and "metadata.uid" in str(error))


def _is_as(item: Manifest, wanted: Manifest) -> bool:
    """Whether a Deployment is as wanted."""
    meta = {key: wanted["metadata"][key] for key in ("labels", "annotations")}
    there = {"metadata": item["metadata"], "spec": item["spec"]}
    return manifests.is_as(there, {"metadata": meta, "spec": wanted["spec"]})


def _digest(body: Manifest) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
