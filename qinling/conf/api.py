"""[api]: the REST server and the bounds of what it accepts."""

from oslo_config import cfg

GROUP = "api"

OPTS = [
    cfg.HostAddressOpt("host", default="127.0.0.1", help="Address that qinling-api listens on."),
    cfg.PortOpt("port", default=7070, help="TCP port that qinling-api listens on."),
    cfg.IntOpt(
        "threads",
        default=64,
        min=4,
        max=4096,
        help="Requests that one qinling-api process answers at a time (threads). A call that "
        "waits for something occupies one of them until it has ended.",
    ),
    cfg.IntOpt(
        "max_limit",
        default=1000,
        min=1,
        max=100000,
        help="Largest `limit` that a list accepts (rows).",
    ),
    cfg.IntOpt(
        "unpaged_limit",
        default=20000,
        min=1,
        max=1000000,
        help="Rows answered at most to a list without `limit`. A longer list goes on at `next`.",
    ),
]
