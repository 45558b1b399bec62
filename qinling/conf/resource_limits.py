"""[resource_limits]: what one function may have."""

from dataclasses import dataclass

from oslo_config import cfg

from qinling import exceptions

GROUP = "resource_limits"

OPTS = [
    cfg.IntOpt(
        "default_cpu",
        default=100,
        min=1,
        max=64000,
        help="Processor time of a function that asks for none (millicpu).",
    ),
    cfg.IntOpt(
        "min_cpu",
        default=100,
        min=1,
        max=64000,
        help="Least processor time that a function may ask for (millicpu).",
    ),
    cfg.IntOpt(
        "max_cpu",
        default=300,
        min=1,
        max=64000,
        help="Most processor time that a function may ask for (millicpu).",
    ),
    cfg.IntOpt(
        "default_memory",
        default=32 * 1024**2,
        min=1024**2,
        max=1024**4,
        help="Memory of an execution of a function that asks for none (bytes).",
    ),
    cfg.IntOpt(
        "min_memory",
        default=32 * 1024**2,
        min=1024**2,
        max=1024**4,
        help="Least memory that a function may ask for (bytes).",
    ),
    cfg.IntOpt(
        "max_memory",
        default=128 * 1024**2,
        min=1024**2,
        max=1024**4,
        help="Most memory that a function may ask for (bytes).",
    ),
    cfg.IntOpt(
        "default_timeout",
        default=5,
        min=1,
        max=86400,
        help="Timeout of a function that asks for none (seconds).",
    ),
    cfg.IntOpt(
        "min_timeout",
        default=1,
        min=1,
        max=86400,
        help="Shortest timeout that a function may have (seconds).",
    ),
    cfg.IntOpt(
        "max_timeout",
        default=300,
        min=1,
        max=86400,
        help="Longest timeout that a function may have (seconds). A worker that is told to end "
        "gets ten seconds more than this for what it is running.",
    ),
]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a function may ask for of one thing, and what it has when it does not."""

    least: int
    most: int
    default: int
    unit: str

    def check(self, name: str, value: int) -> None:
        """:raises BadRequest: ``value``, of the attribute ``name``, is out of bounds."""
        if not self.least <= value <= self.most:
            raise exceptions.BadRequest(
                f"{name}: {value} is not between {self.least} and {self.most} {self.unit}."
            )


# The options' names and units, by the attribute of a function.
_LIMITED = {
    "cpu": ("cpu", "millicpu"),
    "memory_size": ("memory", "bytes"),
    "timeout": ("timeout", "seconds"),
}


def bounds(conf: cfg.ConfigOpts) -> dict[str, Bounds]:
    """The bounds of each attribute of a function that has some.

    :raises StartupError: a default is not within them.
    """
    options = conf[GROUP]
    found = {}
    for attribute, (name, unit) in _LIMITED.items():
        limits = Bounds(
            options[f"min_{name}"], options[f"max_{name}"], options[f"default_{name}"], unit
        )
        if not limits.least <= limits.default <= limits.most:
            raise exceptions.StartupError(
                f"[{GROUP}] default_{name}: {limits.default} is not between min_{name} "
                f"({limits.least}) and max_{name} ({limits.most})."
            )
        found[attribute] = limits
    return found
