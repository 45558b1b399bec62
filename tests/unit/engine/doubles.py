"""Doubles of what an engine talks to, where the real thing cannot be told what to answer."""

from collections.abc import Callable, Iterable

from qinling.engine.reconciler import Key
from qinling.orchestrator import base


class ScriptedOrchestrator:
    """A double of an orchestrator: it keeps no pool, answers as a test says and notes the calls.

    Implements ``base.Orchestrator``.

    :param applied: what ``apply`` answers or raises.
    :param removed: what ``remove`` answers or raises.
    :param meanwhile: called within ``apply`` and ``remove``: what somebody else does just then.
    """

    one_host = False

    def __init__(
        self,
        applied: base.PoolState | Exception | None = None,
        removed: bool | Exception | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self.applied = applied
        self.removed = removed
        self.meanwhile = meanwhile
        self.calls: list[tuple[object, ...]] = []
        self.pool_ids: set[str] = set()

    def start(self, notify: base.Notify) -> None:
        raise AssertionError("nothing here observes a pool")

    def stop(self) -> None:
        raise AssertionError("nothing here observes a pool")

    def apply(self, spec: base.PoolSpec) -> base.PoolState:
        self.calls.append(("apply", spec))
        self.meanwhile()
        assert self.applied is not None, "apply was called"
        if isinstance(self.applied, Exception):
            raise self.applied
        return self.applied

    def remove(self, pool_id: str, revision: int | None) -> bool:
        self.calls.append(("remove", pool_id, revision))
        self.meanwhile()
        assert self.removed is not None, "remove was called"
        if isinstance(self.removed, Exception):
            raise self.removed
        if self.removed:
            self.pool_ids.discard(pool_id)
        return self.removed

    def pools(self) -> Iterable[str]:
        return list(self.pool_ids)


class Offers:
    """A double of the reconciler that notes what it is offered and works on nothing.

    Runtimes are in ``keys``, all else in ``others``.
    """

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.others: list[Key] = []

    def offer(self, key: Key) -> None:
        (self.keys if key.kind == "runtime" else self.others).append(key)

    look = offer

    def ids(self) -> list[str]:
        return [key.id for key in self.keys]
