"""Names, labels and annotations of what Qinling has on a cluster.

All of them are derived from ids that this service has made. Nothing that a user
has written gets into one.
"""

import uuid
from collections.abc import Mapping
from typing import Any

MANAGER = "qinling"

# https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
MANAGED_BY = "app.kubernetes.io/managed-by"
COMMON = {
    "app.kubernetes.io/name": "qinling-worker",
    "app.kubernetes.io/component": "worker",
    "app.kubernetes.io/part-of": "qinling",
    MANAGED_BY: MANAGER,
}

# Labels: whose worker it is, and whether it is free or a function's.
RUNTIME = "qinling.openstack.org/runtime"
STATE = "qinling.openstack.org/state"
FREE = "free"
CLAIMED = "claimed"

# Annotations of a Deployment: what it was applied for, and when first (seconds
# since 1970). Of its template, and so of its pods: a digest of it, and the attempt
# that it is, raised to try once more what failed. WAKE has no meaning but that a
# change of it wakes the ReplicaSet.
REVISION = "qinling.openstack.org/revision"
SINCE = "qinling.openstack.org/since"
WAKE = "qinling.openstack.org/wake"
CONFIGURATION = "qinling.openstack.org/configuration"
ATTEMPT = "qinling.openstack.org/attempt"
# Of a claimed worker: how often its container had restarted then. One that restarts is empty.
RESTARTS = "qinling.openstack.org/restarts"
# Of each worker, for the cluster's autoscaler: by default it takes away no node with a pod whose
# controller is a Deployment, as a claimed one's is (autoscaler's rules/replicated/rule.go).
EVICTABLE = "cluster-autoscaler.kubernetes.io/safe-to-evict"

# Selects all that Qinling has in its namespace.
SELECTOR = f"{MANAGED_BY}={MANAGER},{RUNTIME}"

# The pod of an execution, whose function is an image. It has the execution's id for a name.
EXECUTION = "qinling.openstack.org/execution"
FUNCTION = "qinling.openstack.org/function"
RUNS = f"{MANAGED_BY}={MANAGER},{EXECUTION}"

POLICY = "qinling-workers"

_PREFIX = "runtime-"


def deployment(pool_id: str) -> str:
    """The name of a pool's Deployment: 44 characters, of 63 that its pods' names may take up."""
    return f"{_PREFIX}{uuid.UUID(pool_id)}"


def pool_of(item: Mapping[str, Any]) -> str | None:
    """The pool that an object belongs to by its labels, None for what is not Qinling's."""
    return _labelled(item, RUNTIME)


def execution_of(item: Mapping[str, Any]) -> str | None:
    """The execution that a pod is there for, None for what is not Qinling's."""
    return _labelled(item, EXECUTION)


def _labelled(item: Mapping[str, Any], name: str) -> str | None:
    labels = item["metadata"].get("labels") or {}
    found = labels.get(name)
    if labels.get(MANAGED_BY) != MANAGER or not isinstance(found, str):
        return None
    try:
        return found if str(uuid.UUID(found)) == found else None
    except ValueError:
        return None


def run_labels(execution_id: str, function_id: str) -> dict[str, str]:
    """Labels of the pod of an execution, whose function is an image."""
    return {
        "app.kubernetes.io/name": "qinling-execution",
        "app.kubernetes.io/component": "execution",
        "app.kubernetes.io/part-of": "qinling",
        MANAGED_BY: MANAGER,
        EXECUTION: str(uuid.UUID(execution_id)),
        FUNCTION: str(uuid.UUID(function_id)),
    }


def proxied(pod: str, port: int) -> str:
    """The address of a worker that is called through the API server, as ``proxy`` reads it."""
    return f"pods/{pod}:{port}"


def pod_selector(pool_id: str) -> dict[str, str]:
    """Labels of a pool's free workers."""
    return {RUNTIME: str(uuid.UUID(pool_id)), STATE: FREE}
