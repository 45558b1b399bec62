"""Packages that no row refers to: what a killed program left, and not what one is at."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest
from oslo_config import cfg

from qinling import exceptions, storage
from qinling.api import app
from qinling.api.controllers import packages
from qinling.db import api as db_api
from qinling.db import functions, migration
from qinling.storage import base
from qinling.storage.file_system import FileSystemStore
from tests.fixtures import zips
from tests.fixtures.process import wait_until
from tests.unit import rows
from tests.unit.api.application import Api

DAY = 86400


@pytest.fixture
def store(conf: cfg.ConfigOpts, db: db_api.Database, tmp_path: Path) -> base.PackageStore:
    conf.set_override("directory", str(tmp_path / "packages"), group="storage")
    app.prepare(conf, db)
    return storage.load(conf)


def put(conf: cfg.ConfigOpts, store: base.PackageStore, content: bytes, age: float = DAY) -> str:
    upload = store.receive()
    upload.write(content)
    digest = store.put(upload).digest
    upload.close()
    written = time.time() - age
    os.utime(Path(conf.storage.directory, "zips", digest[:2], digest), (written, written))
    return digest


def kept(conf: cfg.ConfigOpts) -> set[str]:
    return {path.name for path in Path(conf.storage.directory, "zips").glob("*/*")}


def test_a_start_removes_the_packages_that_never_got_a_row(
    conf: cfg.ConfigOpts, db: db_api.Database, store: base.PackageStore
) -> None:
    used = put(conf, store, b"used")
    rows.insert_function(db, package=used)
    new = put(conf, store, b"new", age=0)
    put(conf, store, b"left")
    app.prepare(conf, db)
    assert kept(conf) == {used, new}


def test_a_package_that_is_about_to_get_its_row_stays(
    conf: cfg.ConfigOpts, db: db_api.Database, store: base.PackageStore
) -> None:
    """It was here before, with nothing that refers to it, and is uploaded once more."""
    digest = put(conf, store, b"again")
    put(conf, store, b"left")
    with ThreadPoolExecutor(1) as pool:
        with store.holding():
            start = pool.submit(app.prepare, conf, db)
            lock = Path(conf.storage.directory, "lock").stat().st_ino
            # It waits for the exclusive lock: `->` in what the kernel tells of it.
            wait_until(lambda: f":{lock} " in _waiting(), 20, "the sweep waiting")
            rows.insert_function(db, package=digest)
        start.result(timeout=20)
    assert kept(conf) == {digest}


def test_a_new_database_does_not_take_the_packages_of_another_one_for_its_own(
    conf: cfg.ConfigOpts, db: db_api.Database, store: base.PackageStore, tmp_path: Path
) -> None:
    digest = put(conf, store, b"used")
    rows.insert_function(db, package=digest)
    conf.set_override("connection", f"sqlite:///{tmp_path / 'new.db'}", group="database")
    new = db_api.Database(conf)
    migration.upgrade(new.engine())
    for _ in range(2):
        with pytest.raises(exceptions.StartupError, match=r"packages: it has packages, and this"):
            app.prepare(conf, new)
    new.dispose()
    assert kept(conf) == {digest}


def test_a_package_whose_row_may_be_committed_yet_stays(
    conf: cfg.ConfigOpts, db: db_api.Database, store: base.PackageStore
) -> None:
    """The database went away in the middle of the commit, and ends it after it was asked again."""
    upload = store.receive()
    upload.write(b"said to be lost")
    with (
        pytest.raises(exceptions.DatabaseUnavailable),
        packages.Packages(db, store).kept(upload) as package,
    ):
        raise exceptions.DatabaseUnavailable("gone")
    upload.close()
    assert kept(conf) == {package.digest}


@pytest.mark.parametrize("change", [{"entry": "other.main"}, None], ids=["entry", "download"])
def test_who_meets_a_change_of_the_package_goes_on_with_the_new_one(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    store: base.PackageStore,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str] | None,
) -> None:
    files = {"main.py": "", "other.py": ""}
    old, content = zips.package(files), zips.package(files | {"new": ""})
    first, second = put(conf, store, old), put(conf, store, content)
    function = rows.insert_function(db, package=first, project_id="default")
    open_file = FileSystemStore.open

    def open_late(self: FileSystemStore, digest: str) -> BinaryIO:
        if digest == first:
            # Somebody else is first, between this one's look at the row and at the store.
            db.write(functions.update, function, {"package": second})
            store.remove(first, lambda: False)
        return open_file(self, digest)

    monkeypatch.setattr(FileSystemStore, "open", open_late)
    path = f"/v1/functions/{function.id}"
    if change is None:
        answer = Api(conf, db).ask("GET", f"{path}?download=true")
        assert (answer.code, answer.body) == (200, content)
    else:
        answer = Api(conf, db).ask("PUT", path, change, CONTENT_TYPE="application/json")
        assert answer.code == 200, answer.body
        found = db.read(functions.get, function.id)
        assert (found.package, found.entry) == (second, change["entry"])


def _waiting() -> str:
    lines = Path("/proc/locks").read_text().splitlines()
    return "\n".join(line for line in lines if "->" in line)
