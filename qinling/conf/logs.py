"""What the log of every program looks like: our defaults of oslo.log's options."""

import logging

from oslo_config import cfg
from oslo_log import _options, log

LEVELS = [
    *log.get_default_log_levels(),
    "alembic=WARN",
    "amqp=WARN",
    "kombu=WARN",
    "keystonemiddleware=INFO",
    # It tells each error that it hands on, with a traceback; who gets it tells it too.
    "oslo_db.sqlalchemy.exc_filters=ERROR",
]


class _Record(logging.LogRecord):
    """A line that says what its author wrote.

    Behind a warning that is made while an exception is handled oslo.log writes
    the exception once more, and no format keeps it from that. Our warnings name
    what they are about; the summary stays with a traceback, which it introduces.
    """

    @property
    def error_summary(self) -> str:
        return str(self.__dict__.get("error_summary", ""))

    @error_summary.setter
    def error_summary(self, summary: str) -> None:
        self.__dict__["error_summary"] = summary if self.exc_info else ""


def register(conf: cfg.ConfigOpts) -> None:
    log.register_options(conf)
    log.set_defaults(default_log_levels=LEVELS)
    # Standard output is for what a program was asked to print.
    cfg.set_defaults(_options.generic_log_opts, use_stderr=True)


def setup(conf: cfg.ConfigOpts) -> None:
    """:raises LogConfigError: the file that configures the log is not fit for use."""
    logging.setLogRecordFactory(_Record)
    log.setup(conf, "qinling")
