"""Who may do what with functions."""

from qinling.policies import base

CREATE = "function:create"
LIST = "function:list"
LIST_ALL = "function:list:all_projects"
SHOW = "function:show"
SHOW_ALL = "function:show:all_projects"
DOWNLOAD = "function:download"
UPDATE = "function:update"
DELETE = "function:delete"


rules = [
    base.rule(CREATE, base.PROJECT_MEMBER, "Create a function.", "POST", "/v1/functions"),
    base.rule(
        LIST,
        base.PROJECT_READER,
        "List the functions of the caller's project.",
        "GET",
        "/v1/functions",
    ),
    base.rule(
        LIST_ALL,
        base.ADMIN,
        "List the functions of all projects, or of a project that is named.",
        "GET",
        "/v1/functions?all_projects=true",
    ),
    base.rule(
        SHOW,
        base.PROJECT_READER,
        "Show a function of the caller's project.",
        "GET",
        "/v1/functions/{function_id}",
    ),
    base.rule(
        SHOW_ALL,
        base.ADMIN,
        "See a function of another project: to whom this is not granted it does not exist.",
        "GET",
        "/v1/functions/{function_id}",
    ),
    base.rule(
        DOWNLOAD,
        base.PROJECT_READER,
        "Download the package of a function.",
        "GET",
        "/v1/functions/{function_id}?download=true",
    ),
    base.rule(
        UPDATE,
        base.PROJECT_OWNER,
        "Change a function.",
        "PUT",
        "/v1/functions/{function_id}",
    ),
    base.rule(
        DELETE,
        base.PROJECT_OWNER,
        "Delete a function.",
        "DELETE",
        "/v1/functions/{function_id}",
    ),
]
