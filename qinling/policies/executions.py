"""Who may do what with executions."""

from qinling.policies import base

CREATE = "execution:create"
LIST = "execution:list"
LIST_ALL = "execution:list:all_projects"
SHOW = "execution:show"
SHOW_ALL = "execution:show:all_projects"
SHOW_LOG = "execution:show_log"
DELETE = "execution:delete"


rules = [
    base.rule(CREATE, base.PROJECT_MEMBER, "Run a function.", "POST", "/v1/executions"),
    base.rule(
        LIST,
        base.PROJECT_READER,
        "List the executions of the caller's project.",
        "GET",
        "/v1/executions",
    ),
    base.rule(
        LIST_ALL,
        base.ADMIN,
        "List the executions of all projects, or of a project that is named.",
        "GET",
        "/v1/executions?all_projects=true",
    ),
    base.rule(
        SHOW,
        base.PROJECT_READER,
        "Show an execution of the caller's project.",
        "GET",
        "/v1/executions/{execution_id}",
    ),
    base.rule(
        SHOW_ALL,
        base.ADMIN,
        "See an execution of another project: to whom this is not granted it does not exist.",
        "GET",
        "/v1/executions/{execution_id}",
    ),
    base.rule(
        SHOW_LOG,
        base.PROJECT_READER,
        "Show what an execution printed.",
        "GET",
        "/v1/executions/{execution_id}/log",
    ),
    base.rule(
        DELETE,
        base.PROJECT_MEMBER,
        "Stop an execution and delete it.",
        "DELETE",
        "/v1/executions/{execution_id}",
    ),
]
