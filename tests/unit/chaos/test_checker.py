"""The checker of histories finds what is wrong in them, each thing by its own rule."""

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos import checker, plan
from tests.chaos.history import Aftermath, Call, Harm, History, Refusal, Run

FUNCTION = "function"
AT = dt.datetime(2026, 1, 31, 12, 0, 5)


def execution(key: str, status: str = "success", **values: Any) -> dict[str, Any]:
    """What is answered of the execution of a call."""
    output = [key, 1] if status == "success" else "Function execution failed."
    result = None if status == "running" else json.dumps({"output": output, "duration": 0.1})
    return {
        "id": f"id-of-{key}",
        "function_id": FUNCTION,
        "status": status,
        "sync": True,
        "input": json.dumps({"key": key, "nap": 0}),
        "result": result,
        "created_at": "2026-01-31 12:00:00.000001",
        "updated_at": None if status == "running" else "2026-01-31 12:00:10.000001",
    } | values


class Story:
    """A history in which all is well: one call of each kind, and a worker that was killed.

    The one whose worker was killed is an error; the answer to another one was lost.
    """

    def __init__(self) -> None:
        self.rows = {
            key: execution(key, sync=key != "async", status="error" if key == "hit" else "success")
            for key in ("sync", "async", "lost", "hit")
        }
        answers: dict[str, Any] = dict(self.rows)
        answers |= {"lost": None, "async": execution("async", "running", sync=False)}
        self.history = History(
            calls=[
                Call(key, FUNCTION, key != "async", 1, answer) for key, answer in answers.items()
            ],
            shown=[self.rows["async"]],
            harms=[Harm(AT, "worker", "struck")],
        )
        self.runs = [Run(key, 1, "struck" if key == "hit" else "worker") for key in self.rows]
        self.count = len(self.rows)

    def check(self) -> list[str]:
        return checker.check(self.history, self.aftermath())

    def aftermath(self) -> Aftermath:
        rows = list(self.rows.values())
        workers = {row["id"]: "struck" if row["status"] == "error" else "worker" for row in rows}
        return Aftermath(rows, workers, self.runs, {FUNCTION: self.count})

    def set(self, key: str, **values: Any) -> None:
        """Change a row."""
        self.rows[key] |= values

    def replace_call(self, key: str, **values: Any) -> None:
        calls = self.history.calls
        for index, call in enumerate(calls):
            if call.key == key:
                calls[index] = dataclasses.replace(call, **values)

    def replace_run(self, key: str, **values: Any) -> None:
        for index, run in enumerate(self.runs):
            if run.key == key:
                self.runs[index] = dataclasses.replace(run, **values)


def test_a_history_in_which_all_is_well_is_accepted() -> None:
    assert Story().check() == []


#: What is done to a story, and words of what is said of it.
BREACHES: dict[str, Callable[[Story], object]] = {
    "is running for ever": lambda story: story.set("lost", status="running"),
    "without an output": lambda story: story.set("lost", result=None),
    "was accepted, and is not there": lambda story: story.replace_call(
        "lost", answer=execution("lost", id="another")
    ),
    "became 2 executions": lambda story: story.rows.update(more=execution("lost", id="more")),
    "ran 2 times": lambda story: story.runs.append(story.runs[0]),
    "was answered as": lambda story: story.replace_call(
        "sync", answer=execution("sync", updated_at="2026-01-31 12:00:09")
    ),
    "id-of-async was answered as": lambda story: story.history.shown.append(
        execution("async", "error", sync=False)
    ),
    "before its end": lambda story: story.replace_call("sync", answer=execution("sync", "running")),
    "a success that never ran": lambda story: story.runs.pop(2),
    "has the output": lambda story: story.replace_run("lost", number=2),
    "its row names": lambda story: story.replace_run("lost", worker_id="other"),
    "ran, and is no execution": lambda story: story.runs.append(Run("nobody", 1, "worker")),
    "and ran code 1": lambda story: story.replace_call("async", number=2),
    "had the codes": lambda story: story.set("lost", function_id="other function"),
    "is error for no reason": lambda story: story.history.harms.clear(),
    "counts 5 executions, and has 4": lambda story: setattr(story, "count", 5),
    "was answered with 500": lambda story: story.history.refusals.append(
        Refusal("GET /", 500, "", None)
    ),
    "was answered with 503": lambda story: story.history.refusals.append(
        Refusal("GET /", 503, "", None)
    ),
}


@pytest.mark.parametrize("words", BREACHES)
def test_what_is_wrong_is_said(words: str) -> None:
    story = Story()
    BREACHES[words](story)
    assert [said for said in story.check() if words in said]


def test_each_rule_finds_something() -> None:
    found = set()
    for change in BREACHES.values():
        story = Story()
        change(story)
        found |= {rule for rule in checker.RULES if list(rule(story.history, story.aftermath()))}
    assert found == set(checker.RULES)


@pytest.mark.parametrize(
    ("harm", "excuses_one_that_ran", "excuses_one_that_did_not"),
    [
        (Harm(AT, "worker", "struck"), True, True),
        (Harm(AT, "worker", "struck", 2.0), False, False),
        (Harm(AT, "worker", "another"), False, False),
        (Harm(AT, "all", "standalone"), True, True),
        (Harm(AT, "api", "qinling-api"), False, True),
        (Harm(AT, "api", "qinling-api", 18.0), True, True),
        (Harm(AT, "api", "qinling-api", 2.0), False, False),
        (Harm(AT, "engine", "qinling-engine"), False, False),
        (Harm(AT, "database", "mariadbd"), False, True),
        (Harm(AT, "database", "mariadbd", 18.0), True, True),
        (Harm(AT, "database", "mariadbd", 2.0), False, False),
        (Harm(AT, "broker", "rabbitmq"), False, False),
        (Harm(AT + dt.timedelta(seconds=6), "api", "qinling-api"), False, False),
        (Harm(AT - dt.timedelta(seconds=6), "api", "qinling-api"), False, False),
    ],
)
def test_an_error_is_excused_by_what_took_its_worker_or_its_owner(
    harm: Harm, excuses_one_that_ran: bool, excuses_one_that_did_not: bool
) -> None:
    story = Story()
    story.history.harms[:] = [harm]
    assert (story.check() == []) is excuses_one_that_ran
    story.runs = [run for run in story.runs if run.key != "hit"]
    assert (story.check() == []) is excuses_one_that_did_not


def test_a_seed_has_the_same_blows_each_time_and_another_one_has_others() -> None:
    kinds = ("worker", "api", "engine", "database", "broker")
    assert plan.blows(1, 60, kinds) == plan.blows(1, 60, kinds)
    assert plan.blows(1, 60, kinds) != plan.blows(2, 60, kinds)
    assert {blow.kind for blow in plan.blows(1, 60, kinds)} == set(kinds)
    assert all(blow.at < 15 for blow in plan.blows(1, 15, kinds))
