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

# Selects all that Qinling has in its namespace.
SELECTOR = f"{MANAGED_BY}={MANAGER},{RUNTIME}"

POLICY = "qinling-workers"

_PREFIX = "runtime-"


def deployment(pool_id: str) -> str:
    """The name of a pool's Deployment: 44 characters, of 63 that its pods' names may take up."""
    return f"{_PREFIX}{uuid.UUID(pool_id)}"


def pool_of(item: Mapping[str, Any]) -> str | None:
    """The pool that an object belongs to by its labels, None for what is not Qinling's."""
    labels = item["metadata"].get("labels") or {}
    pool_id = labels.get(RUNTIME)
    if labels.get(MANAGED_BY) != MANAGER or not isinstance(pool_id, str):
        return None
    try:
        return pool_id if str(uuid.UUID(pool_id)) == pool_id else None
    except ValueError:
        return None


def pod_selector(pool_id: str) -> dict[str, str]:
    """Labels of a pool's free workers."""
    return {RUNTIME: str(uuid.UUID(pool_id)), STATE: FREE}
