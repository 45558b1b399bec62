"""[storage]: where the packages of functions are kept."""

from oslo_config import cfg

GROUP = "storage"

# MiB of a package, packed: the contract's.
MAX_PACKAGE = 51

OPTS = [
    cfg.StrOpt(
        "driver",
        default="file_system",
        choices=[("file_system", "a folder that API and engine share")],
        help="What keeps the packages of functions.",
    ),
    cfg.StrOpt(
        "directory",
        default="/var/lib/qinling-packages",
        help="Folder for the packages of functions. Every API and engine of one installation has "
        "the same one: they run on one host, or it is on a file system that their hosts share. The "
        "API writes to it, and an engine reads it.",
    ),
    cfg.IntOpt(
        "max_unpacked_size",
        default=256,
        min=1,
        max=65536,
        help="Largest sum of the sizes of the files in a package, unpacked (MiB).",
    ),
]
