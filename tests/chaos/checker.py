"""What must hold of every history: each rule yields a sentence for each breach of it."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from qinling.db.services import LEASE
from tests.chaos.history import Aftermath, Execution, Harm, History, time

#: Statuses of answers that a client has to live with: try again later.
LATER = {429, 503}


def check(history: History, found: Aftermath) -> list[str]:
    """All that is wrong; empty when nothing is."""
    return [breach for rule in RULES for breach in rule(history, found)]


def every_execution_has_ended(history: History, found: Aftermath) -> Iterator[str]:
    for row in found.rows:
        if row["status"] not in ("success", "failed", "error"):
            yield f"execution {row['id']} is {row['status']} for ever"
        elif not isinstance(row["result"], str) or "output" not in json.loads(row["result"]):
            yield f"execution {row['id']} has ended without an output: {row['result']}"


def what_was_accepted_is_there(history: History, found: Aftermath) -> Iterator[str]:
    ids = {row["id"] for row in found.rows}
    for call in history.calls:
        if call.answer is not None and call.answer["id"] not in ids:
            yield f"execution {call.answer['id']} was accepted, and is not there"


def no_call_became_two_executions(history: History, found: Aftermath) -> Iterator[str]:
    for key, times in Counter(key_of(row) for row in found.rows).items():
        if times > 1:
            yield f"call {key} became {times} executions"


def nothing_ran_twice(history: History, found: Aftermath) -> Iterator[str]:
    for key, times in Counter(run.key for run in found.runs).items():
        if times > 1:
            yield f"call {key} ran {times} times"


def what_was_answered_stands_in_the_row(history: History, found: Aftermath) -> Iterator[str]:
    rows = {row["id"]: row for row in found.rows}
    answered = [call.answer for call in history.calls if call.answer is not None]
    for seen in (*answered, *history.shown):
        row = rows.get(seen["id"])
        if row is not None and _as_it_may_change(seen) != _as_it_may_change(row, seen):
            yield f"execution {seen['id']} was answered as {dict(seen)}, and is {dict(row)}"


def a_synchronous_call_is_answered_with_its_end(
    history: History, found: Aftermath
) -> Iterator[str]:
    for call in history.calls:
        if call.sync and call.answer is not None and call.answer["status"] == "running":
            yield f"synchronous execution {call.answer['id']} was answered before its end"


def what_is_told_of_a_run_is_true(history: History, found: Aftermath) -> Iterator[str]:
    runs = {run.key: run for run in found.runs}
    for row in found.rows:
        run = runs.get(key_of(row))
        if row["status"] == "success":
            said = output_of(row)
            if run is None:
                yield f"execution {row['id']} is a success that never ran"
            elif said != [run.key, run.number]:
                yield f"execution {row['id']} of {run} has the output {said}"
        if run is not None and found.workers.get(row["id"]) != run.worker_id:
            yield (
                f"execution {row['id']} ran in worker {run.worker_id}, and its row names "
                f"{found.workers.get(row['id'])}"
            )


def nothing_ran_that_nobody_accepted(history: History, found: Aftermath) -> Iterator[str]:
    keys = {key_of(row) for row in found.rows}
    for run in found.runs:
        if run.key not in keys:
            yield f"call {run.key} ran, and is no execution"


def no_old_code_ran_after_an_answered_update(history: History, found: Aftermath) -> Iterator[str]:
    calls = {call.key: call for call in history.calls}
    for run in found.runs:
        call = calls.get(run.key)
        if call is not None and run.number < call.number:
            yield (
                f"call {run.key} began when code {call.number} had been answered, and ran code "
                f"{run.number}"
            )


def a_worker_has_one_code_of_one_function(history: History, found: Aftermath) -> Iterator[str]:
    functions = {key_of(row): row["function_id"] for row in found.rows}
    had = defaultdict(set)
    for run in found.runs:
        had[run.worker_id].add((functions.get(run.key), run.number))
    for worker_id, codes in had.items():
        if len(codes) > 1:
            yield f"worker {worker_id} had the codes {sorted(map(str, codes))}"


def nothing_failed_but_what_lost_its_worker_or_its_owner(
    history: History, found: Aftermath
) -> Iterator[str]:
    killed = {harm.name for harm in history.harms if harm.kind == "worker" and not harm.seconds}
    ran = {run.key for run in found.runs}
    for row in found.rows:
        if row["status"] == "success" or found.workers.get(row["id"]) in killed:
            continue
        harms = [harm for harm in history.harms if _took_its_owner(harm, row)]
        if key_of(row) in ran:
            # Another process asks its worker how it ended, unless that has gone, too; but one that
            # was only asleep may send it when nobody counts on that any more.
            harms = [harm for harm in harms if harm.kind == "all" or harm.seconds]
        if not harms:
            yield f"execution {row['id']} is {row['status']} for no reason: {output_of(row)}"


def executions_are_counted(history: History, found: Aftermath) -> Iterator[str]:
    there = Counter(row["function_id"] for row in found.rows)
    for function_id, count in found.counts.items():
        if there[function_id] != count:
            yield f"function {function_id} counts {count} executions, and has {there[function_id]}"


def refusals_say_when_to_try_again(history: History, found: Aftermath) -> Iterator[str]:
    for refusal in history.refusals:
        if refusal.status not in LATER or refusal.retry_after is None:
            yield f"{refusal.asked} was answered with {refusal.status}: {refusal.text}"


RULES: tuple[Callable[[History, Aftermath], Iterator[str]], ...] = (
    every_execution_has_ended,
    what_was_accepted_is_there,
    no_call_became_two_executions,
    nothing_ran_twice,
    what_was_answered_stands_in_the_row,
    a_synchronous_call_is_answered_with_its_end,
    what_is_told_of_a_run_is_true,
    nothing_ran_that_nobody_accepted,
    no_old_code_ran_after_an_answered_update,
    a_worker_has_one_code_of_one_function,
    nothing_failed_but_what_lost_its_worker_or_its_owner,
    executions_are_counted,
    refusals_say_when_to_try_again,
)


def key_of(row: Execution) -> str:
    """What the client called it that asked for an execution."""
    return str(json.loads(row["input"])["key"])


def output_of(row: Execution) -> object:
    return json.loads(row["result"] or "{}").get("output")


#: What an end changes.
_CHANGING = ("status", "result", "updated_at")


def _as_it_may_change(row: Execution, seen: Execution | None = None) -> dict[str, object]:
    """A row, but for what changed after it was ``seen``, if it was running then."""
    seen = row if seen is None else seen
    left_out = _CHANGING if seen["status"] == "running" else ()
    return {name: value for name, value in row.items() if name not in left_out}


def _took_its_owner(harm: Harm, row: Execution) -> bool:
    """Whether a process that may have had an execution was lost while it ran.

    A database that is away takes what was sent to nobody yet: that it is accepted, or who is to get
    it, could not be written down. One that slept for as long as leases hold takes them all.
    """
    owners = {"api" if row["sync"] else "engine", "all", "database"}
    lost = harm.kind in owners and (harm.seconds is None or harm.seconds >= LEASE)
    began, ended = time(row["created_at"]), row["updated_at"] and time(row["updated_at"])
    return lost and harm.at >= began and (not ended or harm.at <= ended)


def summary(history: History, found: Aftermath) -> str:
    """What there was, in a line."""
    ends = Counter(row["status"] for row in found.rows)
    harms = Counter(
        f"{harm.kind} {'killed' if harm.seconds is None else 'stopped'}" for harm in history.harms
    )
    lost = sum(call.answer is None for call in history.calls)
    times = [time(row["created_at"]) for row in found.rows]
    seconds = (max(times) - min(times)).total_seconds() if times else 0.0
    rate = len(times) / max(seconds, 1.0)
    parts = [
        f"{len(history.calls)} calls ({lost} without an answer)",
        f"{len(found.rows)} executions ({_counted(ends)}), {rate:.0f}/s",
        f"{len(found.runs)} runs in {len({run.worker_id for run in found.runs})} workers",
        f"{max((run.number for run in found.runs), default=0)} codes at most",
        _counted(harms) or "no harm",
    ]
    return "; ".join(parts)


def _counted(found: "Counter[str]") -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(found.items()))
