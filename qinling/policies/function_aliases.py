"""Who may do what with aliases of functions. A name leads to those of the caller's project only."""

from oslo_policy import policy

from qinling.policies import base

CREATE = "function_alias:create"
LIST = "function_alias:list"
LIST_ALL = "function_alias:list:all_projects"
SHOW = "function_alias:show"
UPDATE = "function_alias:update"
DELETE = "function_alias:delete"


def _rule(name: str, check: str, description: str, method: str, path: str) -> policy.RuleDefault:
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=check,
        description=description,
        operations=[{"method": method, "path": f"/v1/aliases{path}"}],
        scope_types=base.PROJECT_SCOPE,
    )


rules = [
    _rule(CREATE, base.PROJECT_MEMBER, "Create an alias.", "POST", ""),
    _rule(LIST, base.PROJECT_READER, "List the aliases of the caller's project.", "GET", ""),
    _rule(
        LIST_ALL,
        base.ADMIN,
        "List the aliases of all projects, or of a project that is named.",
        "GET",
        "?all_projects=true",
    ),
    _rule(SHOW, base.PROJECT_READER, "Show an alias.", "GET", "/{name}"),
    _rule(UPDATE, base.PROJECT_MEMBER, "Change an alias.", "PUT", "/{name}"),
    _rule(DELETE, base.PROJECT_MEMBER, "Delete an alias.", "DELETE", "/{name}"),
]
