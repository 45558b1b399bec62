"""``application``, for uWSGI, gunicorn and mod_wsgi.

Made when this is imported, so that a mistake in the configuration stops the
server at its start. The server may fork after that: connections and threads are
made when they are first used. Configuration files are named by
``OS_QINLING_CONFIG_FILES`` (separated by ``:``), by default those of
oslo.config (``/etc/qinling/qinling.conf``).
"""

import os
import sys
from typing import TYPE_CHECKING

from qinling import conf, exceptions, rpc
from qinling.api import app
from qinling.db import api as db_api

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def build() -> "WSGIApplication":
    """The application as configured.

    :raises StartupError: it cannot start.
    """
    named = os.environ.get("OS_QINLING_CONFIG_FILES")
    options = conf.load([], "qinling-api", files=named.split(":") if named else None)
    db = db_api.Database(options)
    db.check()
    app.prepare(options, db)
    db.dispose()
    return app.build(options, db, rpc.EngineClient(options))


try:
    application = build()
except exceptions.StartupError as error:
    sys.exit(conf.fail(error))
