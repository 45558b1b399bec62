"""[orchestrator]: where workers run."""

from oslo_config import cfg

GROUP = "orchestrator"

OPTS = [
    cfg.StrOpt(
        "driver",
        default="local",
        help="What runs the workers: the name of an entry point in `qinling.orchestrator`. "
        "`local` runs them as processes on the engine's own host.",
    ),
]
