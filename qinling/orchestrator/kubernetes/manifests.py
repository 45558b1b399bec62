"""From what is wanted to what Kubernetes is sent. Pure: no I/O, no clock, no chance."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from oslo_config import cfg

from qinling import exceptions
from qinling.conf import storage
from qinling.orchestrator import base
from qinling.orchestrator.kubernetes import names

PORT = 9090
CONTAINER = "worker"
RUN_CONTAINER = "function"
_PORT_NAME = "http"
_TMP = "/tmp"  # noqa: S108  # nosec B108  # within a worker, which has it for itself
# Old templates that a Deployment remembers: none is ever gone back to by name.
_HISTORY = 1
# Seconds beyond the longest function that a worker gets to end.
_GRACE = 10
# The same of the pod of an execution, of which nobody awaits an answer any more then.
_RUN_GRACE = 2
_MIB = 1024**2
# What can be reached from anywhere and must not be: the cloud's metadata service.
_LINK_LOCAL = ("169.254.0.0/16", "fe80::/10")
# What others may put notes in.
_SHARED = "metadata"

Manifest = dict[str, Any]

_CONFINED: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class Templates:
    """Makes manifests by the configuration of one installation.

    :raises StartupError: a worker would ask for as much as it may have. Its QoS
        class would be another one, and its resources could not change later. Or
        a package that the API takes would not fit into it.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._options = conf.kubernetes
        for request, limit in (("cpu_request", "startup_cpu"), ("memory_request", "worker_memory")):
            if self._options[request] >= self._options[limit]:
                raise exceptions.StartupError(
                    f"[kubernetes] {request} is {self._options[request]} and not less than "
                    f"{limit}, {self._options[limit]}."
                )
        package = storage.MAX_PACKAGE + conf.storage.max_unpacked_size
        if self._options.tmp_size < package:
            raise exceptions.StartupError(
                f"[kubernetes] tmp_size is {self._options.tmp_size} and less than the {package} "
                "MiB that the largest package takes, packed and unpacked: raise it, or lower "
                "[storage] max_unpacked_size."
            )
        self._max_processes: int = conf.execution.max_processes
        self._grace = conf.resource_limits.max_timeout + _GRACE

    def deployment(self, spec: base.PoolSpec, carried: Mapping[str, str]) -> Manifest:
        """A pool's Deployment, to be applied.

        It says what the API server would fill in, too: what stands there besides has
        been put in by somebody.

        :param carried: annotations of the names ``names.SINCE``, ``names.WAKE``
            and ``names.ATTEMPT`` to be kept, or changed.
        """
        template = self._pod(spec)
        template["metadata"]["annotations"][names.CONFIGURATION] = _digest(template)
        if names.ATTEMPT in carried:
            template["metadata"]["annotations"][names.ATTEMPT] = carried[names.ATTEMPT]
        annotations = {names.REVISION: str(spec.revision)}
        for name in (names.SINCE, names.WAKE):
            if name in carried:
                annotations[name] = carried[name]
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": names.deployment(spec.id),
                "namespace": self._options.namespace,
                "labels": names.COMMON | {names.RUNTIME: spec.id},
                "annotations": annotations,
            },
            "spec": {
                "replicas": spec.size,
                "revisionHistoryLimit": _HISTORY,
                "progressDeadlineSeconds": self._options.progress_deadline,
                "selector": {"matchLabels": names.pod_selector(spec.id)},
                # Never fewer workers than the pool has, while its image changes.
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "100%"},
                },
                "template": template,
            },
        }

    def _pod(self, spec: base.PoolSpec) -> Manifest:
        options = self._options
        pod: Manifest = {
            "containers": [self._container(spec)],
            "volumes": [{"name": "tmp", "emptyDir": self._tmp()}],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": self._grace,
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "securityContext": self._confined(),
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": names.pod_selector(spec.id)},
                }
            ],
        }
        if options.user_namespaces:
            pod["hostUsers"] = False
        if not spec.trusted:
            pod["runtimeClassName"] = options.untrusted_runtime_class
        if options.image_pull_secrets:
            pod["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
        meta: Manifest = {
            "labels": names.COMMON | names.pod_selector(spec.id),
            "annotations": {names.EVICTABLE: "true"},
        }
        return {"metadata": meta, "spec": pod}

    def _container(self, spec: base.PoolSpec) -> Manifest:
        options = self._options
        health = {
            "httpGet": {"path": "/healthz", "port": _PORT_NAME, "scheme": "HTTP"},
            "timeoutSeconds": 3,
            "successThreshold": 1,
        }
        environment: list[Manifest] = [
            {"name": "QINLING_WORKER_ID", "valueFrom": _field("metadata.uid")},
            {"name": "QINLING_WORKER_HOST", "valueFrom": _field("status.podIP")},
            {"name": "QINLING_WORKER_PORT", "value": str(PORT)},
        ]
        if options.user_namespaces:
            # The kernel counts the processes of a user in each user namespace by itself.
            most = str(self._max_processes)
            environment.append({"name": "QINLING_WORKER_MAX_PROCESSES", "value": most})
        return {
            "name": CONTAINER,
            "image": spec.image,
            "imagePullPolicy": options.image_pull_policy,
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "ports": [{"name": _PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
            "env": environment,
            # Asked every second until it is up; not given up before the pool has failed, so that
            # this is told and no crash. The kubelet asks for readiness as soon as it has started
            # (prober_manager.go: UpdatePodStatus), and every now and then from then on.
            "startupProbe": health
            | {"periodSeconds": 1, "failureThreshold": 2 * options.progress_deadline},
            "readinessProbe": health | {"periodSeconds": 10, "failureThreshold": 3},
            "livenessProbe": health | {"periodSeconds": 10, "failureThreshold": 6},
            # Requests below limits: a resize at a claim must not change the QoS class.
            "resources": {
                "requests": {
                    "cpu": _cpu(options.cpu_request),
                    "memory": _memory(options.memory_request),
                },
                "limits": {"cpu": _cpu(options.startup_cpu), "memory": _memory(self._limit())},
            },
            "securityContext": _CONFINED,
            "volumeMounts": [{"name": "tmp", "mountPath": _TMP}],
        }

    def resized(self, memory: tuple[int, int] | None, cpu: int | None) -> Manifest:
        """The resources of a worker with a function, as far as they change: as ``base``'s resize.

        The request stays below the limit, which leaves the pod in its QoS class. It has
        room for all executions, so that a node that has none is told of before.
        """
        options = self._options
        limits, requests = {}, {}
        if memory is not None:
            held, beside = (-(-size // _MIB) for size in memory)
            limits["memory"] = _memory(self._limit() + held + beside)
            requests["memory"] = _memory(options.memory_request + held)
        if cpu is not None:
            limits["cpu"] = _cpu(cpu)
            requests["cpu"] = _cpu(min(options.cpu_request, cpu))
        return {"limits": limits, "requests": requests}

    def run(self, spec: base.RunSpec) -> Manifest:
        """The pod of an execution whose function is an image, to be created.

        It has what its function may have and no more: what it keeps in a /tmp of memory
        counts.

        It is as confined as a worker. Anybody may name any image: the Secrets that
        workers' images are pulled with are not for it.
        """
        options = self._options
        container: Manifest = {
            "name": RUN_CONTAINER,
            "image": spec.image,
            "imagePullPolicy": options.image_pull_policy,
            "resources": {
                "requests": {
                    "cpu": _cpu(min(options.cpu_request, spec.cpu)),
                    "memory": _bytes(min(options.memory_request * _MIB, spec.memory)),
                },
                "limits": {
                    "cpu": _cpu(spec.cpu),
                    "memory": _bytes(spec.memory),
                },
            },
            "securityContext": _CONFINED,
            "volumeMounts": [{"name": "tmp", "mountPath": _TMP}],
        }
        if spec.arguments:
            # A dollar sign would begin the name of a variable (expand.go).
            container["args"] = [word.replace("$", "$$") for word in spec.arguments]
        pod: Manifest = {
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": self._tmp()}],
            "restartPolicy": "Never",
            "activeDeadlineSeconds": math.ceil(spec.lifetime),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": _RUN_GRACE,
            "securityContext": self._confined(),
        }
        if options.user_namespaces:
            pod["hostUsers"] = False
        if options.untrusted_runtime_class:
            pod["runtimeClassName"] = options.untrusted_runtime_class
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": spec.id,
                "namespace": options.namespace,
                "labels": names.run_labels(spec.id, spec.function_id),
            },
            "spec": pod,
        }

    def _confined(self) -> Manifest:
        user = self._options.run_as_user
        return {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        }

    def _limit(self) -> int:
        """MiB of a worker: what it has in a /tmp of memory counts."""
        options = self._options
        in_memory = options.tmp_size if options.tmp_medium == "memory" else 0
        return int(options.worker_memory + in_memory)

    def _tmp(self) -> Manifest:
        tmp: Manifest = {"sizeLimit": _memory(self._options.tmp_size)}
        if self._options.tmp_medium == "memory":
            tmp["medium"] = "Memory"
        return tmp

    def network_policy(self) -> Manifest:
        """Nobody but the control plane into the workers, and they into the world alone."""
        options = self._options
        callers: list[Manifest] = [
            {"ipBlock": {"cidr": cidr}} for cidr in options.control_plane_cidrs
        ]
        if options.control_plane_pods:
            callers.append(
                {
                    "namespaceSelector": _namespace(options.control_plane_namespace),
                    "podSelector": {"matchLabels": dict(options.control_plane_pods)},
                }
            )
        policy: Manifest = {
            "podSelector": {},
            "policyTypes": ["Ingress", "Egress"],
            "egress": [
                _to_dns(options.dns_cidrs),
                {"to": [self._world("0.0.0.0/0"), self._world("::/0")]},
            ],
        }
        if callers:
            policy["ingress"] = [{"from": callers, "ports": [{"protocol": "TCP", "port": PORT}]}]
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "name": names.POLICY,
                "namespace": options.namespace,
                "labels": {names.MANAGED_BY: names.MANAGER},
            },
            "spec": policy,
        }

    def _world(self, cidr: str) -> Manifest:
        blocked = [*self._options.blocked_cidrs, *_LINK_LOCAL]
        same = [block for block in blocked if (":" in block) == (":" in cidr)]
        return {"ipBlock": {"cidr": cidr, "except": same}}


def alone(wanted: Manifest, there: Mapping[str, Any]) -> Manifest:
    """A pool's manifest as a JSON merge patch (RFC 7396) that leaves nothing besides in place.

    :param there: the spec that stands there.
    """
    return {**wanted, "spec": _alone(wanted["spec"], there)}


def _alone(wanted: Manifest, there: Mapping[str, Any]) -> Manifest:
    made: Manifest = dict.fromkeys(there) | wanted
    for key, value in wanted.items():
        old = there.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and key != _SHARED:
            made[key] = _alone(value, old)
    return made


def is_as(there: Any, wanted: Any, more: bool = False) -> bool:
    """Whether ``there`` is what is ``wanted``, but for more that others noted in metadata."""
    if not (isinstance(there, dict) and isinstance(wanted, dict)):
        return bool(there == wanted)
    if not more and there.keys() != wanted.keys():
        return False
    return all(
        is_as(there.get(key), value, more or key == _SHARED) for key, value in wanted.items()
    )


def _field(path: str) -> Manifest:
    return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}


# Quantities in the form that the API server stores, so that what is there can be
# compared with what was sent.


def _cpu(millicpu: int) -> str:
    return f"{millicpu}m" if millicpu % 1000 else str(millicpu // 1000)


def _memory(mebibytes: int) -> str:
    return f"{mebibytes}Mi" if mebibytes % 1024 else f"{mebibytes // 1024}Gi"


def _bytes(number: int) -> str:
    return str(number) if number % _MIB else _memory(number // _MIB)


def _to_dns(more: Sequence[str]) -> Manifest:
    pods = {
        "namespaceSelector": _namespace("kube-system"),
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    return {
        "to": [pods, *({"ipBlock": {"cidr": cidr}} for cidr in more)],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }


def _namespace(name: str) -> Manifest:
    return {"matchLabels": {"kubernetes.io/metadata.name": name}}


def _digest(content: Manifest) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
