"""The WSGI application: middleware and controllers, in order, on one screen."""

from typing import TYPE_CHECKING

import webob
from oslo_config import cfg
from oslo_middleware import cors, http_proxy_to_wsgi

from qinling import policies, storage
from qinling.api.controllers import packages, root, routing
from qinling.api.middleware import auth, body, errors, forms, health, overload, request_id
from qinling.conf import api as options
from qinling.conf import resource_limits
from qinling.db import api as db_api
from qinling.db import stores
from qinling.execution.clients import Clients
from qinling.execution.dispatch import Dispatcher
from qinling.execution.lease import Lease

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from qinling.rpc import EngineNotifier


def prepare(conf: cfg.ConfigOpts, db: db_api.Database) -> None:
    """Make ready what the application writes to, once, at the start of a program.

    :raises StartupError: it cannot be used, or is another database's.
    """
    store = storage.load(conf)
    marker = store.prepare()
    db.write(stores.check, marker, conf.storage.directory, is_empty=store.is_empty())
    packages.Packages(db, store).sweep()


def build(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    engine: "EngineNotifier",
    places: overload.Places | None = None,
) -> "WSGIApplication":
    """The application over a database and whatever tells an engine.

    :param places: those that the server takes for executions too, where it does.
    :raises StartupError: an option that it reads is not fit for use.
    """
    resource_limits.bounds(conf)
    store = storage.load(conf)
    lease = Lease(conf, db, "qinling-api", driver=None, one_host=False, lost=_never)
    dispatcher = Dispatcher(conf, db, Clients(conf), engine, lease.hold)
    application: WSGIApplication = routing.Application(
        root.RootController(conf, db, engine, store, dispatcher),
        # A suffix in a URL is a part of a name.
        guess_content_type_from_ext=False,
        force_canonical=False,
        # Pecan's own looks for broken UTF-8 at each use of an attribute; JsonBody has looked.
        request_cls=webob.Request,
    )
    # From the inside out: the last one sees a request first.
    arrivals = body.Arrivals(options.arrivals(conf))
    limits = {"executions": conf.api.max_input_size}
    application = body.JsonBody(application, limits, arrivals)
    application = forms.Forms(application, store, arrivals)
    application = auth.guard(application, conf, policies.Enforcer(conf))
    application = health.Health(application, conf, db)
    if conf.oslo_middleware.enable_proxy_headers_parsing:
        application = http_proxy_to_wsgi.HTTPProxyToWSGI(application, conf)
    application = overload.Overload(application, places or make_places(conf))
    if conf.cors.allowed_origin:
        # It lets a page read answers; an error that is raised must be one before.
        application = cors.CORS(errors.Errors(application), conf)
    application = request_id.RequestId(application)
    return errors.Errors(application)


def make_places(conf: cfg.ConfigOpts) -> overload.Places:
    """Places for the executions of one process.

    :raises StartupError: they would be too many.
    """
    return overload.Places(options.inflight_executions(conf))


def _never(error: Exception) -> None:
    raise RuntimeError("an API's lease excludes nobody") from error
