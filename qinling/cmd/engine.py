"""``qinling-engine``: keeps what is as the database says."""

from collections.abc import Sequence

from oslo_log import log

from qinling import conf, rpc, storage
from qinling.cmd import service
from qinling.db import api as db_api
from qinling.db import stores
from qinling.engine import service as engine_service

LOG = log.getLogger(__name__)


def prepare(argv: Sequence[str]) -> int:
    options = conf.load(argv, "qinling-engine")
    db = db_api.Database(options)
    db.check()
    store = storage.load(options)
    db.write(stores.check, store.marker(), options.storage.directory, is_empty=store.is_empty())
    process = service.Process()
    engine = engine_service.load(options, db, "qinling-engine", process.fail)
    bus = rpc.EngineServer(options, engine)
    return process.run([engine, bus], lambda: LOG.info("The engine is running."))


def main() -> int:
    return service.main(prepare)
