"""[resource_limits]: what one function may have."""

from oslo_config import cfg

GROUP = "resource_limits"

OPTS = [
    cfg.IntOpt(
        "max_timeout",
        default=300,
        min=1,
        max=86400,
        help="Longest timeout that a function may have (seconds). A worker that is told to end "
        "gets ten seconds more than this for what it is running.",
    ),
]
