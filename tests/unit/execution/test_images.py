"""What the API does of executions of images: their arguments, and waiting for their ends."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from oslo_config import cfg

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import executions
from qinling.execution.images import Awaiting, arguments
from qinling.states import ExecutionStatus
from tests.fixtures.process import wait_until
from tests.unit import rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ()),
        ("", ()),
        (" a  b\tc\n", ("a", "b", "c")),
        ('["a b", "", 1, true, {"c": [null]}]', ("a b", "", "1", "true", '{"c": [null]}')),
        ("[]", ()),
        ('{"a": "b"}', ('{"a":', '"b"}')),
        ("[a b]", ("[a", "b]")),
        ("[" * 100_000, ("[" * 100_000,)),
    ],
)
def test_an_input_is_a_list_or_split_at_blanks(text: str | None, words: tuple[str, ...]) -> None:
    assert arguments(text) == words


@pytest.mark.parametrize("text", ["a\0b", r'["a\u0000"]', r'["\ud800"]'])
def test_what_no_program_can_be_given_is_refused(text: str) -> None:
    with pytest.raises(exceptions.BadRequest, match="input"):
        arguments(text)


def test_who_waits_for_an_end_reads_what_may_be_large_but_once(
    conf: cfg.ConfigOpts, db: db_api.Database
) -> None:
    running = {"status": "running", "updated_at": None, "result": None, "owner": "engine"}
    [id_] = rows.insert_executions(db, running | {"input": "large"})
    row = db.read(executions.get, id_)
    read: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        read.append(statement)

    sa.event.listen(db.engine(), "before_cursor_execute", note)
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(Awaiting(conf, db).end_of, row, 5)
        wait_until(lambda: len(read) >= 5, 10, "some looks")
        assert not any("executions.input" in statement for statement in read)
        ended = replace(row, status=ExecutionStatus.SUCCESS, result="{}", owner=None)
        assert db.write(executions.end, ended, "")
        assert told.result(10) == ended
    assert sum("executions.input" in statement for statement in read) == 1
