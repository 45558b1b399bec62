"""What goes wrong with a database, in this service's words.

Two readers: the client of a call, who is told to come back, and the operator
whose program does not start, who is told what is wrong with ``[database]
connection`` and never what password is in it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator

import sqlalchemy as sa
from oslo_db import exception as db_exc
from sqlalchemy import exc as sa_exc

from qinling import exceptions

_AWAY = (
    db_exc.DBConnectionError,
    db_exc.CantStartEngineError,
    db_exc.DBNonExistentDatabase,
    sa_exc.TimeoutError,
    # Unlike all others it comes as it is when it refuses a connection.
    sa_exc.OperationalError,
)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Around a transaction.

    :raises DatabaseUnavailable: nothing was wrong with the query.
    """
    try:
        yield
    except (db_exc.DBError, sa_exc.TimeoutError, sa_exc.DBAPIError, sqlite3.Error) as error:
        cause = driver_error(error)
        if isinstance(error, _AWAY) and not isinstance(cause, sqlite3.Error):
            text = "The database does not answer for now; try again."
        elif _passes(error, cause):
            text = f"The database cannot do this for now: {cause}."
        else:
            raise
        raise exceptions.DatabaseUnavailable(text) from cause


def _passes(error: BaseException, cause: BaseException) -> bool:
    """Whether it may go well at another time: a deadlock; with SQLite a full disk, a lock."""
    if isinstance(cause, sqlite3.Error):
        # Other subclasses of DatabaseError are mistakes in the query.
        return type(cause) in (sqlite3.OperationalError, sqlite3.DatabaseError)
    return isinstance(getattr(error, "inner_exception", None), sa_exc.OperationalError)


def driver_error(error: BaseException) -> BaseException:
    """What the driver raised, without what oslo.db and SQLAlchemy put around it."""
    inner = getattr(error, "inner_exception", None) or error
    return getattr(inner, "orig", None) or inner


def parse(connection: str) -> sa.URL:
    """``[database] connection``.

    :raises StartupError: it is no URL, or not the one that was meant.
    """
    try:
        url = sa.make_url(connection)
    except (sa_exc.ArgumentError, ValueError) as error:
        # Not its text: what it takes for a port may be a piece of the password.
        raise _mistake("it is not a URL") from error
    if "@" in (url.host or ""):
        raise _mistake("an @ in the user or the password must be written as %40")
    return url


def unusable(error: Exception, url: sa.URL) -> exceptions.StartupError:
    """A first connection that ended in whatever the driver was not prepared for."""
    # The text of this one quotes the value.
    text = "" if isinstance(error, UnicodeError) else f": {error}"
    if url.password:
        text = text.replace(str(url.password), "***")
    named = f" with {', '.join(sorted(url.query))}" if url.query else ""
    return _mistake(f"no driver can use it{named} ({type(error).__name__}{text})")


def _mistake(text: str) -> exceptions.StartupError:
    return exceptions.StartupError(f"[database] connection: {text}")
