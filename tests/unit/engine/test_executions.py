"""What an engine does with executions that it finds."""

import uuid
from typing import Any

import pytest
from oslo_config import cfg

from qinling.db import api as db_api
from qinling.db import executions
from qinling.engine.executions import Executions
from tests.fixtures.process import wait_until
from tests.unit import rows

OWNER = str(uuid.uuid4())


class Noting:
    """A double of a dispatcher, which ends at once what it is given."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.recovered: list[str] = []

    def run(self, execution: executions.Execution, *_arguments: Any) -> None:
        self.ran.append(execution.id)

    def recover(self, execution: executions.Execution, _timeout: float) -> None:
        self.recovered.append(execution.id)


@pytest.mark.parametrize("worker_id", [None, "5e3d0b5c-9b55-4f0e-8a34-6d1f4a3c7b21"])
def test_an_engine_goes_on_with_what_it_took_when_the_database_could_not_answer(
    conf: cfg.ConfigOpts, db: db_api.Database, worker_id: str | None
) -> None:
    function = rows.insert_function(db, runtime_id=rows.insert_one(db).id)
    values = rows.asked(function) | {"owner": OWNER, "worker_id": None}
    execution = db.write(executions.create, values, function.revision)
    sent = executions.Table.update().values(worker_id=worker_id)
    db.write(lambda connection: connection.execute(sent))
    dispatcher = Noting()
    engine = Executions(conf, db, dispatcher, None, OWNER)  # type: ignore[arg-type]
    engine.start()
    try:
        done = dispatcher.ran if worker_id is None else dispatcher.recovered
        wait_until(lambda: execution.id in done, 10, "its execution taken up again")
    finally:
        engine.stop()
