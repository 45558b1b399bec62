"""What runs workers. The engine knows it through ``base.Orchestrator`` alone."""

from typing import Any

from oslo_config import cfg
from stevedore import driver, exception

from qinling import exceptions
from qinling.orchestrator import base

NAMESPACE = "qinling.orchestrator"


def load(conf: cfg.ConfigOpts, **options: Any) -> base.Orchestrator:
    """The configured orchestrator, not yet started.

    :param options: what this one takes beside ``conf``.
    :raises StartupError: no such driver is installed, or it cannot work here.
    """
    name = conf.orchestrator.driver
    try:
        manager = driver.DriverManager(
            NAMESPACE,
            name,
            invoke_on_load=True,
            invoke_args=(conf,),
            invoke_kwds=options,
            on_load_failure_callback=_raise,
        )
    except exception.NoMatches as error:
        raise exceptions.StartupError(
            f"[orchestrator] driver: there is no driver named {name!r}."
        ) from error
    loaded: base.Orchestrator = manager.driver
    return loaded


def _raise(_manager: object, _entry_point: object, error: Exception) -> None:
    raise error
