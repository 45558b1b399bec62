"""Statuses and the transitions between them, as data.

The engine and the API change a status only through ``db.runtimes.transition``,
which asks this table.
"""

import enum

from qinling import exceptions


class RuntimeStatus(enum.StrEnum):
    CREATING = "creating"
    AVAILABLE = "available"
    UPGRADING = "upgrading"
    DELETING = "deleting"
    ERROR = "error"


_R = RuntimeStatus

# An available runtime never leaves that status because of its pool, and an
# error is no grave: the pool may come up after all, or get a new image.
RUNTIME_TRANSITIONS: dict[RuntimeStatus, frozenset[RuntimeStatus]] = {
    _R.CREATING: frozenset({_R.AVAILABLE, _R.ERROR, _R.DELETING}),
    _R.AVAILABLE: frozenset({_R.UPGRADING, _R.DELETING}),
    _R.UPGRADING: frozenset({_R.AVAILABLE, _R.ERROR, _R.DELETING}),
    _R.ERROR: frozenset({_R.AVAILABLE, _R.UPGRADING, _R.DELETING}),
    _R.DELETING: frozenset(),
}


def check_runtime(old: RuntimeStatus, new: RuntimeStatus) -> None:
    """Raise ``InvalidTransition`` unless ``old`` may become ``new``."""
    if new not in RUNTIME_TRANSITIONS[old]:
        raise exceptions.InvalidTransition(f"A runtime cannot go from {old} to {new}.")


class ExecutionStatus(enum.StrEnum):
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    ERROR = "error"


class WorkerStatus(enum.StrEnum):
    """Of a worker that was claimed: it gets its function, serves it, is let go."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
