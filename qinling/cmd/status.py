"""``qinling-status upgrade check``: is this installation ready for this release?"""

import sys

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from qinling import conf, exceptions
from qinling.db import api as db_api


class Checks(upgradecheck.UpgradeCommands):  # type: ignore[misc]
    """Reads the configuration anew for each check: a bad one is a finding too."""

    def __init__(self, options: cfg.ConfigOpts) -> None:
        super().__init__()
        self._options = options

    def _check_database(self) -> upgradecheck.Result:
        try:
            db_api.Database(self._options).check()
        except exceptions.QinlingError as error:
            return upgradecheck.Result(upgradecheck.Code.FAILURE, str(error))
        return upgradecheck.Result(upgradecheck.Code.SUCCESS)

    _upgrade_checks = (("database", _check_database),)


def main() -> int:
    options = cfg.ConfigOpts()
    conf.register(options)
    try:
        code: int = upgradecheck.main(options, "qinling", Checks(options), sys.argv[1:])
    except cfg.Error as error:
        return conf.fail(error)
    return code
