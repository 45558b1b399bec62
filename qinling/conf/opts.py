"""Lists the options for oslo-config-generator (the entry point ``oslo.config.opts``)."""

from oslo_config import cfg

from qinling import conf


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(module.GROUP, list(module.OPTS)) for module in conf.MODULES]
