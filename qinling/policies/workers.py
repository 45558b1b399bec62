"""Who may do what with the workers of functions."""

from oslo_policy import policy

from qinling.policies import base

LIST = "worker:list"
SCALE_UP = "worker:scale_up"
SCALE_DOWN = "worker:scale_down"
DETACH = "worker:detach"

_FUNCTION = "/v1/functions/{function_id}"
_VERSION = "/v1/functions/{function_id}/versions/{version_number}"


def _rule(name: str, description: str, method: str, *paths: str) -> policy.RuleDefault:
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=base.ADMIN,
        description=description,
        operations=[{"method": method, "path": path} for path in paths],
        scope_types=base.PROJECT_SCOPE,
    )


rules = [
    _rule(LIST, "List the workers of a function.", "GET", f"{_FUNCTION}/workers"),
    _rule(
        SCALE_UP,
        "Give a function, or a version of it, more workers.",
        "POST",
        f"{_FUNCTION}/scale_up",
        f"{_VERSION}/scale_up",
    ),
    _rule(
        SCALE_DOWN,
        "Take workers from a function, or a version of it, but for one.",
        "POST",
        f"{_FUNCTION}/scale_down",
        f"{_VERSION}/scale_down",
    ),
    _rule(
        DETACH,
        "Let go of all workers of a function, or of a version of it.",
        "POST",
        f"{_FUNCTION}/detach",
        f"{_VERSION}/detach",
    ),
]
