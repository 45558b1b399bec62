"""``application``, for uWSGI, gunicorn and mod_wsgi.

Made when it is first asked for, in the server's worker process: the server may
import this before it forks. Configuration files are named by
``OS_QINLING_CONFIG_FILES`` (separated by ``:``), by default those of
oslo.config (``/etc/qinling/qinling.conf``).
"""

import os
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from qinling import conf, exceptions
from qinling.api import app
from qinling.db import api as db_api

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_lock = threading.Lock()
_application: "WSGIApplication | None" = None


def build() -> "WSGIApplication":
    """The application as configured.

    :raises StartupError: it cannot start.
    """
    from qinling import rpc

    named = os.environ.get("OS_QINLING_CONFIG_FILES")
    options = conf.load([], "qinling-api", files=named.split(":") if named else None)
    db = db_api.Database(options)
    db.check()
    return app.build(options, db, rpc.EngineClient(options))


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """The WSGI callable."""
    global _application
    with _lock:
        if _application is None:
            try:
                _application = build()
            except exceptions.StartupError as error:
                sys.exit(conf.fail(error))
    return _application(environ, start_response)
