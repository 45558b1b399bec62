"""Where the packages of functions are kept, and what may be in them."""

from oslo_config import cfg

from qinling.storage import base, file_system


def load(conf: cfg.ConfigOpts) -> base.PackageStore:
    """The configured store. Nothing of it is touched before it is used."""
    return file_system.FileSystemStore(conf.storage.directory)
