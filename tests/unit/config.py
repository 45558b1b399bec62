"""Configurations that are made within a test, for what runs in the test's own process."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from oslo_config import cfg

with warnings.catch_warnings():
    # Warnings are errors, but for those that libraries give about themselves as they are imported.
    warnings.simplefilter("ignore", DeprecationWarning)
    import qinling.api.app
    import qinling.rpc  # noqa: F401

from qinling import conf as configuration
from tests.fixtures.deployment import SECRET


def options(database: str | None = None, files: Sequence[Path] = ()) -> cfg.ConfigOpts:
    """The defaults of all options, but for what is in the files.

    Unlike ``conf.load`` it leaves the log to pytest.

    :param database: the database's URL.
    """
    conf = cfg.ConfigOpts()
    configuration.register(conf)
    conf([], project="qinling", default_config_files=[str(file) for file in files])
    # No power failure is tested.
    conf.set_override("sqlite_synchronous", False, group="database")
    conf.set_override("secret", SECRET, group="execution")
    if database is not None:
        conf.set_override("connection", database, group="database")
    return conf
