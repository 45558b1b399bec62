"""Routes to workers through the API server's proxy of pods, for where nobody has one to the pods.

The proxy hands on what is sent and what is answered, and answers in the worker's place where it
cannot. What it says then is a ``Status`` without a worker's signature, and only its text
tells whether the worker may have got the request.

https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/
"""

import contextlib
import json
import re

from oslo_config import cfg

from qinling import exceptions
from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.routes import Answer, Request, Route

# Connections to the API server that are kept: one for each request that is under way at a time.
_CONNECTIONS = 1000
_ADDRESS = re.compile(r"pods/[a-z0-9][-.a-z0-9]{0,252}:[0-9]{1,5}")
# The API server was connecting to the pod, itself or by its konnectivity proxy. After that it says
# what has become of the connection, in the same place: k8s.io/apimachinery, pkg/util/proxy, and
# k8s.io/apiserver, pkg/server/egressselector.
_UNREACHED = re.compile(
    r"error trying to reach service: (dial |proxy error from \S+ while dialing )"
)
# Bytes of a ``Status``, and characters of it that go into a message.
_LONGEST_STATUS = 65536
_LONGEST_TEXT = 300
# Seconds for which a cluster that is busy is left alone at most.
_LONGEST_PAUSE = 30


class Proxy:
    """Implements ``routes.Routes``."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        # Not the driver's: what somebody says through the proxy is not to hold up the pools.
        self._client = Client(conf, connections=_CONNECTIONS)
        self._namespace = conf.kubernetes.namespace

    def to(self, address: str) -> Route | None:
        if not _ADDRESS.fullmatch(address):
            return None
        return _Proxied(self._client, f"/api/v1/namespaces/{self._namespace}/{address}/proxy")


class _Proxied:
    """Implements ``routes.Route``."""

    def __init__(self, client: Client, path: str) -> None:
        self._client = client
        self._path = path

    def __str__(self) -> str:
        return self._path

    def close(self) -> None:
        """Nothing is kept of one worker: all connections are to the same server."""

    def send(self, request: Request, most: int) -> Answer:
        return self._client.forward(request, f"{self._path}{request.path}", most)

    def judge(self, answer: Answer) -> None:
        said = _status(answer)
        match answer.status:
            case 429:
                after = answer.header("Retry-After") or ""
                raise exceptions.ClusterAway(
                    "The cluster cannot answer now (429)",
                    429,
                    min(int(after), _LONGEST_PAUSE) if re.fullmatch("[0-9]{1,4}", after) else None,
                )
            case _ if said is None:
                return
            case 400 | 404:
                # There is no such pod, or it has no address.
                raise exceptions.WorkerGone(f"{self}: {said}")
            case 401:
                # Asked for what only the API server can answer, it says the same, and the client
                # looks for new credentials: a worker that said so would only cost a request.
                with contextlib.suppress(exceptions.ClusterRefusal):
                    self._client.get("/version")
                raise exceptions.ClusterAway("The cluster did not know Qinling's credentials", 401)
            case 403:
                raise exceptions.ClusterRefusal(
                    "Qinling may not call workers through the cluster's API server: "
                    f"etc/kubernetes/worker-proxy.yaml grants it: {said}",
                    403,
                )
            case 503 if _UNREACHED.match(said):
                refused = said.endswith("connection refused")
                raise (exceptions.WorkerGone if refused else exceptions.WorkerAway)(
                    f"{self}: {said}"
                )
            case _:
                raise exceptions.WorkerLost(f"{self}: {answer.status}: {said}")


def _status(answer: Answer) -> str | None:
    """What a ``Status`` says, in one line; None for what is none."""
    if len(answer.body) > _LONGEST_STATUS:
        return None
    try:
        found = json.loads(answer.body)
        if found["kind"] != "Status" or found["status"] != "Failure":
            return None
        said = " ".join(str(found["message"]).split())
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return re.sub("[^ -~]", "?", said)[:_LONGEST_TEXT]
