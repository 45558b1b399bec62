"""The personas that all rules are made of."""

from oslo_policy import policy

ADMIN = "rule:admin"
PROJECT_OWNER = "rule:project_owner"
PROJECT_MEMBER = "rule:project_member"
PROJECT_READER = "rule:project_reader"

PROJECT_SCOPE = ["project"]

rules = [
    policy.RuleDefault(
        "admin",
        "role:admin",
        description="The operator of the cloud.",
        scope_types=PROJECT_SCOPE,
    ),
    policy.RuleDefault(
        "project_owner",
        "(role:admin or role:member) and project_id:%(project_id)s",
        description="Whoever may change what only the project itself changes: no operator "
        "of the cloud who is not in it.",
        scope_types=PROJECT_SCOPE,
    ),
    policy.RuleDefault(
        "project_member",
        "rule:admin or (role:member and project_id:%(project_id)s)",
        description="Whoever may change what is in a project.",
        scope_types=PROJECT_SCOPE,
    ),
    policy.RuleDefault(
        "project_reader",
        "rule:admin or (role:reader and project_id:%(project_id)s)",
        description="Whoever may look at what is in a project.",
        scope_types=PROJECT_SCOPE,
    ),
]


def rule(
    name: str, check: str, description: str, method: str, *paths: str
) -> policy.DocumentedRuleDefault:
    """A rule on a call, with the project of a token for its scope.

    :param paths: the URLs that the call has.
    """
    return policy.DocumentedRuleDefault(
        name=name,
        check_str=check,
        description=description,
        operations=[{"method": method, "path": path} for path in paths],
        scope_types=PROJECT_SCOPE,
    )
