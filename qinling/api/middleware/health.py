"""``GET /healthcheck``: oslo.middleware's, and a look at the database before it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from oslo_config import cfg
from oslo_middleware import healthcheck

from qinling import exceptions
from qinling.db import api as db_api

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PATH = "/healthcheck"


class Health:
    """Answers 200 while this process can serve, 503 while the database is away."""

    def __init__(
        self, application: "WSGIApplication", conf: cfg.ConfigOpts, db: db_api.Database
    ) -> None:
        self._application = application
        self._check = healthcheck.Healthcheck(None, conf)
        self._db = db

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != PATH:
            return self._application(environ, start_response)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            raise exceptions.MethodNotAllowed(environ["REQUEST_METHOD"], PATH, ["GET", "HEAD"])
        self._db.ping()
        environ["HTTP_ACCEPT"] = "application/json"
        answer: Iterable[bytes] = self._check(environ, start_response)
        return answer
