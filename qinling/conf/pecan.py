"""[pecan]: the switch that the contract places here."""

from oslo_config import cfg

GROUP = "pecan"

OPTS = [
    cfg.BoolOpt(
        "auth_enable",
        default=True,
        help="Whether callers must bring a Keystone token. When false, every caller is admin of "
        "the project `default`: only for one user on one host.",
    ),
]
