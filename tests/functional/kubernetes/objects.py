"""Objects to work with."""

from typing import Any

from tests.fixtures.kubernetes import Cluster
from tests.fixtures.process import wait_until

NAMESPACE = "pools"
Object = dict[str, Any]


def deployment(name: str, size: int = 2, image: str = "worker:1", **spec: Any) -> Object:
    """A pool that meets the Pod Security Standard `restricted`."""
    labels = {"pool": name}
    container = {
        "name": "worker",
        "image": image,
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"cpu": "1", "memory": "64Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": size,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "securityContext": {
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                },
            },
            **spec,
        },
    }


def container_of(found: Object) -> Object:
    """The one container of a Deployment's template."""
    container: Object = found["spec"]["template"]["spec"]["containers"][0]
    return container


def wait_for_available(cluster: Cluster, name: str, size: int = 2) -> Object:
    """The Deployment, once so many of its pods are available."""

    def look() -> Object | None:
        found = cluster.client.get("deployments", name, NAMESPACE)
        return found if found["status"].get("availableReplicas", 0) == size else None

    return wait_until(look, 10, f"{size} available pods of {name}") or {}


def pods(cluster: Cluster, name: str) -> list[Object]:
    return cluster.client.list("pods", NAMESPACE, labelSelector=f"pool={name}")
