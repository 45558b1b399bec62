"""What the API does of executions whose function is an image: an engine runs them."""

import json
import time

from oslo_config import cfg

from qinling import exceptions
from qinling.db import api as db_api
from qinling.db import executions
from qinling.execution import results

_NO_ENGINE = f"{results.FAILED} No engine has taken it in time."
# Seconds between two looks for an end, at first and at most.
_LOOK_EVERY = 0.02
_LOOK_AT_MOST = 0.25
_SLOWER = 1.3
# Seconds beyond start and timeout after which a caller waits no longer: an engine that died has
# been replaced by then, if any other one is there.
_PATIENCE = 120.0


class Awaiting:
    """Waits for the ends of executions."""

    def __init__(self, conf: cfg.ConfigOpts, db: db_api.Database) -> None:
        self._start_timeout: float = conf.execution.start_timeout
        self._db = db

    def end_of(self, execution: executions.Execution, timeout: float) -> executions.Execution:
        """An execution when an engine has taken it to its end; one that none takes has failed.

        :param timeout: the function's (seconds).
        """
        began = time.monotonic()
        patience, pause = self._start_timeout + timeout + _PATIENCE, _LOOK_EVERY
        while True:
            runs, owner = self._db.read(executions.under_way, execution.id)
            waited = time.monotonic() - began
            if not runs or waited > patience:
                row = self._db.read(executions.find, execution.id)
                return row or results.fail(execution, results.CANCELLED, waited)
            if owner is None and waited > self._start_timeout:
                self._db.write(executions.give_up, results.fail(execution, _NO_ENGINE, waited))
            time.sleep(pause)
            pause = min(pause * _SLOWER, _LOOK_AT_MOST)


def arguments(text: str | None) -> tuple[str, ...]:
    """The arguments that an input stands for: a JSON list's items, or what stands between blanks.

    An item that is no string is the argument as it stands in JSON.

    :raises BadRequest: no program can be given such a word.
    """
    if text is None:
        return ()
    words = _items(text)
    if words is None:
        words = text.split()
    for word in words:
        try:
            has_null = b"\0" in word.encode()
        except UnicodeEncodeError as error:
            raise exceptions.BadRequest("input: it has half of a character in it.") from error
        if has_null:
            raise exceptions.BadRequest(
                "input: it has a null character in it, and an argument cannot."
            )
    return tuple(words)


def _items(text: str) -> list[str] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    return [item if isinstance(item, str) else json.dumps(item) for item in found]
