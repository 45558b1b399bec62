"""[keystone_authtoken]: keystonemiddleware's options, with defaults of this service.

keystonemiddleware takes a second to import, so this module is imported only
where tokens are checked, and to write the sample of the configuration.
"""

from keystonemiddleware import auth_token
from keystonemiddleware.auth_token import _opts
from oslo_config import cfg

GROUP = "keystone_authtoken"


def set_defaults() -> None:
    cfg.set_defaults(
        _opts._OPTS,
        # Seconds. As it comes, a Keystone that hangs would hold a call for ever.
        http_connect_timeout=5,
        http_request_max_retries=1,
        # What access rules of application credentials call this service.
        service_type="function-engine",
    )


def register(conf: cfg.ConfigOpts) -> None:
    set_defaults()
    for group, options in auth_token.list_opts():
        conf.register_opts(options, group=group)
