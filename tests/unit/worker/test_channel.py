"""How deep JSON is nested, told without parsing it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qinling.worker import channel

VALUES = st.recursive(
    st.none() | st.integers() | st.text('"\\[]{}\n é'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\[{'), inner),
)


def depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0)


@given(VALUES, st.integers(1, 8))
def test_the_depth_of_any_json_is_told(value: Any, most: int) -> None:
    assert channel.is_deep(json.dumps(value).encode(), most) == (depth(value) > most)


@pytest.mark.parametrize("text", ['"', '"\\', '"\\\n', '["', '"a\\'])
def test_what_is_no_json_takes_no_longer_than_what_is(text: str) -> None:
    # Looked at anew from each quote, a megabyte would take hours, and this test with it.
    channel.is_deep((text * (1_000_000 // len(text)) + "[" * 100).encode())
