"""``/v1/runtimes``, where others change a row meanwhile, and where the database is away."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from oslo_config import cfg

from qinling.db import api as db_api
from qinling.db import runtimes
from qinling.states import RuntimeStatus
from tests.fixtures.process import free_port
from tests.unit import rows
from tests.unit.api.application import Api
from tests.unit.config import options

WHOLE = runtimes.Seen(total=2, available=2, reason=None, whole=True)


class Interrupted:
    """A database in which something happens right before the API's first write."""

    def __init__(self, db: db_api.Database, happens: Callable[[], None]) -> None:
        self._db = db
        self._happens: list[Callable[[], None]] = [happens]

    def write(self, query: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        if self._happens:
            self._happens.pop()()
        return self._db.write(query, *args, **kw)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def put(conf: cfg.ConfigOpts, db: Any, runtime_id: str, **body: Any) -> dict[str, Any]:
    answer = Api(conf, db).ask("PUT", f"/v1/runtimes/{runtime_id}", body)
    assert answer.code == 200, answer
    return dict(json.loads(answer.body))


@pytest.mark.parametrize("settles", [False, True], ids=["on its way", "settled"])
def test_an_image_that_is_no_news_does_not_undo_the_change_of_another_admin(
    conf: cfg.ConfigOpts, db: db_api.Database, settles: bool
) -> None:
    runtime = rows.insert_one(db, status="available", settled=True, image="old")

    def another_admin_and_the_engine() -> None:
        assert db.write(runtimes.upgrade, runtime, {"image": "new"})
        if settles:
            upgrading = rows.find(db, runtime.id)
            status = RuntimeStatus.AVAILABLE
            assert db.write(runtimes.conclude, upgrading, status, WHOLE, previous_image=None)

    interrupted = Interrupted(db, another_admin_and_the_engine)
    shown = put(conf, interrupted, runtime.id, image="old", name="renamed")
    after = rows.find(db, runtime.id)
    assert (after.image, after.name) == ("new", "renamed")
    assert shown["image"] == "new"
    assert (after.settled, after.revision) == (settles, runtime.revision + 1)


def test_an_image_that_is_no_news_by_itself_changes_nothing(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    runtime = rows.insert_one(db, status="available", settled=True, image="old")
    assert put(conf, db, runtime.id, image="old")["image"] == "old"
    assert rows.find(db, runtime.id) == runtime


def test_a_new_image_that_lost_its_race_is_decided_anew(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    runtime = rows.insert_one(db, status="available", settled=True, image="old")

    def another_admin() -> None:
        assert db.write(runtimes.upgrade, runtime, {"image": "new"})

    interrupted: Any = Interrupted(db, another_admin)
    answer = Api(conf, interrupted).ask("PUT", f"/v1/runtimes/{runtime.id}", {"image": "newer"})
    assert answer.code == 409
    assert "image" in answer.fault()
    assert rows.find(db, runtime.id).image == "new"


def test_a_database_that_is_away_costs_the_log_one_line_for_each_request(
    conf: cfg.ConfigOpts, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"mysql+pymysql://qinling:wombat@127.0.0.1:{free_port()}/qinling"
    api = Api(conf, db_api.Database(options(url)))
    for method, path, body in (
        ("GET", "/v1/runtimes", None),
        ("POST", "/v1/runtimes", {"image": "python3"}),
        ("GET", "/healthcheck", None),
    ):
        caplog.clear()
        answer = api.ask(method, path, body)
        assert answer.code == 503
        (record,) = [record for record in caplog.records if record.levelno > logging.INFO]
        assert record.levelno == logging.WARNING
        assert record.exc_info is None
        line = record.getMessage()
        for words in (f"{method} {path} ", answer.fault(), "Connection refused"):
            assert words in line
        assert "\n" not in line
        assert "wombat" not in line


def test_a_mistake_in_a_controller_is_in_the_log_with_its_traceback(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mistake = RuntimeError("a mistake")

    def read(*_args: Any, **_kw: Any) -> Any:
        raise mistake

    monkeypatch.setattr(db, "read", read)
    assert Api(conf, db).ask("GET", "/v1/runtimes").code == 500
    (record,) = [record for record in caplog.records if record.levelno > logging.INFO]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is mistake
