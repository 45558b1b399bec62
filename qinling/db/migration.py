"""The alembic migrations, behind ``qinling-db-manage`` and the checks at start."""

from typing import Any

import sqlalchemy as sa

# Imported where used below: alembic's commands are needed by few processes.

HEAD = "0009"


def head() -> str:
    """The revision that this release needs."""
    return HEAD


def current(engine: sa.Engine) -> str | None:
    """The revision of the database, None when it was never migrated."""
    version = sa.table("alembic_version", sa.column("version_num"))
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.select(version.c.version_num)).scalar()


def upgrade(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the tables to ``revision``. Doing it again changes nothing."""
    from alembic import command

    with engine.begin() as connection:
        command.upgrade(_config(connection), revision)


def history() -> list[str]:
    """One line per revision, newest first."""
    from alembic import script

    scripts = script.ScriptDirectory.from_config(_config(None))
    return [f"{step.revision}: {step.doc}" for step in scripts.walk_revisions()]


def differences(engine: sa.Engine) -> list[object]:
    """What alembic would still change to make the tables as the models have them."""
    from alembic import autogenerate
    from alembic.runtime import migration

    from qinling.db import models

    with engine.connect() as connection:
        context = migration.MigrationContext.configure(connection, opts={"compare_type": _differs})
        found: list[object] = autogenerate.compare_metadata(context, models.Base.metadata)
        return found


def _differs(context: Any, _column: Any, _model: Any, found: Any, meant: Any) -> bool | None:
    """Whether a type is another one; None leaves it to alembic, which looks at no fractions."""
    fsp = getattr(meant.dialect_impl(context.dialect), "fsp", None)
    return True if getattr(found, "fsp", None) != fsp else None


def _config(connection: sa.Connection | None):  # type: ignore[no-untyped-def]
    from alembic import config

    settings = config.Config()
    settings.set_main_option("script_location", "qinling.db:migrations")
    settings.attributes["connection"] = connection
    return settings
