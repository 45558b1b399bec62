"""Packages: what would hurt whoever unpacks them is refused, and what people really zip is not."""

import io
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qinling import exceptions
from qinling.storage import inspection
from tests.fixtures import zips

LIMIT = 256 * 2**20


def check(content: bytes, entry: str = "main.main", limit: int = LIMIT) -> None:
    # A real one: BytesIO says other things of what cannot be.
    with tempfile.TemporaryFile() as file:
        file.write(content)
        inspection.check(file, limit, entry)


GOOD: dict[str, Callable[[], bytes]] = {
    "one file": zips.package,
    "stored": lambda: zips.package(compression=zipfile.ZIP_STORED),
    "folders": lambda: zips.package({"main.py": "", "lib/": "", "lib/a/": "", "lib/a/b.py": "x"}),
    "folders that are not named": lambda: zips.package({"main.py": "", "lib/a/b.py": "x"}),
    "a package as the module": lambda: zips.package({"main/__init__.py": zips.MAIN}),
    "steps on the spot": lambda: zips.package({"./main.py": "", ".//lib/./a.py": ""}),
    "dots in names": lambda: zips.package({"main.py": "", "..x/y..": "", "...": ""}),
    "names of the world": lambda: zips.package({"main.py": "", "蛇/🐍.py": ""}),
    "a zip in it": zips.nested,
    "a comment": lambda: _with_comment(b"x" * 65535),
    "something in front of it": lambda: b"#!/usr/bin/env python3\n" + zips.package(),
    "empty files": lambda: zips.package({"main.py": "", "empty": ""}),
    "20,000 entries": lambda: zips.package({"main.py": ""} | {str(n): "" for n in range(19_999)}),
    "the same folder twice": lambda: zips.with_another("lib/", "lib/"),
}


def _with_comment(comment: bytes) -> bytes:
    content = io.BytesIO(zips.package())
    with zipfile.ZipFile(content, "a") as made:
        made.comment = comment
    return content.getvalue()


@pytest.mark.parametrize("kind", GOOD)
def test_what_people_zip_passes(kind: str) -> None:
    check(GOOD[kind]())


@pytest.mark.parametrize("kind", zips.BAD)
def test_what_hurts_is_refused_with_its_reason(kind: str) -> None:
    make, words = zips.BAD[kind]
    with pytest.raises(exceptions.BadRequest) as caught:
        check(make())
    assert str(caught.value).startswith("package: ")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_limit_of_what_is_unpacked_is_where_it_is_said_to_be() -> None:
    content = zips.package({"main.py": "x" * 600, "b": "x" * 400})
    check(content, limit=1000)
    with pytest.raises(exceptions.BadRequest, match="1000 bytes, more than the 999 bytes"):
        check(content, limit=999)


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        (["main.py"], "main.main"),
        (["main"], "main.main"),
        (["main.so"], "main.main"),
        (["main.cpython-311-x86_64-linux-gnu.so"], "main.main"),
        (["main/__init__.py"], "main.handler"),
        (["main/"], "main.handler"),
        (["index.js"], "index.handler"),
        (["lib/__init__.py", "lib/inner.py"], "lib.inner.run"),
        (["lib/inner/x.py"], "lib.inner.run"),
    ],
)
def test_an_entry_is_found_whatever_its_suffix(files: list[str], entry: str) -> None:
    check(zips.package(dict.fromkeys(files, "")), entry)
    inspection.check_entry(io.BytesIO(zips.package(dict.fromkeys(files, ""))), entry)


@pytest.mark.parametrize(
    ("files", "entry"),
    [
        (["main.py"], "other.main"),
        (["main.py"], "mai.main"),
        (["mainly.py"], "main.main"),
        (["lib/main.py"], "main.main"),
        (["main.d/main.py"], "main.main"),
        (["Main.py"], "main.main"),
        (["lib/inner.py"], "lib.other.run"),
        (["lib.inner.py"], "lib.inner.run"),
        ([], "main.main"),
    ],
)
def test_an_entry_whose_module_is_not_there_is_refused(files: list[str], entry: str) -> None:
    content = zips.package(dict.fromkeys(files, ""))
    with pytest.raises(exceptions.BadRequest, match=r"^entry: package has no file or folder"):
        check(content, entry)
    with pytest.raises(exceptions.BadRequest, match=r"^entry: "):
        inspection.check_entry(io.BytesIO(content), entry)


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 400),
)
def test_a_broken_zip_is_refused_or_read_and_nothing_else(
    changes: list[tuple[int, int]], cut: int
) -> None:
    content = bytearray(zips.package({"main.py": zips.MAIN, "lib/a.py": "x" * 50}))
    for at, byte in changes:
        content[at % len(content)] = byte
    with_cut = bytes(content[: len(content) - cut % len(content)])
    try:
        check(with_cut)
    except exceptions.BadRequest:
        return


@pytest.mark.parametrize(
    "kind",
    [
        "100,000 entries",
        "more entries than it says",
        "a zip64 behind a long comment",
        "a bomb",
    ],
)
def test_what_is_refused_took_no_memory(kind: str) -> None:
    make, _ = zips.BAD[kind]
    content = make()
    tracemalloc.start()
    try:
        with pytest.raises(exceptions.BadRequest):
            check(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20
