"""[kubernetes]: pools on a Kubernetes cluster."""

import ipaddress

from oslo_config import cfg, types

GROUP = "kubernetes"

# RFC 1123, as Kubernetes asks of names (validation.IsDNS1123Label).
_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"


class Network(types.ConfigType):  # type: ignore[misc]
    """A network as 192.0.2.0/24, in the form that Kubernetes wants it.

    :param part: it must leave something of the world.
    """

    def __init__(self, *, part: bool = False) -> None:
        super().__init__("network")
        self._part = part

    def __call__(self, value: str) -> str:
        network = ipaddress.ip_network(value.strip())
        if self._part and not network.prefixlen:
            halves = ",".join(map(str, network.subnets()))
            raise ValueError(
                f"{network} is every address there is, which no NetworkPolicy can except from the "
                f"world; to block them all write {halves}"
            )
        return str(network)

    def __repr__(self) -> str:
        return "Network"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network)

    __hash__ = types.ConfigType.__hash__

    def _formatter(self, value: str) -> str:
        return value


OPTS = [
    cfg.StrOpt(
        "kubeconfig",
        help="Path of a kubeconfig file that tells where the cluster is and who Qinling is there. "
        "Without it and without `url` the service account of the pod that Qinling runs in is used.",
    ),
    cfg.StrOpt("context", help="Context of the kubeconfig to use; its current context by default."),
    cfg.URIOpt(
        "url",
        schemes=["https"],
        help="Address of the API server, instead of a kubeconfig, as in https://192.0.2.1:6443.",
    ),
    cfg.StrOpt(
        "ca_file",
        help="With `url`: file of the certificate authorities (PEM) that the API server's "
        "certificate is checked against; those of the host by default.",
    ),
    cfg.StrOpt(
        "client_cert_file",
        help="With `url`: file of the client certificate (PEM). It and its key are read again "
        "when they change.",
    ),
    cfg.StrOpt(
        "client_key_file",
        help="With `url`: file of the client certificate's key (PEM), without a passphrase.",
    ),
    cfg.StrOpt(
        "token_file",
        help="With `url`: file with a bearer token. It is read again when it changes.",
    ),
    cfg.StrOpt(
        "namespace",
        default="qinling",
        regex=_LABEL,
        help="Namespace of the pools. One installation of Qinling has it for itself; "
        "etc/kubernetes/ has what must be in it.",
    ),
    cfg.StrOpt(
        "worker_access",
        default="direct",
        choices=[
            ("direct", "at the addresses of their pods, to which both need a route"),
            (
                "proxy",
                "through the API server, of which both need an account then",
            ),
        ],
        help="How API and engine call the workers that functions have; both read it, and "
        "`[orchestrator] driver` with it. etc/kubernetes/worker-proxy.yaml makes their accounts. "
        "When it changes, the workers that functions have are let "
        "go.",
    ),
    cfg.FloatOpt(
        "request_timeout",
        default=15.0,
        min=1.0,
        max=300.0,
        help="How long the API server may take for an answer, and a credential plugin of the "
        "kubeconfig to end (seconds).",
    ),
    cfg.IntOpt(
        "progress_deadline",
        default=300,
        min=10,
        max=86400,
        help="How long a pool may take to come up before it counts as failed, from its last "
        "progress on (seconds): the pull of a large image must fit. In all it may take twice as "
        "long, whatever Kubernetes says of it. What the cluster refuses has failed after the same "
        "time.",
    ),
    cfg.IntOpt(
        "startup_cpu",
        default=1000,
        min=50,
        max=64000,
        help="Limit of processor time of a worker that has no function yet (millicpu). Starting "
        "Python under a tenth of a processor takes ten times as long.",
    ),
    cfg.IntOpt(
        "cpu_request",
        default=10,
        min=1,
        max=32000,
        help="Processor time that the scheduler sets aside for an idle worker (millicpu); less "
        "than `startup_cpu`.",
    ),
    cfg.IntOpt(
        "worker_memory",
        default=64,
        min=16,
        max=65536,
        help="Limit of memory of a worker that has no function yet, /tmp not counted (MiB).",
    ),
    cfg.IntOpt(
        "memory_request",
        default=32,
        min=1,
        max=65535,
        help="Memory that the scheduler sets aside for an idle worker (MiB); less than "
        "`worker_memory`.",
    ),
    cfg.IntOpt(
        "tmp_size",
        default=320,
        min=1,
        max=131072,
        help="Size of a worker's /tmp (MiB). It has the function's package, packed and unpacked: "
        "at least 51 more than `[storage] max_unpacked_size`, which API and engine both read.",
    ),
    cfg.StrOpt(
        "tmp_medium",
        default="memory",
        choices=[
            ("memory", "counts as the worker's memory; a full one tells the function ENOSPC"),
            ("disk", "the node's disk; a worker whose /tmp is full is evicted"),
        ],
        help="Where a worker's /tmp is.",
    ),
    cfg.IntOpt(
        "run_as_user",
        default=65532,
        min=1,
        max=2147483647,
        help="User and group id of the processes in a worker.",
    ),
    cfg.BoolOpt(
        "user_namespaces",
        default=False,
        help="Whether workers get a user namespace each (`hostUsers: false`). The nodes' kernel "
        "and container runtime must have them: elsewhere no worker comes up.",
    ),
    cfg.StrOpt(
        "untrusted_runtime_class",
        regex=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$",
        default="",
        help="RuntimeClass of the workers of runtimes with `trusted: false`, one that isolates "
        "them as gVisor or Kata Containers do. Without it such runtimes end in `error`. "
        "Functions that are images have it, too, where it is set.",
    ),
    cfg.ListOpt(
        "image_pull_secrets",
        item_type=types.String(regex=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"),
        default=[],
        help="Names of the Secrets in the namespace that images are pulled with.",
    ),
    cfg.StrOpt(
        "image_pull_policy",
        default="IfNotPresent",
        choices=["IfNotPresent", "Always", "Never"],
        help="When a node pulls an image.",
    ),
    cfg.ListOpt(
        "control_plane_cidrs",
        item_type=Network(),
        default=[],
        help="Networks that the API and the engine call workers from, as 192.0.2.0/24; with "
        "`worker_access = proxy` those that the cluster's API servers do. Nothing else may connect "
        "to a worker but what `control_plane_pods` selects.",
    ),
    cfg.DictOpt(
        "control_plane_pods",
        default={"app.kubernetes.io/part-of": "qinling-control-plane"},
        help="Labels of the pods that may connect to workers: those of the API and the engine "
        "where they run in the cluster. Empty for none.",
    ),
    cfg.StrOpt(
        "control_plane_namespace",
        default="openstack",
        regex=_LABEL,
        help="Namespace of the pods that `control_plane_pods` names.",
    ),
    cfg.ListOpt(
        "dns_cidrs",
        item_type=Network(),
        default=[],
        help="Networks that workers may ask for names (port 53) beside the pods labelled "
        "`k8s-app: kube-dns` in kube-system: as 169.254.20.10/32 for a NodeLocal DNSCache.",
    ),
    cfg.ListOpt(
        "blocked_cidrs",
        item_type=Network(part=True),
        default=[
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "fc00::/7",
        ],
        help="Networks that workers may not connect to: at least those of the cluster's pods, "
        "services and nodes. The addresses of the cloud's metadata service (169.254.0.0/16 and "
        "fe80::/10) are blocked besides. Everything else in the world is open to functions.",
    ),
]
