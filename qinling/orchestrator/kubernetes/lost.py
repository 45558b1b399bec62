"""How workers ended that nobody was to end, as long as that explains why a pool is not whole."""

import time
from dataclasses import dataclass

from qinling.orchestrator.kubernetes.observe import Deployment, Pod, Template

# Seconds in which the controller of a Deployment sees that a worker was lost.
_NOTICED = 10.0


@dataclass(slots=True)
class _Loss:
    """``since``: when it became known here. ``noticed``: its pool was less than whole since then.

    A Deployment counts the worker until its controller has looked, so a whole one says nothing
    before that.
    """

    template: Template
    message: str
    since: float
    noticed: bool = False


class Lost:
    """The last one of each pool. Each pool is in the hands of one thread at a time."""

    def __init__(self) -> None:
        self._pools: dict[str, _Loss] = {}

    def add(self, pool_id: str, pod: Pod) -> None:
        self._pools[pool_id] = _Loss(pod.template, pod.message, time.monotonic())

    def message(self, pool_id: str, found: Deployment | None) -> str:
        """How one of a Deployment's present template has ended, or ""."""
        loss = self._pools.get(pool_id)
        if loss is None or found is None or loss.template != found.template:
            return ""
        if not loss.noticed and time.monotonic() - loss.since > _NOTICED:
            # It was made good before it was known here.
            del self._pools[pool_id]
            return ""
        return loss.message

    def see(self, pool_id: str, *, whole: bool) -> None:
        """Forget what was lost once the pool is whole again."""
        loss = self._pools.get(pool_id)
        if loss and not whole:
            loss.noticed = True
        elif loss and loss.noticed:
            del self._pools[pool_id]

    def forget(self, pool_id: str) -> None:
        self._pools.pop(pool_id, None)
