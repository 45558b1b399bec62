"""Workers that were taken out of a pool for good: claimed, followed, let go.

A claimed pod has left its pool's selector, so that the ReplicaSet makes another
one, and has the Deployment itself as its controller: what drains or deletes
pods takes it for an ordinary one. All that is known of it is what stands on it
and what the watch has seen, so that any engine can go on with it.
"""

from collections.abc import Callable, Collection

from oslo_log import log

from qinling import exceptions
from qinling.orchestrator import base
from qinling.orchestrator.kubernetes import manifests, names, observe
from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.kubernetes.observe import Deployment, Pod
from qinling.orchestrator.kubernetes.seen import Seen

LOG = log.getLogger(__name__)

_NOT_FOUND, _CONFLICT = 404, 409


class Claims:
    """:param path: of the pods. :param find: the Deployment of a pool, as it was seen.
    :param proxied: whether workers are called through the API server.
    :param is_cordoned: whether a node, by its name, is to get no more pods.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        pods: Seen[Pod],
        find: Callable[[str], Deployment | None],
        is_cordoned: Callable[[str], bool],
        *,
        proxied: bool,
    ) -> None:
        self._client = client
        self._path = path
        self._pods = pods
        self._find = find
        self._is_cordoned = is_cordoned
        self._proxied = proxied

    def claim(self, pool_id: str) -> base.Worker | None:
        """As ``base.Orchestrator``: one request, unless somebody else was faster."""
        owner = self._find(pool_id)
        if owner is None or owner.ending:
            # A pod that it owned would be deleted with it.
            return None
        overtaken = False
        # On a cordoned node it may be evicted soon, and serves until then.
        for pod in sorted(
            observe.claimable(owner, self._pods.of(pool_id)),
            key=lambda each: self._is_cordoned(each.node),
        ):
            try:
                self._pods.put(self._client.merge(self._path_of(pod), _claim(pod, owner, pool_id)))
            except exceptions.ClusterRefusal as error:
                if error.status not in (_CONFLICT, _NOT_FOUND):
                    raise
                overtaken |= error.status == _CONFLICT
            else:
                return base.Worker(pod.uid, pool_id, self._address_of(pod))
        if overtaken:
            # It may be free all the same: whatever else of it has changed is told to nobody.
            raise exceptions.PoolBusy(f"Workers of pool {pool_id} have changed meanwhile.")
        return None

    def claimed(self, pool_id: str, known: Collection[str] = ()) -> dict[str, bool]:
        """As ``base.Orchestrator``. Those that have died are deleted.

        Those of a cordoned node are to end as soon as there are others elsewhere.
        """
        there = {}
        pods = self._pods.of(pool_id)
        elsewhere = any(pod.free and pod.usable and not self._is_cordoned(pod.node) for pod in pods)
        for pod in pods:
            if pod.lost:
                if not pod.ending:
                    LOG.warning("Worker %s, pod %s, is lost: %s", pod.uid, pod.name, pod.lost)
                    self._delete(pod)
            elif pod.claimed or pod.uid in known:
                leaves = elsewhere and self._is_cordoned(pod.node)
                there[pod.uid] = not (pod.ending or leaves)
        return there

    def resize(self, pool_id: str, worker_id: str, wanted: manifests.Manifest) -> bool:
        """As ``base.Orchestrator``: asked for once, and then seen in the pod's status.

        :param wanted: limits and requests.
        """
        pod = self._of(pool_id, worker_id)
        if pod is None:
            raise exceptions.WorkerUnfit("its pod is gone")
        if pod.has.items() >= wanted["limits"].items():
            return True
        if not pod.asked.items() >= wanted["limits"].items():
            try:
                self._pods.put(self._client.resize(self._path_of(pod), manifests.CONTAINER, wanted))
            except exceptions.ClusterRefusal as error:
                raise exceptions.WorkerUnfit(
                    f"the cluster refuses to resize its pod ({error.status}): {error}"
                ) from error
        elif pod.obstacle:
            raise exceptions.WorkerUnfit(f"its pod cannot be resized: {pod.obstacle}")
        return False

    def release(self, pool_id: str, worker_id: str) -> bool:
        """As ``base.Orchestrator``: its SIGTERM has it drain, in its grace."""
        pod = self._of(pool_id, worker_id)
        if pod is None:
            return True
        if not pod.ending:
            self._delete(pod)
        return False

    def _of(self, pool_id: str, worker_id: str) -> Pod | None:
        return next((one for one in self._pods.of(pool_id) if one.uid == worker_id), None)

    def _delete(self, pod: Pod) -> None:
        """Delete just this pod, and none that has its name meanwhile."""
        try:
            self._client.delete(self._path_of(pod), {"preconditions": {"uid": pod.uid}})
        except exceptions.ClusterRefusal as error:
            if error.status not in (_CONFLICT, _NOT_FOUND):
                raise

    def _address_of(self, pod: Pod) -> str:
        if self._proxied:
            return names.proxied(pod.name, manifests.PORT)
        return f"{pod.address}:{manifests.PORT}"

    def _path_of(self, pod: Pod) -> str:
        return f"{self._path}/{pod.name}"


def _claim(pod: Pod, owner: Deployment, pool_id: str) -> manifests.Manifest:
    """A JSON merge patch: it alone can put one controller in the other's place."""
    return {
        "metadata": {
            "resourceVersion": pod.version,
            "labels": {names.STATE: names.CLAIMED},
            "annotations": {names.RESTARTS: str(pod.restarts)},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": names.deployment(pool_id),
                    "uid": owner.uid,
                    "controller": True,
                    # Who may say so must be allowed to change the Deployment's finalizers.
                    "blockOwnerDeletion": False,
                }
            ],
        }
    }
