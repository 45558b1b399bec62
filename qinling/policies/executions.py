"""Who may do what with executions."""

from oslo_policy import policy

from qinling.policies import base

CREATE = "execution:create"
LIST = "execution:list"
LIST_ALL = "execution:list:all_projects"
SHOW = "execution:show"
SHOW_ALL = "execution:show:all_projects"
SHOW_LOG = "execution:show_log"
DELETE = "execution:delete"


def _rule(name: str, check: str, description: str, method: str, path: str) -> policy.RuleDefault:
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=check,
        description=description,
        operations=[{"method": method, "path": path}],
        scope_types=base.PROJECT_SCOPE,
    )


rules = [
    _rule(CREATE, base.PROJECT_MEMBER, "Run a function.", "POST", "/v1/executions"),
    _rule(
        LIST,
        base.PROJECT_READER,
        "List the executions of the caller's project.",
        "GET",
        "/v1/executions",
    ),
    _rule(
        LIST_ALL,
        base.ADMIN,
        "List the executions of all projects, or of a project that is named.",
        "GET",
        "/v1/executions?all_projects=true",
    ),
    _rule(
        SHOW,
        base.PROJECT_READER,
        "Show an execution of the caller's project.",
        "GET",
        "/v1/executions/{execution_id}",
    ),
    _rule(
        SHOW_ALL,
        base.ADMIN,
        "See an execution of another project: to whom this is not granted it does not exist.",
        "GET",
        "/v1/executions/{execution_id}",
    ),
    _rule(
        SHOW_LOG,
        base.PROJECT_READER,
        "Show what an execution printed.",
        "GET",
        "/v1/executions/{execution_id}/log",
    ),
    _rule(
        DELETE,
        base.PROJECT_MEMBER,
        "Stop an execution and delete it.",
        "DELETE",
        "/v1/executions/{execution_id}",
    ),
]
