"""[api]: the REST server and the bounds of what it accepts."""

from oslo_config import cfg

from qinling import exceptions

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
        "waits for something occupies one of them until it has ended. A quarter of them, at most, "
        "wait for packages and other large bodies (over 64 KiB, or in chunks) that are on their "
        "way; more are refused with 429.",
    ),
    cfg.IntOpt(
        "max_inflight_executions",
        min=1,
        max=3072,
        sample_default="<three quarters of threads>",
        help="Executions whose callers one API process lets wait at a time; more are refused with "
        "429, and so are some of these while the requests of the process wait for a processor. At "
        "most three quarters of `threads`, so that other calls are answered meanwhile. Where "
        "another web server runs the API, `threads` is to say how many a process has there.",
    ),
    cfg.IntOpt(
        "max_input_size",
        default=1024**2,
        min=64 * 1024,
        # A worker takes 16 MiB, and a character may become twice as long on the way there.
        max=4 * 1024**2,
        help="Largest body of a request for an execution, its input with it (bytes). A larger one "
        "is answered with 413.",
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


def inflight_executions(conf: cfg.ConfigOpts) -> int:
    """How many executions may be waited for.

    :raises StartupError: they would leave too few threads for other calls.
    """
    most: int = conf.api.threads * 3 // 4
    given: int | None = conf.api.max_inflight_executions
    if given is not None and given > most:
        raise exceptions.StartupError(
            f"[api] max_inflight_executions = {given} is more than three quarters of [api] threads "
            f"= {conf.api.threads}, and would leave too few of them for other calls; set it to "
            f"{most} at most."
        )
    return most if given is None else given


def arrivals(conf: cfg.ConfigOpts) -> int:
    """How many bodies may be waited for, each by a thread: a quarter of those."""
    most: int = conf.api.threads // 4
    return most
