"""Who may do what with the workers of functions."""

from qinling.policies import base

LIST = "worker:list"
SCALE_UP = "worker:scale_up"
SCALE_DOWN = "worker:scale_down"
DETACH = "worker:detach"

_FUNCTION = "/v1/functions/{function_id}"
_VERSION = "/v1/functions/{function_id}/versions/{version_number}"


rules = [
    base.rule(LIST, base.ADMIN, "List the workers of a function.", "GET", f"{_FUNCTION}/workers"),
    base.rule(
        SCALE_UP,
        base.ADMIN,
        "Give a function, or a version of it, more workers.",
        "POST",
        f"{_FUNCTION}/scale_up",
        f"{_VERSION}/scale_up",
    ),
    base.rule(
        SCALE_DOWN,
        base.ADMIN,
        "Take workers from a function, or a version of it, but for one.",
        "POST",
        f"{_FUNCTION}/scale_down",
        f"{_VERSION}/scale_down",
    ),
    base.rule(
        DETACH,
        base.ADMIN,
        "Let go of all workers of a function, or of a version of it.",
        "POST",
        f"{_FUNCTION}/detach",
        f"{_VERSION}/detach",
    ),
]
