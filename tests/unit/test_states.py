"""The statuses of a runtime and the ways between them, written out a second time."""

import itertools

import pytest

from qinling import exceptions, states
from qinling.states import RuntimeStatus

CREATING = RuntimeStatus.CREATING
AVAILABLE = RuntimeStatus.AVAILABLE
UPGRADING = RuntimeStatus.UPGRADING
DELETING = RuntimeStatus.DELETING
ERROR = RuntimeStatus.ERROR

#: Each way there is, and who takes it.
WAYS = {
    (CREATING, AVAILABLE): "the pool came up",
    (CREATING, ERROR): "the pool does not come up",
    (AVAILABLE, UPGRADING): "a caller gives it a new image",
    (UPGRADING, AVAILABLE): "the new pool came up, or was rolled back",
    (UPGRADING, ERROR): "the new pool does not come up and there is no image to go back to",
    (ERROR, AVAILABLE): "the pool came up after all",
    (ERROR, UPGRADING): "a caller gives it a new image",
    (CREATING, DELETING): "a caller deletes it",
    (AVAILABLE, DELETING): "a caller deletes it",
    (UPGRADING, DELETING): "a caller deletes it",
    (ERROR, DELETING): "a caller deletes it",
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(RuntimeStatus, repeat=2)))
def test_a_runtime_goes_only_the_ways_that_there_are(
    old: RuntimeStatus, new: RuntimeStatus
) -> None:
    if (old, new) in WAYS:
        states.check_runtime(old, new)
    else:
        with pytest.raises(exceptions.InvalidTransition, match=f"from {old} to {new}"):
            states.check_runtime(old, new)


def test_an_available_runtime_never_leaves_because_of_its_pool() -> None:
    assert states.RUNTIME_TRANSITIONS[AVAILABLE] == {UPGRADING, DELETING}


def test_only_creating_and_upgrading_can_end_in_error() -> None:
    to_error = {old for old, ways in states.RUNTIME_TRANSITIONS.items() if ERROR in ways}
    assert to_error == {CREATING, UPGRADING}


def test_what_is_being_deleted_is_nothing_else_any_more() -> None:
    assert not states.RUNTIME_TRANSITIONS[DELETING]


def test_the_contract_knows_every_status() -> None:
    assert set(RuntimeStatus) == {"creating", "available", "upgrading", "deleting", "error"}
