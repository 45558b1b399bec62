"""The NetworkPolicy of all workers: nobody but the control plane gets to them.

Nobody watches it: it is applied again for what somebody may have done to it.
"""

import threading
import time

from qinling.orchestrator.kubernetes import names
from qinling.orchestrator.kubernetes.client import Client
from qinling.orchestrator.kubernetes.manifests import Manifest


class Policy:
    """Safe to use from any thread.

    :ivar path: of the policy. :ivar content: what is applied.
    :param relist: seconds in which each pool is looked at once.
    """

    def __init__(self, client: Client, namespace: str, content: Manifest, relist: float) -> None:
        self.path = (
            f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{names.POLICY}"
        )
        self.content = content
        self._client = client
        # Half of a round, so that of the looks at a pool in two rounds one at least finds it due.
        self._lasts = relist / 2
        self._applying = threading.Lock()
        self._until = float("-inf")

    def is_kept(self) -> bool:
        """Whether it was applied so lately that it need not be applied again."""
        return time.monotonic() < self._until

    def keep(self) -> None:
        """Have it in place, before there is a worker; errors of ``Client.apply``."""
        with self._applying:
            if not self.is_kept():
                self._client.apply(self.path, self.content)
                self._until = time.monotonic() + self._lasts

    def doubt(self) -> None:
        """The cluster was out of sight: it is to be applied again."""
        self._until = float("-inf")
