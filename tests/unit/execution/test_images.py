"""From an execution's input to the arguments of an image."""

import pytest

from qinling import exceptions
from qinling.execution.images import arguments


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
