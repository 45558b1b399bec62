"""The door to the database.

A query is a function that takes a connection first; ``Database.read`` and
``Database.write`` run it in a transaction of its own, again after a deadlock.
A query gets nothing but its connection, so no transaction can be open across a
call to anything else.
"""

import contextlib
import functools
import select
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from oslo_config import cfg
from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import enginefacade
from sqlalchemy import event
from sqlalchemy import exc as sa_exc

from qinling import exceptions
from qinling.db import errors, migration

P = ParamSpec("P")
T = TypeVar("T")

# A deadlock's loser tries again at once, then ever later (seconds).
_RETRIES = 10
_RETRY_INTERVAL = 0.05
_RETRY_MAX_INTERVAL = 1.0


class Database:
    """The connections of one process. Made after any fork, closed at its end."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        options = dict(conf.database)
        url = options["connection"]
        if not url:
            raise exceptions.StartupError(
                "[database] connection is not set: it names the database, "
                "as in mysql+pymysql://user:password@host/qinling?charset=utf8mb4"
            )
        self._url = errors.parse(url)
        self._facade = enginefacade.transaction_context()
        # Connecting is tried once: whoever asks gets an answer, and asks again.
        self._facade.configure(
            **{
                name: value
                for name, value in options.items()
                if name in _FACADE_OPTIONS and value is not None
            }
            # No greenlets here that would want a turn at each check-in.
            | {"max_retries": 0, "sqlite_fk": True, "thread_checkin": False}
        )
        self._facade.append_on_engine_create(_prepare)

    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, of a server that could be reached just now.

        :raises DatabaseUnavailable: it could not.
        :raises StartupError: no driver can use such a ``connection``.
        """
        try:
            engine = self._engine
            engine.connect().close()
        except (db_exc.DBError, sa_exc.DBAPIError) as error:
            raise exceptions.DatabaseUnavailable(
                f"The database cannot be reached: {errors.driver_error(error)}"
            ) from error
        except Exception as error:
            raise errors.unusable(error, self._url) from error
        return engine

    def check(self) -> None:
        """Raise ``StartupError`` unless the database answers and has today's tables."""
        try:
            current = migration.current(self.engine())
        except exceptions.DatabaseUnavailable as error:
            raise exceptions.StartupError(str(error)) from error
        if current != migration.head():
            raise exceptions.StartupError(
                f"The database is at revision {current or 'none'} and this release needs "
                f"{migration.head()}: run qinling-db-manage upgrade."
            )

    def ping(self) -> None:
        """Raise ``DatabaseUnavailable`` unless the database answers."""
        self.read(lambda connection: connection.execute(sa.text("SELECT 1")).scalar())

    def read(
        self, query: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction that writes nothing.

        :raises DatabaseUnavailable: the server is away; nothing was read.
        """

        def transaction() -> T:
            with self._engine.connect() as connection:
                return query(connection, *args, **kw)

        return _run(transaction)

    def write(
        self, query: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kw: P.kwargs
    ) -> T:
        """Run ``query(connection, …)`` in a transaction and commit it.

        :raises DatabaseUnavailable: the server is away. When it went away
            during the commit, what was written may be there or not.
        """

        def transaction() -> T:
            with self._engine.connect() as connection:
                connection.execution_options(**{_WRITES: True})
                with connection.begin():
                    result = query(connection, *args, **kw)
                connection.info[_COMMITTED] = True
                return result

        return _run(transaction)

    def dispose(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @functools.cached_property
    def _engine(self) -> sa.Engine:
        # Its connections, not enginefacade's sessions: those take a second
        # ROLLBACK to the server and a third of a millisecond for each query.
        engine: sa.Engine = self._facade.writer.get_engine()
        return engine


# What enginefacade's configure() takes of the group [database].
_FACADE_OPTIONS = frozenset(
    {
        "connection",
        "mysql_sql_mode",
        "mysql_wsrep_sync_wait",
        "connection_recycle_time",
        "connection_debug",
        "max_pool_size",
        "max_overflow",
        "pool_timeout",
        "sqlite_synchronous",
        "connection_trace",
        "connection_parameters",
    }
)


# An execution option of a connection that is going to write.
_WRITES = "qinling_writes"
# In the ``info`` of a connection that goes back to its pool with nothing open.
_COMMITTED = "qinling_committed"


def _run(transaction: Callable[[], T]) -> T:
    with errors.translated():
        result: T = _repeat(transaction)
        return result


@oslo_db_api.wrap_db_retry(  # type: ignore[untyped-decorator]
    max_retries=_RETRIES,
    retry_interval=_RETRY_INTERVAL,
    max_retry_interval=_RETRY_MAX_INTERVAL,
    inc_retry_interval=True,
    retry_on_deadlock=True,
    jitter=True,
)
def _repeat(transaction: Callable[[], T]) -> T:
    return transaction()


def _prepare(engine: sa.Engine) -> None:
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    else:
        _prepare_mysql(engine)


def _prepare_mysql(engine: sa.Engine) -> None:
    """No round trips to the server that tell and change nothing."""
    # oslo.db has each connection pinged before its use.
    engine.dialect.do_ping = _is_open  # type: ignore[assignment]
    # A pool rolls back each connection that comes back, just committed or not.
    rollback = engine.dialect.do_rollback

    def do_rollback(connection: Any) -> None:
        # SQLAlchemy's first look at a server is through a connection without ``info``.
        with contextlib.suppress(NotImplementedError):
            if connection.info.pop(_COMMITTED, False):
                return
        rollback(connection)

    engine.dialect.do_rollback = do_rollback  # type: ignore[method-assign,assignment]


def _is_open(connection: Any) -> bool:
    """Whether an idle connection of PyMySQL was not closed by the server meanwhile.

    There is nothing to be read from it then, not even its end.
    """
    if connection._sock is None:
        return False
    readable = select.poll()
    readable.register(connection._sock, select.POLLIN)
    return not readable.poll(0)


def _prepare_sqlite(engine: sa.Engine) -> None:
    """Readers beside a writer, and writers that wait for each other."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA busy_timeout = 10000")  # milliseconds
        connection.execute("PRAGMA journal_mode = WAL")

    # A writer that begins as a reader is refused where it should wait. This
    # comes before the begin that oslo.db would send, which then sends none.
    @event.listens_for(engine, "set_connection_execution_options")
    def begin(connection: sa.Connection, options: dict[str, Any]) -> None:
        if options.get(_WRITES):
            driver: Any = connection.connection.dbapi_connection
            driver.execute("BEGIN IMMEDIATE")
            connection.info["in_transaction"] = True
