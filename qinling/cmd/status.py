"""``qinling-status upgrade check``: is this installation ready for this release?"""

from collections.abc import Sequence
from typing import Any

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from qinling import conf, exceptions, orchestrator
from qinling.cmd import service
from qinling.db import api as db_api


class Checks(upgradecheck.UpgradeCommands):  # type: ignore[misc]
    """What ``check`` looks at. It answers 0 (success), 1 (warning) or 2 (failure)."""

    def __init__(self, options: cfg.ConfigOpts) -> None:
        super().__init__()
        self._options = options

    def _check_database(self) -> upgradecheck.Result:
        try:
            db_api.Database(self._options).check()
        except exceptions.QinlingError as error:
            return upgradecheck.Result(upgradecheck.Code.FAILURE, str(error))
        return upgradecheck.Result(upgradecheck.Code.SUCCESS)

    def _check_orchestrator(self) -> upgradecheck.Result:
        try:
            found = orchestrator.load(self._options).check()
        except exceptions.QinlingError as error:
            found = [str(error)]
        if found:
            return upgradecheck.Result(upgradecheck.Code.FAILURE, " ".join(found))
        return upgradecheck.Result(upgradecheck.Code.SUCCESS)

    _upgrade_checks = (("database", _check_database), ("orchestrator", _check_orchestrator))


def _commands(subparsers: Any) -> None:
    subparsers.required = True
    upgrade = subparsers.add_parser("upgrade", help="what concerns an upgrade")
    upgrade.add_argument("check", choices=["check"], help="tell whether it can be started")
    upgrade.add_argument("--json", action="store_true", help="print JSON instead of a table")


def prepare(argv: Sequence[str]) -> int:
    # Not upgradecheck.main, which tells a mistake with a usage or a traceback.
    command = cfg.SubCommandOpt("command", title="commands", handler=_commands, help="what to do")
    options = conf.load(argv, "qinling-status", extra=[command])
    upgradecheck.CONF = options  # where it looks for --json
    code: int = Checks(options).check()
    return code


def main() -> int:
    return service.main(prepare)
