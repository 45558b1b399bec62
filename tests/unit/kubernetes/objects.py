"""Objects as an API server answers them, as much of each as the driver looks at."""

import datetime as dt
import json
import time
from typing import Any

from qinling.orchestrator.base import PoolSpec
from qinling.orchestrator.kubernetes import names
from qinling.orchestrator.kubernetes.manifests import Templates
from tests.unit.config import options

POOL = "0f2b6ac1-3c5e-4b6e-9a43-1f0f3f1f6e11"
SPEC = PoolSpec(id=POOL, image="python3", size=2, trusted=True, revision=5)

Object = dict[str, Any]

WHOLE = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}
#: When pools were applied first.
SINCE = int(time.time())


def late(after: int = 60) -> Object:
    """The condition of a Deployment whose progress deadline was over so many seconds later."""
    told = dt.datetime.fromtimestamp(SINCE + after, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "lastUpdateTime": told,
    }


LATE = late()
ON_ITS_WAY = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}


def refused(message: str) -> Object:
    """The condition of a Deployment whose ReplicaSet may create no pod."""
    return {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": f'pods "runtime-x-7d9f-abcde" is forbidden: {message}',
    }


def deployment(
    templates: Templates,
    spec: PoolSpec = SPEC,
    *conditions: Object,
    counts: Object | None = None,
    generation: int = 3,
    observed: int | None = None,
    version: str = "100",
    carried: dict[str, str] | None = None,
    **meta: Any,
) -> Object:
    """A pool's Deployment as it is after it was applied, its pool whole unless `counts` differ."""
    made = templates.deployment(spec, {names.SINCE: str(SINCE)} | (carried or {}))
    made["metadata"] |= {
        "uid": "uid-of-deployment",
        "resourceVersion": version,
        "generation": generation,
    } | meta
    made["status"] = {
        "observedGeneration": generation if observed is None else observed,
        "conditions": [ON_ITS_WAY, *conditions],
        **(WHOLE if counts is None else counts),
    }
    return made


#: The template of pools that are asked for with the defaults of all options.
TEMPLATE = Templates(options()).deployment(SPEC, {})["spec"]["template"]


def pod(name: str = "pod-1", *, created: str = "2026-01-31T12:00:00Z", **status: Any) -> Object:
    """A free worker of the pool."""
    return json.loads(json.dumps(_pod(name, created, status)))


def _pod(name: str, created: str, status: Object) -> Object:
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "resourceVersion": "50",
            "creationTimestamp": created,
            **TEMPLATE["metadata"],
        },
        "spec": {"containers": [{"name": "worker", "image": SPEC.image}]},
        "status": {"phase": "Pending", **status},
    }


def waiting(reason: str, message: str = "", **more: Any) -> Object:
    """The status of a pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"name": "worker", "state": state, **more}]}
