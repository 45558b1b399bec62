"""The configuration: one module per group, no global state.

``load`` makes a ``ConfigOpts`` of its own, which is handed on from there.
"""

import contextlib
import io
import sys
from collections.abc import Sequence

from oslo_config import cfg
from oslo_db import options as db_options
from oslo_log import _options, log
from oslo_middleware import cors, http_proxy_to_wsgi
from oslo_middleware.healthcheck import opts as healthcheck_opts

from qinling import exceptions, policies
from qinling.conf import api, engine, local, orchestrator, pecan

MODULES = (api, pecan, engine, orchestrator, local)

_LOG_LEVELS = [
    *log.get_default_log_levels(),
    "alembic=WARN",
    "amqp=WARN",
    "kombu=WARN",
    "keystonemiddleware=INFO",
]


def register(conf: cfg.ConfigOpts) -> None:
    """Register every option that the service reads."""
    for module in MODULES:
        conf.register_opts(module.OPTS, group=module.GROUP)
    log.register_options(conf)
    log.set_defaults(default_log_levels=_LOG_LEVELS)
    # Standard output is for what a program was asked to print.
    cfg.set_defaults(_options.generic_log_opts, use_stderr=True)
    db_options.set_defaults(conf)
    policies.set_defaults(conf)
    conf.register_opts(cors.CORS_OPTS, group="cors")
    conf.register_opts(http_proxy_to_wsgi.OPTS, group="oslo_middleware")
    conf.register_opts(healthcheck_opts.HEALTHCHECK_OPTS, group="healthcheck")


def load(
    argv: Sequence[str],
    prog: str,
    *,
    extra: Sequence[cfg.Opt] = (),
    files: Sequence[str] | None = None,
) -> cfg.ConfigOpts:
    """Read the configuration for a program and set up its log.

    :param argv: command line arguments, without the program's name.
    :param extra: command line options of this program alone.
    :param files: configuration files to read when the command line names none;
        by default those of oslo.config (``~/.qinling``, ``/etc/qinling``).
    :raises StartupError: an option that is unknown, malformed or out of range,
        or a file that cannot be read.
    """
    conf = cfg.ConfigOpts()
    register(conf)
    conf.register_cli_opts(extra)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            conf(
                list(argv),
                project="qinling",
                prog=prog,
                version=version(),
                default_config_files=list(files) if files is not None else None,
            )
        _read_all(conf)
        log.setup(conf, "qinling")
    except (cfg.Error, log.LogConfigError, ValueError, OSError) as error:
        raise exceptions.StartupError(f"{prog}: configuration: {_one_line(error)}") from error
    except SystemExit as end:
        if not end.code:
            raise  # --help or --version
        # argparse has told how it is used, and in its last line what was wrong.
        raise exceptions.StartupError(said.getvalue().strip().rpartition("\n")[2]) from end
    return conf


def _read_all(conf: cfg.ConfigOpts) -> None:
    """Look at each value once, so that a bad one is told at start, not when used."""
    for module in MODULES:
        for option in module.OPTS:
            conf[module.GROUP][option.dest]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def version() -> str:
    """The installed version, read only when somebody asks."""
    from importlib import metadata

    return metadata.version("qinling")


def fail(error: Exception) -> int:
    """Tell on one line why a program cannot go on; its exit code."""
    print(_one_line(error), file=sys.stderr)
    return 1
