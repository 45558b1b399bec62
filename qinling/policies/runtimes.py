"""Who may do what with runtimes."""

from qinling.policies import base

CREATE = "runtime:create"
LIST = "runtime:list"
LIST_ALL = "runtime:list:all_projects"
SHOW = "runtime:show"
SHOW_ALL = "runtime:show:all_projects"
SHOW_POOL = "runtime:show_pool"
UPDATE = "runtime:update"
DELETE = "runtime:delete"


rules = [
    base.rule(CREATE, base.ADMIN, "Create a runtime.", "POST", "/v1/runtimes"),
    base.rule(
        LIST,
        base.PROJECT_READER,
        "List the public runtimes and those of the caller's project.",
        "GET",
        "/v1/runtimes",
    ),
    base.rule(
        LIST_ALL,
        base.ADMIN,
        "List the runtimes of all projects, or of a project that is named.",
        "GET",
        "/v1/runtimes?all_projects=true",
    ),
    base.rule(
        SHOW,
        base.PROJECT_READER,
        "Show a public runtime or one of the caller's project.",
        "GET",
        "/v1/runtimes/{runtime_id}",
    ),
    base.rule(
        SHOW_ALL,
        base.ADMIN,
        "See a private runtime of another project: to whom this is not granted it does not exist.",
        "GET",
        "/v1/runtimes/{runtime_id}",
    ),
    base.rule(
        SHOW_POOL,
        base.ADMIN,
        "Show the pool of a runtime.",
        "GET",
        "/v1/runtimes/{runtime_id}/pool",
    ),
    base.rule(
        UPDATE,
        base.ADMIN,
        "Change a runtime's name, description or image.",
        "PUT",
        "/v1/runtimes/{runtime_id}",
    ),
    base.rule(DELETE, base.ADMIN, "Delete a runtime.", "DELETE", "/v1/runtimes/{runtime_id}"),
]
