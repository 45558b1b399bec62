"""Is there a cluster, is it one that Qinling knows, and may Qinling work there?"""

from collections.abc import Iterator

from qinling import exceptions
from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.kubernetes.manifests import Manifest

# Group, resource, verbs.
Permission = tuple[str, str, tuple[str, ...]]

# What the driver does, and etc/kubernetes/rbac.yaml grants.
PERMISSIONS: tuple[Permission, ...] = (
    ("apps", "deployments", ("get", "list", "watch", "create", "patch", "delete")),
    ("apps", "replicasets", ("deletecollection",)),
    ("", "pods", ("get", "list", "watch", "create", "patch", "delete", "deletecollection")),
    ("", "pods/resize", ("patch",)),
    ("", "pods/log", ("get",)),
    ("", "events", ("list",)),
    ("networking.k8s.io", "networkpolicies", ("create", "patch")),
)
# What whoever calls workers through the API server does besides, as
# etc/kubernetes/worker-proxy.yaml grants.
PROXY_PERMISSIONS: tuple[Permission, ...] = (("", "pods/proxy", ("get", "create", "delete")),)

_OLDEST = (1, 33)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


_NOT_FOUND = 404


def problems(
    client: Client,
    namespace: str,
    needed: tuple[Permission, ...],
    policy_path: str,
    policy: Manifest,
) -> Iterator[str]:
    """What keeps the driver from working, each in one sentence.

    :param needed: what it is to be allowed.

    Whether there is the namespace may only who may read namespaces ask, which the
    engine need not. But the policy of the workers cannot be applied without one,
    not even for a trial.
    """
    try:
        version = client.get("/version")
        found = _version(version)
        if found < _OLDEST:
            yield (
                f"The cluster at {client.server()} is Kubernetes {version.get('gitVersion')}, "
                f"older than {_OLDEST[0]}.{_OLDEST[1]}."
            )
        missing = {
            resource: [verb for verb in verbs if not _may(client, namespace, group, resource, verb)]
            for group, resource, verbs in needed
        }
        if all(len(missing[resource]) == len(verbs) for _, resource, verbs in needed):
            # As nobody can be granted anything in a namespace that is not there.
            yield (
                f"Qinling may do nothing in namespace {namespace}: it is not there, or "
                "etc/kubernetes/rbac.yaml is not applied in it for this account."
            )
            return
        for resource, verbs in missing.items():
            if verbs:
                file = "worker-proxy.yaml" if resource == "pods/proxy" else "rbac.yaml"
                yield (
                    f"Qinling may not {', '.join(verbs)} {resource} in namespace {namespace}; "
                    f"etc/kubernetes/{file} grants it."
                )
        if not missing["networkpolicies"]:
            yield from _trial(client, namespace, policy_path, policy)
    except exceptions.OrchestratorError as error:
        yield str(error)


def _trial(client: Client, namespace: str, policy_path: str, policy: Manifest) -> Iterator[str]:
    try:
        client.apply(policy_path, policy, dry=True)
    except exceptions.ClusterRefusal as error:
        if error.status == _NOT_FOUND:
            yield f"There is no namespace {namespace}; etc/kubernetes/namespace.yaml makes it."
        else:
            yield f"The cluster would refuse the workers' NetworkPolicy ({error.status}): {error}"


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
