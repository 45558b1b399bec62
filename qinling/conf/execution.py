"""[execution]: how executions get to workers. API and engine must have the same values."""

from oslo_config import cfg

GROUP = "execution"

#: Bytes of a result, as the shortest JSON, or of a log that can be written down. In a statement
#: each may become two, and MariaDB takes 16 MiB of one (``max_allowed_packet``).
MAX_KEPT = 7 * 1024**2

OPTS = [
    cfg.StrOpt(
        "secret",
        secret=True,
        help="Key with which the keys of workers are kept in the database: 32 bytes as base64 for "
        "URLs, as `openssl rand -base64 32 | tr +/ -_` prints. API and engine need the same one. "
        "When it changes, the workers that functions have are let go.",
    ),
    cfg.FloatOpt(
        "start_timeout",
        default=60.0,
        min=1.0,
        max=3600.0,
        help="How long an execution waits for a worker to run it (seconds). It ends in error then.",
    ),
    cfg.FloatOpt(
        "import_timeout",
        default=30.0,
        min=1.0,
        max=600.0,
        help="How long the import of a function's module may take in a worker (seconds).",
    ),
    cfg.IntOpt(
        "import_memory",
        default=256,
        min=16,
        max=65536,
        help="Memory that the import of a function's module may take in a worker (MiB).",
    ),
    cfg.IntOpt(
        "max_processes",
        default=150,
        min=20,
        max=32768,
        help="How many processes, threads counted, a worker may have where it has its user id for "
        "itself: with the local orchestrator and an engine that runs as root, and with "
        "`[kubernetes] user_namespaces`. Its server's count, too. Elsewhere it does not hold.",
    ),
    cfg.IntOpt(
        "max_result_size",
        default=1048576,
        min=1024,
        max=MAX_KEPT,
        help="Largest output of a function, as JSON (bytes). One that answers more has failed.",
    ),
    cfg.IntOpt(
        "max_log_size",
        default=1048576,
        min=1024,
        max=MAX_KEPT,
        help="How much of what an execution prints is kept (bytes).",
    ),
]
