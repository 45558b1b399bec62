"""Who may do what with versions of functions."""

from qinling.policies import base

CREATE = "function_version:create"
LIST = "function_version:list"
SHOW = "function_version:show"
DOWNLOAD = "function_version:download"
DELETE = "function_version:delete"

_PATH = "/v1/functions/{function_id}/versions"


rules = [
    base.rule(
        CREATE,
        base.PROJECT_MEMBER,
        "Create a version of a function of the caller's project. Those of other projects have none "
        "that could be created.",
        "POST",
        f"{_PATH}",
    ),
    base.rule(LIST, base.PROJECT_READER, "List the versions of a function.", "GET", f"{_PATH}"),
    base.rule(
        SHOW, base.PROJECT_READER, "Show a version of a function.", "GET", f"{_PATH}/{{version}}"
    ),
    base.rule(
        DOWNLOAD,
        base.PROJECT_READER,
        "Download the package of a version of a function.",
        "GET",
        f"{_PATH}/{{version}}?download=true",
    ),
    base.rule(
        DELETE,
        base.PROJECT_MEMBER,
        "Delete a version of a function of the caller's project.",
        "DELETE",
        f"{_PATH}/{{version}}",
    ),
]
