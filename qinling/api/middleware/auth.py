"""Who calls: a Keystone token, or nobody in particular.

Sets ``environ["qinling.context"]``. Nothing that a client sends counts but its
token: keystonemiddleware takes inbound identity headers away before it sets
its own, and without Keystone no header is looked at.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from oslo_config import cfg

from qinling import context, policies
from qinling.api.middleware.errors import REQUEST_ID
from qinling.api.middleware.request_id import GLOBAL_REQUEST_ID

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CONTEXT = "qinling.context"
PUBLIC = frozenset({"", "/", "/v1", "/v1/", "/healthcheck"})
DEFAULT_PROJECT = "default"

MakeContext = Callable[["WSGIEnvironment"], context.RequestContext]


class _Contexts:
    """Puts the context of the caller where the controllers find it."""

    def __init__(self, application: "WSGIApplication", make: MakeContext) -> None:
        self._application = application
        self._make = make

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        environ[CONTEXT] = self._make(environ)
        return self._application(environ, start_response)


class _Public:
    """Lets the URLs that need no token past the middleware that asks for one."""

    def __init__(self, application: "WSGIApplication", guarded: "WSGIApplication") -> None:
        self._application = application
        self._guarded = guarded

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        public = environ.get("PATH_INFO", "") in PUBLIC
        return (self._application if public else self._guarded)(environ, start_response)


def guard(
    application: "WSGIApplication", conf: cfg.ConfigOpts, enforcer: policies.Enforcer
) -> "WSGIApplication":
    """``application`` behind Keystone, or open to all as admin of one project."""
    if not conf.pecan.auth_enable:
        return _Contexts(application, lambda environ: _open_context(environ, enforcer))
    # Slow to import, so only where it is used.
    from qinling.api.middleware import keystone

    known = _Contexts(application, lambda environ: _token_context(environ, enforcer))
    protected = keystone.check_tokens(known, conf)
    return _Public(application, protected)


def _open_context(
    environ: "WSGIEnvironment", enforcer: policies.Enforcer
) -> context.RequestContext:
    return context.RequestContext(
        request_id=environ[REQUEST_ID],
        global_request_id=environ.get(GLOBAL_REQUEST_ID),
        project_id=DEFAULT_PROJECT,
        roles=["admin", "member", "reader"],
        is_admin=True,
        enforcer=enforcer,
    )


def _token_context(
    environ: "WSGIEnvironment", enforcer: policies.Enforcer
) -> context.RequestContext:
    caller: context.RequestContext = context.RequestContext.from_environ(
        environ,
        request_id=environ[REQUEST_ID],
        global_request_id=environ.get(GLOBAL_REQUEST_ID),
        enforcer=enforcer,
    )
    return caller
