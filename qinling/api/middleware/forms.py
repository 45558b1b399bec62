"""Forms: functions are sent as such, their package in a file part.

The texts of a form become the JSON body that the rest of the API reads. A
package never is in memory: it goes to the store as it comes.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import multipart

from qinling import exceptions
from qinling.api.middleware import body
from qinling.storage import base

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Where the upload is; it is closed when the request was answered.
UPLOAD = "qinling.upload"

# Bytes of a form, its package included, and of its texts together.
MAX_FORM = 52 * 1024**2
MAX_TEXTS = 32 * 1024
_MAX_PARTS = 100
_PIECE = 64 * 1024
_FILE = "package"
_MULTIPART = "multipart/form-data"
_URLENCODED = "application/x-www-form-urlencoded"
# Calls that take forms: methods, by the number of parts of the URL below /v1/functions.
_TAKEN = {0: "POST", 1: "PUT"}


class Forms:
    """Hands on what a form says as a JSON body, and its package as ``environ[UPLOAD]``.

    :param arrivals: that forms with a package are counted among.
    """

    def __init__(
        self, application: "WSGIApplication", store: base.PackageStore, arrivals: body.Arrivals
    ) -> None:
        self._application = application
        self._store = store
        self._arrivals = arrivals

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        kind, options = multipart.parse_options_header(environ.get("CONTENT_TYPE", ""))
        if kind not in (_MULTIPART, _URLENCODED) or not _takes_form(environ):
            return self._application(environ, start_response)
        if kind == _URLENCODED:
            content = self._arrivals.read(environ, body.MAX_BODY)
            return self._pass_on(environ, start_response, _urlencoded(content))
        reader = _Multipart(self._store)
        try:
            stream = body.Stream(environ, MAX_FORM)
            with self._arrivals.one():
                reader.read(stream, options.get("boundary", ""))
            environ[UPLOAD] = reader.upload
            return self._pass_on(environ, start_response, reader.texts())
        finally:
            if reader.upload is not None:
                reader.upload.close()

    def _pass_on(
        self,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        texts: list[tuple[str, str]],
    ) -> Iterable[bytes]:
        fields: dict[str, str] = {}
        for name, text in texts:
            # The command line client sends container and object by that name, their values lost;
            # whoever reads the body says so.
            if name in fields and name != "swift":
                raise exceptions.BadRequest(f"{name[:255]}: it is given twice.")
            fields[name] = text
        # A form has no null: an empty text stands for what was not filled in.
        given = {name: text for name, text in fields.items() if text}
        body.replace(environ, json.dumps(given, ensure_ascii=False).encode())
        environ["CONTENT_TYPE"] = "application/json"
        return self._application(environ, start_response)


class _Multipart:
    """What is in a multipart form."""

    def __init__(self, store: base.PackageStore) -> None:
        self._store = store
        self._texts: list[tuple[str, bytearray]] = []
        self._left = MAX_TEXTS
        self.upload: base.Upload | None = None

    def read(self, stream: body.Stream, boundary: str) -> None:
        """:raises BadRequest: it is malformed. :raises BodyTooLarge: it is too large."""
        try:
            with multipart.PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
                part: multipart.MultipartSegment | None = None
                while piece := stream.read(_PIECE):
                    for event in parser.parse(piece):
                        if isinstance(event, multipart.MultipartSegment):
                            part = event
                            self._begin(part)
                        elif event is not None:
                            assert part is not None
                            self._add(part, event)
                        else:
                            self._end(part)
        except (multipart.MultipartError, UnicodeError) as error:
            raise exceptions.BadRequest(f"The body is not {_MULTIPART}: {error}.") from error

    def texts(self) -> list[tuple[str, str]]:
        return [(name, _decoded(name, bytes(text))) for name, text in self._texts]

    def _begin(self, part: multipart.MultipartSegment) -> None:
        if part.name == _FILE:
            if self.upload is not None:
                raise exceptions.BadRequest(f"{_FILE}: it is given twice.")
            self.upload = self._store.receive()
        elif part.filename is not None:
            raise exceptions.BadRequest(f"{part.name[:255]}: only {_FILE} is a file.")
        else:
            self._take(len(part.name))
            self._texts.append((part.name, bytearray()))

    def _add(self, part: multipart.MultipartSegment, data: bytes) -> None:
        if part.name == _FILE:
            assert self.upload is not None
            self.upload.write(data)
        else:
            self._take(len(data))
            self._texts[-1][1].extend(data)

    def _end(self, part: multipart.MultipartSegment | None) -> None:
        assert part is not None
        # What a browser sends for a file that was not chosen.
        if part.name == _FILE and not part.filename and not part.bytes_received:
            assert self.upload is not None
            self.upload.close()
            self.upload = None

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise body.too_large(MAX_TEXTS)


def _takes_form(environ: "WSGIEnvironment") -> bool:
    parts = [part for part in environ.get("PATH_INFO", "").split("/") if part]
    return parts[:2] == ["v1", "functions"] and (
        _TAKEN.get(len(parts) - 2) == environ["REQUEST_METHOD"]
    )


def _urlencoded(content: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            content.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PARTS,
        )
    except ValueError as error:
        raise exceptions.BadRequest(f"The body is not {_URLENCODED}: {error}.") from error


def _decoded(name: str, text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise exceptions.BadRequest(f"{name[:255]}: it is not UTF-8.") from error
