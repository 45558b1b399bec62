"""[local]: worker processes on the engine's own host."""

from oslo_config import cfg

GROUP = "local"

OPTS = [
    cfg.StrOpt(
        "state_dir",
        default="/var/lib/qinling",
        help="Folder for the state of pools and the logs of workers. All engines of this host "
        "use the same one.",
    ),
    cfg.MultiStrOpt(
        "images",
        default=[],
        help="An image and the command that serves it, as NAME=COMMAND; given once per image. A "
        "NAME without a tag matches any tag. The command is split as a shell splits words, and no "
        "shell runs it. `python3`, `openstackqinling/python3-runtime` and "
        "`openstackqinling/python-runtime` are there from the start.",
    ),
    cfg.FloatOpt(
        "startup_timeout",
        default=30.0,
        min=0.5,
        max=3600.0,
        help="A worker that has not answered this long after its start is replaced (seconds).",
    ),
    cfg.FloatOpt(
        "shutdown_grace",
        default=10.0,
        min=0.1,
        max=3600.0,
        help="How long a worker that was told to end may take before it is killed (seconds).",
    ),
    cfg.FloatOpt(
        "probe_interval",
        default=10.0,
        min=0.1,
        max=3600.0,
        help="How often each worker is asked whether it is well (seconds). One that fails to "
        "answer three times in a row is replaced.",
    ),
    cfg.IntOpt(
        "uid_base",
        default=1879048192,
        min=1000,
        max=2147352576,
        help="When the engine runs as root each worker gets a user id of its own: this number "
        "plus the worker's TCP port; and each run of an image that is a function one of the 65536 "
        "behind those. No user of the host may have any of these 131072 ids, nor another Qinling "
        "on it: what is left of a worker is ended by its user id. The default is the start of the "
        "range that systemd's UIDS-GIDS page lists as unused.",
    ),
]
