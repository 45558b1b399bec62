"""The configuration: one module per group, no global state.

``load`` makes a ``ConfigOpts`` of its own, which is handed on from there.
"""

import contextlib
import io
import re
import sys
from collections.abc import Iterator, Sequence

from oslo_config import cfg
from oslo_db import options as db_options
from oslo_log import log
from oslo_middleware import cors, http_proxy_to_wsgi
from oslo_middleware.healthcheck import opts as healthcheck_opts

from qinling import exceptions, policies
from qinling.conf import (
    api,
    engine,
    execution,
    kubernetes,
    local,
    logs,
    orchestrator,
    pecan,
    resource_limits,
    storage,
)

MODULES = (api, pecan, engine, execution, resource_limits, storage, orchestrator, local, kubernetes)

# Connections to the database that a process keeps, and has at most beyond these. Each of the latter
# is closed when it was used: a process whose threads use more than it keeps spends most of its time
# with making them.
_POOL = {"max_pool_size": 32, "max_overflow": 32}

# How oslo.config writes which file a value is from, and the file.
_LOCATION = re.compile(r"LocationInfo\(.*?detail='(.*?)'\)")


def register(conf: cfg.ConfigOpts) -> None:
    """Register every option that the service reads."""
    for module in MODULES:
        conf.register_opts(module.OPTS, group=module.GROUP)
    logs.register(conf)
    cfg.set_defaults(db_options.database_opts, **_POOL)
    db_options.set_defaults(conf)
    policies.set_defaults(conf)
    # What a page in a browser needs to call this API and to read its answers.
    cors.set_defaults(
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        allow_headers=["X-Auth-Token", "X-OpenStack-Request-ID", "Idempotency-Key"],
        expose_headers=["X-OpenStack-Request-ID", "Retry-After"],
    )
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
        with checked(conf), contextlib.redirect_stderr(said):
            conf(
                list(argv),
                project="qinling",
                prog=prog,
                version=version(),
                default_config_files=list(files) if files is not None else None,
            )
        logs.setup(conf)
    except (log.LogConfigError, ValueError, OSError) as error:
        raise _mistake(conf, error) from error
    except SystemExit as end:
        if not end.code:
            raise  # --help or --version
        # argparse has told how it is used, and in its last line what was wrong.
        raise exceptions.StartupError(said.getvalue().strip().rpartition("\n")[2]) from end
    return conf


@contextlib.contextmanager
def checked(conf: cfg.ConfigOpts, where: str = "") -> Iterator[None]:
    """Where a library registers and reads options of its own, also those that it would read later.

    :param where: what to tell of a mistake first; by default the program.
    :raises StartupError: an option is malformed or out of range.
    """
    try:
        yield
        _read_all(conf)
    except cfg.NoSuchOptError as error:
        # Not its text: the value may be a password with this character.
        text = "a value has a $ and, behind it, the name of no option; write $$ for the character."
        raise _mistake(conf, text, where) from error
    except cfg.Error as error:
        raise _mistake(conf, error, where) from error


def _read_all(conf: cfg.ConfigOpts) -> None:
    """Look at each value once, so that a bad one is told at start, not when it is used."""
    for value in conf.values():
        if isinstance(value, cfg.ConfigOpts.GroupAttr):
            dict(value)


def _mistake(
    conf: cfg.ConfigOpts, error: Exception | str, where: str = ""
) -> exceptions.StartupError:
    text = _LOCATION.sub(r"\1", _one_line(error))
    return exceptions.StartupError(f"{where or f'{conf.prog}: configuration'}: {text}")


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


def version() -> str:
    """The installed version, read only when somebody asks."""
    from importlib import metadata

    return metadata.version("qinling")


def fail(error: Exception) -> int:
    """Tell on one line why a program cannot go on; its exit code."""
    print(_one_line(error), file=sys.stderr)
    return 1
