"""[engine]: keeping what is as it should be."""

import socket

from oslo_config import cfg

GROUP = "engine"

OPTS = [
    cfg.StrOpt(
        "host",
        # Not an address: a host's name may have what DNS does not allow.
        regex=r"^\S{1,200}$",
        default=socket.gethostname(),
        sample_default="<the host's name>",
        help="Name of this host, unique among the hosts of one installation. Engines that keep "
        "workers on their own host are told apart by it.",
    ),
    cfg.IntOpt(
        "pool_size",
        default=3,
        min=1,
        max=1000,
        help="Warm workers in the pool of each runtime (workers).",
    ),
    cfg.IntOpt(
        "reconcile_threads",
        default=8,
        min=1,
        max=256,
        help="Resources that one engine looks at side by side (threads).",
    ),
    cfg.FloatOpt(
        "unsettled_interval",
        default=5.0,
        min=0.1,
        max=600.0,
        help="How often the rows that are not yet as they should be are looked at again, in "
        "seconds. This is what the loss of a message costs at most.",
    ),
    cfg.FloatOpt(
        "settled_interval",
        default=540.0,
        min=1.0,
        max=86400.0,
        help="Time in which every settled row is looked at once, in seconds.",
    ),
    cfg.FloatOpt(
        "orphan_grace",
        default=600.0,
        min=0.0,
        max=604800.0,
        help="How long a pool whose runtime is not in the database is left alone before it is "
        "removed, in seconds. It is named in the log at once: a restored old database must not "
        "cost its pools without a warning.",
    ),
    cfg.IntOpt(
        "function_concurrency",
        default=3,
        min=1,
        max=100,
        help="Executions that one worker runs at a time. API and engine need the same value.",
    ),
    cfg.IntOpt(
        "max_workers_per_function",
        default=10,
        min=1,
        max=1000,
        help="Workers that a version of a function gets at most. API and engine need the same "
        "value.",
    ),
    cfg.FloatOpt(
        "function_service_expiration",
        default=3600.0,
        min=1.0,
        max=31536000.0,
        help="How long a version of a function keeps its workers without an execution (seconds).",
    ),
    cfg.IntOpt(
        "execution_threads",
        default=200,
        min=1,
        max=2000,
        help="Executions that one engine has under way at a time (threads): asynchronous ones and "
        "those of images. A project has at most three quarters of them, and of several projects "
        "none more than the others while all ask for more. For the ends of executions that a dead "
        "process has left there are as many again.",
    ),
    cfg.IntOpt(
        "execution_retention",
        default=0,
        min=0,
        max=315360000,
        help="How long an execution and its log are kept from its end on (seconds); 0 keeps them "
        "for ever.",
    ),
]
