"""Reads a request's head.

As http.server does, but for the parser of e-mail that it uses for headers: that
alone takes a third of an execution. Strict where that one is lenient.
"""

from http.server import BaseHTTPRequestHandler

#: Bytes of a line, and headers of a request.
_LINE = 65536
_MOST = 100


class Headers(dict[str, str]):
    """By name, whatever its case; the last one of a name that is repeated."""

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        return super().get(name.lower(), default)


class RequestHandler(BaseHTTPRequestHandler):
    """:cvar headers: of the request that is being answered."""

    headers: Headers  # type: ignore[assignment]
    raw_requestline: bytes
    protocol_version = "HTTP/1.1"

    def parse_request(self) -> bool:
        """Whether there is a request; where there is not, its sender has been told."""
        self.command = ""
        self.request_version = self.protocol_version
        self.close_connection = True
        self.requestline = str(self.raw_requestline, "iso-8859-1").rstrip("\r\n")
        words = self.requestline.split(" ")
        if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
            self.send_error(400, "Bad request line")
            return False
        self.command, self.path, self.request_version = words
        if not self._read_headers():
            self.send_error(400, "Bad headers")
            return False
        connection = (self.headers.get("Connection") or "").lower()
        is_new = self.request_version == "HTTP/1.1"
        self.close_connection = connection == "close" if is_new else connection != "keep-alive"
        if self.headers.get("Expect") == "100-continue":
            return self.handle_expect_100()
        return True

    def _read_headers(self) -> bool:
        self.headers = found = Headers()
        for _ in range(_MOST):
            line = self.rfile.readline(_LINE)
            if line in (b"\r\n", b"\n"):
                return True
            name, colon, value = line.decode("iso-8859-1").partition(":")
            name = name.lower()
            # What goes on from the line before (RFC 7230, 3.2.4) starts with a blank.
            if not colon or not line.endswith(b"\n") or " " in name or "\t" in name:
                return False
            if name == "content-length" and name in found:
                return False
            found[name] = value.strip()
        return False
