"""What is left when the supervisor itself goes wrong, as nothing here can make it do."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from qinling.worker.executor import Executor
from qinling.worker.function import Function
from tests.fixtures.worker import LIMITS


class _Slots:
    """Stands in for slots whose process is asked in vain."""

    def __init__(self) -> None:
        self.given_back: list[bool] = []

    def start(self) -> None:
        pass

    def take(self) -> Any:
        def ask(*_: object) -> None:
            raise RuntimeError("a mistake of ours")

        return SimpleNamespace(child=SimpleNamespace(ask=ask, kill=lambda: None), memory=1)

    def give_back(self, _slot: object, *, reusable: bool) -> None:
        self.given_back.append(reusable)


def test_a_mistake_of_the_worker_costs_neither_a_place_nor_a_slot_and_has_an_answer() -> None:
    slots = _Slots()
    function = Function(
        function_id="f", revision=1, entry="main.main", **LIMITS | {"concurrency": 1}
    )
    executor = Executor(function, slots)  # type: ignore[arg-type]
    for execution_id in ("first", "second"):
        execution, _ = executor.executions.begin(execution_id)
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            executor.run(execution, None, 5)
        assert execution.answer is not None
        assert json.loads(execution.answer)["status"] == "failed"
    assert slots.given_back == [False, False]
