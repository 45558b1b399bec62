"""What oslo-config-generator asks for: our options, and our defaults of others' options."""

from oslo_config import cfg

from qinling import conf


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """The entry point ``oslo.config.opts``."""
    return [(module.GROUP, list(module.OPTS)) for module in conf.MODULES]


def set_defaults() -> None:
    """The entry point ``oslo.config.opts.defaults``."""
    from qinling.conf import keystone_authtoken

    conf.register(cfg.ConfigOpts())
    keystone_authtoken.set_defaults()
