"""Forms: their texts become the body that the API reads, and a package goes to the store."""

import contextlib
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qinling import exceptions
from qinling.api.middleware import body, forms
from qinling.storage import file_system
from tests.unit.api.wsgi import environ

FUNCTIONS = "/v1/functions"
ONE = f"{FUNCTIONS}/1a8d4c4a-3ddc-4a0a-9f64-0d7a3dbb5b5a"
MULTIPART = "multipart/form-data; boundary=XX"
URLENCODED = "application/x-www-form-urlencoded"


class Seen:
    """An application that notes the request, and what of the upload is there meanwhile."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}
        self.fields: Any = None
        self.package: bytes | None = None

    def __call__(self, environ: dict[str, Any], _start_response: Any) -> list[bytes]:
        self.environ = environ
        content = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if environ["CONTENT_TYPE"] == "application/json":
            self.fields = json.loads(content)
        upload = environ.get(forms.UPLOAD)
        if upload is not None:
            upload.file.seek(0)
            self.package = upload.file.read()
        return []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[file_system.FileSystemStore]:
    found = file_system.FileSystemStore(str(tmp_path))
    found.prepare()
    yield found
    assert not list((tmp_path / "incoming").iterdir())
    assert not list((tmp_path / "zips").iterdir())


def send(
    store: file_system.FileSystemStore,
    content: bytes,
    kind: str = MULTIPART,
    method: str = "POST",
    path: str = FUNCTIONS,
    **more: Any,
) -> Seen:
    seen = Seen()
    request = environ(
        method,
        path,
        CONTENT_TYPE=kind,
        **({"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))} | more),
    )
    take = forms.Forms(seen, store, body.Arrivals(1))  # type: ignore[arg-type]
    list(take(request, lambda *_: lambda _data: None))
    return seen


def part(name: str, content: bytes | str, *headers: str, file: str | None = None) -> bytes:
    told = f'form-data; name="{name}"' + ("" if file is None else f'; filename="{file}"')
    lines = "".join(f"{line}\r\n" for line in (f"Content-Disposition: {told}", *headers))
    body = content.encode() if isinstance(content, str) else content
    return b"--XX\r\n" + lines.encode() + b"\r\n" + body + b"\r\n"


END = b"--XX--\r\n"


def test_a_form_with_a_package_as_the_clients_send_it(store: file_system.FileSystemStore) -> None:
    code = '{"source": "package", "md5sum": "0"}'
    content = (
        part("runtime_id", "1") + part("code", code) + part("timeout", "5") + part("name", "蛇")
    )
    content += part("package", b"PK\r\n--X\0--XY\r\n", file="package.zip") + END
    for more in ({}, {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}):
        seen = send(store, content, **more)
        assert seen.fields == {"runtime_id": "1", "code": code, "timeout": "5", "name": "蛇"}
        assert seen.package == b"PK\r\n--X\0--XY\r\n"
        assert "HTTP_TRANSFER_ENCODING" not in seen.environ


def test_a_form_without_a_package(store: file_system.FileSystemStore) -> None:
    seen = send(store, b"name=n%C3%BC+3&timeout=7", URLENCODED, "PUT", ONE)
    assert seen.fields == {"name": "nü 3", "timeout": "7"}
    assert seen.package is None


def test_an_empty_text_is_as_if_it_had_not_been_sent(store: file_system.FileSystemStore) -> None:
    assert send(store, b"name=n3&description=&entry=", URLENCODED).fields == {"name": "n3"}
    content = part("name", "") + part("entry", "a.b") + part("package", b"", file="") + END
    seen = send(store, content)
    assert seen.fields == {"entry": "a.b"}
    assert seen.package is None
    assert send(store, b"", URLENCODED).fields == {}


def test_what_the_client_loses_of_swift_is_told_by_who_reads_the_body(
    store: file_system.FileSystemStore,
) -> None:
    seen = send(store, b"source=swift&swift=container&swift=object", URLENCODED)
    assert seen.fields == {"source": "swift", "swift": "object"}


def test_an_empty_package_is_one(store: file_system.FileSystemStore) -> None:
    assert send(store, part("package", b"", file="a.zip") + END).package == b""


def test_what_surrounds_the_parts_is_no_matter(store: file_system.FileSystemStore) -> None:
    content = b"a preamble\r\n" + part("name", "a") + END + b"\r\nan epilogue"
    assert send(store, content).fields == {"name": "a"}
    assert send(store, END).fields == {}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", FUNCTIONS),
        ("POST", ONE),
        ("POST", f"{ONE}/versions"),
        ("POST", "/v1/runtimes"),
        ("POST", "/functions"),
        ("DELETE", ONE),
    ],
)
@pytest.mark.parametrize("kind", [MULTIPART, URLENCODED])
def test_other_calls_take_no_forms(
    store: file_system.FileSystemStore, method: str, path: str, kind: str
) -> None:
    content = part("name", "a") + END
    seen = send(store, content, kind, method, path)
    assert seen.fields is None
    assert seen.environ["CONTENT_TYPE"] == kind
    assert forms.UPLOAD not in seen.environ


@pytest.mark.parametrize("path", ["//v1//functions", "/v1/functions/", "/v1/functions//"])
def test_a_url_is_read_as_the_routing_reads_it(
    store: file_system.FileSystemStore, path: str
) -> None:
    assert send(store, b"name=a", URLENCODED, path=path).fields == {"name": "a"}


FILE = part("package", b"PK", file="a.zip")
BAD: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", MULTIPART, "end of multipart"),
    "a text": (b"name=a", MULTIPART, "end of multipart"),
    "no boundary": (END, "multipart/form-data", "boundary"),
    "an empty boundary": (END, 'multipart/form-data; boundary=""', "boundary"),
    "another boundary": (END, "multipart/form-data; boundary=YY", "end of multipart"),
    "cut off": (FILE[:-5], MULTIPART, "end of multipart"),
    "cut off between the parts": (FILE, MULTIPART, "end of multipart"),
    "cut off in the last boundary": (FILE + END[:-4], MULTIPART, "end of multipart"),
    "a header that is none": (b"--XX\r\nnothing\r\n\r\na\r\n" + END, MULTIPART, "header"),
    "no disposition": (b"--XX\r\nA: b\r\n\r\na\r\n" + END, MULTIPART, "Content-Disposition"),
    "another disposition": (
        b'--XX\r\nContent-Disposition: attachment; name="a"\r\n\r\na\r\n' + END,
        MULTIPART,
        "Content-Disposition",
    ),
    "a header without end": (
        b"--XX\r\nA: " + b"x" * 10_000 + b"\r\n\r\na\r\n" + END,
        MULTIPART,
        "header",
    ),
    "too many headers": (part("a", "b", *["A: b"] * 9) + END, MULTIPART, "header"),
    "a header of bytes": (b"--XX\r\n\xff: a\r\n\r\na\r\n" + END, MULTIPART, "header"),
    "a text of bytes": (part("name", b"\xff\xfe") + END, MULTIPART, "name: it is not UTF-8"),
    "two packages": (FILE + FILE + END, MULTIPART, "package: it is given twice"),
    "a name twice": (part("name", "a") * 2 + END, MULTIPART, "name: it is given twice"),
    "a name twice, once empty": (b"name=&name=a", URLENCODED, "name: it is given twice"),
    "another file": (part("code", "{}", file="x") + FILE + END, MULTIPART, "only package is"),
    "too many parts": (part("a", "") * 101 + END, MULTIPART, "segment count"),
    "too many fields": (b"&".join(b"a%d=1" % n for n in range(101)), URLENCODED, "fields"),
    "no UTF-8": (b"name=%ff", URLENCODED, "urlencoded"),
    "bytes": ("name=ü".encode(), URLENCODED, "urlencoded"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_form_that_is_none_is_refused(store: file_system.FileSystemStore, kind: str) -> None:
    content, type_, words = BAD[kind]
    with pytest.raises(exceptions.BadRequest) as caught:
        send(store, content, type_)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a", "x" * 40_000])
def test_texts_have_a_limit(store: file_system.FileSystemStore, name: str) -> None:
    content = FILE + part(name, "x" * forms.MAX_TEXTS) + END
    with pytest.raises(exceptions.BodyTooLarge if len(name) == 1 else exceptions.BadRequest):
        send(store, content)
    with pytest.raises(exceptions.BodyTooLarge, match="65536"):
        send(store, b"a=" + b"x" * 65535, URLENCODED)


class Endless(io.RawIOBase):
    """A form whose package never ends; how much of it was taken is noted."""

    def __init__(self) -> None:
        self._head = part("package", b"", file="a.zip")[:-2]
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "all of it was asked for"
        self.taken += size
        head, self._head = self._head[:size], self._head[size:]
        return head + bytes(size - len(head))


def test_a_package_without_end_is_refused_at_its_limit_and_never_in_memory(
    store: file_system.FileSystemStore,
) -> None:
    stream = Endless()
    chunked = {"wsgi.input": stream, "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    tracemalloc.start()
    try:
        with pytest.raises(exceptions.BadRequest, match=r"^package: it is larger than the 5347"):
            send(store, b"", **chunked, HTTP_TRANSFER_ENCODING="chunked")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stream.taken < 52 * 2**20
    assert peak < 2 * 2**20


def test_a_body_that_says_that_it_is_too_large_is_not_read(
    store: file_system.FileSystemStore,
) -> None:
    stream = Endless()
    with pytest.raises(exceptions.BodyTooLarge, match=str(52 * 2**20)):
        send(store, b"", **{"wsgi.input": stream, "CONTENT_LENGTH": str(52 * 2**20 + 1)})
    assert stream.taken == 0


def test_chunks_that_the_server_keeps_to_itself_are_no_form(
    store: file_system.FileSystemStore,
) -> None:
    with pytest.raises(exceptions.LengthRequired):
        send(store, b"", HTTP_TRANSFER_ENCODING="chunked")


def test_a_form_that_ends_before_its_length_is_refused(store: file_system.FileSystemStore) -> None:
    content = FILE + END
    with pytest.raises(exceptions.BadRequest, match="of Content-Length"):
        send(store, content, CONTENT_LENGTH=str(len(content) + 1))


@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=3)), max_size=5),
    cut=st.integers(0, 60),
)
def test_whatever_comes_is_a_form_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], cut: int
) -> None:
    store = file_system.FileSystemStore(str(tmp_path_factory.getbasetemp() / "forms"))
    store.prepare()
    content = bytearray(part("name", "a", "Content-Length: 1") + FILE + END)
    for at, piece in changes:
        at %= len(content)
        content[at : at + 1] = piece
    with contextlib.suppress(exceptions.BadRequest, exceptions.BodyTooLarge):
        send(store, bytes(content[: len(content) - cut]))
    assert not list((store._root / "incoming").iterdir())


def test_more_uploads_than_may_come_at_a_time_are_refused(
    store: file_system.FileSystemStore,
) -> None:
    take = forms.Forms(Seen(), store, body.Arrivals(1))  # type: ignore[arg-type]
    content = part("name", "a") + END
    refused: list[int] = []

    def request(source: Any) -> dict[str, Any]:
        more = {"CONTENT_TYPE": MULTIPART, "CONTENT_LENGTH": str(len(content))}
        return environ("POST", FUNCTIONS, **more, **{"wsgi.input": source})

    class Within(io.BytesIO):
        """While this form comes, another one does."""

        def read(self, size: int | None = -1) -> bytes:
            with pytest.raises(exceptions.Overloaded) as caught:
                take(request(io.BytesIO(content)), lambda *_: lambda _data: None)
            refused.append(caught.value.code)
            return super().read(size)

    # Whatever becomes of it, its place is the next one's.
    for sent in (content, b"nonsense", content):
        with contextlib.suppress(exceptions.BadRequest):
            take(request(Within(sent)), lambda *_: lambda _data: None)
    assert set(refused) == {429}
    take(request(io.BytesIO(content)), lambda *_: lambda _data: None)
