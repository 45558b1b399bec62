"""``qinling-standalone``: API and engine in one process, on SQLite and this host."""

import base64
import fcntl
import pathlib
import secrets
from collections.abc import Sequence
from typing import IO

from oslo_config import cfg

from qinling import conf, exceptions
from qinling.api import app
from qinling.cmd import server, service
from qinling.db import api as db_api
from qinling.db import migration
from qinling.engine import service as engine_service

OPTIONS = [
    cfg.HostAddressOpt("host", default="127.0.0.1", help="Address to listen on."),
    cfg.PortOpt("port", default=7070, help="TCP port to listen on; 0 for any free one."),
    cfg.StrOpt(
        "state-dir", default="./qinling-state", help="Folder for the database and the pools."
    ),
    cfg.IntOpt("pool-size", min=1, max=1000, help="Warm workers per runtime (workers)."),
]


def lock(state_dir: pathlib.Path) -> IO[str]:
    """Hold the folder for this process.

    :raises StartupError: another one has it, or it cannot be written to.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(state_dir / "lock", "w")  # noqa: SIM115  # held for good
    except OSError as error:
        raise exceptions.StartupError(
            f"--state-dir {state_dir}: cannot be written to: {error.strerror}."
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise exceptions.StartupError(
            f"--state-dir {state_dir} is in use by another qinling-standalone."
        ) from error
    return file


def database(state_dir: pathlib.Path) -> pathlib.Path:
    """Its file, which this user alone may read, whoever may enter the folder.

    SQLite makes the files beside it with the same mode.

    :raises StartupError: it cannot be made so.
    """
    path = state_dir / "qinling.db"
    try:
        path.touch(mode=0o600)
        for each in state_dir.glob("qinling.db*"):
            each.chmod(0o600)
    except OSError as error:
        raise exceptions.StartupError(
            f"--state-dir {state_dir}: {path.name} cannot be made private: {error.strerror}."
        ) from error
    return path


def secret(state_dir: pathlib.Path) -> str:
    """The key of the folder's database, made with it, which this user alone may read.

    :raises StartupError: it cannot be read or written.
    """
    path, draft = state_dir / "secret", state_dir / "secret.new"
    try:
        if not path.exists():
            draft.touch(mode=0o600)
            draft.write_text(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
            draft.rename(path)
        return path.read_text()
    except OSError as error:
        raise exceptions.StartupError(
            f"--state-dir {state_dir}: {path.name} cannot be read or written: {error.strerror}."
        ) from error


def prepare(argv: Sequence[str]) -> int:
    options = conf.load(argv, "qinling-standalone", extra=OPTIONS, files=())
    state_dir = pathlib.Path(options.state_dir).absolute()
    held = lock(state_dir)
    # One user on one host: what a deployment configures is given here.
    options.set_default("connection", f"sqlite:///{database(state_dir)}", group="database")
    options.set_default("state_dir", str(state_dir), group="local")
    options.set_default("directory", str(state_dir / "packages"), group="storage")
    options.set_default("secret", secret(state_dir), group="execution")
    options.set_default("auth_enable", False, group="pecan")
    # A container has another name at each start; the folder's lock tells who has it.
    options.set_default("host", "localhost", group="engine")
    if options.pool_size is not None:
        options.set_override("pool_size", options.pool_size, group="engine")
    db = db_api.Database(options)
    if migration.current(db.engine()) != migration.head():
        migration.upgrade(db.engine())
    app.prepare(options, db)
    process = service.Process()
    engine = engine_service.load(options, db, "qinling-standalone", process.fail, bound=True)
    places = app.make_places(options)
    application = app.build(options, db, engine, places)
    http = server.HttpServer(application, options.host, options.port, options.api.threads, places)
    code = process.run(
        [engine, http],
        lambda: print(f"Qinling is serving at {server.url(http.host, http.port)}", flush=True),
    )
    held.close()
    return code


def main() -> int:
    return service.main(prepare)
