"""``qinling-api``: the REST API for a small installation, on cheroot."""

from collections.abc import Sequence

from oslo_log import log

from qinling import conf, rpc
from qinling.api import app
from qinling.cmd import server, service
from qinling.db import api as db_api

LOG = log.getLogger(__name__)


def prepare(argv: Sequence[str]) -> int:
    options = conf.load(argv, "qinling-api")
    db = db_api.Database(options)
    db.check()
    app.prepare(options, db)
    client = rpc.EngineClient(options)
    places = app.make_places(options)
    application = app.build(options, db, client, places)
    http = server.HttpServer(
        application, options.api.host, options.api.port, options.api.threads, places
    )
    process = service.Process()
    code = process.run([http], lambda: LOG.info("Serving at %s", server.url(http.host, http.port)))
    client.stop()
    return code


def main() -> int:
    return service.main(prepare)
