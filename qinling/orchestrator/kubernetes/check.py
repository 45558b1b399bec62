"""Is there a cluster, is it one that Qinling knows, and may Qinling work there?"""

from collections.abc import Iterator

from qinling import exceptions
from qinling.orchestrator.kubernetes.client import Client

# What the driver does, and etc/kubernetes/rbac.yaml grants: group, resource, verbs.
PERMISSIONS = (
    ("apps", "deployments", ("get", "list", "watch", "create", "patch", "delete")),
    ("apps", "replicasets", ("deletecollection",)),
    ("", "pods", ("list", "watch", "patch", "delete", "deletecollection")),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
    ("networking.k8s.io", "networkpolicies", ("create", "patch")),
)

_OLDEST = (1, 33)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def problems(client: Client, namespace: str) -> Iterator[str]:
    """What keeps the driver from working, each in one sentence."""
    try:
        version = client.get("/version")
        found = _version(version)
        if found < _OLDEST:
            yield (
                f"The cluster at {client.server()} is Kubernetes {version.get('gitVersion')}, "
                f"older than {_OLDEST[0]}.{_OLDEST[1]}."
            )
        for group, resource, verbs in PERMISSIONS:
            missing = [verb for verb in verbs if not _may(client, namespace, group, resource, verb)]
            if missing:
                yield (
                    f"Qinling may not {', '.join(missing)} {resource} in namespace {namespace}; "
                    "etc/kubernetes/rbac.yaml grants it."
                )
    except exceptions.OrchestratorError as error:
        yield str(error)


def _version(answer: dict[str, object]) -> tuple[int, int]:
    """Major and minor; some distributions write a minor of 36+."""
    major, minor = str(answer.get("major", "")), str(answer.get("minor", "")).rstrip("+")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _may(client: Client, namespace: str, group: str, resource: str, verb: str) -> bool:
    name, _, part = resource.partition("/")
    asked = {"namespace": namespace, "group": group, "resource": name, "verb": verb}
    if part:
        asked["subresource"] = part
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    status = client.create(_REVIEWS, review).get("status") or {}
    return bool(status.get("allowed"))
