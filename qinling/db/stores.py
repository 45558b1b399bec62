"""Which store has what the rows refer to. Told at the start of each program, or it would be told
function by function.
"""

import sqlalchemy as sa
from oslo_db import exception as db_exc

from qinling import exceptions
from qinling.db import models

Table: sa.Table = models.Store.__table__  # type: ignore[assignment]

_PACKAGES = "packages"


def check(connection: sa.Connection, marker: str | None, directory: str, *, is_empty: bool) -> None:
    """Note the store of packages of this database; who comes first says which it is.

    :param marker: that of the program's store, None where nobody has prepared it yet.
    :param is_empty: no package is in it.
    :raises StartupError: the database has another one, or the store another database.
    """
    query = sa.select(Table.c.marker).where(Table.c.noun == _PACKAGES).with_for_update()
    known = connection.execute(query).scalar()
    if known is None and not is_empty:
        raise exceptions.StartupError(
            f"[storage] directory {directory}: it has packages, and this database has never had "
            "a store. They are another database's, and would be removed as nothing here refers to "
            "them. Name another folder, or, if nobody needs them, delete its folder zips."
        )
    if known is None and marker is not None:
        try:
            connection.execute(sa.insert(Table).values(noun=_PACKAGES, marker=marker))
        except db_exc.DBDuplicateEntry:
            known = connection.execute(query).scalar()
    if known is not None and known != marker:
        raise exceptions.StartupError(
            f"[storage] directory {directory}: it is not the store of this database, whose marker "
            f"is {known}, and here is {marker or 'none'}. Name the folder that all APIs and "
            "engines share; or, if this one is to take its place, put that marker into its file id."
        )
