"""Who asks: the context of one request, carried from the API to the engine."""

from typing import Any, Self

from oslo_context import context as oslo_context

from qinling import exceptions, policies

# What travels over the bus: enough to tell in a log who asked, and no secret.
_CARRIED = ("request_id", "global_request_id", "user_id", "project_id", "is_admin")


class RequestContext(oslo_context.RequestContext):  # type: ignore[misc]
    """oslo's context with the policy at hand."""

    def __init__(self, *args: Any, enforcer: policies.Enforcer | None = None, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.enforcer = enforcer

    def can(self, rule: str, target: dict[str, Any] | None = None) -> None:
        """Raise ``NotAllowed`` unless the policy grants ``rule`` on ``target``.

        ``target`` defaults to the caller's own project.
        """
        if not self.may(rule, target):
            raise exceptions.NotAllowed(rule)

    def may(self, rule: str, target: dict[str, Any] | None = None) -> bool:
        """Whether the policy grants ``rule`` on ``target`` to the caller."""
        if self.enforcer is None:
            raise RuntimeError("a context without an enforcer cannot decide a policy")
        return self.enforcer.grants(rule, target or {"project_id": self.project_id}, self)

    def to_message(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _CARRIED}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """A context from the bus; unknown keys of a newer sender are left out."""
        return cls(**{name: message[name] for name in _CARRIED if name in message})


def clear() -> None:
    """Forget the context of whatever this thread did before."""
    oslo_context.RequestContext(overwrite=True)
