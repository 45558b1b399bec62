"""``qinling-api``: the REST API for a small installation, on cheroot."""

import sys
from collections.abc import Sequence

from oslo_log import log

from qinling import conf, rpc
from qinling.api import app
from qinling.cmd import server, service
from qinling.db import api as db_api

LOG = log.getLogger(__name__)


# Seconds after which a thread that computes lets another one go on. The sender
# of casts would otherwise hold up each request for up to Python's 5 ms.
_SWITCH_INTERVAL = 0.0005


def prepare(argv: Sequence[str]) -> int:
    sys.setswitchinterval(_SWITCH_INTERVAL)
    options = conf.load(argv, "qinling-api")
    db = db_api.Database(options)
    db.check()
    client = rpc.EngineClient(options)
    http = server.HttpServer(
        app.build(options, db, client), options.api.host, options.api.port, options.api.threads
    )
    code = service.run([http], lambda: LOG.info("Serving at %s", server.url(http.host, http.port)))
    client.stop()
    return code


def main() -> int:
    return service.main(prepare)
