"""keystonemiddleware, with this service's errors.

Takes a second to import, so ``auth`` does it only where tokens are checked.
"""

from typing import TYPE_CHECKING, Any

from keystoneauth1 import exceptions as keystone_errors
from keystonemiddleware import auth_token
from keystonemiddleware import exceptions as middleware_errors
from oslo_config import cfg

from qinling import conf as configuration
from qinling import exceptions
from qinling.conf import keystone_authtoken

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


class _TokenCheck(auth_token.AuthProtocol):  # type: ignore[misc]
    """Knows one more kind of away: a Keystone that answers what is no answer."""

    def fetch_token(self, token: str, **options: Any) -> Any:
        try:
            return super().fetch_token(token, **options)
        except keystone_errors.ClientException as error:
            raise exceptions.Unavailable(
                "Keystone cannot be asked about the token for now; try again."
            ) from error


def check_tokens(application: "WSGIApplication", conf: cfg.ConfigOpts) -> "WSGIApplication":
    """``application`` for callers with a token that Keystone confirms.

    :raises StartupError: ``[keystone_authtoken]`` is not fit for use.
    """
    keystone_authtoken.register(conf)
    try:
        with configuration.checked(conf, f"[{keystone_authtoken.GROUP}]"):
            protected: WSGIApplication = _TokenCheck(
                application, {"oslo_config_config": conf, "delay_auth_decision": False}
            )
    except (
        keystone_errors.ClientException,
        middleware_errors.KeystoneMiddlewareException,
    ) as error:
        raise exceptions.StartupError(f"[{keystone_authtoken.GROUP}]: {error}") from error
    if conf[keystone_authtoken.GROUP].auth_type is None:
        raise exceptions.StartupError(
            f"[{keystone_authtoken.GROUP}]: auth_type is not set, so no token can be checked; "
            "without a Keystone set [pecan] auth_enable to false."
        )
    return protected
