"""Who may do what with aliases of functions. A name leads to those of the caller's project only."""

from qinling.policies import base

CREATE = "function_alias:create"
LIST = "function_alias:list"
LIST_ALL = "function_alias:list:all_projects"
SHOW = "function_alias:show"
UPDATE = "function_alias:update"
DELETE = "function_alias:delete"


rules = [
    base.rule(CREATE, base.PROJECT_MEMBER, "Create an alias.", "POST", "/v1/aliases"),
    base.rule(
        LIST, base.PROJECT_READER, "List the aliases of the caller's project.", "GET", "/v1/aliases"
    ),
    base.rule(
        LIST_ALL,
        base.ADMIN,
        "List the aliases of all projects, or of a project that is named.",
        "GET",
        "/v1/aliases?all_projects=true",
    ),
    base.rule(SHOW, base.PROJECT_READER, "Show an alias.", "GET", "/v1/aliases/{name}"),
    base.rule(UPDATE, base.PROJECT_MEMBER, "Change an alias.", "PUT", "/v1/aliases/{name}"),
    base.rule(DELETE, base.PROJECT_MEMBER, "Delete an alias.", "DELETE", "/v1/aliases/{name}"),
]
