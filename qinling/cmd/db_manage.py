"""``qinling-db-manage``: makes and inspects the tables."""

from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from qinling import conf, exceptions
from qinling.cmd import service
from qinling.db import api as db_api
from qinling.db import migration


def upgrade(db: db_api.Database) -> int:
    migration.upgrade(db.engine())
    print(f"The database is at revision {migration.current(db.engine())}.")
    return 0


def current(db: db_api.Database) -> int:
    print(migration.current(db.engine()) or "none")
    return 0


def history(_db: db_api.Database) -> int:
    print("\n".join(migration.history()))
    return 0


def check(db: db_api.Database) -> int:
    """Exit code 1 when the tables are not those of this release."""
    db.check()
    differences = migration.differences(db.engine())
    if differences:
        raise exceptions.StartupError(f"The tables differ from this release's: {differences}")
    print(f"The database is at revision {migration.head()}, as this release needs it.")
    return 0


def _commands(subparsers: Any) -> None:
    subparsers.required = True
    for run, words in (
        (upgrade, "bring the tables to this release; again changes nothing"),
        (current, "print the revision of the database"),
        (history, "print all revisions, newest first"),
        (check, "fail unless the tables are those of this release"),
    ):
        subparsers.add_parser(run.__name__, help=words).set_defaults(run=run)


def prepare(argv: Sequence[str]) -> int:
    command = cfg.SubCommandOpt("command", title="commands", handler=_commands, help="what to do")
    options = conf.load(argv, "qinling-db-manage", extra=[command])
    run: Any = options.command.run
    code: int = run(db_api.Database(options))
    return code


def main() -> int:
    return service.main(prepare)
