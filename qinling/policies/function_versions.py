"""Who may do what with versions of functions."""

from oslo_policy import policy

from qinling.policies import base

CREATE = "function_version:create"
LIST = "function_version:list"
SHOW = "function_version:show"
DOWNLOAD = "function_version:download"
DELETE = "function_version:delete"

_PATH = "/v1/functions/{function_id}/versions"


def _rule(name: str, check: str, description: str, method: str, path: str) -> policy.RuleDefault:
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=check,
        description=description,
        operations=[{"method": method, "path": f"{_PATH}{path}"}],
        scope_types=base.PROJECT_SCOPE,
    )


rules = [
    _rule(
        CREATE,
        base.PROJECT_MEMBER,
        "Create a version of a function of the caller's project. Those of other projects have none "
        "that could be created.",
        "POST",
        "",
    ),
    _rule(LIST, base.PROJECT_READER, "List the versions of a function.", "GET", ""),
    _rule(SHOW, base.PROJECT_READER, "Show a version of a function.", "GET", "/{version}"),
    _rule(
        DOWNLOAD,
        base.PROJECT_READER,
        "Download the package of a version of a function.",
        "GET",
        "/{version}?download=true",
    ),
    _rule(
        DELETE,
        base.PROJECT_MEMBER,
        "Delete a version of a function of the caller's project.",
        "DELETE",
        "/{version}",
    ),
]
